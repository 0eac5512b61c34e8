"""The figures of the table chapters draw what the records and CSV files hold."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from uram_lib import plotting  # noqa: E402


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


def test_one_legend_for_all_axes():
    figure, axes = plt.subplots(1, 2)
    for ax, names in zip(axes, (("a", "b"), ("b", "c")), strict=True):
        for name in names:
            ax.plot([0], [0], label=name)
    plotting.legend_below(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    plt.close(figure)
