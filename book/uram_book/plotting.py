"""The book's figures: glimpse paths, learning curves, comparisons with the paper, entropy maps.

One style for all of them: a solid white ground, so that a figure reads alike in the book's light and dark theme, dark
text, and the colours of Okabe and Ito, which people with any colour vision can tell apart. Every function draws on the
axes it is given, or on a new figure, and returns the axes. Call `use_style()` once at the top of a notebook.
"""

import contextlib
import html
import io
import itertools
import re
import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.patheffects as effects_of_paths
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from uram_lib import paper
from uram_lib.data import PLACES, TERMINAL
from uram_lib.glimpse import GlimpseSensor, location_to_pixel

from .tables import paired_curves

BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#222222",
)  # fmt: skip
GREY = "#767676"  # reference lines and lesser text; 4.5:1 on white
COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK)
# One colour per row on every page; rows that play the same part in two tables share it.
ROW_COLOURS = {
    "ram-6": BLUE, "ram-7": SKY, "ram-8": SKY, "ours-6": ORANGE, "ours-8": YELLOW, "dram": BLUE,
    "entropy-6": GREEN, "ours-6-entropy": GREEN, "entropy": GREEN,
    "entropy-context-6": VERMILION, "ours-6-entropy-context": VERMILION, "entropy-context": VERMILION,
    "fc": GREY, "cnn2": PURPLE, "cnn5": PURPLE, "cnn11": PURPLE, "cnn10": BLACK,
}  # fmt: skip
READING = (YELLOW, SKY, ORANGE, GREEN, PURPLE, VERMILION)  # on a dark outline over a grey image
OUTLINE = [effects_of_paths.withStroke(linewidth=2.5, foreground="black")]  # of what is drawn over an image

STYLE = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.figsize": (6.4, 3.6),
    "figure.dpi": 100,
    "svg.fonttype": "none",  # words stay words: small files, and a reader can select them
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "svg.hashsalt": "uram",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.edgecolor": BLACK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "image.cmap": "gray",
    "image.interpolation": "none",  # SVG keeps the few pixels as they are
}

REGION_NAMES = ("top left", "top right", "bottom left", "bottom right")

# What the curves and metrics of a run record hold, as an axis says it.
QUANTITIES = {
    "val_error": "validation error (%)",
    "train_error": "training error (%)",
    "loss": "loss (nats)",
    "cross_entropy": "cross entropy (nats)",
    "context": "context loss, Eq. 11 (nats)",
    "policy": "policy objective J",
    "baseline": "baseline's squared error",
    "q": "squared error of Q, Eq. 9",
    "reward": "mean reward",
    "glimpse_distance_px": "distance to the digit's centre (px)",
    "patch_entropy_bits": "entropy of the patch (bits)",
    "blank_patch_percent": "blank patches (%)",
    "error_percent": "error if read then (%)",
}


def use_style() -> None:
    """Make the book's style the default of every figure that follows."""
    mpl.rcParams.update(STYLE)
    with contextlib.suppress(ImportError):  # in a notebook, figures are drawn as SVG
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        if get_ipython() is not None:
            set_matplotlib_formats("svg")


def show_image(image: Tensor, ax: Axes, title: str = "") -> Axes:
    """Draw one image, (C, H, W) or (H, W) with values in [0, 1], in pixel coordinates: pixel i covers [i, i + 1)."""
    image = image.detach().cpu()
    if image.ndim == 3:
        image = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    height, width = image.shape[:2]
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    ax.set(xticks=(0, width / 2, width), yticks=(0, height / 2, height), title=title)
    ax.tick_params(labelsize=8, length=2)
    ax.spines[:].set_visible(False)
    return ax


def object_frame(centre: Tensor, side: float, ax: Axes) -> Axes:
    """Draw the square of `side` px around an object's `centre`, (2,), x then y, in px. No model sees it."""
    ax.add_patch(Rectangle((centre - side / 2).tolist(), side, side, fill=False, ec=GREEN, lw=2, zorder=2))
    return ax


def _over(image: Tensor, locations: Tensor, ax: Axes, title: str) -> np.ndarray:
    """Draw an image to draw a path over. Returns `locations` in pixels, (T, 2), at the edge where they lie beyond."""
    show_image(image, ax, title)
    height, width = image.shape[-2:]
    ax.set(xlim=(0, width), ylim=(height, 0))
    return location_to_pixel(locations.detach().cpu().clamp(-1, 1), height, width).numpy()


def glimpse_path(
    image: Tensor, locations: Tensor, patch_size: int, scales: int = 1, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Draw where a model looked: one numbered dot per glimpse, the path between them and each glimpse's boxes.

    image: (C, H, W) in [0, 1]; locations: (T, 2), x then y, in [-1, 1]; number 0 is the start. Boxes have side
    `patch_size` * 2**k px for scale k: the finest is a full line, the coarser ones are thin and dashed. Axes in pixels.
    """
    ax = ax or plt.gca()
    pixels = _over(image, locations, ax, title)
    ax.plot(*pixels.T, color=YELLOW, lw=1.3, path_effects=OUTLINE, zorder=3)
    for t, (x, y) in enumerate(pixels):
        colour = SKY if t == 0 else ORANGE
        for k in reversed(range(scales)):
            side = patch_size * 2**k
            box = Rectangle((x - side / 2, y - side / 2), side, side, fill=False, edgecolor=colour, zorder=2)
            box.set(linewidth=1.3 if k == 0 else 0.6, linestyle="-" if k == 0 else "--", alpha=1 if k == 0 else 0.7)
            ax.add_patch(box)
        ax.text(x, y, str(t), color=colour, ha="center", va="center", fontsize=10, fontweight="bold", zorder=4,
                path_effects=OUTLINE)  # fmt: skip
    ax.set(xlabel="x (px)", ylabel="y (px)")
    return ax


def scan_paths(locations: Tensor, side: int, ax: Axes) -> Axes:
    """Draw the paths of many readings over one another, one colour per place of the number, and their mean in black.

    locations: (N, T, 2), x then y, in [-1, 1]; side: of the images, in pixels.
    """
    pixels = (locations.numpy() + 1) / 2 * side
    each = pixels.shape[1] // PLACES
    for place in range(PLACES):
        part = pixels[:, max(place * each - 1, 0) : (place + 1) * each]
        ax.plot(*part.transpose(2, 1, 0), color=READING[place % len(READING)], lw=0.5, alpha=0.15, rasterized=True)
    ax.plot(*pixels.mean(0).T, color="black", lw=1.2, marker="o", ms=2.5)
    ax.set(xlim=(0, side), ylim=(side, 0), aspect="equal", xlabel="x (px)", ylabel="y (px)")
    return ax


def reading_path(image: Tensor, locations: Tensor, said: Sequence[int], ax: Axes) -> Axes:
    """Draw how a number was read: the glimpses at each of its places as dots on a line, one colour per place, and what
    the model then said. The line of a place begins where the one before it ended.

    image: (C, H, W) in [0, 1]; locations: (T, 2), x then y, in [-1, 1]; said: the class at each of the P places that
    were read, P T / 6 of the T glimpses; 10, the end, is drawn as a full stop. Axes in pixels.
    """
    pixels = _over(image, locations, ax, "")
    each = len(pixels) // PLACES
    for place, digit in enumerate(said):
        first = place * each
        path = pixels[max(first - 1, 0) : first + each]
        colour = READING[place % len(READING)]
        ax.plot(*path.T, color=colour, lw=1.3, path_effects=OUTLINE, zorder=3)
        ax.plot(*pixels[first : first + each].T, "o", ms=3.5, color=colour, mec="black", mew=0.5, zorder=4)
        text = "." if digit == TERMINAL else str(int(digit))
        ax.annotate(text, path[-1], (4, 4), textcoords="offset points", color=colour, fontsize=11, fontweight="bold",
                    path_effects=OUTLINE, zorder=5)  # fmt: skip
    return ax


def patches(image: Tensor, locations: Tensor, patch_size: int, scales: int, ax: Axes, title: str = "") -> Axes:
    """Draw what each glimpse saw: a column a glimpse in time order, a row a scale, finest first.

    image: (C, H, W) in [0, 1]; locations: (T, 2) in [-1, 1]. Row labels give the side of the square covered, in px.
    """
    sensor = GlimpseSensor(patch_size, scales)
    images = image.detach().cpu()[None].expand(len(locations), *image.shape)
    seen = sensor(sensor.pyramid(images), locations.detach().cpu())  # (T, S, C, g, g)
    step = patch_size * 1.15
    for t, glimpse in enumerate(seen):
        for k, patch in enumerate(glimpse):
            picture = patch[0] if len(patch) == 1 else patch.permute(1, 2, 0)
            x, y = t * step, k * step
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(x, x + patch_size, y + patch_size, y))
    columns = len(seen)
    ax.set(xlim=(-0.5, columns * step), ylim=(scales * step, -0.5), xlabel="glimpse t", title=title, aspect="equal")
    ax.set_xticks([t * step + patch_size / 2 for t in range(columns)], range(columns))
    ax.set_yticks(
        [k * step + patch_size / 2 for k in range(scales)], [f"{patch_size * 2**k} px" for k in range(scales)]
    )
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def region_values(image: Tensor, values: Tensor, ax: Axes, title: str = "") -> Axes:
    """Draw one decision of the top-down model: what it sees, Q of each of the four regions, and the frame of the best.

    image: (C, h, w) in [0, 1], a level of the pyramid; values: (4,), row by row from the top left.
    """
    ax = show_image(image, ax, title)
    height, width = image.shape[-2:]
    chosen = int(values.argmax())
    for region, value in enumerate(values.tolist()):
        x, y = region % 2 * width / 2, region // 2 * height / 2
        colour, line, z = (ORANGE, 2.5, 3) if region == chosen else (SKY, 0.8, 2)
        ax.add_patch(Rectangle((x, y), width / 2, height / 2, fill=False, ec=colour, lw=line, zorder=z))
        ax.text(x + width / 4, y + height / 4, f"{value:.3f}", color=colour, ha="center", va="center", fontsize=12,
                fontweight="bold", zorder=4, path_effects=OUTLINE)  # fmt: skip
    ax.set(xlim=(0, width), ylim=(height, 0), xlabel="x (px)", ylabel="y (px)")
    return ax


def class_probabilities(probabilities: Tensor, label: int, ax: Axes, title: str = "") -> Axes:
    """Draw what a model believes after each glimpse: a column a glimpse, a row a class, the darker the likelier, with
    the likeliest class's probability in percent, and a frame around the row of the true class.

    probabilities: (T, K), each row summing to 1.
    """
    columns = len(probabilities)
    ax.imshow(probabilities.T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for t, (sure, best) in enumerate(zip(*map(Tensor.tolist, probabilities.max(-1)), strict=True)):
        colour = "white" if sure > 0.6 else BLACK
        ax.text(t, best, f"{100 * sure:.0f}", ha="center", va="center", fontsize=8, color=colour)
    ax.add_patch(Rectangle((-0.5, label - 0.5), columns, 1, fill=False, ec=GREEN, lw=2, clip_on=False))
    ax.set(xlim=(-0.5, columns - 0.5), xlabel="glimpse t", ylabel="class", title=title)
    ax.set(xticks=range(columns), yticks=range(probabilities.shape[1]))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def learning_curves(groups: dict[str, list[dict]], quantity: str = "val_error", ax: Axes | None = None) -> Axes:
    """Draw a curve a group against the epoch: the mean over its run records, in a band from the lowest seed to the
    highest where there are several.

    groups: label -> records (anything with `curves`); quantity: a key of `curves`. Groups whose runs differ in length
    are cut to the shortest.
    """
    ax = ax or plt.gca()
    for label, records in groups.items():
        epochs = min(len(record["curves"][quantity]) for record in records)
        values = np.array([record["curves"][quantity][:epochs] for record in records], float)  # (seeds, epochs)
        x = np.arange(1, epochs + 1)
        seeds = f", {len(records)} seeds" if len(records) > 1 else ""
        (line,) = ax.plot(x, values.mean(0), label=f"{label}{seeds}", color=ROW_COLOURS.get(label))
        ax.fill_between(x, values.min(0), values.max(0), color=line.get_color(), alpha=0.2, lw=0)
    ax.set(xlabel="epoch", ylabel=QUANTITIES.get(quantity, quantity.replace("_", " ")))
    ax.xaxis.get_major_locator().set_params(integer=True)
    if len(groups) > 1:
        ax.legend()
    return ax


def gain_curve(better: list[dict], worse: list[dict], ax: Axes, label: str = "") -> Axes:
    """Draw what `better` gains over `worse` in validation error against the epoch, paired by seed: the mean of the
    differences, in a band from the lowest seed to the highest, and a line at 0.

    Both hold run records (anything with `seed` and `curves`); at least one seed in common. Cut to the shortest run.
    """
    gains = paired_curves(better, worse)  # (pairs, epochs)
    x = np.arange(1, gains.shape[1] + 1)
    (line,) = ax.plot(x, gains.mean(0), label=f"{label}, {len(gains)} pair{'s' * (len(gains) > 1)}")
    ax.fill_between(x, gains.min(0), gains.max(0), color=line.get_color(), alpha=0.2, lw=0)
    ax.axhline(0, color=GREY, lw=1, zorder=0)
    ax.set(xlabel="epoch", ylabel="difference of validation error (points)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def by_glimpse(details: pd.DataFrame, quantity: str, rows: Sequence[str], ax: Axes) -> Axes:
    """Draw a quantity glimpse by glimpse: one line per row with its 95 % interval over seeds, where there are several.

    details: lines of a `results/tables/tableN_details.csv`, of one preset and data set; quantity: what its `quantity`
    says before `, glimpse`. Rows without it are left out.
    """
    for row in rows:
        part = details[(details["row"] == row) & details["quantity"].str.startswith(f"{quantity}, glimpse ")]
        if len(part):
            glimpse = part["quantity"].str.extract(r"(\d+)$")[0].astype(int)
            spread = part[["ci_low", "ci_high"]].astype(float).sub(part["value"], axis=0).abs()
            ends = None if spread.isna().all(axis=None) else spread.fillna(0).to_numpy().T
            ax.errorbar(glimpse, part["value"], yerr=ends, label=row, color=ROW_COLOURS.get(row), marker="o", ms=4,
                        capsize=2)  # fmt: skip
    ax.set(xlabel="glimpse t", ylabel=QUANTITIES.get(quantity, quantity))
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def region_choices(groups: dict[str, list[dict]], axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw the first top-down decision of every run, a line a run from the top: on the first axes how often each region
    is chosen, on the second the mean Q of each.

    groups: label -> run records of models that choose their start.
    """
    runs = {f"{label}, seed {r['seed']}": r["metrics"]["top_down"] for label, group in groups.items() for r in group}
    shares, values = (np.array([run[key][0] for run in runs.values()]) for key in ("action_histogram", "q_values"))
    y, left = np.arange(len(runs)), np.zeros(len(runs))  # shares and values: (runs, 4)
    for region, share, value, colour in zip(REGION_NAMES, 100 * shares.T, values.T, COLOURS, strict=False):
        axes[0].barh(y, share, left=left, height=0.7, color=colour, label=region)
        axes[1].plot(value, y, "o", ms=5, color=colour, alpha=0.8)
        left += share
    axes[0].set_yticks(y, runs, fontsize=8)
    axes[1].set_yticks(y, [])
    axes[0].set(xlabel="test canvases (%)", xlim=(0, 100))
    axes[1].set(xlabel="mean Q")
    for ax in axes:
        ax.set_ylim(len(runs) - 0.5, -0.5)
    return axes


def comparison(table: pd.DataFrame, title: str = "") -> Axes:
    """Draw one table as a forest plot: one line per row, the paper's value as an open diamond, ours as a dot with its
    95 % interval, one colour per preset (and data set, where the table holds several).

    table: a `results/tables/tableN.csv` as a DataFrame; rows stand in the paper's order.
    """
    places = [paper.place(*row) for row in zip(table["table"], table["row"], strict=True)]
    table = table.iloc[np.argsort(places, kind="stable")]
    accuracy = (table["metric"] == "robust_accuracy").all()
    several = table["dataset"].nunique() > 1
    lines = pd.DataFrame({
        "name": table["label"], "arm": table["preset"] + " settings" + (", " + table["dataset"] if several else ""),
        "mean": table["ours_mean"], "low": table["ours_ci_low"], "high": table["ours_ci_high"], "paper": table["paper"],
    })  # fmt: skip
    ax = _forest(lines, "the paper")
    ax.set_xlabel("accuracy under attack (%)" if accuracy else "test error (%)")
    ax.set_title(title, loc="right")  # grows over the rows' names, where a centred one would be cut off
    return ax


def effects(claims: pd.DataFrame, title: str = "") -> Axes:
    """Draw the claims as a forest plot of paired differences: ours as a dot with its 95 % interval, one colour per
    preset, the paper's effect as an open diamond, and a line at 0, no difference.

    claims: rows of `results/claims.csv` as a DataFrame. A difference of errors below 0 means that the method helps.
    """
    lines = pd.DataFrame({
        "name": claims["claim"] + "  " + claims["part"].fillna(""), "arm": claims["preset"] + " settings",
        "mean": claims["our_effect"], "low": claims["ci_low"], "high": claims["ci_high"],
        "paper": claims["paper_effect"],
    })  # fmt: skip
    ax = _forest(lines, "the paper's effect")
    ax.axvline(0, color=GREY, lw=1, zorder=0)
    ax.set(xlabel="difference (percentage points)", title=title)
    return ax


def _forest(lines: pd.DataFrame, mark: str) -> Axes:
    """Dots with intervals (`mean`, `low`, `high`), one line per `name` from the top, one colour per `arm`, and one
    diamond per line for `paper`, called `mark` in the legend."""
    names, arms = list(dict.fromkeys(lines["name"])), list(dict.fromkeys(lines["arm"]))
    _, ax = plt.subplots(figsize=(7.2, 1.3 + 0.42 * len(names)))
    gap = 0.5 / max(len(arms), 1)
    for i, arm in enumerate(arms):
        part = lines[lines["arm"] == arm].astype({"mean": float, "low": float, "high": float})
        y = part["name"].map(names.index) + (i - (len(arms) - 1) / 2) * gap
        spread = np.stack([part["mean"] - part["low"], part["high"] - part["mean"]]).clip(min=0)
        ax.errorbar(part["mean"], y, xerr=spread, fmt="o", ms=5, lw=1.6, capsize=2.5, color=COLOURS[i % len(COLOURS)],
                    label=arm)  # fmt: skip
    reported = lines.dropna(subset=["paper"]).drop_duplicates("name")
    if len(reported):
        y = reported["name"].map(names.index)
        ax.plot(reported["paper"].astype(float), y, "D", ms=8, mfc="none", mec=BLACK, mew=1.3, label=mark, zorder=5)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="x", color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    legend_below(ax.figure, min(4, len(arms) + 1))
    return ax


def legend_below(figure: Figure, columns: int = 4) -> None:
    """One legend under a figure for all of its axes, one entry per label."""
    entries = {}
    for ax in figure.axes:
        entries |= dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)


def canvas_cost(lines: list[dict]) -> Axes:
    """Draw the cost of a glimpse, of the pyramid and of the whole unified model against the side of the canvas, on
    logarithmic axes (claim C9).

    lines: the `canvas` of `results/bench.json`.
    """
    _, ax = plt.subplots(figsize=(6.4, 3.2))
    sides = [line["side_px"] for line in lines]
    shown = (
        ("unified_ms", "unified model, 6 glimpses", "D-"),
        ("pyramid_ms", "pyramid, once an image", "s-"),
        ("glimpse_ms", "one glimpse", "o-"),
    )
    for key, label, marker in shown:
        ax.plot(sides, [1e3 * line[key] for line in lines], marker, label=label)
    ax.set(xscale="log", yscale="log", xlabel="side of the canvas (px)", ylabel="microseconds an image")
    ax.set_xticks(sides, sides)
    ax.minorticks_off()
    ax.legend()
    return ax


def grid(count: int, columns: int = 4, size: float = 2.2) -> Sequence[Axes]:
    """A new figure of `count` square axes in rows of `columns`; returns the axes in reading order."""
    columns = min(columns, count)
    rows = -(-count // columns)
    _, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * size), squeeze=False)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return axes.flat[:count]


# ---- What was found


def ladder(frame: pd.DataFrame) -> Axes:
    """Draw what made RAM learn: one bar of validation error per step of the recipe, from the top.

    frame: `results/recipe_ladder.csv`; of it the lines of `table2`, each step on top of those above it.
    """
    steps = frame[frame["table"] == "table2"]
    names = [
        f"{textwrap.fill(step, 46)}\n({epochs:.0f} epochs)"
        for step, epochs in zip(steps["step"], steps["epochs"], strict=True)
    ]
    _, ax = plt.subplots(figsize=(7.2, 0.8 + 0.62 * len(names)))
    bars = ax.barh(range(len(names)), steps["val_error"], color=BLUE, height=0.6)
    ax.bar_label(bars, fmt="%.1f %%", padding=3, fontsize=9)
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.set(xlabel="validation error of RAM with 6 glimpses (%)", xlim=(0, 1.15 * steps["val_error"].max()))
    ax.invert_yaxis()
    return ax


def paired_slopes(pairs: list[tuple[str, list[dict], list[dict]]]) -> Sequence[Axes]:
    """Draw test errors without and with an idea as one line per seed. pairs: its name, the records without it and with
    it; each is one panel, titled with the preset, all on one scale."""
    figure, axes = plt.subplots(1, len(pairs), figsize=(7.2, 2.9), squeeze=False, sharey=True)
    for ax, (name, without, with_it) in zip(axes[0], pairs, strict=True):
        right = {r["seed"]: r["metrics"]["test_error"] for r in with_it}
        for r in without:
            if r["seed"] in right:
                ends = (r["metrics"]["test_error"], right[r["seed"]])
                ax.plot((0, 1), ends, "-o", ms=5, color=VERMILION if ends[1] > ends[0] else BLUE)
        preset = without[0]["preset"] if without else ""
        ax.set_xticks((0, 1), ("without", "with"))
        ax.set(title=f"{name},\n{preset} settings", xlim=(-0.25, 1.25))
    axes[0][0].set_ylabel("test error (%)")
    return axes[0]


def start_distance(groups: dict[str, list[dict]]) -> Axes:
    """Draw each row's test error against the mean distance of its start to the digit's centre, one point per seed."""
    points = {
        row: np.array([(r["metrics"]["glimpse_distance_px"][0], r["metrics"]["test_error"]) for r in runs])
        for row, runs in groups.items()
    }
    ax = _against_distance(points, "mean distance from the start to the digit's centre (px)", marker="o", ms=6, ls="")
    ax.set_xlim(-2, None)
    return ax


def by_distance(lines: pd.DataFrame) -> Axes:
    """Draw the error of single images against the distance of their start, one line per row. lines: columns `row`,
    `distance_px` and `error` in percent."""
    points = {row: part[["distance_px", "error"]].to_numpy() for row, part in lines.groupby("row", sort=False)}
    return _against_distance(points, "distance from the start to the digit's centre (px)", marker="o", ms=4, ls="-")


def _against_distance(points: dict[str, np.ndarray], xlabel: str, **look) -> Axes:
    """Draw errors against distances, (N, 2) of each row of RAM with some start."""
    _, ax = plt.subplots(figsize=(7.2, 3.4))
    for (row, values), colour in zip(points.items(), itertools.cycle(COLOURS), strict=False):
        name = row.partition("@")[2].replace("-", " ") or "anywhere (RAM)"
        ax.plot(*values.T, color=colour, label=name, **look)
    ax.set(xlabel=xlabel, ylabel="test error (%)", ylim=(0, None))
    legend_below(ax.figure, 3)
    return ax


def map_of_starts(groups: dict[str, np.ndarray]) -> Sequence[Axes]:
    """Draw first glimpses as seen from the digit's centre, one panel per model; the square is the digit's frame.

    groups: name -> (N, 2) pixels, x then y.
    """
    _, axes = plt.subplots(1, len(groups), figsize=(7.2, 3.7), squeeze=False, sharex=True, sharey=True)
    for ax, (name, offsets) in zip(axes[0], groups.items(), strict=True):
        ax.hexbin(*offsets.T, gridsize=25, extent=(-90, 90, -90, 90), cmap="Blues", mincnt=1, linewidths=0)
        ax.add_patch(Rectangle((-14, -14), 28, 28, fill=False, ec=VERMILION, lw=1.5))
        ax.set(title=name, xlabel="right of the digit (px)", aspect="equal", xlim=(-90, 90), ylim=(90, -90))
    axes[0][0].set_ylabel("below the digit (px)")
    return axes[0]


def leak_matrix(matrix: np.ndarray, name: str) -> str:
    """Which label Z of Eq. 11 answers for each label that it is told, in percent of the canvases: an HTML table whose
    rows can be picked with the pointer, a finger or the tab key.

    matrix: (K, K), label told x label answered; name: whose it is.
    """
    labels = range(len(matrix))
    head = "".join(f"<th scope='col'>{answered}</th>" for answered in labels)
    rows = ""
    for told, shares in enumerate(matrix):
        cells = ""
        for share in shares:
            text, look = f"{share:.0f}" if share >= 0.5 else "", " class='most'" if share > 50 else ""
            cells += f"<td{look} style='--share: {share:.0f}%'>{text}</td>"
        rows += f"<tr tabindex='0'><th scope='row'>{told}</th>{cells}</tr>"
    return (f"<table class='leak'><caption>{name}: label told (rows), label answered (columns), percent</caption>"
            f"<tr><th></th>{head}</tr>{rows}</table>")  # fmt: skip


HOLDS = {  # what an interval holds: the paper's effect, 0 -> words, colour, mark
    (True, False): ("holds the paper's effect only", GREEN, "D"), (False, True): ("holds 0 only", BLUE, "o"),
    (True, True): ("holds both", GREY, "s"), (False, False): ("holds neither", VERMILION, "X"),
}  # fmt: skip


def specification_curve(lines: pd.DataFrame) -> str:
    """One effect under every reading and budget, sorted, with the matrix of choices below it, as SVG text whose points
    say on hover which reading they are.

    lines: those of one effect in `results/tables/readings.csv`.
    """
    lines = lines.sort_values("effect_mean").reset_index(drop=True)
    readings = list(dict.fromkeys(lines["reading"]))
    budgets = [name for name in ("strong", "paper", "paper-7") if name in set(lines["budget"])]
    choices = [*readings, *(f"budget: {name}" for name in budgets)]
    figure, (top, below) = plt.subplots(
        2, 1, figsize=(7.2, 2.6 + 0.2 * len(choices)), sharex=True, height_ratios=(2.6, 0.2 * len(choices))
    )
    reported = lines["paper_effect"].iloc[0]
    told = {}
    for x, line in enumerate(lines.itertuples()):
        holds = (line.ci_low <= reported <= line.ci_high, line.ci_low <= 0 <= line.ci_high)
        words, colour, mark = HOLDS[holds]
        top.plot((x, x), (line.ci_low, line.ci_high), color=colour, lw=1.6)
        top.plot(x, line.effect_mean, mark, ms=6, color=colour, gid=f"point-{x}", label=words)
        told[f"point-{x}"] = (
            f"{line.reading}, {line.budget}: {line.effect_mean:+.1f} [{line.ci_low:+.1f}, {line.ci_high:+.1f}] points, "
            f"{line.n_pairs} seeds"
        )
        for choice in (line.reading, f"budget: {line.budget}"):
            below.plot(x, choices.index(choice), "s", ms=4, color=colour)
    top.axhline(0, color=BLACK, lw=0.8)
    top.axhline(reported, color=VERMILION, lw=1, ls="--")
    top.annotate(f"the paper: {reported:+.1f}".replace("-", "−"), (len(lines) - 0.5, reported), ha="right", va="bottom",
                 fontsize=9, color=VERMILION)  # fmt: skip
    top.set(ylabel="effect (points;\nnarrower beyond ±10)")
    top.set_yscale("symlog", linthresh=10)
    top.set_yticks([-40, -20, -10, -5, 0, 5, 10, 20, 40], ["−40", "−20", "−10", "−5", "0", "5", "10", "20", "40"])
    low, high = min(lines["ci_low"].min(), reported), max(lines["ci_high"].max(), 0)
    top.set_ylim(low - max(1, 0.3 * abs(low)), high + max(1, 0.3 * high))  # whole marks, also where the axis is narrow
    below.set_yticks(range(len(choices)), choices, fontsize=9)
    below.set(ylim=(len(choices) - 0.5, -0.5), xticks=[], xlim=(-0.7, len(lines) - 0.3))
    below.grid(axis="y", color="#dddddd", lw=0.6)
    legend_below(figure, 2)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()
    for gid, words in told.items():
        svg = svg.replace(f'<g id="{gid}">', f"<g><title>{html.escape(words)}</title>", 1)
    svg = svg[svg.index("<svg") :]
    ends = lines["effect_mean"].iloc[[0, -1]]
    said = f"{len(readings)} readings, effects from {ends.min():.1f} to {ends.max():.1f} points; paper: {reported:.1f}"
    return re.sub(r'width="[^"]*pt" height="[^"]*pt"', f'width="100%" role="img" aria-label="{said}"', svg, count=1)
