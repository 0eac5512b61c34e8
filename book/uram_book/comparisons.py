"""Rows compared with rows, paired by seed and test image: the claims, the readings, the factorial of the ideas."""

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd

from uram_lib import data, paper
from uram_lib.config import Config
from uram_lib.experiments import PRESETS, READINGS, experiment
from uram_lib.runs.records import dataset_name, unpack, wrong

from . import statistics
from .statistics import Estimate

CLAIM_COLUMNS = ["claim", "part", "preset", "source", "statement", "paper_effect", "our_effect", "ci_low", "ci_high",
                 "n_pairs", "verdict", "evidence"]  # fmt: skip
READING_COLUMNS = ["effect", "reading", "budget", "n_pairs", "effect_mean", "ci_low", "ci_high", "paper_effect", "note"]
# What each table is published on: the paper's data set, or what stands in for it where that was not at hand.
PUBLISHED_ON = paper.DATASETS | {"table3": "composed-jpeg", "table4": "cifar10-jpeg"}
EARLY = 7  # the epoch of the short budget at paper settings
# The paper's effects on Table 2 at 6 glimpses: (row with, row without).
EFFECTS = {
    "top-down": ("ours-6", "ram-6"),
    "entropy": ("ours-6-entropy", "ours-6"),
    "context": ("ours-6-entropy-context", "ours-6-entropy"),
    "all": ("ours-6-entropy-context", "ram-6"),
}
MAIN = "main reading"
IDEAS = ("top-down", "entropy", "context")
# Table 2's rows with 6 glimpses by which of the ideas they have.
COMBINATIONS = {has: "-".join(("ours-6" if has[0] else "ram-6", *itertools.compress(IDEAS[1:], has[1:])))
                for has in itertools.product((False, True), repeat=3)}  # fmt: skip


def by_cell(records: list[dict], table: str | None = None) -> dict[tuple[str, str, str, str], list[dict]]:
    """Records, all or those of one table, grouped by (table, preset, data set, row); each group ordered by seed."""
    cell = lambda r: (r["table"], r["preset"], dataset_name(r), r["row"])  # noqa: E731
    found = sorted((r for r in records if table in (None, r["table"])), key=lambda r: (*cell(r), r["seed"]))
    return {key: list(group) for key, group in itertools.groupby(found, cell)}


def outcomes(records: list[dict]) -> np.ndarray:
    """(seeds, images): shares of wrong answers, or of right ones where the metric is an accuracy."""
    return wrong(records) if paper.metric(records[0]["table"]) == "error" else 1 - wrong(records)


def standing(record: dict, attacks: Iterable[str]) -> np.ndarray:
    """(images,) bool: which images of a row of Table 4 are right and none of `attacks` breaks."""
    outcomes = record["metrics"]["outcomes"]
    left = unpack(outcomes["clean"])
    for outcome in (unpack(outcomes[name]) for name in attacks if name in outcomes):
        left[: len(outcome)] &= outcome  # some attacks are tried on the first images alone
    return left


def in_common(*groups: list[dict]) -> list[list[dict]]:
    """Each group's records of the seeds that all groups have."""
    shared = set.intersection(*({r["seed"] for r in group} for group in groups))
    return [[r for r in group if r["seed"] in shared] for group in groups]


def compared(*groups: list[dict]) -> list[list[dict]]:
    """Each group's records of the seeds that all groups have; none where rows were trained unlike in more than their
    experiments are. While a table is trained anew, an old row would else be compared with a new one."""
    groups = in_common(*groups)
    if not groups[0]:
        return groups
    firsts = [group[0] for group in groups]
    found = [dataclasses.asdict(Config.read(r["config"])) for r in firsts]
    meant = [dataclasses.asdict(experiment(r["table"], r["row"], r["preset"], dataset_name(r)).config) for r in firsts]
    differing = lambda of: {name for name in of[0] if any(one[name] != of[0][name] for one in of)}  # noqa: E731
    return groups if differing(found) <= differing(meant) else [[] for _ in groups]


# What a contrast may be measured in: of the records of one row (seeds, images) where it is paired by image, too, in
# percent of them, or a value per seed.
MEASURES = {
    "outcome": outcomes,
    "harm of clutter": outcomes,  # what the table's clutter adds over fewer pieces: the same digits at other places
    # Read rightly from some start locations and wrongly from others.
    "depends on the start": lambda group: ((0 < wrong(group)) & (wrong(group) < 1)).astype(float),
    # In percent of the patches that the policy chose, so without the start; records hold means over images.
    "blank patches": lambda group: [np.mean(r["metrics"]["blank_patch_percent"][1:]) for r in group],
    "spread over seeds": lambda group: [r["metrics"]["test_error"] for r in group],
}


def difference(measure: str, better: list[dict], worse: list[dict], *fewer: list[dict]) -> Estimate | None:
    """The measure of the better row minus that of the worse; of a spread its change in percent. fewer: for the harm of
    clutter, their records on fewer pieces. None where there are too few pairs to tell."""
    if not better:
        return None
    ours, theirs, *before = map(MEASURES[measure], (better, worse, *fewer))
    if before:
        ours, theirs = ours - before[0], theirs - before[1]
    if np.ndim(ours) == 2:
        return statistics.paired_difference(ours, theirs)
    if len(ours) < 2:
        return None
    if measure == "spread over seeds":
        return statistics.spread_change(ours, theirs) if np.ptp(theirs) > 0 else None
    return statistics.t_interval(np.subtract(ours, theirs))


def claims(records: list[dict], bench: dict | None = None) -> pd.DataFrame:
    """One line per part of a claim and preset that published records on the paper's data set, or on a copy that `part`
    then names, bear on; `CLAIM_COLUMNS`. bench: of `make bench`, for costs.

    Effects are `better` minus `worse`, in percentage points (a change of spread is in percent, a cost an exponent).
    Where the paper gives no number to compare with, `paper_effect` is empty and the verdict rests on the sign. Where
    there are records on generated data alone, which `evidence` names, the verdict is `not testable here`.
    """
    cells, lines = by_cell(records), []
    for claim in paper.CLAIMS:
        for contrast, preset in itertools.product(claim.contrasts, (*PRESETS, "bench")):
            found = growth(contrast, bench) if preset == "bench" else judged(contrast, preset, cells)
            if found:
                part, reported, ours, verdict, evidence = found
                lines.append((claim.claim, part, preset, contrast.source, claim.statement, reported, ours.mean,
                              ours.low, ours.high, ours.n, verdict, evidence))  # fmt: skip
    return pd.DataFrame(lines, columns=CLAIM_COLUMNS)


def growth(contrast: paper.Contrast, bench: dict | None) -> tuple | None:
    """How a cost grows with the number of pixels: the effect is an exponent, and what is counted are canvas sizes."""
    if not bench or not contrast.measure.startswith("cost of "):
        return None
    lines, key = bench["canvas"], contrast.measure.removeprefix("cost of ")
    ours = statistics.exponent([line["side_px"] ** 2 for line in lines], [line[key] for line in lines])
    return contrast.part, None, ours, statistics.direction_verdict(ours, statistics.FLAT), "results/bench.json"


def judged(contrast: paper.Contrast, preset: str, cells: dict) -> tuple | None:
    """One contrast at one preset: part, paper's effect, ours, verdict, evidence; None where the records do not tell."""
    table, rows, main = contrast.table, [contrast.better, contrast.worse], PUBLISHED_ON[contrast.table]
    # RAM's protocol has 8 pieces where Table 2 has 10 (ledger F1).
    fewer = [f"{row}@8-pieces" for row in rows] if contrast.measure == "harm of clutter" else []
    groups = compared(*(cells.get((table, preset, home_of(table, row), row), []) for row in rows + fewer))
    ours = difference(contrast.measure, *groups)
    if ours is None:
        return None
    reported, verdict = None, statistics.direction_verdict(ours)
    if contrast.measure == "outcome":
        reported = round(paper.row(table, contrast.better).value - paper.row(table, contrast.worse).value, 4)
        verdict = statistics.claim_verdict(ours, reported)
    if main not in (paper.DATASETS[table], *data.COPIES):
        verdict = "not testable here"
    part = f"{contrast.part}, {data.about(main).title}" if main in data.COPIES else contrast.part
    evidence = f"results/runs/{table}/{preset}/{main}/{{{contrast.worse},{contrast.better}}}"
    if table == "table4":  # which attacks broke the most images
        for row in rows[::-1]:
            names = sorted({r["metrics"]["decided_by"] for r in cells[table, preset, main, row]})
            evidence += f"; {row} broken most by {' or '.join(names)}"
    return part, reported, ours, verdict, evidence


def home_of(table: str, row: str) -> str:
    """The data set that a row is published on: its reading's, or its table's."""
    reading = READINGS.get(row.partition("@")[2])
    return (reading.changes if reading else {}).get("dataset", PUBLISHED_ON[table])


def cells_of_table2(records: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """(preset, row) -> records on the row's own canvases: others do not count."""
    return {(at, row): group for (_, at, on, row), group in by_cell(records, "table2").items()
            if on == home_of("table2", row)}  # fmt: skip


def rows_under(reading: str, effect: str) -> tuple[str, str] | None:
    """The two rows whose difference is `effect` under a reading, each read so where the reading has it; None where
    it leaves the row with the effect as it is. A start that is bounded and not chosen counts as a chooser's row."""
    better, worse = EFFECTS[effect]
    if reading == MAIN:
        return better, worse
    known = READINGS[reading]
    if known.table != "table2":
        return None
    if effect == "top-down" and "start" in known.changes:  # what a perfect or blind chooser would gain
        return f"ram-6@{reading}", worse
    if better not in known.rows:  # a change of the row without alone says nothing of the effect
        return None
    return f"{better}@{reading}", f"{worse}@{reading}" if worse in known.rows else worse


def readings(records: list[dict]) -> pd.DataFrame:
    """One line per effect, reading and budget with two pairs of runs or more, `READING_COLUMNS`, in points of error.

    Intervals are those of every comparison, of the reading's own pairs of seeds and of test images. The budget
    `paper-7` is the validation error after epoch 7 of the same runs; records do not hold which validation images were
    wrong, so its intervals are over seeds alone.
    """
    cells, lines = cells_of_table2(records), []
    budgets = (("paper", "paper"), (f"paper-{EARLY}", "paper"), ("strong", "strong"))
    for effect, (budget, preset), reading in itertools.product(EFFECTS, budgets, (MAIN, *READINGS)):
        rows = rows_under(reading, effect)
        pairs = compared(*(cells.get((preset, row), []) for row in rows)) if rows else [[]]
        if len(pairs[0]) < 2:
            continue
        if budget == preset:
            found, note = statistics.paired_difference(*map(wrong, pairs)), ""
        else:
            early = [[r["curves"]["val_error"][EARLY - 1] for r in runs] for runs in pairs]
            found, note = statistics.t_interval(np.subtract(*early)), "validation error, over seeds alone"
        better, worse = (paper.row("table2", row).value for row in EFFECTS[effect])
        interval = (found.n, found.mean, found.low, found.high)
        lines.append((effect, reading, budget, *interval, round(better - worse, 4), note))
    return pd.DataFrame(lines, columns=READING_COLUMNS)


def main_effect(records: list[dict], preset: str, idea: str) -> Estimate | None:
    """What an idea changes on the mean of the other two's four settings, paired by seed; None without all eight."""
    cells, i = cells_of_table2(records), IDEAS.index(idea)
    pairs = [(row, COMBINATIONS[*has[:i], False, *has[i + 1 :]]) for has, row in COMBINATIONS.items() if has[i]]
    groups = compared(*(cells.get((preset, row), []) for pair in pairs for row in pair))
    if not groups[0]:
        return None
    shares = np.stack([outcomes(group) for group in groups])  # (2 pairs, seeds, images), with, without in turn
    return statistics.paired_difference(shares[::2].mean(0), shares[1::2].mean(0))


def factorial(records: list[dict], presets: Iterable[str]) -> pd.DataFrame:
    """The eight combinations of the ideas: error in percent at each preset with its interval, then the main effects."""
    cells = cells_of_table2(records)
    frame = pd.DataFrame(index=[*COMBINATIONS.values(), *(f"main effect of {idea}" for idea in IDEAS)])
    for preset in presets:
        groups = [cells.get((preset, row)) for row in COMBINATIONS.values()]
        errors = [f"{statistics.estimate(outcomes(group))}" if group else "not measured" for group in groups]
        effects = [main_effect(records, preset, idea) for idea in IDEAS]
        errors += [f"{found:+}" if found else "not measured" for found in effects]
        frame[f"error (%), {preset} settings"] = errors
    return frame.rename_axis(columns="model")


def with_header(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The frame with a column as its index, named in the only row of headers: an index's name would take a second."""
    return frame.set_index(column).rename_axis(index=None, columns=column)
