"""Where published models look, in numbers and charts: where they start, and whether the context tells the label."""

import itertools
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from uram_lib import checkpoints, data, evaluation
from uram_lib.common import TABLES
from uram_lib.config import Config
from uram_lib.data.base import Split
from uram_lib.experiments import READINGS, experiment
from uram_lib.glimpse import location_to_pixel, pixel_to_location
from uram_lib.models import Trajectory, Unified
from uram_lib.models.ram import start_location
from uram_lib.models.topdown import actions_to
from uram_lib.runs import records
from uram_lib.runs.run import Run

from .comparisons import by_cell, with_header
from .drawing import square
from .plotting import COLOURS, VERMILION, legend_below, name_of
from .tables import write

CANVASES = slice(None, None, 5)  # of the test set: its first 2,000 are harder than the rest
BIN = 10  # pixels of distance that are counted together
FRAME = 28  # side of a digit's frame, in pixels
QUADRANTS = {"the digit's own": 0b00, "beside it": 0b01, "above or below it": 0b10, "opposite": 0b11}
STARTED = ("ram-6@image-centre", "ram-6@true-quadrant")
ASKED = (("ours-6-entropy-context", "paper"), ("ours-8-entropy-context", "paper"), ("ours-6-entropy-context", "strong"))


def offsets(trajectory: Trajectory, split: Split) -> Tensor:
    """(N, T, 2) pixels, x then y: from the digit's centre to each glimpse."""
    pixels = location_to_pixel(trajectory.locations, *split.images.shape[-2:])
    return pixels - split.centres[:, None]


def frames(trajectory: Trajectory, split: Split, config: Config) -> pd.DataFrame:
    """A line per glimpse: its mean distance to the digit's centre, and how often it is centred in the digit's frame or
    has the digit's centre in the box of each scale, in percent."""
    away = offsets(trajectory, split)  # (N, T, 2)
    within = lambda side: 100 * (away.abs().amax(-1) <= side / 2).float().mean(0)  # noqa: E731
    lines = {"distance (px)": away.norm(dim=-1).mean(0), "in the digit's frame (%)": within(FRAME)}
    for side in (config.patch_size * 2**k for k in range(config.scales)):
        lines[f"digit's centre in the {side} px box (%)"] = within(side)
    lines["glimpse"] = torch.arange(1, config.glimpses + 1)
    return with_header(pd.DataFrame({name: values.tolist() for name, values in lines.items()}), "glimpse")


@torch.no_grad()
def by_quadrant(model: Unified, split: Split) -> pd.DataFrame:
    """What the model makes of a start in each quadrant, seen from the digit: how often it is chosen, mean Q, error."""
    images, size, lines = split.floats(), split.images.shape[-2:], []
    values = model.topdown(images).values[:, 0]  # (N, 4)
    own = actions_to(pixel_to_location(split.centres, *size), 1)[:, 0]
    middle = torch.tensor([[25.0, 25.0], [75.0, 25.0], [25.0, 75.0], [75.0, 75.0]]) / 100 * size[-1]
    percent = lambda true: 100 * true.float().mean().item()  # noqa: E731
    for name, other in QUADRANTS.items():
        quadrant = own ^ other
        seen = evaluation.rollouts(model, images, centres=middle[quadrant], start="true-quadrant")
        lines.append({"start in the quarter": name, "chosen (%)": percent(values.argmax(1) == quadrant),
                      "mean Q": values.gather(1, quadrant[:, None]).mean().item(),
                      "error (%)": percent(seen.class_logits[:, -1].argmax(-1) != split.labels)})  # fmt: skip
    return with_header(pd.DataFrame(lines), "start in the quarter")


def error_by_distance(groups: dict[str, list[dict]]) -> pd.DataFrame:
    """Error against the distance from the start to the digit, from the outcomes of each image and start in the records:
    `row`, `distance_px` (the middle of a bin of BIN pixels), `error` in percent, and `n`, at least 500."""
    lines = []
    for row, runs in groups.items():
        config = Config.read(runs[0]["config"])
        split = data.load(config.dataset).load_test()
        wrong = np.mean([~records.unpack(r["test_correct"]) for r in runs], 0)  # (S, N)
        for k, shares in enumerate(wrong):
            uniform = evaluation.uniform_start(len(split), evaluation.stream(0, "start", k))
            start = start_location(config.start, uniform, split.centres, *split.images.shape[-2:])
            far = split.glimpse_distances(start[:, None])[:, 0].numpy()
            lines.append(pd.DataFrame({"row": row, "distance_px": BIN * (far // BIN + 0.5), "error": 100 * shares}))
    bins = pd.concat(lines).groupby(["row", "distance_px"])["error"].agg(error="mean", n="size").reset_index()
    return bins[bins["n"] >= 500]


def write_looks() -> None:
    """Renew `results/tables/looks.csv`, the numbers that pages state; without MNIST it stays as it is."""
    try:
        split = data.load("clutter100-10").load_test().at(CANVASES)
    except data.DataUnavailable:
        return
    lines = []
    for row, preset in ASKED:
        path = Run(experiment("table2", row, preset), 0, publish=True).weights
        if path.exists():
            model, config = checkpoints.load(path)
            found, _ = evaluation.label_leak(model, split, config.context)
            lines += [{"what": what, "row": row, "preset": preset, "form": config.context, "value": round(value, 4)}
                      for what, value in found.items()]  # fmt: skip
    cells = {key[1:]: runs for key, runs in by_cell(records.load_records(), "table2").items()}
    bins = error_by_distance({row: cells["paper", "clutter100-10", row] for row in STARTED})
    lines += [{"what": f"error at {line.distance_px:.0f} px", "row": line.row, "preset": "paper", "form": "",
               "value": round(line.error, 4)} for line in bins.itertuples() if line.distance_px in (5, 25)]  # fmt: skip
    write(TABLES / "looks.csv", pd.DataFrame(lines).to_csv(index=False, lineterminator="\n"))


def region_choices(groups: dict[str, list[dict]], axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw the first top-down decision, a line a row from the top, the mean over its runs: on the first axes how often
    each region is chosen, and rightly, on the second its mean Q less that of all. groups: row -> runs that choose."""
    runs = {row: [r["metrics"]["top_down"] for r in of] for row, of in groups.items()}
    mean = lambda key: np.array([np.mean([run[key][0] for run in of], 0) for of in runs.values()])  # noqa: E731
    shares, values = mean("action_histogram"), mean("q_values")  # (rows, 4)
    y, left = np.arange(len(runs)), np.zeros(len(runs))
    names = ("top left", "top right", "bottom left", "bottom right")
    apart = values - values.mean(1, keepdims=True)
    for region, share, value, colour in zip(names, 100 * shares.T, apart.T, COLOURS, strict=False):
        axes[0].barh(y, share, left=left, height=0.7, color=colour, label=region)
        axes[1].plot(value, y, "|", ms=9, mew=2.5, color=colour)
        left += share
    right = [np.mean([run["in_region_percent"] for run in of]) for of in runs.values()]
    axes[0].set_yticks(y, map(name_of, runs), fontsize=8)
    axes[1].set_yticks(y, [f"{share:.0f} % right" for share in right], fontsize=8)
    axes[0].set(xlabel="test canvases (%)", xlim=(0, 100))
    axes[1].set(xlabel="mean Q,\ncentred")
    edge = np.abs(apart).max()
    axes[1].set_xticks((-edge, edge), (f"−{edge:.2g}", f"+{edge:.2g}"))  # the panel has room for two
    for ax in axes:
        ax.set_ylim(len(runs) - 0.5, -0.5)
    return axes


def start_distance(groups: dict[str, list[dict]]) -> Axes:
    """Draw each row's test error against the mean distance of its start to the digit's centre, one point per seed."""
    metrics = [(row, r["metrics"]) for row, runs in groups.items() for r in runs]
    points = [(row, m["glimpse_distance_px"][0], m["test_error"]) for row, m in metrics]
    ax = by_distance(pd.DataFrame(points, columns=["row", "distance_px", "error"]), "mean ", ms=6, ls="")
    ax.set_xlim(-2, None)
    return ax


def by_distance(lines: pd.DataFrame, what: str = "", **look) -> Axes:
    """Draw the error of single images, or what else `what` says, against the distance of their start, one line per row
    of RAM with some start. lines: columns `row`, `distance_px` and `error` in percent."""
    _, ax = plt.subplots(figsize=(7.2, 3.4))
    for (row, part), colour in zip(lines.groupby("row", sort=False), itertools.cycle(COLOURS), strict=False):
        reading = READINGS.get(row.partition("@")[2])
        name = reading.label.removeprefix("start ") if reading else "anywhere (RAM)"
        ax.plot(part["distance_px"], part["error"], **{"color": colour, "label": name, "marker": "o", "ms": 4} | look)
    ax.set(xlabel=f"{what}distance from the start to the digit's centre (px)", ylabel="test error (%)", ylim=(0, None))
    legend_below(ax.figure, 2)
    return ax


def map_of_starts(groups: dict[str, np.ndarray]) -> Sequence[Axes]:
    """Draw first glimpses as seen from the digit's centre, one panel per model; the square is the digit's frame.
    groups: name -> (N, 2) pixels, x then y."""
    _, axes = plt.subplots(1, len(groups), figsize=(7.2, 3.7), squeeze=False, sharex=True, sharey=True)
    for ax, (name, offsets) in zip(axes[0], groups.items(), strict=True):
        ax.hexbin(*offsets.T, gridsize=25, extent=(-90, 90, -90, 90), cmap="Blues", mincnt=1, linewidths=0)
        square((0, 0), FRAME, ax, ec=VERMILION, lw=1.5, zorder=1)
        ax.set(title=name, xlabel="right of the digit (px)", aspect="equal", xlim=(-90, 90), ylim=(90, -90))
    axes[0][0].set_ylabel("below the digit (px)")
    return axes[0]


def leak_matrix(matrix: Tensor, name: str) -> str:
    """Which label Z of Eq. 11 answers for each label that it is told, in percent of the canvases: an HTML table whose
    rows can be picked with the pointer, a finger or the tab key. matrix: (K, K), label told x label answered."""
    head, rows = "".join(f"<th scope='col'>{answered}</th>" for answered in range(len(matrix))), ""
    for told, shares in enumerate(matrix):
        cells = ""
        for share in shares:
            text, look = f"{share:.0f}" if share >= 0.5 else "", " class='most'" if share > 50 else ""
            cells += f"<td{look} style='--share: {share:.0f}%'>{text}</td>"
        rows += f"<tr tabindex='0'><th scope='row'>{told}</th>{cells}</tr>"
    return (f"<table class='leak'><caption>{name}: label told (rows), label answered (columns), percent</caption>"
            f"<tr><th></th>{head}</tr>{rows}</table>")  # fmt: skip
