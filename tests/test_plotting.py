"""The figures of the table chapters draw what the records and CSV files hold."""

import base64
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from uram_lib import pages, paper, plotting  # noqa: E402


@pytest.fixture
def ax():
    _, axes = plt.subplots()
    yield axes
    plt.close("all")


def run(seed: int, errors: list[float]) -> dict:
    return {"seed": seed, "curves": {"val_error": errors}, "metrics": {"test_error": errors[-1]}}


def test_gain_is_paired_by_seed_and_cut_to_the_shortest_run(ax):
    ours = [run(0, [50, 40, 30]), run(1, [60, 44, 31]), run(7, [0, 0, 0])]
    ram = [run(1, [61, 50, 41, 33]), run(0, [52, 43, 37, 35])]
    plotting.gain_curve(ours, ram, ax=ax, label="6 glimpses")
    line = ax.lines[0]
    assert list(line.get_xdata()) == [1, 2, 3] and line.get_label() == "6 glimpses, 2 pairs"
    np.testing.assert_allclose(line.get_ydata(), [(50 - 52 + 60 - 61) / 2, (40 - 43 + 44 - 50) / 2, (30 - 37 - 10) / 2])
    assert ax.get_ylabel() == "difference of validation error (points)"


DETAILS = pd.DataFrame(
    [
        ("ram-6", f"glimpse_distance_px, glimpse {t}", value, value - 1, value + 1)
        for t, value in ((0, 40.0), (1, 20.0), (10, 5.0))
    ]
    + [("ours-6", "glimpse_distance_px, glimpse 0", 30.0, np.nan, np.nan)]
    + [("ours-6", "in_region_percent", 60.0, np.nan, np.nan)],
    columns=["row", "quantity", "value", "ci_low", "ci_high"],
)


def test_a_quantity_by_glimpse_has_one_colour_a_row_and_glimpses_in_their_places(ax):
    plotting.by_glimpse(DETAILS, "glimpse_distance_px", ["ram-8", "ram-6", "ours-6"], ax)
    ram, ours = (container.lines[0] for container in ax.containers)
    assert list(ram.get_xdata()) == [0, 1, 10] and list(ram.get_ydata()) == [40, 20, 5]
    assert (ram.get_color(), ours.get_color()) == plotting.COLOURS[1:3]  # by place in the list, present or not
    assert ax.get_ylabel() == "distance to the digit's centre (px)"


def test_choices_of_each_run_fill_its_line_and_have_their_values():
    _, (shares, values) = plt.subplots(1, 2)
    chose = lambda seed, *histogram: {  # noqa: E731
        "seed": seed,
        "metrics": {"top_down": {"action_histogram": [list(histogram)], "q_values": [[0.1, 0.2, 0.3, 0.4 + seed]]}},
    }
    groups = {"ours-6": [chose(0, 0.1, 0.2, 0.3, 0.4), chose(2, 0.7, 0.1, 0.1, 0.1)], "ours-8": [chose(0, 0, 0, 1, 0)]}
    plotting.region_choices(groups, (shares, values))
    widths = np.array([[bar.get_width() for bar in region] for region in shares.containers])  # (4, runs)
    np.testing.assert_allclose(widths.sum(0), 100)
    np.testing.assert_allclose(widths[:, 1], [70, 10, 10, 10])
    names = [text.get_text() for text in shares.get_yticklabels()]
    assert names == ["ours-6, seed 0", "ours-6, seed 2", "ours-8, seed 0"]
    np.testing.assert_allclose(values.lines[3].get_xdata(), [0.4, 2.4, 0.4])
    assert shares.get_legend_handles_labels()[1] == list(plotting.REGION_NAMES)
    plt.close("all")


def test_each_run_is_a_dot_and_each_group_has_its_mean(ax):
    plotting.each_run({"ram-6": [run(0, [20.0]), run(1, [24.0])], "ours-6": [run(0, [18.0])]}, ax)
    dots, mean, *_ = ax.lines
    assert list(dots.get_ydata()) == [20, 24] and list(mean.get_ydata()) == [22, 22]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["ram-6", "ours-6"]


def test_comparison_puts_rows_in_the_papers_order_whatever_is_published(ax):
    lines = [("ram-8", "paper", 24.0), ("fc", "converged", 9.0), ("ram-8", "converged", 6.0)]
    table = pd.DataFrame(
        [{"table": "table2", "row": row, "label": row, "metric": "error", "paper": 30.0, "dataset": "clutter100-10",
          "preset": preset, "ours_mean": mean, "ours_ci_low": mean - 1, "ours_ci_high": mean + 1}
         for row, preset, mean in lines]
    )  # fmt: skip
    plotting.comparison(table, ax)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["fc", "ram-8"]
    labels = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert set(labels) == {"the paper", "ours, preset paper", "ours, preset converged"}


def test_the_title_of_a_published_table_s_picture_is_not_cut_off():
    title = f"Table 2: {paper.CAPTIONS['table2']}"
    plotting.use_style()
    ax = plotting.comparison(pages.tables_here()["table2"], title=title)
    ax.figure.canvas.draw()
    (text,) = ax.figure.findobj(lambda artist: getattr(artist, "get_text", str)() == title)
    shown = text.get_window_extent()
    assert shown.x0 >= 0 and shown.x1 <= ax.figure.bbox.x1
    plt.close(ax.figure)


def test_one_legend_for_all_axes():
    figure, axes = plt.subplots(1, 2)
    for ax, names in zip(axes, (("a", "b"), ("b", "c")), strict=True):
        for name in names:
            ax.plot([0], [0], label=name)
    plotting.legend_below(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    plt.close(figure)


def test_gain_with_an_interval_has_the_t_interval_over_seeds_and_none_below_three_pairs(ax):
    ours, ram = ([run(k, [50.0 + k * k, 40.0 - k]) for k in range(3)], [run(k, [52.0, 43.0 + k]) for k in range(3)])
    plotting.gain_curve(ours, ram, ax=ax, interval=True)
    truth = [stats.ttest_1samp(gains, 0).confidence_interval(0.95) for gains in ([-2, -1, 2], [-3, -5, -7])]
    low, high = band(ax)
    np.testing.assert_allclose((low, high), ([t.low for t in truth], [t.high for t in truth]))
    ax.clear()
    plotting.gain_curve(ours[:2], ram, ax=ax, interval=True)
    assert [low.tolist() for low in band(ax)] == [[-1.5, -4.0]] * 2


def band(ax) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the one band that is drawn, at whole epochs."""
    corners = ax.collections[0].get_paths()[0].vertices
    edges = [corners[corners[:, 0] == epoch, 1] for epoch in (1, 2)]
    return np.array([e.min() for e in edges]), np.array([e.max() for e in edges])


def test_the_best_region_has_the_frame_and_each_its_value(ax):
    plotting.region_values(torch.rand(1, 20, 30), torch.tensor([0.1, 0.2, 0.75, 0.3]), ax)
    texts = {text.get_text(): text.get_position() for text in ax.texts}
    assert texts == {"0.100": (7.5, 5), "0.200": (22.5, 5), "0.750": (7.5, 15), "0.300": (22.5, 15)}
    thick = max(ax.patches, key=lambda patch: patch.get_linewidth())
    assert (*thick.get_xy(), thick.get_width(), thick.get_height()) == (0, 10, 15, 10)


def test_belief_is_a_column_a_glimpse_with_the_true_class_framed(ax):
    belief = torch.tensor([[0.2, 0.5, 0.3], [0.05, 0.05, 0.9]])
    plotting.class_probabilities(belief, 1, ax, columns=4)
    np.testing.assert_allclose(ax.images[0].get_array(), belief.T)
    assert [(t.get_position(), t.get_text()) for t in ax.texts] == [((0, 1), "50"), ((1, 2), "90")]
    (frame,) = ax.patches
    assert (frame.get_y(), frame.get_height(), frame.get_width()) == (0.5, 1, 4) and ax.get_xlim() == (-0.5, 3.5)


def test_boxes_of_the_last_glimpse_alone(ax):
    locations = torch.tensor([[-0.5, -0.5], [0.0, 0.0], [0.5, 0.2]])
    plotting.glimpse_path(torch.rand(1, 40, 40), locations, 6, 3, ax, last_boxes_only=True)
    assert sorted(box.get_width() for box in ax.patches) == [6, 12, 24]
    assert {box.get_x() + box.get_width() / 2 for box in ax.patches} == {30} and len(ax.texts) == 3


def test_an_object_s_frame_is_centred_at_it(ax):
    plotting.object_frame(torch.tensor([30.0, 50.0]), 28, ax)
    (frame,) = ax.patches
    assert (*frame.get_xy(), frame.get_width(), frame.get_height()) == (16, 36, 28, 28)


def test_a_player_holds_its_frames_and_needs_nothing_else():
    def frames():
        for value in range(3):
            figure, ax = plt.subplots(figsize=(1, 1))
            ax.plot([value], [value], "o")
            yield figure

    before = plt.get_fignums()
    text = plotting.player(frames(), "one-reading", 'a "path" & more', seconds=0.5)
    assert text == plotting.player(frames(), "one-reading", 'a "path" & more', seconds=0.5)  # no drift in a notebook
    pictures = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="([^"]+)"( hidden)?>', text)
    assert [(alt, hidden) for _, alt, hidden in pictures] == [
        ("a &quot;path&quot; &amp; more; frame 1", ""), ("a &quot;path&quot; &amp; more; frame 2", " hidden"),
        ("a &quot;path&quot; &amp; more; frame 3", " hidden"),
    ]  # fmt: skip
    assert len({picture for picture, *_ in pictures}) == 3 and base64.b64decode(pictures[0][0])[8:12] == b"WEBP"
    assert 'max="3"' in text and "500);" in text and "http" not in re.sub(r"base64,[^\"]+", "", text)
    assert plt.get_fignums() == before


def test_starts_that_are_not_measured_are_left_out_of_the_picture(ax):
    lines = pd.DataFrame({"start": ["a", "b"], "distance_px": [46.0, None], "mean": [30.0, None],
                          "low": [27.0, None], "high": [33.0, None]})  # fmt: skip
    plotting.by_distance(lines, ax)
    (drawn,) = ax.containers
    assert drawn.get_label() == "a" and (list(drawn.lines[0].get_xdata()), list(drawn.lines[0].get_ydata())) == (
        [46],
        [30],
    )
    (whisker,) = drawn.lines[2][0].get_segments()
    assert whisker[:, 1].tolist() == [27, 33]


def test_errors_have_a_line_a_name_and_a_colour_an_arm(ax):
    lines = pd.DataFrame({"name": ["x", "y", "x"], "arm": ["RAM", "RAM", "top-down"], "mean": [30.0, None, 20.0],
                          "low": [29.0, None, 18.0], "high": [31.0, None, 22.0]})  # fmt: skip
    plotting.errors(lines, ax)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["x", "y"]
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == ["RAM", "top-down"]
