"""Fills the book's templates: `python -m uram_book.pages` writes `book/*.md` from `book/chapters/*.md`, the figures and
the explorer's script; `--readme` renews the README's table. Here are the tables that templates ask for; prose is there.
"""

import argparse
import functools
import re
import sys
from pathlib import Path

import pandas as pd

from uram_lib import UramError, paper, records
from uram_lib.cli import exit_status
from uram_lib.experiments import READINGS, label_of
from uram_lib.paths import FIGURES, ROOT, read_json, write_atomically

from . import live, looks, statistics, tables
from .facts import CHAPTERS, NOT_YET, PUBLISHED_PRESETS, Book, Missing, Value, count, plain, signed, with_interval

BOOK, GENERATED, README = ROOT / "book", ROOT / "book" / "_generated", ROOT / "README.md"
BEGIN, END = "<!-- headline: begin (made by `make tables`) -->", "<!-- headline: end -->"
SETTINGS = {"paper": "paper settings", "strong": "strong settings", "bench": "benchmark"}
CHAPTER_OF = {"table1": "10_table1", "table2": "20_table2", "table3": "30_table3", "table4": "40_table4"}
SPAN = 2.0  # the scoreboard reaches from -SPAN to SPAN times the claimed effect


class Pages(Book):
    """The book's templates with tables and figures. Every public method named in TOOLS can be called by a template."""

    TOOLS = "scoreboard found rows claims_table open_claims runs mutants measured ledger_summary figure alike"

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.environment.globals.update({name: getattr(self, name) for name in self.TOOLS.split()})
        self.environment.globals.update(settings=SETTINGS, commit_of=commit_of, label_of=label_of, explorer=live.find)

    # ---- Claims

    def scoreboard(self, scores: list[tuple[str, str, str, str]], title: str = "The paper says") -> str:
        """The effect found as a share of the effect claimed, a line for each of `scores`: claim, part, table, words."""
        lines = []
        for claim, part, table, words in scores:
            marks, verdicts = [], []
            for preset in PUBLISHED_PRESETS:
                try:
                    found = self.facts.claim(claim, part, preset)
                except Missing:
                    continue
                marks.append((preset, found))
                verdicts.append(f"{'●' if preset == 'paper' else '■'} {self.badge(found.verdict)}")
            if marks:
                name = f"[{words}](../notebooks/{CHAPTER_OF[table]}.ipynb)"
                reported = self.printed("reported_effect", claim, part, marks[0][0])
                lines.append((f"{name} ({claim}): {reported} points", strip(marks), "<br>".join(verdicts)))
        return table_of(
            pd.DataFrame(lines, columns=[title, AXIS, "Verdict"]),
            "Effect found as a share of the effect claimed, with 95 % intervals: ● paper settings, ■ strong settings. "
            "The dashed line is the paper's effect; an arrow points at an effect outside.", "scoreboard", "30 42 28",
        )  # fmt: skip

    def badge(self, verdict: str) -> str:
        return f'<span class="verdict {verdict.replace(" ", "-")}">{verdict}</span>' if self.marked else verdict

    def found(self, claim: str, part: str, preset: str) -> str:
        """An effect with its verdict, for a cell of a table."""
        try:
            verdict = self.facts.claim(claim, part, preset).verdict
            return f"{self.printed('effect', claim, part, preset)} {self.badge(verdict)}"
        except Missing:
            return "–"

    def claims_table(self, source: str, names: list[str] | None = None) -> str:
        """Every part of every claim, or of those with these names: `paper` for what the paper says, `ours` for what we
        ask."""
        claims, lines = self.facts.frame("claims"), []
        if not len(claims):
            return "No claim is measured yet.\n"
        claims = claims[claims["source"] == source]
        for claim in (c for c in paper.CLAIMS if names is None or c.claim in names):
            mine = claims[claims["claim"] == claim.claim]
            for i, (part, same) in enumerate(mine.groupby("part", sort=False)):
                defined = source == "paper" or not any(c.source == "paper" for c in claim.contrasts)
                first = i == 0 and defined and names is None
                anchor = f'<span id="{claim.claim.lower()}"></span>' if first else ""
                reported = self.printed("reported_effect", claim.claim, part, same["preset"].iloc[0])
                line = {"Claim": f"{anchor}{claim.claim} {claim.statement if i == 0 else ''}", "Part": part,
                        "Paper": reported}  # fmt: skip
                for found in same.itertuples():
                    text = self.printed("effect", claim.claim, part, found.preset)
                    line[SETTINGS[found.preset]] = f"{text} {self.badge(found.verdict)}, {count(found.n_pairs, 'pair')}"
                lines.append(line)
        frame = pd.DataFrame(lines).fillna("–")
        frame = frame[[name for name in ("Claim", "Part", "Paper", *SETTINGS.values()) if name in frame]]
        caption = (
            "Effects in percentage points, with 95 % intervals and the number of pairs; of errors, negative is better."
        )
        if frame["Claim"].str.contains("C9|C10").any():
            caption += " A change of spread (C10) is in percent, a growth of cost (C9) is an exponent."
        return table_of(frame, caption, "numbers")

    def open_claims(self) -> str:
        """Parts of claims without a comparison yet."""
        done = {tuple(key) for key in self.facts.frame("claims").get(["claim", "part"], pd.DataFrame()).to_numpy()}
        told = {claim for claim, _ in done}
        anchors = {c.claim: f'<span id="{c.claim.lower()}"></span>' for c in paper.CLAIMS if c.claim not in told}
        lines = []
        for claim, part in ((one, contrast.part) for one in paper.CLAIMS for contrast in one.contrasts):
            if not any(name == claim.claim and told_part.startswith(part) for name, told_part in done):
                lines.append(f"- {anchors.pop(claim.claim, '')}{claim.claim} {claim.statement}: {part}")
        return "## Not measured yet\n\n" + "\n".join(lines) if lines else ""

    # ---- Tables

    def rows(self, table: str) -> str:
        """One table of the paper beside ours, a line per row and a column per preset."""
        frame = self.facts.frame(f"tables/{table}")
        if not len(frame):
            return ""
        home, lines = self.facts.home(table), []
        frame = frame[(frame["dataset"] == home) & ~frame["row"].str.contains("@")]
        for row, same in frame.groupby("row", sort=False):
            reported = paper.row(table, row)
            line = {"Model": label_of(table, row), "Paper": f"{reported.value:g}" if reported else "–"}
            for preset in (p for p in PUBLISHED_PRESETS if p in set(frame["preset"])):
                found = same[same["preset"] == preset]
                cell = "–"
                if len(found):
                    value = self.facts.row(table, row, preset)
                    verdict = f" {self.badge(value.verdict)}" if value.verdict else ""
                    cell = f"{with_interval(value)}{verdict}, {count(value.n, 'seed')}"
                line[SETTINGS[preset].capitalize()] = cell
            lines.append(line)
        what = "accuracy under attack" if table == "table4" else "test error"
        where = "" if home == paper.DATASETS[table] else f" on {home}, which is not the paper's data"
        name = f"The paper's Table {table[-1]}, {paper.CAPTIONS[table]}"
        caption = f"{name}: {what} in percent, ours with 95 % intervals{where}."
        return table_of(pd.DataFrame(lines), caption, "numbers") + self.made(table)

    def made(self, *tables: str) -> str:
        """The small print: which command made a table, from how many records and commits."""
        found = [r for r in self.facts.records if r["table"] in tables]
        commits = sorted({commit_of(r["provenance"]) for r in found})
        commits = commits[0] if len(commits) == 1 else f"{len(commits)} commits"
        return f"\n:::{{div}} made-by\nMade by `make tables`, from {count(len(found), 'record')} of {commits}.\n:::\n"

    @functools.cached_property
    def cells(self) -> dict[tuple[str, str, str, str], list[dict]]:
        """Records by table, preset, data set and row."""
        return tables.by_cell(self.facts.records)

    def runs(self) -> list[dict]:
        """What each published row rests on and took, for the chapters on provenance and compute."""
        machines, lines = [], []
        for (table, preset, dataset, row), runs in self.cells.items():
            made = [r["provenance"] for r in runs]
            used = list(dict.fromkeys(map(machine_of, made)))
            machines += [name for name in used if name not in machines]
            mean = lambda values: sum(values) / len(values)  # noqa: E731
            lines.append({
                "table": table, "preset": preset, "dataset": dataset, "row": row, "runs": len(runs),
                "seeds": ", ".join(str(r["seed"]) for r in runs), "error": plain(mean([error_of(r) for r in runs])),
                "commits": ", ".join(sorted(set(map(commit_of, made)))),
                "machines": {chr(65 + machines.index(name)): name for name in used},
                "rollouts": mean([rollouts_of(r) for r in runs]) / 1e6,
                "minutes": mean([p["wall_seconds"] for p in made]) / 60,
                "attacks": mean([sum(p.get("attack_seconds", {}).values()) for p in made]) / 60,
                "hours": sum(p["threads"] * p["wall_seconds"] for p in made) / 3600,
            })  # fmt: skip
        return lines

    # ---- The ledger

    @functools.cached_property
    def differences(self) -> list[tuple[str, str, Value]]:
        """What each reading does to the row that it changes: (ledger code, words, error under it minus ours)."""
        made = []
        for (table, preset, _, row), runs in self.cells.items():
            base, _, name = row.partition("@")
            ours = self.cells.get((table, preset, paper.DATASETS[table], base))
            if name not in READINGS or not ours or preset != ("paper" if table == "table2" else "strong"):
                continue
            seeds = {r["seed"] for r in runs} & {r["seed"] for r in ours}
            if seeds:
                both = (records.wrong([r for r in group if r["seed"] in seeds]) for group in (runs, ours))
                found = statistics.paired_difference(*both)
                made.append((READINGS[name].ledger, f"{READINGS[name].label} (`{base}`)",
                             Value(found.mean, found.low, found.high, found.n)))  # fmt: skip
        return made

    def measured(self, code: str, where: str = "") -> str:
        """The measured sensitivity of one decision, or where it is tested, for a cell of the ledger."""
        mine = [f"{words}: {with_interval(v, signed)}" for ledger, words, v in self.differences if ledger == code]
        return "<br>".join([*mine, where] if where else mine) or NOT_YET

    def ledger_summary(self) -> str:
        """How many decisions are measured."""
        text = (CHAPTERS / "not-said.md").read_text(encoding="utf-8")
        codes = re.findall(r"^\(\"([A-Z]\d+'?)\"", text, re.MULTILINE)
        open_ones = sum(self.measured(code) == NOT_YET for code in codes)
        return f"{len(codes)} are listed here; {len(codes) - open_ones} of them have a measured alternative."

    # ---- Other people's numbers, recipes, speed

    def alike(self, table: str, row: str, way: str) -> str:
        """Our error in percent under a rival's conditions, at strong settings: `way` is a metric of the records."""
        wanted = (table, "strong", row)
        found = [r["metrics"] for r in self.facts.records if (r["table"], r["preset"], r["row"]) == wanted]
        values = [metrics[way] for metrics in found if way in metrics]
        return plain(sum(values) / len(values)) if values else NOT_YET

    def mutants(self) -> list[dict]:
        """Which bug is noticed by which test; the one that is named after the bug stands for all that fail."""
        lines = read_json(self.facts.results / "mutants.json") or {"mutants": []}
        for line in lines["mutants"]:
            own = f"test_{line['bug'][0]}{line['bug'][1:]:0>2}_"
            line["caught_by"] = sorted(line["caught_by"], key=lambda name, own=own: not name.startswith(own))
        return lines["mutants"]

    # ---- Figures

    def figure(self, name: str, alt: str, caption: str) -> str:
        """Draw one of FIGURES_OF into the generated files and show it."""
        draw(name, self.facts, GENERATED / "figures" / f"{name}.svg")
        options = f":name: figure-{name}\n:alt: {alt}\n:width: 100%"
        return f"```{{figure}} _generated/figures/{name}.svg\n{options}\n{caption}\n```"


def draw(name: str, facts, path: Path) -> None:
    """One figure as an SVG file that does not change when the numbers do not."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from . import plotting

    plotting.use_style()
    made = {"ladder": lambda: plotting.ladder(facts.frame("recipe_ladder")),
            "canvas-cost": lambda: plotting.canvas_cost(facts.bench["canvas"]),
            "effects": lambda: plotting.effects(facts.frame("claims").query("claim in ('C3', 'C4')")),
            }[name]()  # fmt: skip
    write_atomically(path, lambda temporary: made.figure.savefig(temporary, format="svg", metadata={"Date": None}))
    plt.close(made.figure)


WIDTH, LINE = 300, 18  # of the scoreboard's pictures


def along(share: float) -> float:
    """Where a share of the claimed effect lies in a picture of the scoreboard."""
    return round(WIDTH / 2 * (1 + 0.96 * min(max(share, -SPAN), SPAN) / SPAN), 1)


def svg(inside: str, words: str, height: int) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return f'<svg class="strip" {size} role="img" aria-label="{words}">{inside}</svg>'


def strip(marks: list[tuple[str, Value]]) -> str:
    """Effects as shares of the claimed one: a mark and an interval for each preset, an arrow where it lies outside."""
    height = LINE * len(marks)
    inside = "".join(f'<line class="{name}" x1="{along(at)}" x2="{along(at)}" y1="0" y2="{height}"/>'
                     for name, at in (("zero", 0), ("one", 1)))  # fmt: skip
    words = []
    for i, (preset, found) in enumerate(marks):
        y, share = LINE * (i + 0.5), found.mean / found.paper
        low, high = (along(end / found.paper) for end in (found.low, found.high))
        x = along(share)
        if abs(share) > SPAN:
            base = x + (10 if share < 0 else -10)
            mark = f'<polygon points="{x},{y} {base},{y - 6} {base},{y + 6}"/>'
        elif preset == "paper":
            mark = f'<circle cx="{x}" cy="{y}" r="5"/>'
        else:
            mark = f'<rect x="{x - 4.5}" y="{y - 4.5}" width="9" height="9"/>'
        kind = found.verdict.replace(" ", "-")
        inside += f'<g class="{kind}"><line x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>{mark}</g>'
        words.append(f"{SETTINGS[preset]}: {share:.2f} times the claimed effect")
    return svg(inside, "; ".join(words), height)


AXIS = svg("".join(f'<text x="{along(at)}" y="13" text-anchor="middle">{text}</text>' for at, text in
                   ((-2, "−2 ×"), (-1, "−1 ×"), (0, "0"), (1, "1 ×"), (2, "2 ×"))), "shares of the claimed effect",
                   LINE)  # fmt: skip


def table_of(frame: pd.DataFrame, caption: str, look: str, widths: str = "") -> str:
    """A Markdown table with a caption. look: the class that the style sheet knows; widths: of the columns."""
    cells = [list(frame.columns), ["---"] * len(frame.columns), *frame.astype(str).to_numpy().tolist()]
    lines = "\n".join("| " + " | ".join(line) + " |" for line in cells)
    widths = f":widths: {widths}\n" if widths else ""
    return f"```{{table}} {caption}\n:class: {look}\n{widths}\n{lines}\n```\n"


def error_of(record: dict) -> float:
    """Its main number, in percent."""
    metrics = record["metrics"]
    return metrics.get("test_error", metrics.get("robust_accuracy"))


def rollouts_of(record: dict) -> float:
    """Images read in training; old records count epochs."""
    made = record["provenance"]
    return made.get("rollouts") or len(record["curves"]["val_error"]) * record["dataset"]["sizes"]["train"]


def commit_of(state: dict) -> str:
    """The commit that something was made with; a dagger where the library had been edited."""
    return f"`{state['git_commit'][:8]}`" + ("\u00a0†" if state["dirty"] else "")


def machine_of(made: dict) -> str:
    return f"{made['processor']}, {count(made['threads'], 'thread')}, Python {made['python']}, torch {made['torch']}"


def write(path: Path, text: str) -> None:
    """Unchanged files keep their date, so that unchanged pages are not built again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_pages() -> Pages:
    """Fill `book/` from the templates. Raises UramError where records contradict a sentence."""
    pages = Pages()
    for template in sorted(CHAPTERS.glob("*.md")):
        text = pages.render(template.name)
        made_from = template.relative_to(ROOT)
        write(BOOK / template.name, f"% Made by `make book` from {made_from}: edit that file.\n\n{text}")
    live.write_script(GENERATED / "static")
    pages.check()
    return pages


def show(tool: str, *arguments):
    """What one of the templates' tools gives, for a notebook."""
    from IPython.display import Markdown

    return Markdown(getattr(Pages(), tool)(*arguments))


def write_readme() -> None:
    """Renew the README's block and its picture, and what pages say of published models."""
    looks.write()
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
    """Returns the exit status: 0, or 1 after lines that say what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m uram_book.pages", description="Fill the book's templates.")
    parser.add_argument("--readme", action="store_true", help="renew the README's table instead")
    options = parser.parse_args(words)
    return exit_status(write_readme if options.readme else report)


def report() -> None:
    for line in write_pages().left_out:
        print(f"left out for want of records: {line}")


if __name__ == "__main__":
    sys.exit(main())
