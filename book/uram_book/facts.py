"""The numbers that the book states: each has a name, is read from `results/`, and prints alike on every page.

A template writes `{{ error("table2", "ram-6", "paper") }}`. A sentence that states a finding says what it was
written for:

    {% call finding("C3", "6 glimpses", "paper", "not supported") %} Top-down attention did not help ... {% endcall %}
    {% call given("value('fact', 'leak, paper') > 90") %} The label leaks ... {% endcall %}

While records for it are missing, the sentence is left out. When records contradict it, the build stops with one line.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from uram_lib import UramError, paper, records
from uram_lib.experiments import READINGS
from uram_lib.paths import RESULTS, ROOT, read_json

from .tables import of_older_recipe

CHAPTERS = ROOT / "book" / "chapters"
PUBLISHED_PRESETS = ("paper", "strong")
SPACE, MINUS, NOT_YET = "\u00a0", "−", "not measured"


class Missing(UramError):
    """A number that no record gives yet."""


@dataclass(frozen=True)
class Value:
    """A mean in percent or percentage points with its 95 % interval, over `n` seeds or pairs."""

    mean: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    verdict: str = ""
    paper: float = math.nan


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


def with_interval(value: Value, form=plain) -> str:
    """As in `29.9 [25.4, 34.4]`, never broken inside the brackets; the mean alone where there is no interval."""
    if not math.isfinite(value.low):
        return form(value.mean)
    return f"{form(value.mean)} [{form(value.low, value.mean)},{SPACE}{form(value.high, value.mean)}]"


def whole(value: float, unit: str = "") -> str:
    return f"{value:,.0f}".replace("-", MINUS) + (SPACE + unit if unit else "")


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class Facts:
    """Everything that `results` says. Each of KINDS names one way to print a number."""

    KINDS = ("error", "interval", "reported", "effect", "reported_effect", "reading", "fact")

    def __init__(self, results: Path = RESULTS):
        self.results = results

    @functools.cache  # noqa: B019 (one object per build)
    def frame(self, name: str) -> pd.DataFrame:
        """A CSV file of `results`; an empty frame where it is not there yet."""
        found = self.results / f"{name}.csv"
        return pd.read_csv(found, keep_default_na=False, na_values=[""]) if found.exists() else pd.DataFrame()

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
        return records.load_records(self.results / "runs")

    def home(self, table: str) -> str:
        """The data set that a table is published on: the paper's, or else the one with the most lines."""
        own, there = paper.DATASETS[table], self.frame(f"tables/{table}")
        return own if not len(there) or own in set(there["dataset"]) else there["dataset"].value_counts().idxmax()

    def row(self, table: str, row: str, preset: str) -> Value:
        """The error (Table 4: robust accuracy) of a row, which may be a reading."""
        found = self.line(f"tables/{table}", row=row, preset=preset, dataset=self.home(table))
        verdict = "" if pd.isna(found["verdict"]) else found["verdict"]
        return Value(found["ours_mean"], found["ours_ci_low"], found["ours_ci_high"], int(found["n_seeds"]), verdict)

    def claim(self, claim: str, part: str, preset: str | None = None) -> Value:
        """The effect behind a part of a claim, its verdict, and the paper's effect, which is the same at any preset."""
        known = [c.part for one in paper.CLAIMS if one.claim == claim for c in one.contrasts]
        if not any(part.startswith(name) for name in known):  # a copy of the data is named behind it
            raise UramError(f"claim {claim!r} has no part {part!r}; one of: {'; '.join(known)}")
        found = self.line("claims", claim=claim, part=part, **{"preset": preset} if preset else {})
        return Value(found["our_effect"], found["ci_low"], found["ci_high"], int(found["n_pairs"]), found["verdict"],
                     found["paper_effect"])  # fmt: skip

    def under(self, effect: str, reading: str, budget: str = "paper") -> Value:
        """An effect (`top-down`, `entropy`, `context`, `all`) under one reading."""
        found = self.line("tables/readings", effect=effect, reading=reading, budget=budget)
        return Value(found["effect_mean"], found["ci_low"], found["ci_high"], int(found["n_pairs"]),
                     paper=found["paper_effect"])  # fmt: skip

    def value(self, kind: str, *names: str) -> Value:
        """The number behind a text of KINDS."""
        match kind:
            case "reported":
                return Value(paper.row(*names).value)
            case "effect":
                return self.claim(*names)
            case "reported_effect":
                return Value(self.claim(*names).paper)
            case "reading":
                return self.under(*names)
            case "fact":
                return Value(NAMED[names[0]][0](self))
        return self.row(*names)

    def text(self, kind: str, *names: str) -> str:
        """One number as every page prints it."""
        found = self.value(kind, *names)
        match kind:
            case "error":
                return f"{plain(found.mean)}{SPACE}%"
            case "interval":
                return with_interval(found).replace(" ", f"{SPACE}% ", 1)
            case "reported":
                return f"{found.mean:g}{SPACE}%"
            case "reported_effect":
                return f"{found.mean:+.4g}".replace("-", MINUS) if math.isfinite(found.mean) else "–"
            case "fact":
                return NAMED[names[0]][1](found.mean)
        return with_interval(found, signed)

    def unsure(self, effect: str, reading: str, budget: str = "paper") -> bool:
        """Whether the interval of an effect under a reading holds 0."""
        found = self.under(effect, reading, budget)
        return found.low <= 0 <= found.high

    def answer(self, effect: str, budget: str = "paper") -> dict[str, int]:
        """Of an effect's readings, without the bounds (starts that know the digit): how many there are, in how many the
        paper's size is reached, and in how many the sign agrees."""
        self.line("tables/readings", effect=effect, budget=budget)  # there is one, or it is Missing
        lines = self.frame("tables/readings")
        lines = lines[(lines["effect"] == effect) & (lines["budget"] == budget)]
        bounds = [name for name, reading in READINGS.items() if "start" in reading.changes]
        lines = lines[~lines["reading"].isin(bounds)]
        return {"readings": len(lines), "reached": int((lines["effect_mean"] <= lines["paper_effect"]).sum()),
                "same_sign": int((lines["effect_mean"] < 0).sum())}  # fmt: skip


def _hours(facts: Facts) -> float:
    """Core-hours of all published runs."""
    made = [r["provenance"] for r in facts.records]
    return sum(p["threads"] * (p["wall_seconds"] + sum(p.get("attack_seconds", {}).values())) for p in made) / 3600


def _chosen(facts: Facts, preset: str) -> list[float]:
    """The share of test canvases whose digit lies in the chosen quadrant: one number per run of Table 2 without
    context whose chooser is paid for the outcome."""
    found = [
        r["metrics"]["top_down"]["in_region_percent"]
        for r in facts.records
        if (r["table"], r["preset"]) == ("table2", preset) and "top_down" in r["metrics"]
        and "@" not in r["row"] and "context" not in r["row"]
        and r["config"].get("chooser_reward", "outcome") == "outcome"
    ]  # fmt: skip
    if not found:
        raise Missing(f"no runs at {preset} settings with a chooser that is paid for the outcome")
    return found


def _averaged(facts: Facts, row: str) -> float:
    """The error of a row of Table 2 at paper settings, the probabilities of five sampled passes averaged: the mean over
    seeds."""
    found = [r["metrics"]["test_error_monte_carlo"] for r in facts.records
             if (r["table"], r["preset"], r["row"]) == ("table2", "paper", row)]  # fmt: skip
    if not found:
        raise Missing(f"no runs of {row} at paper settings")
    return float(np.mean(found))


def _leak(facts: Facts, preset: str, form: str) -> float:
    """How often Z repeats a wrong label that it is told, in percent of the canvases (`uram_book.looks`)."""
    return facts.line("tables/looks", what="repeats", row="ours-6-entropy-context", preset=preset, form=form)["value"]


# Numbers that are no row and no claim: name -> how it is computed, and how it prints.
_PERCENT = functools.partial(whole, unit="%")


def _percent(value: float) -> str:
    return f"{plain(value)}{SPACE}%"


NAMED = {
    "runs": (lambda facts: len(facts.records), whole),
    "core-hours": (_hours, whole),
    "chosen quadrant, runs": (lambda facts: len(_chosen(facts, "strong")), whole),
    "chosen quadrant, away": (lambda facts: sum(share < 5 for share in _chosen(facts, "strong")), whole),
    "chosen quadrant, paper": (lambda facts: float(np.mean(_chosen(facts, "paper"))), _PERCENT),
    "leak, paper": (lambda facts: _leak(facts, "paper", "attended"), _PERCENT),
    "averaged, RAM": (lambda facts: _averaged(facts, "ram-6"), _percent),
    "averaged, URAM": (lambda facts: _averaged(facts, "ours-6"), _percent),
    "older rows": (lambda facts: len(of_older_recipe(facts.records)), whole),
    "leak without labels": (lambda facts: _leak(facts, "strong", "confidence"), _PERCENT),
}


class Book:
    """The templates of `book/chapters` with the facts at hand."""

    def __init__(self, facts: Facts | None = None, marked: bool = True):
        """marked: numbers carry a mark that says which they are, and verdicts their colour."""
        self.facts, self.marked = facts or Facts(), marked
        self.page, self.problems, self.left_out = "", [], []  # left_out: sentences that lack records
        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(CHAPTERS), undefined=jinja2.StrictUndefined, trim_blocks=True,
            lstrip_blocks=True, keep_trailing_newline=True,
        )  # fmt: skip
        self.environment.globals.update(
            {kind: functools.partial(self.printed, kind) for kind in Facts.KINDS}, facts=self.facts, paper=paper,
            value=lambda *of: self.facts.value(*of).mean,
            count=count, answer=self.facts.answer, unsure=self.facts.unsure, finding=self.finding, given=self.given,
        )  # fmt: skip

    def printed(self, kind: str, *names: str) -> str:
        """A number with a mark that says which it is; the tests of the built pages read the marks."""
        text = self.facts.text(kind, *names)
        return f'<span data-fact="{"~".join((kind, *names))}">{text}</span>' if self.marked else text

    def finding(self, claim: str, part: str, preset: str, *verdicts: str, caller) -> str:
        """A sentence that holds only while this part of a claim has one of `verdicts`."""
        now = lambda: self.facts.claim(claim, part, preset).verdict  # noqa: E731
        written = f"{claim}, {part}, {preset} settings being {' or '.join(verdicts)}"
        return self._guarded(lambda: now() in verdicts, written, lambda: f"the records now say {now()}", caller)

    def given(self, condition: str, caller) -> str:
        """A sentence that holds only while a condition does, as in `value("fact", "leak, paper") > 90`."""
        holds = self.environment.compile_expression(condition)
        return self._guarded(holds, condition, lambda: "which no longer holds", caller)

    def _guarded(self, holds, written: str, now, caller) -> str:
        try:
            if holds():
                return caller()
            self.problems.append(f"{self.page}: a sentence was written for {written}; {now()}: rewrite it")
        except Missing as missing:
            self.left_out.append(f"{self.page}: {missing}")
        return ""

    def render(self, name: str, **values) -> str:
        """One template as Markdown. Raises UramError where it asks for a number that is not there."""
        self.page = name
        try:
            return self.environment.get_template(name).render(**values)
        except (UramError, KeyError, jinja2.TemplateError) as error:
            raise UramError(f"book/chapters/{name}: {error}") from error

    def check(self) -> None:
        """Raises UramError with a line for every sentence that the records contradict."""
        if self.problems:
            raise UramError("\n".join(self.problems))


def say(name: str, **values):
    """The text of `book/chapters/parts/<name>.md` for a notebook, its findings checked against the records."""
    from IPython.display import Markdown

    book = Book()
    text = book.render(f"parts/{name}.md", **values)
    book.check()
    return Markdown(text)
