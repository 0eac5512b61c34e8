"""The book's style and its charts of records and tables. `drawing` draws what models see, `looks` where they look.

One style for all: a solid white ground, so that a figure reads alike in the book's light and dark theme, dark text, and
the colours of Okabe and Ito, which people with any colour vision can tell apart. Every function draws on the axes it is
given, or on a new figure, and returns the axes. Call `use_style()` once at the top of a notebook.
"""

import html
import io
import itertools
import math
import re
import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib_inline.backend_inline import set_matplotlib_formats

from uram_lib import paper
from uram_lib.experiments import READINGS, ROWS, label_of
from uram_lib.runs.progress import count

from .comparisons import in_common
from .statistics import t_interval

BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#222222",
)  # fmt: skip
GREY = "#767676"  # reference lines and lesser text; 4.5:1 on white
COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK)
# One colour per row on every page; rows that play the same part in two tables share it.
ROW_COLOURS = {
    "ram-6": BLUE, "ram-7": SKY, "ram-8": SKY, "ours-6": ORANGE, "ours-8": YELLOW, "dram": BLUE, "vgg16-pgd": BLUE,
    "entropy-6": GREEN, "ours-6-entropy": GREEN, "entropy": GREEN, "vgg16-random-glimpses": PURPLE,
    "entropy-context-6": VERMILION, "ours-6-entropy-context": VERMILION, "entropy-context": VERMILION,
    "fc": GREY, "cnn2": PURPLE, "cnn5": PURPLE, "cnn11": PURPLE, "cnn10": BLACK,
    "vgg16-undefended": SKY, "ours-vgg16-pgd": VERMILION, "ours-vgg16-undefended": ORANGE, "vgg16-mlp": GREEN,
}  # fmt: skip

STYLE = {
    "figure.figsize": (6.4, 3.6),
    "figure.dpi": 100,
    "svg.fonttype": "none",  # words stay words: small files, and a reader can select them
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "svg.hashsalt": "uram",  # the same figure is the same file
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.wspace": 0.06,  # or the words of an axis touch the panel beside it
    "axes.titlesize": 10,
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

# What the curves and metrics of a run record hold, as an axis says it.
QUANTITIES = {
    "val_error": "validation error (%)",
    "train_error": "training error (%)",
    "cross_entropy": "cross entropy (nats)",
    "glimpse_distance_px": "distance to the\ndigit's centre (px)",
    "patch_entropy_bits": "entropy of the patch (bits)",
    "blank_patch_percent": "blank patches (%)",
}


def use_style() -> None:
    """Make the book's style the default of every figure that follows; in a notebook, figures are drawn as SVG."""
    mpl.rcParams.update(STYLE)
    if get_ipython() is not None:
        set_matplotlib_formats("svg")


def name_of(row: str) -> str:
    """What a figure calls a row, with what follows its id: "ours" there is the paper's model. Other words stay."""
    base = re.match(r"[\w.@-]*", row)[0]
    table = next((table for table in ("table2", *ROWS) if base.partition("@")[0] in ROWS[table]), "")
    usual = "" if "8x8" in base else ", 12×12, [24] scales|, 8×8, 1 scale|, 18 glimpses|"  # in most of a table's rows
    words = re.sub(rf"{usual} \([A-Z][^)]* \d{{4}}\)", "", label_of(table, base))
    words = re.sub(r" \(((?:Entropy|Context).*?)\)", lambda of: ", " + of[1].lower().replace("+", ", "), words)
    return words + row.removeprefix(base)


def look_of(row: str) -> dict:
    """A row's name, colour and line, dashed where it is a reading, of an older recipe or without a defence."""
    line = "--" if re.search("undefended|old recipe|@", row) else "-"
    return {"label": name_of(row), "color": ROW_COLOURS.get(row), "ls": line}


def legend_below(figure: plt.Figure, columns: int = 4) -> None:
    """One legend under a figure for all of its axes, one entry per label; axes side by side say their quantity once."""
    entries = {}
    for left, right in reversed([*itertools.pairwise(figure.axes)]):
        if left.get_ylabel() == right.get_ylabel():
            right.set_ylabel("")
    for ax in figure.axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip((textwrap.fill(label, 44) for label in labels), handles, strict=True))
    longest = max((min(len(label), 44) for label in entries), default=0)
    fit = int(figure.get_figwidth() / (0.5 + 0.063 * longest))  # inches of a mark and a letter
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=max(1, min(columns, fit)))


def grid(number: int, columns: int = 4, size: float = 2.2) -> Sequence[Axes]:
    """A new figure of `number` square axes in rows of `columns`; returns the axes in reading order."""
    columns = min(columns, number)
    rows = math.ceil(number / columns)
    _, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * size), squeeze=False)
    for ax in axes.flat[number:]:
        ax.set_axis_off()
    return axes.flat[:number]


def _curves(records: list[dict], quantity: str = "val_error") -> pd.DataFrame:
    """(epochs, seeds), with gaps where a run was shorter. records: anything with `seed` and `curves`."""
    return pd.DataFrame({record["seed"]: pd.Series(record["curves"][quantity]) for record in records})


def _band(curves: pd.DataFrame, ax: Axes, ylabel: str, **look) -> None:
    """Draw the mean of curves in a band from the lowest to the highest, as far as the shortest goes."""
    curves = curves.dropna()
    (line,) = ax.plot(curves.index + 1, curves.mean(axis=1), **look)
    low, high = curves.min(axis=1), curves.max(axis=1)
    ax.fill_between(curves.index + 1, low, high, color=line.get_color(), alpha=0.2, lw=0)
    ax.set(xlabel="epoch", ylabel=ylabel)
    ax.xaxis.get_major_locator().set_params(integer=True)


def learning_curves(groups: dict[str, list[dict]], ax: Axes, quantity: str = "val_error") -> Axes:
    """Draw a curve a group against the epoch. groups: row or words -> run records; quantity: of their `curves`."""
    for row, records in groups.items():
        look = look_of(row)
        look["label"] += f", {len(records)} seeds" if len(records) > 1 else ""
        _band(_curves(records, quantity), ax, QUANTITIES[quantity], **look)
    return ax


def gain_curve(better: list[dict], worse: list[dict], ax: Axes, label: str = "") -> Axes:
    """Draw by epoch what `better` gains over `worse` in validation error, paired by seed, and a line at 0. Both hold
    run records; at least one seed in common."""
    gains = (_curves(better) - _curves(worse)).dropna(axis=1, how="all")  # seeds and epochs that both have
    called = {"label": f"{label}, {count(gains.shape[1], 'pair')}"}
    _band(gains, ax, "difference of\nvalidation error (points)", **look_of(label) | called)
    ax.axhline(0, color=GREY, lw=1, zorder=0)
    return ax


def by_glimpse(groups: dict[str, list[dict]], quantity: str, ax: Axes) -> Axes:
    """Draw a quantity glimpse by glimpse: a line a row with its 95 % interval over seeds, where there are several.
    groups: row -> run records; quantity: of their `metrics`. Rows without it are left out."""
    for row, records in groups.items():
        values = np.array([r["metrics"][quantity] for r in records if quantity in r["metrics"]])  # (seeds, T)
        if len(values):
            ends = [t_interval(at).high - at.mean() for at in values.T] if len(values) > 1 else None
            look = {"marker": "o", "ms": 4, "capsize": 2} | look_of(row)
            ax.errorbar(range(1, values.shape[1] + 1), values.mean(0), yerr=ends, **look)
    ax.set(xlabel="glimpse t", ylabel=QUANTITIES[quantity])
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def comparison(table: pd.DataFrame, title: str = "") -> Axes:
    """Draw rows of a `results/tables/tableN.csv` of one data set as a forest plot, in the paper's order: one line per
    row, the paper's value as an open diamond, ours as a dot with its 95 % interval, one colour per preset."""
    name = table["table"].iloc[0]
    places = {row.row: i for i, row in enumerate(paper.ROWS) if row.table == name}
    table = table.sort_values("row", kind="stable", key=lambda rows: rows.map(places))  # the paper's rows first
    table = table.assign(name=table["row"].map(name_of))
    ax = _forest(table[["name", "preset", "ours_mean", "ours_ci_low", "ours_ci_high", "paper"]], "the paper")
    ax.set_xlabel("accuracy under attack (%)" if name == "table4" else "test error (%)")
    ax.set_title(title, loc="right")  # grows over the rows' names, where a centred one would be cut off
    return ax


def effects(claims: pd.DataFrame, title: str = "") -> Axes:
    """Draw rows of `results/claims.csv` as a forest plot of paired differences, with a line at 0, no difference. A
    difference of errors below 0 means that the method helps."""
    idea = claims["claim"].map({"C1": "entropy, ", "C2": "context, ", "C3": "top-down, "}).fillna("")
    claims = claims.assign(name=idea + claims["part"] + " (" + claims["claim"] + ")")
    ax = _forest(claims[["name", "preset", "our_effect", "ci_low", "ci_high", "paper_effect"]], "the paper's effect")
    ax.axvline(0, color=GREY, lw=1, zorder=0)
    ax.set(xlabel="difference (percentage points)", title=title)
    return ax


def _forest(lines: pd.DataFrame, mark: str) -> Axes:
    """Dots with intervals, each name above its own from the top, one colour per preset, and an open diamond for the
    paper's value, called `mark` in the legend: as narrow as a phone. lines: name, preset, mean, the interval's two
    ends, and the paper's value."""
    lines = lines.set_axis(["name", "preset", "mean", "low", "high", "paper"], axis=1)
    names, presets = list(lines["name"].unique()), list(lines["preset"].unique())
    _, ax = plt.subplots(figsize=(3.6, 1.2 + 0.6 * len(names)))
    for i, preset in enumerate(presets):
        part, label = lines[lines["preset"] == preset], f"{preset} settings"
        y = part["name"].map(names.index) + (i - (len(presets) - 1) / 2) * 0.5 / len(presets)
        ends = np.stack([part["mean"] - part["low"], part["high"] - part["mean"]])
        ax.errorbar(part["mean"], y, xerr=ends, fmt="o", ms=5, lw=1.6, capsize=2.5, color=COLOURS[i], label=label)
    reported = lines.dropna(subset=["paper"]).drop_duplicates("name")
    if len(reported):
        y = reported["name"].map(names.index)
        ax.plot(reported["paper"].astype(float), y, "D", ms=8, mfc="none", mec=BLACK, mew=1.3, label=mark, zorder=5)
    ax.set_yticks(np.arange(len(names)) - 0.42, names, ha="left")
    ax.set_ylim(len(names) - 0.6, -0.7)
    ax.grid(axis="x", color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0, pad=0)
    ax.spines["left"].set_visible(False)
    legend_below(ax.figure, min(4, len(presets) + 1))
    return ax


# The budgets of readings in words.
BUDGETS = {"strong": "strong settings", "paper": "paper settings", "paper-7": "paper settings, at epoch 7"}
HOLDS = {  # what an interval holds: the paper's effect, 0 -> words, colour, mark
    (True, False): ("interval holds the paper's effect only", GREEN, "D"),
    (False, True): ("interval holds 0 only", BLUE, "o"),
    (True, True): ("interval holds both", GREY, "s"),
    (False, False): ("interval holds neither", PURPLE, "X"),  # the paper's line is vermilion
}


def specification_curve(lines: pd.DataFrame) -> str:
    """One effect under every reading and budget, sorted, with the matrix of choices below it, as SVG text whose points
    say on hover which reading they are. lines: those of one effect in `results/tables/readings.csv`."""
    lines = lines.sort_values("effect_mean")
    choices = [*lines["reading"].unique(), *(name for name in BUDGETS if name in set(lines["budget"]))]
    words_of = {name: reading.label for name, reading in READINGS.items()} | BUDGETS
    shown = [words_of.get(choice, choice) for choice in choices]
    heights = (2.6, 0.2 * len(choices))
    figure, (top, below) = plt.subplots(2, 1, figsize=(7.2, sum(heights)), sharex=True, height_ratios=heights)
    reported, told = lines["paper_effect"].iloc[0], []
    for x, line in enumerate(lines.itertuples()):
        words, colour, mark = HOLDS[line.ci_low <= reported <= line.ci_high, line.ci_low <= 0 <= line.ci_high]
        top.plot((x, x), (line.ci_low, line.ci_high), color=colour, lw=1.6)
        top.plot(x, line.effect_mean, mark, ms=6, color=colour, gid=f"point-{x}", label=words)
        interval = f"{line.effect_mean:+.1f} [{line.ci_low:+.1f}, {line.ci_high:+.1f}] points, {line.n_pairs} seeds"
        told.append(f"{shown[choices.index(line.reading)]}, {BUDGETS[line.budget]}: {interval}")
        for choice in (line.reading, line.budget):
            below.plot(x, choices.index(choice), "s", ms=4, color=colour)
    top.axhline(0, color=BLACK, lw=0.8)
    top.axhline(reported, color=VERMILION, lw=1, ls="--")
    beside = {"xycoords": ("axes fraction", "data"), "ha": "left", "va": "center"}
    top.annotate(f"paper\n{reported:+.1f}".replace("-", "−"), (1.01, reported), fontsize=9, color=VERMILION, **beside)
    top.set(ylabel="effect (points;\naxis compressed beyond ±10)")
    top.set_yscale("symlog", linthresh=10)
    marks = (-40, -20, -10, -5, 0, 5, 10, 20, 40)
    top.set_yticks(marks, [str(value).replace("-", "−") for value in marks])
    low, high = min(lines["ci_low"].min(), reported), max(lines["ci_high"].max(), 0)
    top.set_ylim(low - max(1, 0.3 * abs(low)), high + max(1, 0.3 * high))  # whole marks, also where the axis is narrow
    below.yaxis.tick_right()  # a phone shows the points first
    below.set_yticks(range(len(choices)), shown, fontsize=9)
    below.set(ylim=(len(choices) - 0.5, -0.5), xticks=[], xlim=(-0.7, len(lines) - 0.3))
    below.grid(axis="y", color="#dddddd", lw=0.6)
    legend_below(figure, 2)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()
    for x, words in enumerate(told):
        svg = svg.replace(f'<g id="point-{x}">', f"<g><title>{html.escape(words)}</title>", 1)
    ends = lines["effect_mean"].iloc[[0, -1]]
    said = f"effects from {ends.min():.1f} to {ends.max():.1f} points; paper: {reported:.1f}"
    size = f'width="100%" role="img" aria-label="{lines["reading"].nunique()} readings, {said}"'
    return re.sub(r'width="[^"]*pt" height="[^"]*pt"', size, svg[svg.index("<svg") :], count=1)


def ladder(frame: pd.DataFrame) -> Axes:
    """Draw what made RAM learn: one bar of validation error per step of `results/recipe_ladder.csv`."""
    steps = frame[frame["table"] == "table2"]
    names = [f"{textwrap.fill(line.step, 46)}\n({line.epochs:.0f} epochs)" for line in steps.itertuples()]
    _, ax = plt.subplots(figsize=(7.2, 0.8 + 0.62 * len(names)))
    bars = ax.barh(range(len(names)), steps["val_error"], color=BLUE, height=0.6)
    ax.bar_label(bars, fmt="%g %%", padding=3, fontsize=9)
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.set(xlabel="validation error of RAM with 6 glimpses (%)", xlim=(0, 1.15 * steps["val_error"].max()))
    ax.invert_yaxis()
    return ax


def canvas_cost(lines: list[dict]) -> Axes:
    """Draw what a glimpse, the pyramid and the whole unified model cost against the side of the canvas, on logarithmic
    axes (claim C9). lines: the `canvas` of `results/bench.json`."""
    labels = {"unified_ms": "unified model, 6 glimpses", "pyramid_ms": "pyramid, once per image",
              "glimpse_ms": "one glimpse"}  # fmt: skip
    costs = 1e3 * pd.DataFrame(lines).set_index("side_px")[list(labels)].rename(columns=labels)
    ax = costs.plot(style=["D-", "s-", "o-"], loglog=True, figsize=(6.4, 3.2))
    ax.set(xlabel="side of the canvas (px)", ylabel="microseconds per image")
    ax.set_xticks(costs.index, costs.index)
    ax.minorticks_off()
    return ax


def paired_slopes(pairs: list[tuple[str, list[dict], list[dict]]]) -> Sequence[Axes]:
    """Draw test errors without and with an idea as one line per seed. pairs: its name, the records without it and with
    it; each is one panel, titled with the preset, those of one preset on one scale."""
    _, axes = plt.subplots(1, len(pairs), figsize=(7.2, 2.9))
    scales = {}
    for ax, (name, *groups) in zip(axes, pairs, strict=True):
        ax.sharey(scales.setdefault(groups[0][0]["preset"], ax))
        for ends in zip(*([r["metrics"]["test_error"] for r in group] for group in in_common(*groups)), strict=True):
            ax.plot((0, 1), ends, "-o", ms=5, color=VERMILION if ends[1] > ends[0] else BLUE)
        ax.set_xticks((0, 1), ("without", "with"))
        ax.set(title=f"{name},\n{groups[0][0]['preset']} settings", xlim=(-0.25, 1.25))
    axes[0].set_ylabel("test error (%)")
    return axes
