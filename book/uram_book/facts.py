"""The numbers that the book states: each has a name, is read from `results/`, and prints alike on every page.

A template writes `{{ error("table2", "ram-6", "paper") }}`; `KINDS` are the kinds of numbers that it can ask for.
"""

import functools
import math
from pathlib import Path

import numpy as np
import pandas as pd

from uram_lib import UramError, paper
from uram_lib.experiments import READINGS
from uram_lib.paths import RESULTS, read_json
from uram_lib.progress import count
from uram_lib.records import load_records, wrong

from . import statistics, tables
from .comparisons import by_cell, canvases_of, in_common, published_on
from .statistics import Estimate

SETTINGS = {"paper": "paper settings", "strong": "strong settings", "bench": "benchmark"}
PUBLISHED_PRESETS = ("paper", "strong")
SPACE, MINUS, NOT_YET = "\u00a0", "−", "not measured"


class Missing(UramError):
    """A number that no record gives yet."""


def plain(value: float, like: float | None = None) -> str:
    """Two decimals below 10, one from there on; `like` is the number whose decimals are taken."""
    like = value if like is None else like
    return f"{value:.{2 if abs(like) < 9.995 else 1}f}".replace("-", MINUS)


def signed(value: float, like: float | None = None) -> str:
    """The same with its sign, and three decimals where two would print as 0.00: an interval may end just beside 0."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:+.3f}" if 0.0005 <= abs(value) < 0.005 else ("+" if value > 0 else "") + plain(value, like)
    return text.replace("-", MINUS)


def with_interval(value: Estimate, form=signed) -> str:
    """As in `29.9 [25.4, 34.4]`, never broken inside the brackets; the mean alone where there is no interval."""
    if not math.isfinite(value.low):
        return form(value.mean)
    return f"{form(value.mean)} [{form(value.low, value.mean)},{SPACE}{form(value.high, value.mean)}]"


def whole(value: float) -> str:
    return f"{value:,.0f}".replace("-", MINUS)


def commit_of(state: dict) -> str:
    """The commit that something was made with; a dagger where the library had been edited."""
    return f"`{state['git_commit'][:8]}`" + ("\u00a0†" if state["dirty"] else "")


def machine_of(made: dict) -> str:
    return f"{made['processor']}, {count(made['threads'], 'thread')}, Python {made['python']}, torch {made['torch']}"


class Facts:
    """Everything that `results` says."""

    def __init__(self, results: Path = RESULTS):
        self.results = results

    @functools.cache  # noqa: B019 (one object per build)
    def frame(self, name: str) -> pd.DataFrame:
        """A CSV file of `results`; an empty frame where it is not there yet."""
        return tables.read(name, self.results)

    def line(self, name: str, **wanted: str) -> pd.Series:
        """The first line of a CSV file with these values. Raises Missing where there is none."""
        lines = self.frame(name)
        for column, value in wanted.items():
            lines = lines[lines[column] == value] if len(lines) else lines
        if not len(lines):
            raise Missing(f"{name}.csv has no line of {', '.join(wanted.values())}")
        return lines.iloc[0]

    @functools.cached_property
    def bench(self) -> dict | None:
        return read_json(self.results / "bench.json")

    @functools.cached_property
    def records(self) -> list[dict]:
        return load_records(self.results / "runs")

    @functools.cached_property
    def quick(self) -> list[dict]:
        """Records of small budgets."""
        return load_records(self.results / "quick")

    def metrics(self, table: str, preset: str, row: str, name: str) -> float:
        """The mean of a metric over the runs of a row on its table's own data. Raises Missing where none has it."""
        wanted = (table, preset, canvases_of(row, self.home(table)), row)
        found = [r["metrics"][name] for r in by_cell(self.records).get(wanted, []) if name in r["metrics"]]
        if not found:
            raise Missing(f"no runs of {table}/{row} at {preset} settings with {name}")
        return float(np.mean(found))

    def home(self, table: str) -> str:
        """The data set that a table is published on."""
        lines = self.frame(f"tables/{table}").reindex(columns=["table", "preset", "dataset", "row"])
        return published_on(table, lines.itertuples(index=False))

    def row(self, table: str, row: str, preset: str) -> Estimate:
        """The error (Table 4: robust accuracy) of a row, which may be a reading."""
        found = self.line(f"tables/{table}", row=row, preset=preset, dataset=self.home(table))
        verdict = "" if pd.isna(found["verdict"]) else found["verdict"]
        return Estimate(found["ours_mean"], found["ours_ci_low"], found["ours_ci_high"], found["n_seeds"], verdict)

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

    def unsure(self, effect: str, reading: str) -> bool:
        """Whether the interval of an effect under a reading holds 0."""
        found = self.under(effect, reading)
        return found.low <= 0 <= found.high

    def answer(self, effect: str) -> dict[str, int]:
        """Of an effect's readings with enough pairs of runs, without the starts that no chooser chose: how many there
        are, in how many the paper's size is reached, and in how many the sign agrees."""
        self.line("tables/readings", effect=effect, budget="paper")  # there is one, or it is Missing
        lines = self.frame("tables/readings").query("effect == @effect and budget == 'paper'")
        lines = lines[lines["n_pairs"] >= statistics.FEWEST]
        lines = lines[~lines["reading"].isin([name for name, one in READINGS.items() if "start" in one.changes])]
        return {"readings": len(lines), "reached": int((lines["effect_mean"] <= lines["paper_effect"]).sum()),
                "same_sign": int((lines["effect_mean"] < 0).sum())}  # fmt: skip

    def runs(self) -> list[dict]:
        """What each published row rests on and took, for the chapters on provenance and compute."""
        machines, lines = [], []
        mean = lambda values: sum(values) / len(values)  # noqa: E731
        for (table, preset, dataset, row), runs in by_cell(self.records).items():
            made, metrics = [r["provenance"] for r in runs], [r["metrics"] for r in runs]
            used = list(dict.fromkeys(map(machine_of, made)))
            machines += [name for name in used if name not in machines]
            main = "test_error" if "test_error" in metrics[0] else "robust_accuracy"
            lines.append({
                "table": table, "preset": preset, "dataset": dataset, "row": row, "runs": len(runs),
                "seeds": ", ".join(str(r["seed"]) for r in runs), "error": plain(mean([m[main] for m in metrics])),
                "commits": ", ".join(sorted(set(map(commit_of, made)))),
                "machines": {chr(65 + machines.index(name)): name for name in used},
                "rollouts": mean([p["rollouts"] for p in made]) / 1e6,
                "minutes": mean([p["wall_seconds"] for p in made]) / 60,
                "attacks": mean([sum(p.get("attack_seconds", {}).values()) for p in made]) / 60,
                "hours": sum(p["threads"] * p["wall_seconds"] for p in made) / 3600,
            })  # fmt: skip
        return lines

    @functools.cached_property
    def older(self) -> list[str]:
        """Rows, as in `table2/ram-6`, whose runs at strong settings were made with another recipe than today's."""
        return tables.of_older_recipe(self.records)

    def recipe_of(self, preset: str, table: str, *rows: str) -> str:
        """What to say behind a number of these rows: nothing where today's recipe made it."""
        return ", old recipe" if preset == "strong" and any(f"{table}/{row}" in self.older for row in rows) else ""

    @functools.cached_property
    def differences(self) -> list[tuple[str, str, str, Estimate]]:
        """What each reading does to the row that it changes: (row, ledger code, words, error under it minus ours)."""
        made, cells = [], by_cell(self.records)
        for (table, preset, _, row), runs in cells.items():
            base, _, name = row.partition("@")
            ours = cells.get((table, preset, paper.DATASETS[table], base), [])
            runs, ours = in_common(runs, ours)
            if name in READINGS and ours and preset == ("paper" if table == "table2" else "strong"):
                found = statistics.paired_difference(wrong(runs), wrong(ours))
                made.append((row, READINGS[name].ledger, f"{READINGS[name].label} (`{base}`)", found))
        return made

    def change(self, row: str) -> Estimate:
        """What a reading, as in `ours-6@softmax`, does to the row that it changes."""
        for name, _, _, found in self.differences:
            if name == row:
                return found
        raise Missing(f"no runs of {row} beside runs of the main reading")

    def value(self, kind: str, *names: str) -> Estimate:
        """The number behind a text of KINDS."""
        return KINDS[kind][0](self, *names)

    def text(self, kind: str, *names: str) -> str:
        """One number as every page prints it."""
        found = self.value(kind, *names)
        return NAMED[names[0]][1](found.mean) if kind == "fact" else KINDS[kind][1](found)


def _hours(facts: Facts) -> float:
    """Core-hours of all published runs."""
    made = [r["provenance"] for r in facts.records]
    return sum(p["threads"] * (p["wall_seconds"] + sum(p.get("attack_seconds", {}).values())) for p in made) / 3600


def _chosen(facts: Facts, preset: str, paid: str = "outcome") -> list[float]:
    """The share of test canvases whose digit lies in the chosen quarter: one number per run of Table 2 without context
    whose chooser is paid so."""
    found = [
        r["metrics"]["top_down"]["in_region_percent"]
        for r in facts.records
        if (r["table"], r["preset"]) == ("table2", preset) and "top_down" in r["metrics"]
        and "@" not in r["row"] and "context" not in r["row"]
        and r["config"].get("chooser_reward", "outcome") == paid
    ]  # fmt: skip
    if not found:
        raise Missing(f"no runs at {preset} settings with such a chooser")
    return found


def _leak(facts: Facts, preset: str, form: str) -> float:
    """How often Z repeats a wrong label that it is told, in percent of the canvases (`uram_book.looks`)."""
    return facts.line("tables/looks", what="repeats", row="ours-6-entropy-context", preset=preset, form=form)["value"]


def _distance(facts: Facts, row: str, glimpse: int) -> float:
    """Mean pixels from a glimpse of a row of Table 2 at strong settings to the digit's centre."""
    wanted = {"row": row, "preset": "strong", "quantity": f"glimpse_distance_px, glimpse {glimpse}"}
    return facts.line("tables/table2_details", **wanted)["value"]


def _percent(value: float, form=plain) -> str:
    return f"{form(value)}{SPACE}%"


_WHOLE_PERCENT = functools.partial(_percent, form=whole)
# Numbers that are no row and no claim: name -> how it is computed, and how it prints.
NAMED = {
    "runs": (lambda facts: len(facts.records), whole),
    "core-hours": (_hours, whole),
    "chosen quarter, paper": (lambda facts: float(np.mean(_chosen(facts, "paper"))), _WHOLE_PERCENT),
    "chosen quarter, outcome": (lambda facts: float(np.mean(_chosen(facts, "strong"))), _WHOLE_PERCENT),
    "chosen quarter, early": (lambda facts: float(np.mean(_chosen(facts, "strong", "early"))), _WHOLE_PERCENT),
    "leak, paper": (lambda facts: _leak(facts, "paper", "attended"), _WHOLE_PERCENT),
    "leak without labels": (lambda facts: _leak(facts, "strong", "confidence"), _WHOLE_PERCENT),
    # The probabilities of five sampled passes averaged.
    "third glimpse, RAM": (lambda facts: _distance(facts, "ram-6", 3), lambda value: f"{plain(value)}{SPACE}px"),
    "third glimpse, URAM": (lambda facts: _distance(facts, "ours-6", 3), lambda value: f"{plain(value)}{SPACE}px"),
    "averaged, RAM": (lambda facts: facts.metrics("table2", "paper", "ram-6", "test_error_monte_carlo"), _percent),
    "averaged, URAM": (lambda facts: facts.metrics("table2", "paper", "ours-6", "test_error_monte_carlo"), _percent),
    "flat": (lambda _: statistics.FLAT, plain),
    "older rows": (lambda facts: len(facts.older), whole),
}


def _reported_effect(found: Estimate) -> str:
    return f"{found.mean:+.4g}".replace("-", MINUS) if math.isfinite(found.mean) else "–"


# What a template can ask for: kind -> how it is read, and how it prints.
KINDS = {
    "error": (Facts.row, lambda found: _percent(found.mean)),
    "reported": (lambda _, *row: Estimate(paper.row(*row).value), lambda found: f"{found.mean:g}{SPACE}%"),
    "effect": (Facts.claim, with_interval),
    "reported_effect": (lambda facts, *names: Estimate(facts.claim(*names).paper), _reported_effect),
    "reading": (Facts.under, with_interval),
    "change": (Facts.change, with_interval),
    "fact": (lambda facts, name: Estimate(NAMED[name][0](facts)), None),  # each of NAMED in its own way
}
