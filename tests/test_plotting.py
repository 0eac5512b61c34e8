"""The figures draw what the records and CSV files hold."""

import xml.etree.ElementTree as xml

import matplotlib
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from uram_book import comparisons, drawing, looks, plotting, tables  # noqa: E402

from uram_lib import paper  # noqa: E402
from uram_lib.data import PLACES  # noqa: E402
from uram_lib.experiments import ROWS  # noqa: E402


@pytest.fixture(autouse=True)
def ax():
    _, axes = plt.subplots()
    yield axes
    plt.close("all")


def run(seed: int, errors: list[float]) -> dict:
    metrics = {"test_error": errors[-1], "glimpse_distance_px": [40.0 + seed, 9.0]}
    return {"seed": seed, "preset": "paper", "curves": {"val_error": errors}, "metrics": metrics}


def points(line) -> list[tuple[float, float]]:
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def names(texts) -> list[str]:
    return [text.get_text() for text in texts]


def box(patch) -> tuple[float, ...]:
    return *patch.get_xy(), patch.get_width(), patch.get_height()


def test_curves_are_means_over_seeds_and_gains_are_paired_by_seed_all_cut_to_the_shortest_run(ax):
    ours = [run(0, [50, 40, 30]), run(1, [60, 44, 31]), run(7, [0, 0, 0])]
    ram = [run(1, [61, 50, 41, 33]), run(0, [52, 43, 37, 35])]
    plotting.gain_curve(ours, ram, ax, "6 glimpses")
    plotting.learning_curves({"ram-6": ram, "ours-6": ours[:1]}, ax)
    gain, _, mean, alone = ax.lines
    assert points(gain) == [(1, -1.5), (2, -4.5), (3, -8.5)] and gain.get_label() == "6 glimpses, 2 pairs"
    assert points(mean) == [(1, 56.5), (2, 46.5), (3, 39), (4, 34)] and mean.get_label() == "RAM, 6 glimpses, 2 seeds"
    assert points(alone) == [(1, 50), (2, 40), (3, 30)] and alone.get_label() == "URAM, 6 glimpses"
    assert (mean.get_color(), alone.get_color()) == (plotting.BLUE, plotting.ORANGE)


def test_a_quantity_by_glimpse_has_one_colour_per_row_and_its_interval_over_seeds(ax):
    made = lambda *values: {"metrics": {"glimpse_distance_px": list(values)}}  # noqa: E731
    groups = {"fc": [{"metrics": {}}], "ram-6": [made(40, 20), made(44, 20), made(48, 26)], "ours-6": [made(30, 1)]}
    plotting.by_glimpse(groups, "glimpse_distance_px", ax)
    ram, ours = ax.containers
    assert points(ram.lines[0]) == [(1, 44), (2, 22)] and points(ours.lines[0]) == [(1, 30), (2, 1)]
    (bars,) = ram.lines[2]
    truth = [scipy.stats.ttest_1samp(at, 0).confidence_interval(0.95) for at in ((40, 44, 48), (20, 20, 26))]
    np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()], truth, rtol=1e-6)
    assert not ours.lines[2]  # one seed has no interval
    colours = ram.lines[0].get_color(), ours.lines[0].get_color()
    assert colours == (plotting.BLUE, plotting.ORANGE)  # as on every page


def test_mean_choices_fill_a_row_s_line_and_have_their_values():
    _, (shares, values) = plt.subplots(1, 2)
    chose = lambda seed, *histogram: {  # noqa: E731
        "seed": seed,
        "metrics": {"top_down": {"action_histogram": [list(histogram)], "q_values": [[0.1, 0.2, 0.3, 0.4 + seed]],
                                 "in_region_percent": 91.4}},
    }  # fmt: skip
    groups = {"ours-6": [chose(0, 0.1, 0.2, 0.3, 0.4), chose(2, 0.7, 0.1, 0.1, 0.1)]}
    groups |= {"ours-8, old recipe": [chose(0, 0, 0, 1, 0)]}
    looks.region_choices(groups, (shares, values))
    widths = np.array([[bar.get_width() for bar in region] for region in shares.containers])  # (4, rows)
    np.testing.assert_allclose(widths.sum(0), 100)
    np.testing.assert_allclose(widths[:, 0], [40, 15, 20, 25])
    called = ["URAM, 6 glimpses", "URAM, 8 glimpses, old recipe"]
    assert names(shares.get_yticklabels()) == called and set(names(values.get_yticklabels())) == {"91 % right"}
    np.testing.assert_allclose(values.lines[3].get_xdata(), [0.9, 0.15])  # above the mean of the four


def test_figures_call_rows_by_names_of_which_no_two_in_a_table_are_alike():
    for table, rows in ROWS.items():
        called = [plotting.name_of(row) for row in rows]
        assert len(set(called)) == len(rows) and not set(called) & set(rows), table
    looks = [plotting.look_of(row) for row in ROWS["table4"]]
    assert len({look["color"] for look in looks} - {None}) == len(looks)
    assert plotting.name_of("ours-6-entropy-context, old recipe") == "URAM, entropy, context, 6 glimpses, old recipe"
    assert plotting.name_of("ours-6@region-centre") == "URAM, 6 glimpses; start at the chosen quarter's centre"
    assert plotting.name_of("dram") == "Single DRAM" and plotting.name_of("6 glimpses") == "6 glimpses"


def test_a_published_table_s_picture_has_rows_in_the_papers_order_and_its_title_is_not_cut_off():
    title, table = "Table 2, on cluttered digits, all rows", tables.read("tables/table2")
    table = table[~table["row"].str.contains("@")]
    plotting.use_style()
    ax = plotting.comparison(table[::-1], title=title)
    order = [plotting.name_of(one.row) for one in paper.ROWS if one.table == "table2" and one.row in set(table["row"])]
    assert names(ax.get_yticklabels())[: len(order)] == order
    ax.figure.canvas.draw()
    (text,) = ax.figure.findobj(lambda artist: getattr(artist, "get_text", str)() == title)
    shown = text.get_window_extent()
    assert shown.x0 >= 0 and shown.x1 <= ax.figure.bbox.x1 and ax.get_window_extent().width > 200


def test_the_best_region_has_the_frame_and_each_its_value(ax):
    drawing.region_values(torch.rand(1, 20, 30), torch.tensor([0.1, 0.2, 0.75, 0.3]), ax)
    texts = {text.get_text(): text.get_position() for text in ax.texts}
    assert texts == {"0.100": (7.5, 5), "0.200": (22.5, 5), "0.750": (7.5, 15), "0.300": (22.5, 15)}
    assert box(max(ax.patches, key=lambda patch: patch.get_linewidth())) == (0, 10, 15, 10)


def test_belief_is_a_column_per_glimpse_with_the_true_class_framed(ax):
    belief = torch.tensor([[0.2, 0.5, 0.3], [0.05, 0.05, 0.9]])
    drawing.class_probabilities(belief, 1, ax)
    np.testing.assert_allclose(ax.images[0].get_array(), belief.T)
    assert [(t.get_position(), t.get_text()) for t in ax.texts] == [((0, 1), "50"), ((1, 2), "90")]
    (frame,) = ax.patches
    assert box(frame) == (-0.5, 0.5, 2, 1)


def test_boxes_lie_around_their_glimpses_and_an_object_s_frame_around_it(ax):
    locations = torch.tensor([[-0.5, -0.5], [0.0, 0.0], [0.5, 0.2]])
    drawing.glimpse_path(torch.rand(1, 40, 40), locations, 6, 3, ax)
    assert sorted(patch.get_width() for patch in ax.patches) == [6] * 3 + [12] * 3 + [24] * 3 and len(ax.texts) == 3
    assert {patch.get_x() + patch.get_width() / 2 for patch in ax.patches} == {10, 20, 30}
    frame = drawing.square(torch.tensor([30.0, 50.0]), 28, ax).patches[-1]
    assert box(frame) == (16, 36, 28, 28)


def test_slopes_join_the_runs_of_one_seed():
    without, with_it = [run(k, [30.0 + k]) for k in range(3)], [run(k, [28.0 + 3 * k]) for k in (1, 2, 7)]
    first, second = plotting.paired_slopes([("top-down", without, with_it), ("context", without, without)])
    assert sorted(tuple(line.get_ydata()) for line in first.lines) == [(31, 31), (32, 34)] and len(second.lines) == 3


def test_paths_of_many_readings_lie_over_one_another_with_their_mean(ax):
    paths = torch.linspace(-1, 1, 4 * 18 * 2).view(4, 18, 2)
    drawing.scan_paths(paths, 54, ax)
    *lines, mean = ax.lines
    assert len(lines) == 4 * PLACES
    np.testing.assert_allclose(mean.get_xydata(), (paths.mean(0) + 1) * 27, rtol=1e-5)


def test_a_start_is_drawn_at_its_distance_and_error():
    groups = {"ram-6": [run(0, [30.0]), run(1, [31.0])], "ram-6@true-centre": [run(0, [3.0])]}
    assert list(map(points, looks.start_distance(groups).lines)) == [[(40, 30), (41, 31)], [(40, 3)]]
    lines = pd.DataFrame({"row": ["ram-6", "ram-6", "ram-6@image-centre"], "distance_px": [5.0, 15.0, 5.0],
                          "error": [4.0, 20.0, 3.0], "n": [600, 700, 800]})  # fmt: skip
    assert list(map(points, looks.by_distance(lines).lines)) == [[(5, 4), (15, 20)], [(5, 3)]]


def test_a_leak_has_a_row_per_label_told_and_starts_are_seen_from_the_digit():
    drawn = looks.leak_matrix(torch.tensor([[96, 2, 0], [0, 0.3, 2], [0, 0, 100]]), "URAM")
    shown = [[cell.text for cell in row.iter("td")] for row in xml.fromstring(drawn).iter("tr")]
    assert shown[1:] == [["96", "2", None], [None, None, "2"], [None, None, "100"]]
    assert drawn.count("tabindex='0'") == 3 and "--share: 96%" in drawn
    (ax,) = looks.map_of_starts({"URAM": np.array([[-60.0, 0.0]] * 3 + [[20.0, 40.0]])})
    assert ax.collections[0].get_array().sum() == 4 and ax.yaxis_inverted()  # y grows downwards
    assert box(ax.patches[0]) == (-14, -14, 28, 28)


def readings(*lines: tuple[str, str, float, float]) -> pd.DataFrame:
    """(reading, budget, effect, half the interval)."""
    return pd.DataFrame(
        [("top-down", name, budget, 3, mean, mean - half, mean + half, -3.5, "") for name, budget, mean, half in lines],
        columns=comparisons.READING_COLUMNS,
    )


def test_a_specification_curve_says_on_hover_what_each_point_is():
    """Well-formed SVG that scales with its column and does not change when its numbers do not."""
    lines = readings(("main", "paper", -0.7, 2.2), ("a < b & c", "paper", -4.0, 2.0), ("a < b & c", "strong", 5, 1))
    plotting.use_style()
    before, text = plt.get_fignums(), plotting.specification_curve(lines)
    assert text == plotting.specification_curve(lines) and plt.get_fignums() == before
    root = xml.fromstring(text)
    assert root.get("width") == "100%" and root.get("viewBox")
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == [  # sorted by effect
        "a < b & c, paper settings: -4.0 [-6.0, -2.0] points, 3 seeds",
        "main, paper settings: -0.7 [-2.9, +1.5] points, 3 seeds",
        "a < b & c, strong settings: +5.0 [+4.0, +6.0] points, 3 seeds",
    ]  # fmt: skip


@pytest.mark.parametrize("mean, half, holds", [(-3, 1, (True, False)), (0, 1, (False, True)), (-2, 3, (True, True)),
                                               (5, 1, (False, False))])  # fmt: skip
def test_a_point_has_the_colour_of_what_its_interval_holds(mean, half, holds):
    """The paper's effect of -3.5, and 0; each of the four cases has a colour and a mark of its own."""
    text = plotting.specification_curve(readings(("main", "paper", mean, half)))
    assert plotting.HOLDS[holds][1].lower() in text
    assert all(len({case[i] for case in plotting.HOLDS.values()}) == 4 for i in (1, 2))
