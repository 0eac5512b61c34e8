"""Fills the book's templates: `python -m uram_book.pages` writes `book/*.md` from `book/chapters/*.md`, the figures and
the explorer's script; `--readme` renews the README's table. Here are the tables that templates ask for; prose is there.

A sentence that states a finding says what it was written for:

    {% call finding("C3", "6 glimpses", "paper", "not supported") %} Top-down attention did not help ... {% endcall %}
    {% call given("value('fact', 'leak, paper') > 90") %} The label leaks ... {% endcall %}

While records for it are missing, the sentence is left out. When records contradict it, the build stops with one line.
"""

import argparse
import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jinja2
from IPython.display import Markdown
from matplotlib import pyplot as plt

from uram_lib import UramError, __version__, data, paper
from uram_lib.cli import exit_status
from uram_lib.common import FIGURES, ROOT, read_json, write_atomically
from uram_lib.experiments import READINGS, experiment, label_of
from uram_lib.runs.machine import git_state

from . import live, looks, plotting
from .comparisons import PUBLISHED_ON, by_cell, outcomes
from .facts import KINDS, NOT_YET, SETTINGS, Facts, Missing, commit_of, count, percent, plain, whole, with_interval
from .statistics import FEWEST, Estimate, estimate
from .tables import write

BOOK, README = ROOT / "book", ROOT / "README.md"
CHAPTERS, GENERATED = BOOK / "chapters", BOOK / "_generated"
BEGIN, END = "<!-- headline: begin (made by `make tables`) -->", "<!-- headline: end -->"
CHAPTERS_OF = {"table1": "10_table1", "table2": "20_table2", "table3": "30_table3", "table4": "40_table4",
               "readings": "50_readings", "gallery": "60_gallery"}  # fmt: skip
# The scoreboard: marks of published presets, how many times the claimed effect it reaches to, and its pictures' pixels.
SIGNS, SPAN, WIDTH, LINE = {"paper": "●", "strong": "■"}, 2.0, 300, 18


class Pages:
    """The book's templates with the facts at hand. A template can call every public method of both.

    marked: numbers carry a mark that says which they are, and verdicts their colour.
    """

    def __init__(self, facts: Facts | None = None, marked: bool = True):
        self.facts, self.marked = facts or Facts(), marked
        self.page, self.problems, self.left_out = "", [], []  # left_out: sentences that lack records
        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(CHAPTERS), undefined=jinja2.StrictUndefined, trim_blocks=True,
            lstrip_blocks=True, keep_trailing_newline=True,
        )  # fmt: skip
        tools = {name: getattr(of, name) for of in (self.facts, self)
                 for name, own in vars(type(of)).items() if callable(own) and name[0] != "_"}  # fmt: skip
        tools |= {kind: functools.partial(self.printed, kind) for kind in KINDS}
        self.environment.globals.update(
            tools, facts=self.facts, paper=paper, count=count,
            settings=SETTINGS, commit_of=commit_of, label_of=label_of, experiment=experiment, explorer=live,
        )  # fmt: skip

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

    def printed(self, kind: str, *names: str) -> str:
        """A number with a mark that says which it is; the tests of the built pages read the marks."""
        text = self.facts.text(kind, *names)
        return f'<span data-fact="{"~".join((kind, *names))}">{text}</span>' if self.marked else text

    def finding(self, claim: str, part: str, preset: str, verdict: str, caller: Callable[[], str]) -> str:
        """A sentence that holds only while this part of a claim has this verdict."""
        of = (claim, part, preset)
        return self._guarded(f"{', '.join(of)} settings", lambda: self.facts.claim(*of).verdict, verdict, caller)

    def given(self, condition: str, caller: Callable[[], str]) -> str:
        """A sentence that holds only while a condition does, as in `value("fact", "leak, paper") > 90`."""
        holds = self.environment.compile_expression(condition)
        return self._guarded(condition, lambda: bool(holds()), True, caller)

    def _guarded(self, what: str, read: Callable[[], object], wanted: object, caller: Callable[[], str]) -> str:
        try:
            if (now := read()) == wanted:
                return caller()
            written = f"a sentence was written for {what} being {wanted}"
            self.problems.append(f"{self.page}: {written}; the records now say {now}: rewrite it")
        except Missing as missing:
            self.left_out.append(f"{self.page}: {missing}")
        return ""

    def badge(self, verdict: str) -> str:
        return f'<span class="verdict {verdict.replace(" ", "-")}">{verdict}</span>' if self.marked else verdict

    def scoreboard(self, scores: list[tuple[str, str, str, str]], title: str = "The paper says") -> str:
        """The effect found as a share of the effect claimed, a line for each of `scores`: claim, part, table, words."""
        lines = []
        for claim, part, table, words in scores:
            marks = {}
            for preset in SIGNS:
                with contextlib.suppress(Missing):
                    marks[preset] = self.facts.claim(claim, part, preset)
            if marks:
                reported = self.printed("reported_effect", claim, part, next(iter(marks)))
                name = f"[{words}](../notebooks/{CHAPTERS_OF[table]}.ipynb) ({claim}): {reported} points"
                verdicts = [f"{SIGNS[preset]}\N{NO-BREAK SPACE}{self.judgement(claim, part, preset)}"
                            + (f", {count(found.n, 'pair')} only" if found.n < FEWEST else "")  # hence undecided
                            for preset, found in marks.items()]  # fmt: skip
                lines.append({title: name, AXIS: strip(marks), "Verdict": " <br>".join(verdicts)})
        caption = "Effect found as a share of the effect claimed, with 95 % intervals: ● paper settings, ■ strong "
        caption += "settings. The dashed line is the paper's effect; an arrow: beyond the axis."
        return table_of((title, AXIS, "Verdict"), lines, caption, "scoreboard", ":widths: 33 37 30\n")

    def judgement(self, claim: str, part: str, preset: str) -> str:
        """The verdict on a part of a claim; whether its size is not the paper's, and its recipe not today's."""
        of, found = self.facts.contrast(claim, part), self.facts.claim(claim, part, preset)
        size = ""
        if found.verdict == "supported" and (found.paper < found.low or found.paper > found.high):
            size = ", larger" if abs(found.mean) > abs(found.paper) else ", smaller"
        return self.badge(found.verdict) + size + self.facts.recipe_of(preset, of.table, of.better, of.worse)

    def found(self, *name: str) -> str:
        """An effect (claim, part, preset) with its verdict, for a cell of a table."""
        try:
            return f"{self.printed('effect', *name)} {self.judgement(*name)}"
        except Missing:
            return "–"

    def share_of(self, claim: str, part: str, table: str, row: str, preset: str = "") -> str:
        """An effect as a share of a row's error, at a preset or, where none is given, in the paper."""
        effect = self.facts.claim(claim, part, preset or None)
        error = self.facts.row(table, row, preset).mean if preset else paper.row(table, row).value
        return percent(100 * (effect.mean if preset else effect.paper) / error, whole)

    def known(self, kind: str, *names: str) -> str:
        """A number for a cell of a table, or a dash where there is none."""
        with contextlib.suppress(Missing):
            return self.printed(kind, *names)
        return "–"

    def claims_table(self, source: str, names: list[str] | None = None) -> str:
        """Every part of every claim, or of those with these names. source: `paper` or `ours`, who says or asks it."""
        claims, lines = self.facts.frame("claims"), []
        for claim in (c for c in paper.CLAIMS if names is None or c.claim in names):
            told = claims[claims["claim"] == claim.claim]
            mine = told[told["source"] == source]
            for i, (part, same) in enumerate(mine.groupby("part", sort=False)):
                defined = source == "paper" or "paper" not in told["source"].values
                anchor = f'<span id="{claim.claim.lower()}"></span>' if i == 0 and defined and names is None else ""
                reported = self.printed("reported_effect", claim.claim, part, same["preset"].iloc[0])
                statement = claim.statement if i == 0 else ""
                line = {"Claim": f"{anchor}{claim.claim} {statement}", "Part": part, "Paper": reported}
                for preset, n in zip(same["preset"], same["n_pairs"], strict=True):
                    basis = count(n, "canvas size" if preset == "bench" else "pair")
                    line[SETTINGS[preset]] = f"{self.found(claim.claim, part, preset)}, {basis}"
                lines.append(line)
        caption = "Effects in percentage points, with 95 % intervals and the number of pairs; negative is better."
        notes = {
            "C8": "Of an accuracy (C8), positive is better.",
            "C9": "A growth of cost (C9) is an exponent, fitted over canvas sizes.",
            "C10": "A change of spread (C10) is in percent.",
            "C12": "C12 is about the share of blank patches.",
        }
        told = [note for code, note in notes.items() if any(f"{code} " in line["Claim"] for line in lines)]
        caption = " ".join([caption, *told])
        return table_of(("Claim", "Part", "Paper", *SETTINGS.values()), lines, caption, "numbers")

    def rows(self, table: str, local: Sequence[dict] = ()) -> str:
        """One table of the paper beside ours, a line per row and a column per preset. local: a reader's own records:
        then the lines are their rows, and the last column is theirs."""
        frame, home, lines = self.facts.frame(f"tables/{table}"), PUBLISHED_ON[table], []
        mine = {row: runs for (*_, row), runs in by_cell(local).items()}
        shown = frame["row"].isin(mine) if mine else ~frame["row"].str.contains("@")
        frame = frame[shown & (frame["dataset"] == home)]
        for row in dict.fromkeys([*frame["row"], *mine]):
            reported = paper.row(table, row)
            line = {"Model": label_of(table, row), "Paper": f"{reported.value:g}" if reported else "–"}
            if row in mine:
                found = estimate(outcomes(mine[row]))
                line["This machine"] = f"{with_interval(found, plain)}, {count(found.n, 'seed')}"
            for preset in frame.loc[frame["row"] == row, "preset"]:
                value = self.facts.row(table, row, preset)
                verdict = f" {self.badge(value.verdict)}" if value.verdict else ""
                said = f"{with_interval(value, plain)}{verdict}, {count(value.n, 'seed')}"
                line[SETTINGS[preset].capitalize()] = said + self.facts.recipe_of(preset, table, row)
            lines.append(line)
        what = "accuracy under attack" if table == "table4" else "test error"
        where = "" if home == paper.DATASETS[table] else f" on {data.about(home).title}, which is not the paper's data"
        caption = f"{paper.CAPTIONS[table]}: {what} in percent, ours with 95 % intervals{where}."
        shown = {(table, line.preset, home, line.row) for line in frame.itertuples()}
        made = [r["provenance"] for key, runs in self.facts.cells.items() if key in shown for r in runs]
        commits = set(map(commit_of, made))
        of = commits.pop() if len(commits) == 1 else f"{len(commits)} commits"
        stamp = f"\n:::{{div}} made-by\nMade by `make tables`, from {count(len(made), 'record')} of {of}.\n:::\n"
        columns = ("Model", "Paper", *map(str.capitalize, SETTINGS.values()), "This machine")
        return table_of(columns, lines, f"The paper's Table {table[-1]}, {caption}", "numbers") + stamp

    def measured(self, code: str, where: str = "") -> str:
        """The measured sensitivity of one decision, or where it is tested, for a cell of the ledger."""
        mine = []
        for name, reading in READINGS.items():
            for row in reading.rows if reading.ledger == code else ():
                with contextlib.suppress(Missing):
                    found = self.facts.change(f"{row}@{name}")
                    of = plotting.name_of(row).removesuffix(", 6 glimpses")
                    of += ", Table 1" if reading.table == "table1" else ""
                    mine.append(f"{reading.label} ({of}): {with_interval(found)}, {count(found.n, 'pair')}")
        return "<br>".join([*mine, where] if where else mine) or NOT_YET

    def ledger_summary(self) -> str:
        text = (CHAPTERS / "not-said.md").read_text(encoding="utf-8")
        codes = re.findall(r"^\(\"([A-Z]\d+'?)\"", text, re.MULTILINE)
        open_ones = sum(self.measured(code) == NOT_YET for code in codes)
        return f"{len(codes)} are listed here; {len(codes) - open_ones} of them have a measured alternative."

    def alike(self, table: str, row: str, way: str) -> str:
        """Our error in percent under a rival's conditions, at strong settings: `way` is a metric of the records."""
        try:
            return plain(self.facts.metrics(table, "strong", row, way))
        except Missing:
            return NOT_YET

    def alike_after(self, table: str, row: str, way: str) -> str:
        """The same with what our training took, and whether an older recipe made it."""
        if (error := self.alike(table, row, way)) == NOT_YET:
            return error
        rollouts = self.facts.rollouts(table, "strong", row)
        epochs = count(round(1e6 * rollouts / paper.TRAIN_SIZE), "epoch")
        return f"{error} after {epochs} ({rollouts:.1f} million rollouts){self.facts.recipe_of('strong', table, row)}"

    def mutants(self) -> list[dict]:
        """Which bug is noticed by which test; the one that is named after the bug stands for all that fail."""
        lines = read_json(self.facts.results / "mutants.json")["mutants"]
        for line in lines:
            own = f"test_{line['bug'][0]}{line['bug'][1:]:0>2}_"
            line["caught_by"].sort(key=lambda name, own=own: not name.startswith(own))
        return lines

    def figure(self, name: str, alt: str, caption: str) -> str:
        """Draw a figure into the generated files and show it."""
        draw(name, self.facts, GENERATED / "figures" / f"{name}.svg")
        options = f":name: figure-{name}\n:alt: {alt}\n:width: 100%"
        return f"```{{figure}} _generated/figures/{name}.svg\n{options}\n{caption}\n```"


def draw(name: str, facts: Facts, path: Path) -> None:
    """One figure as an SVG file that does not change when the numbers do not."""
    plt.switch_backend("agg")
    plotting.use_style()
    if name == "ladder":
        made = plotting.ladder(facts.frame("recipe_ladder"))
    elif name == "canvas-cost":
        made = plotting.canvas_cost(facts.bench["canvas"])
    else:
        made = plotting.effects(facts.frame("claims").query("claim in ('C3', 'C4')"))
    write_atomically(path, lambda temporary: made.figure.savefig(temporary, format="svg", metadata={"Date": None}))
    plt.close(made.figure)


def table_of(columns: Iterable[str], lines: list[dict[str, str]], caption: str, look: str, options: str = "") -> str:
    """A Markdown table with those of `columns` that any line has. look: the class that the style sheet knows."""
    columns = [name for name in columns if any(name in line for line in lines)]
    cells = [columns, ["---"] * len(columns), *([line.get(name, "–") for name in columns] for line in lines)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in cells)
    return f"```{{table}} {caption}\n:class: {look}\n{options}\n{text}\n```\n"


def along(share: float) -> float:
    """Where a share of the claimed effect lies in a picture of the scoreboard."""
    return round(WIDTH / 2 * (1 + 0.96 * min(max(share, -SPAN), SPAN) / SPAN), 1)


def svg(inside: str, words: str, height: int) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return f'<svg class="strip" {size} role="img" aria-label="{words}">{inside}</svg>'


def strip(marks: dict[str, Estimate]) -> str:
    """Effects as shares of the claimed one: a mark and an interval for each preset, an arrow where it lies outside."""
    height, words = LINE * len(marks), []
    inside = "".join(f'<line class="{name}" x1="{along(at)}" x2="{along(at)}" y1="0" y2="{height}"/>'
                     for name, at in (("zero", 0), ("one", 1)))  # fmt: skip
    for i, (preset, found) in enumerate(marks.items()):
        y, share = LINE * (i + 0.5), found.mean / found.paper
        low, x, high = (along(end / found.paper) for end in (found.low, found.mean, found.high))
        if abs(share) > SPAN:
            base = x + (10 if share < 0 else -10)
            mark = f'<polygon points="{x},{y} {base},{y - 6} {base},{y + 6}"/>'
            beside, anchor = (base + 4, "start") if share < 0 else (base - 4, "end")
            mark += f'<text x="{beside}" y="{y + 4}" text-anchor="{anchor}">{share:.1f}×</text>'.replace(">-", ">−")
        elif preset == "paper":
            mark = f'<circle cx="{x}" cy="{y}" r="5"/>'
        else:
            mark = f'<rect x="{x - 4.5}" y="{y - 4.5}" width="9" height="9"/>'
        kind = found.verdict.replace(" ", "-")
        inside += f'<g class="{kind}"><line x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>{mark}</g>'
        words.append(f"{SETTINGS[preset]}: {share:.2f} times the claimed effect")
    return svg(inside, "; ".join(words), height)


ENDS = ((-2, "−2 ×"), (-1, "−1 ×"), (0, "0"), (1, "1 ×"), (2, "2 ×"))
AXIS = svg("".join(f'<text x="{along(at)}" y="13" text-anchor="middle">{text}</text>' for at, text in ENDS),
           "shares of the claimed effect", LINE)  # fmt: skip


@functools.cache
def published() -> Facts:
    """What `results` says, read once in a notebook."""
    return Facts()


def say(name: str, **values):
    """The text of `book/chapters/parts/<name>.md` for a notebook, its findings checked against the records."""
    pages = Pages(published())
    text = pages.render(f"parts/{name}.md", **values)
    pages.check()
    return Markdown(text)


def show(tool: str, *arguments):
    """What one of the templates' tools gives, for a notebook."""
    return Markdown(getattr(Pages(published()), tool)(*arguments))


def write_pages() -> None:
    """Fill `book/` from the templates. Raises UramError where records contradict a sentence."""
    pages, now = Pages(), {"version": __version__, "commit": git_state()["git_commit"][:8]}  # to be cited
    for template in sorted(CHAPTERS.glob("*.md")):
        text = pages.render(template.name, **now)
        made_from = template.relative_to(ROOT)
        write(BOOK / template.name, f"% Made by `make book` from {made_from}: edit that file.\n\n{text}")
    live.write_script(GENERATED / "static")
    pages.check()
    for line in pages.left_out:
        print(f"left out for want of records: {line}")


def write_readme() -> None:
    """Renew the README's block and its picture, and what pages say of published models."""
    looks.write_looks()
    pages = Pages(marked=False)
    text = pages.render("parts/readme.md")
    pages.check()
    draw("effects", pages.facts, FIGURES / "effects.svg")
    readme = README.read_text(encoding="utf-8")
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise UramError(f"README.md needs one line {BEGIN!r} and one line {END!r}")
    before, rest = readme.split(BEGIN)
    write(README, f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{rest.split(END)[1]}")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m uram_book.pages", description="Fill the book's templates.")
    parser.add_argument("--readme", action="store_true", help="renew the README's table instead")
    options = parser.parse_args(words)
    return exit_status(write_readme if options.readme else write_pages)


if __name__ == "__main__":
    sys.exit(main())
