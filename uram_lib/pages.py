"""What the book and the README say in numbers, made from `results/*.csv` and the run records; nothing is typed in.

`write_pages` fills `book/_generated` (ignored by git) before a build; `write_readme` renews the README's block.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from . import UramError, ablations, data, live, paper
from .cli import exit_status
from .data import COPIES, cifar10
from .experiments import PRESETS
from .paths import BENCH, CLAIMS, FIGURES, PUBLISHED, RESULTS, ROOT, TABLES, read_json, relative, write_atomically
from .records import dataset_name, load_records
from .statistics import estimate, paired_difference
from .tables import BENCHMARK, BESIDE, CLAIM_COLUMNS, TABLE_COLUMNS, by_cell, outcomes, published_on
from .wording import count, listed, signed, span

GENERATED = ROOT / "book" / "_generated"
README = ROOT / "README.md"
MUTANTS = RESULTS / "mutants.json"
BEGIN, END = "<!-- headline: begin (made by `make tables`) -->", "<!-- headline: end -->"
UNTESTABLE = "not testable here"
CLAIM_VERDICTS = ("supported", "opposite", "not supported", "undecided", UNTESTABLE)
TOO_WIDE = "too wide to tell"
SEVERAL = 3  # commits that a line names one by one
NOTHING = "No runs are published yet."


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    """A CSV file of ours, or an empty frame of these columns where it is not there yet."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""]) if path.exists() else pd.DataFrame(columns=columns)


def tables_here(folder: Path = TABLES) -> dict[str, pd.DataFrame]:
    """The published tables that exist, by name, each with its lines on the paper's data set alone, or, where there are
    none, on what stands in for it."""
    frames = {name: read(folder / f"{name}.csv", TABLE_COLUMNS) for name in paper.CAPTIONS}
    frames = {
        name: frame[frame["dataset"] == published_on(name, set(frame["dataset"]))] for name, frame in frames.items()
    }
    return {name: frame for name, frame in frames.items() if len(frame)}


def stand_in(name: str, frame: pd.DataFrame) -> str:
    """What a published table rests on where that is not the paper's own data, in words; else empty."""
    (dataset,) = set(frame["dataset"])
    if dataset == paper.DATASETS[name]:
        return ""
    return f"{'a re-encoded copy of the images' if dataset in COPIES else 'generated data'}, `{dataset}`"


def title(name: str) -> str:
    """`table1` or `ablations` as a reader says it."""
    return f"Table {name.removeprefix('table')}" if name.startswith("table") else name.capitalize()


def tally(verdicts: list[str], order: tuple[str, ...] = CLAIM_VERDICTS) -> str:
    """As in `2 supported and 1 undecided`, or `2 raise the error and 1 lowers the error`."""
    many = lambda verdict: verdict.replace("raises", "raise").replace("lowers", "lower")  # noqa: E731
    counts = [(verdicts.count(v), v) for v in order if v in verdicts]
    return listed([f"{n} {v if n == 1 else many(v)}" for n, v in counts])


def rows_sentence(verdicts: list[str]) -> str:
    """As in `4 of 6 rows match the paper, 1 is better and 1 is worse`."""
    forms = {
        "matches": ("match the paper", "matches the paper"),
        "better": ("are better", "is better"),
        "worse": ("are worse", "is worse"),
        TOO_WIDE: ("have an interval that is too wide to tell", "has an interval that is too wide to tell"),
    }
    counts = [(verdicts.count(v), *forms[v]) for v in forms if v in verdicts]
    parts = [f"{n} {one if n == 1 else many}" for n, many, one in counts]
    first, number = parts[0], counts[0][0]
    of_all = f"{'all' if number == len(verdicts) else f'{number} of'} {len(verdicts)} rows"
    if len(verdicts) == 1:
        of_all = "the one row"
    than = " than the paper" if first.endswith(("better", "worse")) else ""
    return listed([of_all + first.removeprefix(str(number)) + than, *parts[1:]])


def told(line) -> str:
    """The verdict on one line of a table, as it is told: a match within an interval that is wider than the paper's very
    number says nothing, and is called `too wide to tell`. Empty for a row that the paper has not."""
    if not isinstance(line.verdict, str):
        return ""
    wide = line.ours_ci_high - line.ours_ci_low > line.paper
    return TOO_WIDE if line.verdict == "matches" and wide else line.verdict


def presets_of(frame: pd.DataFrame) -> list[str]:
    """The presets of a table or of the claims, in the order in which a reader meets them."""
    return [preset for preset in PRESETS if preset in set(frame["preset"])]


def lacking(name: str, lines: pd.DataFrame) -> int:
    """How many of the paper's rows of a table have no line yet."""
    return len({row.row for row in paper.ROWS if row.table == name} - set(lines["row"]))


def comparisons(name: str, preset: str, claims: pd.DataFrame) -> str:
    """The comparisons for which the paper has a number in a table, as in `The 5 comparisons ... came out 5
    supported`; empty where none is judged at the preset."""
    mine = claims[claims["evidence"].str.contains(f"/{name}/{preset}/", regex=False)] if len(claims) else claims
    mine = mine[mine["paper_effect"].notna()]
    if not len(mine):
        return ""
    if len(mine) == 1:
        return f"the one comparison that is drawn from it came out {mine['verdict'].iloc[0]}"
    if set(mine["verdict"]) == {UNTESTABLE}:
        return f"none of the {count(len(mine), 'comparison')} drawn from it can be tested here"
    drawn = f"the {count(len(mine), 'comparison')} drawn from it"
    return f"{drawn} came out {tally(list(mine['verdict']))}"


def rows_came_out(name: str, frame: pd.DataFrame, lines: pd.DataFrame) -> tuple[str, str]:
    """Of a table's lines at one preset: on what data, where that is not the paper's, and how the rows came out."""
    judged = [verdict for verdict in map(told, lines.itertuples()) if verdict]
    where = f" on {stand_in(name, frame)}" if stand_in(name, frame) else ""
    return where, rows_sentence(judged) if judged else "no row can be held against the paper's"


def verdict_sentence(name: str, frame: pd.DataFrame, claims: pd.DataFrame) -> str:
    """The verdict on one table in one sentence, the presets divided by semicolons."""
    parts = []
    for preset in presets_of(frame):
        lines = frame[frame["preset"] == preset]
        where, came_out = rows_came_out(name, frame, lines)
        missing = lacking(name, lines)
        to_come = f" ({missing} to come)" if missing else ""
        effects = comparisons(name, preset, claims)
        parts.append(
            f"at the preset `{preset}`{where and f'{where},'} {came_out}{to_come}{effects and ', and '}{effects}"
        )
    return f"**{title(name)}**, {paper.CAPTIONS[name]}: {'; '.join(parts)}."


def table_sentence(name: str, frame: pd.DataFrame, claims: pd.DataFrame) -> str:
    """The verdict on one table at more length, preset by preset: how its rows came out, over how many seeds, and the
    claims for which the paper has a number in it."""
    sentences = []
    for preset in presets_of(frame):
        lines = frame[frame["preset"] == preset]
        seeds = sorted({int(n) for n in lines["n_seeds"]})
        seeds = count(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
        where, came_out = rows_came_out(name, frame, lines)
        text = f"At the preset `{preset}`{where}, with {seeds} a row, {came_out}"
        missing = lacking(name, lines)
        text += f"; {missing} of the paper's rows {'is' if missing == 1 else 'are'} to come." if missing else "."
        if effects := comparisons(name, preset, claims):
            text += f" {effects[0].upper()}{effects[1:]}."
        sentences.append(text)
    return f"**{title(name)}, {paper.CAPTIONS[name]}.** {' '.join(sentences)}"


def table_lines(frame: pd.DataFrame) -> pd.DataFrame:
    """One published table as a reader sees it: a line a row, in the paper's order, and two columns a preset."""
    lines = []
    rows = frame.groupby("row", sort=False)  # the paper's go first, its controls follow as they stand
    for _, same in sorted(rows, key=lambda group: paper.place(frame["table"].iloc[0], group[0])):
        first = next(same.itertuples())
        reported = paper.row(first.table, first.row)
        line = {"Model": first.label, "Paper": f"{reported.value:.2f}" if reported else "–"}
        for preset in presets_of(frame):
            ours = verdict = "–"
            for found in same[same["preset"] == preset].itertuples():
                ours = f"{found.ours_mean:.2f} {span(found.ours_ci_low, found.ours_ci_high)}"
                verdict = ", ".join(filter(None, (told(found), count(int(found.n_seeds), "seed"))))
            line |= {f"Ours at `{preset}`": ours, f"Verdict at `{preset}`": verdict}
        lines.append(line)
    return pd.DataFrame(lines)


def claim_lines(claims: pd.DataFrame) -> pd.DataFrame:
    """The comparisons that were made, in the paper's order: a line a part, two columns a preset. A claim's statement
    stands at its first line, its name at all of them, so that whoever sorts the lines still knows whose they are."""
    lines = []
    presets = presets_of(claims)
    for claim in paper.CLAIMS:
        mine = claims[claims["claim"] == claim.claim]
        for i, (part, same) in enumerate(mine.groupby("part", sort=False)):
            statement = claim_cell(claim, i)
            line = {"Claim": statement, "Part": part, "Paper": signed(same["paper_effect"].iloc[0])}
            for preset in presets:
                ours = verdict = "–"
                for found in same[same["preset"] == preset].itertuples():
                    ours = effect_text(found)
                    verdict = f"**{told_effect(found)}**, {count(int(found.n_pairs), 'pair')}"
                line |= {f"Ours at `{preset}`": ours, f"Verdict at `{preset}`": verdict}
            lines.append(line)
    return pd.DataFrame(lines)


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """`table_lines` or `claim_lines` for a notebook, which shows a frame's text as it is: without Markdown."""
    return frame.rename(columns=lambda name: name.replace("`", "")).replace({r"\*\*|`": ""}, regex=True)


def told_effect(claim) -> str:
    """The verdict on one comparison as it is told: an effect of the claimed sign may be smaller or larger than the
    paper's."""
    least, largest = sorted((abs(claim.ci_low), abs(claim.ci_high)))
    # Where the paper gives a sign alone its effect is not a number, and nothing is smaller or larger than that.
    if claim.verdict == "supported" and largest < abs(claim.paper_effect):
        return f"{claim.verdict}, but smaller"
    if claim.verdict == "supported" and least > abs(claim.paper_effect):
        return f"{claim.verdict}, but larger"
    return claim.verdict


def claim_cell(line, i: int) -> str:
    """The name of a claim at its i-th line, and its statement at the first."""
    return f"**{line.claim}** {line.statement}" if i == 0 else f"**{line.claim}**"


def cost_lines(claims: pd.DataFrame) -> pd.DataFrame:
    """The claim on cost, a line a part."""
    return pd.DataFrame([
        {
            "Claim": claim_cell(line, i), "Part": line.part,
            "Exponent": effect_text(line), "Verdict": f"**{line.verdict}**, {count(int(line.n_pairs), 'size')}",
        }
        for i, line in enumerate(claims.itertuples())
    ])  # fmt: skip


# Parts of claims whose effect is not in percentage points but a change in percent.
RELATIVE = {(c.claim, part.part) for c in paper.CLAIMS for part in c.contrasts if part.measure == "spread over seeds"}


def effect_text(line) -> str:
    """An effect with its interval, as in `−0.14 [−0.38, +0.09]` or `−40 % [−82 %, +98 %]`."""
    form = signed
    if (line.claim, line.part) in RELATIVE:
        form = lambda value: f"{value:+.0f}\u00a0%".replace("-", "−")  # noqa: E731
    return f"{form(line.our_effect)} {span(line.ci_low, line.ci_high, form)}"


def open_claims(claims: pd.DataFrame) -> pd.DataFrame:
    """Claims, or parts of them, without a comparison yet, and what will make it."""
    lines = []
    for claim in paper.CLAIMS:
        found = claims.loc[claims["claim"] == claim.claim, "part"]
        measured = {part.removesuffix(f", {copy}") for part in found for copy in map(cifar10.TITLES.get, COPIES)}
        parts = [(c.part, awaited(c)) for c in claim.contrasts if c.part not in measured]
        if claim.how and not measured:
            parts.append(("", claim.how))
        for i, (part, where) in enumerate(parts):
            lines.append({
                "Claim": claim_cell(claim, i), "Part": part or "–",
                "Awaits": where,
            })  # fmt: skip
    return pd.DataFrame(lines)


def awaited(contrast: paper.Contrast) -> str:
    """The runs that a comparison needs, as in `Table 2, also on clutter100-8`."""
    beside = [f"`{dataset}`" for dataset in BESIDE.get(contrast.measure, ())]
    return f"{title(contrast.table)}, also on {listed(beside)}" if beside else title(contrast.table)


def claims_sentence(claims: pd.DataFrame) -> str:
    """How many comparisons were made and how they came out."""
    if not len(claims):
        return f"{NOTHING} Every claim below stands unjudged."
    judged = set(claims.loc[claims["verdict"] != UNTESTABLE, "claim"])
    elsewhere = len(set(claims["claim"]) - judged)
    beside = f", {elsewhere} more on generated data alone" if elsewhere else ""
    return (
        f"{len(judged)} of the paper's {len(paper.CLAIMS)} claims have been measured on its own data or a copy of "
        f"it{beside}, in {count(len(claims), 'comparison')} in all: {tally(list(claims['verdict']))}."
    )


def provenance_lines(records: list[dict]) -> tuple[pd.DataFrame, list[str]]:
    """Every published number of the tables, with the records it is the mean of and what made them; and the machines
    that the letters in the table stand for."""
    lines, machines = [], []
    for (table, preset, dataset, row), group in by_cell(records).items():
        made = [r["provenance"] for r in group]
        commits = sorted(set(map(commit_of, made)))
        used = sorted(set(map(machine_of, made)))
        machines += [name for name in used if name not in machines]
        minutes = [p["wall_seconds"] / 60 for p in made]
        lines.append({
            "place": (table, list(PRESETS).index(preset), dataset, paper.place(table, row)), "Table": table,
            "Records": f"`{preset}/{dataset}/{row}`", "Seeds": seeds_text([r["seed"] for r in group]),
            "Ours": f"{estimate(outcomes(group)).mean:.2f}\u00a0%", "Commit": ", ".join(commits),
            "Machine": ", ".join(letter(machines.index(name)) for name in used),
            "Minutes a run": f"{sum(minutes) / len(minutes):.1f}",
        })  # fmt: skip
    lines.sort(key=lambda line: line.pop("place"))
    return pd.DataFrame(lines), machines


def machine_of(provenance: dict) -> str:
    """The machine of a run and what it ran on, in words."""
    threads = count(provenance["threads"], "thread")
    return f"{provenance['processor']}, {threads}, Python {provenance['python']}, torch {provenance['torch']}"


def hours(records: list[dict], cores: bool = False) -> float:
    """Wall-clock hours of training, and of attacks where there are any. cores: each run's times its threads, and
    runs on processors alone."""
    made = [r["provenance"] for r in records if r["provenance"]["device"] == "cpu" or not cores]
    seconds = [p["wall_seconds"] + sum(p.get("attack_seconds", {}).values()) for p in made]
    return sum(s * (p["threads"] if cores else 1) for s, p in zip(seconds, made, strict=True)) / 3600


def compute_lines(records: list[dict], by_row: bool) -> pd.DataFrame:
    """What the published runs took, a line a table, preset and data set, or a line a row of these."""
    groups: dict[tuple, list[dict]] = {}
    for (table, preset, dataset, row), group in by_cell(records).items():
        key = (table, list(PRESETS).index(preset), dataset, *([paper.place(table, row), row] if by_row else []))
        groups[key] = groups.get(key, []) + group
    lines = []
    for key in sorted(groups):
        group, first = groups[key], groups[key][0]
        where = {"Table": title(first["table"]), "Preset": f"`{first['preset']}`", "Data set": f"`{key[2]}`"}
        minutes = [60 * hours([r]) for r in group]
        lines.append(
            where
            | ({"Row": f"`{first['row']}`"} if by_row else {})
            | {
                "Runs": len(group), "Minutes a run": f"{sum(minutes) / len(minutes):.1f}",
                "Shortest and longest": span(min(minutes), max(minutes), "{:.1f}".format),
                "Core-hours": f"{hours(group, cores=True):.1f}",
            }
        )  # fmt: skip
    return pd.DataFrame(lines)


def compute_fragment(records: list[dict], folder: Path) -> str:
    """What was spent on the published records: in all, on which machines, by table and by row."""
    if not records:
        return f"{NOTHING}\n"
    made = made_from(records)
    on: dict[str, list[dict]] = {}
    for record in records:
        on.setdefault(machine_of(record["provenance"]), []).append(record)
    text = f"The {count(len(records), 'published run')} took {hours(records):.1f} hours in all, one after the other: "
    text += f"{hours(records, cores=True):.1f} core-hours on processors"
    elsewhere = [r for r in records if r["provenance"]["device"] != "cpu"]
    text += f", and {hours(elsewhere):.1f} hours on accelerators.\n\n" if elsewhere else ".\n\n"
    text += "".join(f"- {name}: {count(len(runs), 'run')}, {hours(runs):.1f} hours\n" for name, runs in on.items())
    caption = "What a table took: training, and attacks where there are any"
    text += "\n" + csv_table(
        "compute-tables", caption, "14 14 18 8 14 20 12", compute_lines(records, False), folder, made
    )
    rows = compute_lines(records, True)
    return text + "\n" + csv_table("compute-rows", "What a row took", "10 15 18 24 7 10 14 9", rows, folder, made)


def letter(index: int) -> str:
    """A, B, ..., Z, A1, ..."""
    return chr(65 + index % 26) + (str(index // 26) if index >= 26 else "")


def seeds_text(seeds: list[int]) -> str:
    """As in `0–9` or `0, 2, 5`."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))


def commit_of(state: dict) -> str:
    """The commit that a record, or another outcome of a command, was made with; a dagger where it had been edited."""
    return f"`{state['git_commit'][:8]}`" + ("\u00a0†" if state["dirty"] else "")


def made_from(records: list[dict], command: str = "make tables") -> str:
    """Which command made a table or a picture, and from which records: as in `make tables, from 3 records of commits a
    and b`. Of many commits the first and the last, in the order of the runs."""
    if not records:
        return f"`{command}`"
    runs = sorted((r["provenance"] for r in records), key=lambda p: p["started"])
    commits = list(dict.fromkeys(map(commit_of, runs)))
    named = f"commit{'' if len(commits) == 1 else 's'} {listed(commits)}"
    if len(commits) > SEVERAL:
        named = f"{len(commits)} commits, {commits[0]} to {commits[-1]}"
    return f"`{command}`, from [{count(len(records), 'record')}](provenance.md) of {named}"


def made_at(command: str, state: dict) -> str:
    """The same for what a command measured by itself."""
    return f"`{command}`, at commit {commit_of(state)}"


def small_print(made: str) -> str:
    """The line under a table or a picture that says what made it."""
    return f"\n:::{{div}} made-by\nMade by {made}.\n:::\n"


def csv_table(
    name: str, caption: str, widths: str, frame: pd.DataFrame, folder: Path, made: str, look: str = "numbers"
) -> str:
    """Write `frame` for the book and return the directive that shows it. made: of `made_from` or `made_at`; look:
    `numbers`, or `ledger` for text."""
    path = folder / f"{name}.csv"
    write_atomically(path, lambda temporary: frame.to_csv(temporary, index=False, lineterminator="\n"))
    return (
        f":::{{csv-table}} {caption}\n:name: {name}\n:file: /book/_generated/{path.name}\n:header-rows: 1\n"
        f":widths: {widths}\n:class: {look}\n:::\n" + small_print(made)
    )


def markdown_table(frame: pd.DataFrame) -> str:
    """A pipe table."""
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def headline_figure(name: str) -> Path:
    return RESULTS / "figures" / f"{name}.png"


def fragments(folder: Path, records_root: Path = PUBLISHED) -> dict[str, str]:
    """Name of each Markdown fragment and its text; the CSV files that they show are written on the way."""
    published, claims = tables_here(), read(CLAIMS, CLAIM_COLUMNS)
    records = load_records(records_root)
    bench = read_json(BENCH, "shapes", "canvas")
    verdicts = [verdict(*item, claims, records) for item in published.items()]
    tables = [headline_table(*item, claims, records, folder) for item in published.items()]
    made = {
        "verdicts.md": "\n".join(verdicts) or f"{NOTHING}\n",
        "tables.md": "\n".join(tables) or f"{NOTHING}\n",
        "claims.md": claims_fragment(claims, records, bench, folder),
        "provenance.md": provenance_fragment(records, folder),
        "compute.md": compute_fragment(records, folder),
        "speed-parity.md": parity_sentence(by_cell(records)),
        "mutants.md": mutants_fragment(read_json(MUTANTS), folder),
        "status.md": status(published, {record["table"] for record in records}),
    }
    made |= {"arms.md": arms_fragment(records, folder)}
    made |= live.fragments(live.find(records_root=records_root))
    return made | speed_fragments(bench, folder)


def behind(name: str, frame: pd.DataFrame, records: list[dict]) -> list[dict]:
    """The records that a published table's lines are means of."""
    return [r for r in records if r["table"] == name and dataset_name(r) in set(frame["dataset"])]


def verdict(name: str, frame: pd.DataFrame, claims: pd.DataFrame, records: list[dict]) -> str:
    """What a reader sees first of a table: one sentence and one picture."""
    shown = f"{verdict_sentence(name, frame, claims)}\n"
    if headline_figure(name).exists():
        alt = f"{title(name)}, the paper's values and ours with intervals"
        shown += figure(
            name,
            alt,
            f"{title(name)}: the paper's values and ours, with 95 % intervals.",
            made_from(behind(name, frame, records)),
        )
    return shown


def headline_table(name: str, frame: pd.DataFrame, claims: pd.DataFrame, records: list[dict], folder: Path) -> str:
    """One table of the paper beside ours, below what is to be said of it."""
    lines = table_lines(frame)
    unit = "robust accuracy" if (frame["metric"] == "robust_accuracy").all() else "test error"
    caption = f"The paper's {title(name)}, {paper.CAPTIONS[name]}: {unit} in percent, ours with 95 % intervals"
    if stand_in(name, frame):
        caption += f". Ours are on {stand_in(name, frame)}, and not comparable with the paper's"
    made = made_from(behind(name, frame, records))
    shown = csv_table(f"headline-{name}", caption, widths(lines, 34, 8), lines, folder, made)
    return f"{table_sentence(name, frame, claims)}\n\n{shown}"


def widths(lines: pd.DataFrame, *first: int) -> str:
    """Relative widths of a table's columns: the first as given, then a wide and a narrow one for each preset."""
    return " ".join(map(str, [*first, *([20, 14] * len(lines.columns))][: len(lines.columns)]))


def claims_fragment(claims: pd.DataFrame, records: list[dict], bench: dict | None, folder: Path) -> str:
    """The claims that were measured, and those that are open."""
    made = made_from([r for r in records if r["table"] in paper.CAPTIONS])
    text = f"{claims_sentence(claims)}\n"
    if len(claims):
        costs = claims["preset"] == BENCHMARK
        if len(lines := claim_lines(claims[~costs])):
            caption = "The claims measured so far: effects in percentage points (a change of spread: in percent) with "
            caption += "95 % intervals. A dash stands where the paper gives no number and the sign alone is judged"
            text += "\n" + csv_table("claims-measured", caption, widths(lines, 26, 18, 8), lines, folder, made)
        if len(lines := cost_lines(claims[costs])):
            caption = "The claim on cost, by `make bench`: the exponent with which it grows with the number of pixels"
            text += "\n" + csv_table(
                "claims-cost", caption, "36 24 22 18", lines, folder, made_at("make bench", bench["machine"])
            )
    if len(lines := open_claims(claims)):
        text += "\n" + csv_table("claims-open", "Claims not measured yet", "50 28 22", lines, folder, made)
    return text


def provenance_fragment(records: list[dict], folder: Path) -> str:
    """One table of records for each of the paper's, then the machines."""
    lines, machines = provenance_lines(records)
    if not len(lines):
        return f"{NOTHING}\n"
    text = ""
    for name, same in lines.groupby("Table"):
        caption = f"{title(name)}: each published number, its records under `results/runs/{name}`, and what made them"
        same = same.drop(columns="Table")
        made = made_from([r for r in records if r["table"] == name])
        text += csv_table(f"provenance-{name}", caption, "36 10 12 16 12 14", same, folder, made) + "\n"
    return text + "".join(f"- Machine {letter(i)}: {m}\n" for i, m in enumerate(machines))


def arms_fragment(records: list[dict], folder: Path) -> str:
    """What other readings of the paper do to the error, a line an arm; those that are not measured, too."""
    lines = ablations.legible(ablations.decisions(records, "paper"))
    judged = zip(lines["verdict"], lines["pairs"], strict=True)
    shown = pd.DataFrame({
        "Entry": lines["ledger"], "Taken otherwise": lines["arm"],
        "Against": [f"`{row}` at `{preset}`" for row, preset in zip(lines["row"], lines["preset"], strict=True)],
        "Difference (points)": lines["difference (points)"],
        "Verdict": [f"{verdict}, {count(pairs, 'pair')}" if pairs else verdict for verdict, pairs in judged],
    })  # fmt: skip
    caption = "Other readings against ours: error minus error"
    compared = [r for r in records if r["table"] in {"ablations", *(arm.table for arm in ablations.ABLATIONS.values())}]
    return csv_table("arms-measured", caption, "8 36 24 18 14", shown, folder, made_from(compared))


def status(published: dict[str, pd.DataFrame], recorded: set[str]) -> str:
    """Which tables are done, under way and to come. A table is done where it has all of the paper's rows, on the
    paper's data, at each preset that it is published at. recorded: tables with records, on whatever data."""
    elsewhere = "On other data than the paper's"
    stages: dict[str, list[str]] = {"Done": [], "Under way": [], elsewhere: [], "To come": []}
    for name in paper.CAPTIONS:
        frame = published.get(name)
        stage = elsewhere if name in recorded else "To come"
        if frame is not None and not stand_in(name, frame):
            whole = all(lacking(name, lines) == 0 for _, lines in frame.groupby("preset"))
            stage = "Done" if whole else "Under way"
        stages[stage].append(title(name))
    return " ".join(f"{stage}: {listed(names)}." for stage, names in stages.items() if names) + "\n"


def parity_sentence(cells: dict[tuple[str, str, str, str], list[dict]]) -> str:
    """Whether the speed-ups leave the accuracy alone: Table 1's RAM with all of them against its records from before,
    paired by seed and test image. cells: of `tables.by_cell`."""
    place = ("converged", paper.DATASETS["table1"])
    fast, plain = (
        cells.get(cell, []) for cell in (("ablations", *place, "ram-6-compiled"), ("table1", *place, "ram-6"))
    )
    seeds = {r["seed"] for r in fast} & {r["seed"] for r in plain}
    if not seeds:
        return "Whether the errors bear that out is not measured yet.\n"
    fast, plain = (outcomes([r for r in group if r["seed"] in seeds]) for group in (fast, plain))
    with_all, without, difference = estimate(fast), estimate(plain), paired_difference(fast, plain)
    within = "holds" if difference.low <= 0 <= difference.high else "does not hold"
    return (
        f"The errors were compared, too. Over {count(len(seeds), 'seed')}, RAM with 6 glimpses errs on "
        f"{with_all.mean:.2f} % of MNIST's test images "
        f"with all of them and on {without.mean:.2f} % in records from before: a paired difference of "
        f"{signed(difference.mean)} points, whose 95 % interval {span(difference.low, difference.high, signed)} "
        f"{within} 0.\n"
    )


def speed_fragments(bench: dict | None, folder: Path) -> dict[str, str]:
    """The numbers of the chapter on speed, from `results/bench.json`."""
    names = ("speed-rates.md", "speed-parts.md", "speed-without.md", "speed-processes.md", "speed-canvas.md")
    if bench is None:
        return dict.fromkeys(names, "No benchmark is published yet.\n")
    machine, shapes = bench["machine"], bench["shapes"]
    made = made_at("make bench", machine)
    rates = pd.DataFrame([
        {
            "Shape": title(s["shape"]), "Images a second": f"{s['images_per_second']:,}",
            "Limit": f"{s['limit_images_per_second']:,}", "Ratio": f"{s['ratio']:.2f}",
            "Lowest and highest": span(*s["ratio_range"]), "Own limit": f"{s['own_limit_images_per_second']:,}",
            "Ratio to it": f"{s['own_ratio']:.2f}", "Start-up (s)": f"{s['start_up_seconds']:.1f}",
        }
        for s in shapes
    ])  # fmt: skip
    totals = {s["shape"]: sum(s["parts_ms"].values()) for s in shapes}
    parts = pd.DataFrame([
        {"Part of a step": part}
        | {f"{title(s['shape'])} (ms)": f"{s['parts_ms'][part]:.2f}" for s in shapes}
        | {f"{title(s['shape'])} (share)": f"{s['parts_ms'][part] / totals[s['shape']]:.0%}" for s in shapes}
        for part in shapes[0]["parts_ms"]
    ])  # fmt: skip
    caption = f"Training on one core of {machine['processor']}, torch {machine['torch']}: medians of one run"
    processes = bench["processes"]
    kept = listed([f"{p['kept_by_each_of_two']:.0%} at {title(p['shape'])}'s shape" for p in processes])
    shares = pd.DataFrame(
        [
            {"Left out": one} | {f"Rate at {title(p['shape'])}'s shape": f"{p['without'][one]:.0%}" for p in processes}
            for one in processes[0]["without"]
        ]
    )
    one, *more = bench["together"]
    gain = lambda line: f"{line['images_per_second'] / one['images_per_second']:.2f}"  # noqa: E731
    several = listed([f"{line['seeds']} seeds together {gain(line)} times" for line in more])
    where = machine["accelerator"] or "this processor"
    near, far = bench["canvas"][0], bench["canvas"][-1]
    grown = {key: far[key] / near[key] for key in near}
    return {
        "speed-rates.md": csv_table("speed-rates", caption, "14 14 12 10 16 12 10 12", rates, folder, made),
        "speed-parts.md": csv_table(
            "speed-parts", "Where the time of a step of 128 images goes", "32 17 17 17 17", parts, folder, made
        )
        + figure(
            "speed-parts",
            "Bars: parts of a training step for the two shapes",
            "Where the time of a step goes, an image.",
            made,
        ),
        "speed-without.md": csv_table(
            "speed-without",
            "The rate without a speed-up, as a share of the rate with all",
            "40 30 30",
            shares,
            folder,
            made,
        ),
        "speed-processes.md": f"Of two runs side by side, each keeps {kept} of the rate that it has alone. On {where} "
        f"one seed of Table 2's shape trains {one['images_per_second']:,} images a second; {several} as many, summed "
        "over seeds.\n",
        "speed-canvas.md": figure(
            "speed-canvas",
            "Curves: cost of a glimpse and of the pyramid against the canvas",
            "The cost of a glimpse (12 × 12, 4 scales), of the pyramid and of the unified model, an image.",
            made,
        )
        + f"\nFrom {near['side_px']} to {far['side_px']} px a side, the area grows {grown['side_px'] ** 2:,.0f}-fold, "
        f"the pyramid's cost {grown['pyramid_ms']:,.0f}-fold, a glimpse's {grown['glimpse_ms']:.1f}-fold, and that of "
        f"the whole unified model {grown['unified_ms']:,.0f}-fold.\n",
    }


def mutants_fragment(outcome: dict | None, folder: Path) -> str:
    """Which bug is noticed by which test, from `results/mutants.json`."""
    if outcome is None:
        return "No mutation check is published yet.\n"
    lines = []
    for line in outcome["mutants"]:
        # The test that is named after the bug stands for all that fail, where it is among them.
        own = f"test_{line['bug'][0]}{line['bug'][1:]:0>2}_"
        names = sorted(line["caught_by"], key=lambda name: not name.startswith(own))
        others = f", and {count(len(names) - 1, 'other')}" if len(names) > 1 else ""
        lines.append({
            "Bug": line["bug"], "What is changed": line["change"], "In": f"`{line['file'].removeprefix('uram_lib/')}`",
            "Caught by": in_words(names[0]) + others if names else "**nothing**",
        })  # fmt: skip
    caught = sum(bool(line["caught_by"]) for line in outcome["mutants"])
    of_all = "All" if caught == len(lines) else f"{caught} of"
    were = "was" if caught == 1 else "were"
    text = f"{of_all} {count(len(lines), 'mutant')} of commit {commit_of(outcome)} {were} caught.\n\n"
    caption = "Bugs put into the library, and the test that notices"
    made = made_at("make mutants", outcome)
    return text + csv_table("mutants-table", caption, "8 36 18 38", pd.DataFrame(lines), folder, made, "ledger")


def in_words(test: str) -> str:
    """`test_T09_scale_covers` as `T09 scale covers`."""
    return test.removeprefix("test_").replace("_", " ")


def figure(name: str, alt: str, caption: str, made: str) -> str:
    """The directive that shows `results/figures/<name>.png`. made: of `made_from` or `made_at`."""
    shown = f"\n:::{{figure}} /results/figures/{name}.png\n:name: figure-{name}\n:alt: {alt}\n{caption}\n:::\n"
    return shown + small_print(made)


def path_fragment() -> str:
    """The first image of the test set, not a selected one, read by the live page's model: an animation that a reader
    starts. Empty where no checkpoint is published."""
    if (found := live.find()) is None:
        return ""
    use_agg()
    from . import gallery, plotting

    plotting.use_style()
    model, config = live.load(*found)
    dataset = data.load(data.available(config.dataset))
    test = dataset.load_test()
    (reading,) = gallery.readings(model, data.Split(test.images[:1], test.labels[:1], test.centres[:1]))
    said = int(reading.probabilities[-1].argmax())
    frame = dataset.train.images.shape[-1]
    steps = range(1, model.ram.glimpses + 1)
    frames = (gallery.draw(reading, model.ram, frame, glimpses=t) for t in steps)
    alt = "A canvas read glimpse by glimpse: the chosen quadrant, the path, what is seen, and what is believed"
    player = plotting.player(frames, "landing-path", alt, dpi=72)
    return (
        f"```{{raw}} html\n{player}\n```\n\n"
        f"*The first canvas of the test set, not a selected one: a {reading.label}, which the model reads as {said}. "
        "Top left, what the top-down part sees, and its value of each quadrant; top right, the path of the glimpses; "
        "below, what each glimpse sees, and the class probabilities after it."
        f"{live.away_text(found[1]['metrics']['top_down']['in_region_percent'])} [Try it yourself](live.md).*\n"
        + small_print(made_from([found[1]], "make book"))
    )


def use_agg() -> None:
    """Draw without a screen."""
    import matplotlib

    matplotlib.use("Agg")


def write_pages(folder: Path = GENERATED) -> list[str]:
    """Fill `folder` with fragments of pages, and its `static` with the live page's scripts; returns what was written,
    as a reader sees it."""
    texts = fragments(folder) | {"path.md": path_fragment()}
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:  # unchanged files keep their date, and pages their cache
            write_atomically(path, lambda temporary, text=text: temporary.write_text(text))
    return [relative(path) for path in (*(folder / name for name in texts), *live.write_scripts(folder / "static"))]


def write_figures(folder: Path = FIGURES) -> list[str]:
    """Draw each published table against the paper's values, and the benchmark, for the README and the book."""
    use_agg()
    from matplotlib import pyplot as plt

    from . import plotting

    plotting.use_style()
    drawn = {
        name: plotting.comparison(frame, title=f"{title(name)}: {paper.CAPTIONS[name]}")
        for name, frame in tables_here().items()
    }
    if bench := read_json(BENCH, "shapes", "canvas"):
        drawn |= {
            "speed-parts": plotting.step_times(bench["shapes"]), "speed-canvas": plotting.canvas_cost(bench["canvas"])
        }  # fmt: skip
    paths = []
    for name, ax in drawn.items():
        path = folder / f"{name}.png"
        # Without the library's version in the file, equal figures are equal files.
        figure = ax.figure
        write_atomically(
            path, lambda temporary, f=figure: f.savefig(temporary, format="png", dpi=160, metadata={"Software": None})
        )
        plt.close(figure)
        paths.append(path)
    return [relative(path) for path in paths]


def headline() -> str:
    """The README's block: verdicts, pictures and tables."""
    claims = read(CLAIMS, CLAIM_COLUMNS)
    parts = []
    for name, frame in tables_here().items():
        parts.append(table_sentence(name, frame, claims))
        if (path := headline_figure(name)).exists():
            alt = f"{title(name)}: the paper's values and ours with 95 % intervals"
            parts.append(f"![{alt}]({relative(path)})")
        parts.append(markdown_table(table_lines(frame)))
    return "\n\n".join(parts) or NOTHING


def renewed_readme(text: str) -> str:
    """`text` with its block between the markers made anew. Raises UramError where the markers are missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UramError(f"README.md needs one line {BEGIN!r} and one line {END!r}")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{headline()}\n\n{END}{after}"


def write_readme(path: Path = README) -> None:
    text = renewed_readme(path.read_text())
    write_atomically(path, lambda temporary: temporary.write_text(text))


def main(words: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 after one line that says what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m uram_lib.pages", description="Make the book's numbers.")
    parser.add_argument("--readme", action="store_true", help="renew the README's block and the figures too")
    options = parser.parse_args(words)
    return exit_status(lambda: make(options.readme))


def make(readme: bool) -> None:
    """Write the pages and, if asked, the README's block and the figures."""
    write_pages()
    if readme:
        figures = write_figures()  # first: the README shows those that exist
        write_readme()
        print("\n".join([relative(README), *figures]))


if __name__ == "__main__":
    sys.exit(main())
