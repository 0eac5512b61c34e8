"""The numbers that the book states: each has a name, is read from `results/`, and prints alike on every page.

A template writes `{{ error("table2", "ram-6", "paper") }}`; `KINDS` are the kinds of numbers that it can ask for.
"""

import functools
import math
from pathlib import Path

import numpy as np
import pandas as pd

from uram_lib import UramError, paper
from uram_lib.common import RESULTS, read_json
from uram_lib.experiments import READINGS
from uram_lib.runs.progress import count
from uram_lib.runs.records import load_records, wrong

from . import statistics, tables
from .comparisons import by_cell, home_of, in_common, main_effect
from .statistics import Estimate

SETTINGS = {"paper": "paper settings", "strong": "strong settings", "bench": "benchmark"}
SPACE, MINUS, NOT_YET = "\u00a0", "−", "not measured"


class Missing(UramError):
    """A number that no record gives yet."""


def number(value: float, form: str) -> str:
    """A number as a format specification has it, with a true minus; a dash where there is none."""
    return f"{value:{form}}".replace("-", MINUS) if math.isfinite(value) else "–"


def plain(value: float, like: float | None = None) -> str:
    """Two decimals below 10, one from there on; `like` is the number whose decimals are taken."""
    return number(value, f".{2 if abs(value if like is None else like) < 9.995 else 1}f")


def signed(value: float, like: float | None = None) -> str:
    """The same with its sign, and three decimals where two would print as 0.00: an interval may end just beside 0."""
    if 0.0005 <= abs(value) < 0.005:
        return number(value, "+.3f")
    return ("+" if value > 0 else "") + plain(value, like)


def with_interval(value: Estimate, form=signed) -> str:
    """As in `29.9 [25.4, 34.4]`, never broken inside the brackets; the mean alone where there is no interval."""
    if not math.isfinite(value.low):
        return form(value.mean)
    return f"{form(value.mean)} [{form(value.low, value.mean)},{SPACE}{form(value.high, value.mean)}]"


def whole(value: float) -> str:
    return number(value, ",.0f")


def percent(value: float, form=plain) -> str:
    return f"{form(value)}{SPACE}%"


def commit_of(state: dict) -> str:
    """The commit that something was made with; a dagger where the library had been edited."""
    return f"`{state['git_commit'][:8]}`" + (f"{SPACE}†" if state["dirty"] else "")


class Facts:
    """Everything that `results` says."""

    def __init__(self, results: Path = RESULTS):
        self.results = results

    @functools.cache  # noqa: B019 (one object a process: `pages.published`)
    def frame(self, name: str) -> pd.DataFrame:
        """A CSV file of `results`; an empty frame where it is not there yet."""
        return tables.read(name, self.results)

    def line(self, name: str, **wanted: str) -> pd.Series:
        """The first line of a CSV file with these values. Raises Missing where there is none."""
        lines = self.frame(name)
        if len(lines):
            lines = lines[(lines[list(wanted)] == pd.Series(wanted)).all(axis=1)]
        if not len(lines):
            raise Missing(f"{name}.csv has no line of {', '.join(wanted.values())}")
        return lines.iloc[0]

    bench = functools.cached_property(lambda self: read_json(self.results / "bench.json"))
    records = functools.cached_property(lambda self: load_records(self.results / "runs"))
    cells = functools.cached_property(lambda self: by_cell(self.records))
    quick = functools.cached_property(lambda self: load_records(self.results / "quick"))  # of small budgets
    # Rows, as in `table2/ram-6`, whose runs at strong settings were made with another recipe than today's.
    older = functools.cached_property(lambda self: tables.of_older_recipe(self.records))

    def runs_of(self, table: str, preset: str, row: str) -> list[dict]:
        """The records of a row on the data that it is published on."""
        return self.cells.get((table, preset, home_of(table, row), row), [])

    def metrics(self, table: str, preset: str, row: str, name: str) -> float:
        """The mean of a metric over the runs of a row. Raises Missing where none has it."""
        found = [r["metrics"][name] for r in self.runs_of(table, preset, row) if name in r["metrics"]]
        return mean_of(found, f"runs of {table}/{row} at {preset} settings with {name}")

    def rollouts(self, table: str, preset: str, row: str) -> float:
        """Millions of rollouts that a run of a row took in training, the mean over its runs."""
        found = [r["provenance"]["rollouts"] / 1e6 for r in self.runs_of(table, preset, row)]
        return mean_of(found, f"runs of {table}/{row} at {preset} settings")

    def row(self, table: str, row: str, preset: str) -> Estimate:
        """The error (Table 4: robust accuracy) of a row, which may be a reading."""
        found = self.line(f"tables/{table}", row=row, preset=preset, dataset=home_of(table, row))
        found = found.fillna({"verdict": ""})
        return Estimate(*found[["ours_mean", "ours_ci_low", "ours_ci_high", "n_seeds", "verdict"]])

    def contrast(self, claim: str, part: str) -> paper.Contrast:
        """What a part of a claim compares."""
        known = [c for one in paper.CLAIMS if one.claim == claim for c in one.contrasts]
        for found in known:
            if part.startswith(found.part):  # a copy of the data is named behind it
                return found
        raise UramError(f"claim {claim!r} has no part {part!r}; one of: {'; '.join(c.part for c in known)}")

    def claim(self, claim: str, part: str, preset: str | None = None) -> Estimate:
        """The effect behind a part of a claim, its verdict, and the paper's effect, which is the same at any preset."""
        self.contrast(claim, part)  # refuses an unknown one
        found = self.line("claims", claim=claim, part=part, **{"preset": preset} if preset else {})
        return Estimate(*found[["our_effect", "ci_low", "ci_high", "n_pairs", "verdict", "paper_effect"]])

    def under(self, effect: str, reading: str, budget: str = "paper") -> Estimate:
        """An effect (`top-down`, `entropy`, `context`, `all`) under one reading."""
        found = self.line("tables/readings", effect=effect, reading=reading, budget=budget)
        return Estimate(*found[["effect_mean", "ci_low", "ci_high", "n_pairs"]], paper=found["paper_effect"])

    def unsure(self, effect: str, reading: str, budget: str = "paper") -> bool:
        """Whether the interval of an effect under a reading holds 0."""
        found = self.under(effect, reading, budget)
        return found.low <= 0 <= found.high

    def answer(self, effect: str, budget: str = "paper") -> dict[str, int | str]:
        """Of an effect's readings with enough pairs of runs, without the starts that no chooser chose: how many there
        are, in how many the paper's size is reached, in how many the sign agrees, in how many it surely does, and which
        lies `farthest` from the main reading."""
        self.line("tables/readings", effect=effect, budget=budget)  # there is one, or it is Missing
        lines = self.frame("tables/readings").query("effect == @effect and budget == @budget")
        lines = lines[lines["n_pairs"] >= statistics.FEWEST]
        lines = lines[~lines["reading"].isin([name for name, one in READINGS.items() if "start" in one.changes])]
        lines = lines.set_index("reading")
        farthest = (lines["effect_mean"] - self.under(effect, "main reading", budget).mean).abs().idxmax()
        return {"readings": len(lines), "farthest": farthest,
                "reached": int((lines["effect_mean"] <= lines["paper_effect"]).sum()),
                "same_sign": int((lines["effect_mean"] < 0).sum()),
                "sure": int((lines["ci_high"] < 0).sum())}  # fmt: skip

    def runs(self) -> list[dict]:
        """What each published row rests on and took, for the chapter on provenance."""
        letters, lines = {}, []  # of machines
        for (table, preset, dataset, row), runs in self.cells.items():
            made = pd.DataFrame([r["provenance"] for r in runs])
            sessions = [p for r in runs for p in r["provenance"].get("sessions", [r["provenance"]])]
            used = [f"{p['processor']}, {count(p['threads'], 'thread')}, Python {p['python']}, torch {p['torch']}"
                    for p in sessions]  # fmt: skip
            lines.append({
                "table": table, "preset": preset, "dataset": dataset, "row": row, "runs": len(runs),
                "seeds": ", ".join(str(r["seed"]) for r in runs),
                "commits": ", ".join(sorted({commit_of(r["provenance"]) for r in runs})),
                "machines": {letters.setdefault(name, chr(65 + len(letters))): name for name in used},
                "rollouts": made["rollouts"].mean() / 1e6,
                "minutes": made["wall_seconds"].mean() / 60,
                "attacks": np.mean([attack_seconds(r) for r in runs]) / 60,
                "accelerated": any(map(on_accelerator, runs)),
                "hours": (made["threads"] * made["wall_seconds"]).sum() / 3600,
            })  # fmt: skip
        return lines

    def recipe_of(self, preset: str, table: str, *rows: str) -> str:
        """What to say behind a number of these rows: nothing where today's recipe made it."""
        return ", old recipe" if preset == "strong" and any(f"{table}/{row}" in self.older for row in rows) else ""

    def change(self, row: str, other: str = "", preset: str = "") -> Estimate:
        """The error of a reading, as in `ours-6@softmax`, minus that of the row that it changes, or of another row.
        preset: `paper` on Table 2 and `strong` on others where none is given."""
        base, _, name = row.partition("@")
        table = READINGS[name].table
        preset = preset or ("paper" if table == "table2" else "strong")
        pair = in_common(*(self.runs_of(table, preset, one) for one in (row, other or base)))
        if not pair[0]:
            raise Missing(f"no runs of {row} beside runs of {other or base}")
        return statistics.paired_difference(*map(wrong, pair))

    def tested_change(self, table: str, preset: str, row: str, other: str, metric: str) -> Estimate:
        """Of another way of testing, a metric of the records: a row's error minus another's. Records do not hold which
        images it misreads, so the interval is over pairs of seeds alone."""
        runs = ([r for r in self.runs_of(table, preset, one) if metric in r["metrics"]] for one in (row, other))
        pairs = list(zip(*in_common(*runs), strict=True))
        if len(pairs) < 2:
            raise Missing(f"no two runs of {row} beside runs of {other} with {metric}")
        return statistics.t_interval([one["metrics"][metric] - two["metrics"][metric] for one, two in pairs])

    def side(self, row: str, other: str = "", preset: str = "") -> str:
        """On which side of 0 the interval of such a change lies: `below`, `above`, or `across` it."""
        found = self.change(row, other, preset)
        return "below" if found.high < 0 else "above" if found.low > 0 else "across"

    def main_effect(self, idea: str, preset: str) -> Estimate:
        """What an idea changes on the mean of the other two's four settings, Table 2 with 6 glimpses."""
        if not (found := main_effect(self.records, preset, idea)):
            raise Missing(f"not all eight combinations have runs at {preset} settings")
        return found

    def reaches(self, row: str, other: str, claim: str, part: str) -> bool:
        """Whether a reading lowers the error below that of another row, and by the effect that the paper claims."""
        paper_effect = self.claim(claim, part, "paper").paper
        return self.side(row, other) == "below" and self.change(row, other).mean <= paper_effect

    def chosen(self, preset: str, paid: str = "outcome", row: str = "") -> float:
        """The share of test canvases whose digit lies in the chosen region: the mean over the runs of Table 2 without
        context and readings whose chooser is paid so, or over those of one row."""
        found = [
            r["metrics"]["top_down"]["in_region_percent"]
            for r in self.records
            if (r["table"], r["preset"]) == ("table2", preset) and "top_down" in r["metrics"]
            and (r["row"] == row if row else "@" not in r["row"] and "context" not in r["row"])
            and r["config"].get("chooser_reward", "outcome") == paid
        ]  # fmt: skip
        return mean_of(found, f"runs at {preset} settings with such a chooser")

    def look(self, what: str, row: str, preset: str = "paper") -> float:
        """A number of `uram_book.looks`, in percent of the canvases: how often Z `repeats` a wrong label that it hears,
        or the `error at 5 px`, where the digit is 5 ± 5 px from the start."""
        return self.line("tables/looks", what=what, row=row, preset=preset)["value"]

    def away(self, row: str, glimpse: int, preset: str, what: str = "glimpse_distance_px") -> float:
        """Mean pixels from a glimpse, counted from 1, of a row of Table 2 to the digit's centre, or another of the
        record's numbers of each glimpse."""
        runs = self.runs_of("table2", preset, row)
        return mean_of([r["metrics"][what][glimpse - 1] for r in runs], f"runs of {row}")

    def hours(self, accelerated: bool) -> float:
        """Of all published runs, what was done on processors, in hours of a core, or on accelerators: the training
        counts where most of its epochs were made, the attacks where they ended."""
        made = [(on_accelerator(r), r["provenance"]["wall_seconds"], r) for r in self.records]
        made += [(r["provenance"]["device"] != "cpu", attack_seconds(r), r) for r in self.records]
        return sum(seconds * r["provenance"]["threads"] for there, seconds, r in made if there == accelerated) / 3600

    def value(self, kind: str, *names: str) -> float:
        """A number of KINDS, for a condition."""
        return KINDS[kind][0](self, *names).mean

    def text(self, kind: str, *names: str) -> str:
        """One number as every page prints it."""
        read, form = KINDS[kind]
        return NAMED[names[0]][1](self.value(kind, *names)) if kind == "fact" else form(read(self, *names))


def mean_of(values: list[float], what: str) -> float:
    """Raises Missing where there are none."""
    if not values:
        raise Missing(f"no {what}")
    return float(np.mean(values))


def on_accelerator(record: dict) -> bool:
    """Whether most epochs of a run, of which each session says where it began, were made on one."""
    made = record["provenance"]
    sessions = made.get("sessions", [made])
    starts = [s.get("from_epoch", 0) for s in sessions] + [len(record["curves"]["val_error"])]
    epochs = [after - before for before, after in zip(starts, starts[1:], strict=False)]
    return sessions[epochs.index(max(epochs))]["device"] != "cpu"


def attack_seconds(record: dict) -> float:
    return sum(record["provenance"].get("attack_seconds", {}).values())


BLANK = "blank_patch_percent"
_WHOLE_PERCENT = functools.partial(percent, form=whole)
_PIXELS = lambda value: f"{plain(value)}{SPACE}px"  # noqa: E731
# Numbers that are no row and no claim: name -> how it is computed, and how it prints.
NAMED = {
    "runs": (lambda facts: len(facts.records), whole),
    "core-hours": (lambda facts: facts.hours(False), whole),
    "GPU minutes": (lambda facts: 60 * facts.hours(True), whole),
    "chosen quarter, paper": (lambda facts: facts.chosen("paper"), _WHOLE_PERCENT),
    "chosen quarter, early": (lambda facts: facts.chosen("strong", "early"), _WHOLE_PERCENT),
    "chosen quarter, outcome": (lambda facts: facts.chosen("strong", row="ours-6@outcome-reward"), _WHOLE_PERCENT),
    "leak, paper": (lambda facts: facts.look("repeats", "ours-6-entropy-context"), _WHOLE_PERCENT),
    "leak without labels": (lambda facts: facts.look("repeats", "ours-6-entropy-context", "strong"), _WHOLE_PERCENT),
    "at 5 px, image centre": (lambda facts: facts.look("error at 5 px", "ram-6@image-centre"), percent),
    "at 5 px, true quarter": (lambda facts: facts.look("error at 5 px", "ram-6@true-quadrant"), percent),
    "at 25 px, image centre": (lambda facts: facts.look("error at 25 px", "ram-6@image-centre"), percent),
    "at 25 px, true quarter": (lambda facts: facts.look("error at 25 px", "ram-6@true-quadrant"), percent),
    "third glimpse, RAM": (lambda facts: facts.away("ram-6", 3, "strong"), _PIXELS),
    "third glimpse, URAM": (lambda facts: facts.away("ours-6", 3, "strong"), _PIXELS),
    "first glimpse, two choices": (lambda facts: facts.away("ours-6@two-levels", 1, "paper"), _PIXELS),
    "second glimpse, two choices": (lambda facts: facts.away("ours-6@two-levels", 2, "paper"), _PIXELS),
    "blank, strong settings": (lambda facts: facts.away("ours-6", 6, "strong", BLANK), percent),
    "last glimpse, as printed": (lambda facts: facts.away("ours-6-entropy", 6, "paper"), _PIXELS),
    "last glimpse, as meant": (lambda facts: facts.away("ours-6-entropy@intent", 6, "paper"), _PIXELS),
    "blank, as printed": (lambda facts: facts.away("ours-6-entropy", 6, "paper", BLANK), _WHOLE_PERCENT),
    "blank, as meant": (lambda facts: facts.away("ours-6-entropy@intent", 6, "paper", BLANK), _WHOLE_PERCENT),
    "chosen sixteenth": (lambda facts: facts.chosen("paper", row="ours-6@two-levels"), _WHOLE_PERCENT),
    "flat": (lambda _: statistics.FLAT, plain),
}
# What a template can ask for: kind -> how it is read, and how it prints.
KINDS = {
    "error": (Facts.row, lambda found: percent(found.mean)),
    "reported": (lambda _, *row: Estimate(paper.row(*row).value), lambda found: f"{found.mean:g}{SPACE}%"),
    "effect": (Facts.claim, with_interval),
    "reported_effect": (lambda facts, *names: Estimate(facts.claim(*names).paper),
                        lambda found: number(found.mean, "+.4g")),
    "reading": (Facts.under, with_interval),
    "reported_reading": (lambda facts, *names: Estimate(facts.under(*names).paper),
                         lambda found: number(found.mean, "+.4g")),
    "change": (Facts.change, with_interval),
    "main_effect": (Facts.main_effect, with_interval),
    # The error under another way of testing, a metric of the records.
    "tested": (lambda facts, *which: Estimate(facts.metrics(*which)), lambda found: percent(found.mean)),
    "tested_change": (Facts.tested_change, with_interval),
    "fact": (lambda facts, name: Estimate(NAMED[name][0](facts)), None),  # each of NAMED in its own way
}  # fmt: skip
