"""The tables, derived from run records: `python -m uram_book.tables` writes `results/tables/*.csv` and
`results/claims.csv`."""

import dataclasses
import itertools
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from uram_lib import paper
from uram_lib.common import PUBLISHED, RESULTS, read_json, relative, write_atomically
from uram_lib.config import Config
from uram_lib.experiments import PRESETS, ROWS, Experiment, experiment, label_of, readings_of
from uram_lib.runs.records import dataset_name, load_records

from . import statistics
from .comparisons import PUBLISHED_ON, by_cell, claims, outcomes, readings, with_header

TABLE_COLUMNS = ["table", "row", "label", "metric", "paper", "dataset", "preset", "n_seeds", "ours_mean", "ours_ci_low",
                 "ours_ci_high", "delta", "verdict"]  # fmt: skip
# Ways of testing beside one pass along the mean path, and what records call them; old ones average over five passes.
WAYS = {"one sampled pass": "test_error_sampled", "averaged over 10": "test_error_averaged",
        "averaged over 5": "test_error_monte_carlo"}  # fmt: skip


def table(name: str, records: list[dict]) -> pd.DataFrame:
    """One line per row, preset and data set, rows in the paper's order; columns `TABLE_COLUMNS`.

    The paper's value, and so the verdict, is given for results on the paper's own data set alone.
    """
    lines, metric = [], paper.metric(name)
    for (_, preset, dataset, row), group in by_cell(records, name).items():
        ours, known = statistics.estimate(outcomes(group)), paper.row(name, row)
        reported, delta, verdict = None, None, ""
        if known and dataset == paper.DATASETS[name]:
            reported, delta = known.value, ours.mean - known.value
            size = group[0]["dataset"]["sizes"]["test"]
            verdict = statistics.row_verdict(ours, reported, size, metric == "robust_accuracy")
        lines.append((name, row, label_of(name, row), metric, reported, dataset, preset, ours.n, ours.mean, ours.low,
                      ours.high, delta, verdict))  # fmt: skip
    frame = pd.DataFrame(lines, columns=TABLE_COLUMNS)
    places = {name: i for i, name in enumerate((*PRESETS, *ROWS[name], *readings_of(name)))}
    place = lambda column: column if column.name == "dataset" else column.map(places)  # noqa: E731
    return frame.sort_values(["dataset", "preset", "row"], key=place, ignore_index=True)


def ways_of_testing(name: str, records: list[dict], rows: Iterable[str] = ()) -> pd.DataFrame:
    """Test error in percent of a table's rows with glimpses (rows: of these alone), by preset and way of testing."""
    lines, older, cells = [], of_older_recipe(records), by_cell(records, name)
    for preset, row in itertools.product(PRESETS, rows or ROWS[name]):
        group = cells.get((name, preset, PUBLISHED_ON[name], row), [])
        found = pd.DataFrame([r["metrics"] for r in group]).reindex(columns=["test_error", *WAYS.values()])
        if found[WAYS.values()].notna().any(axis=None):
            # In brackets over how many seeds, where not over all of them.
            means = ["" if math.isnan(value) else f"{value:.2f}" + f" ({n})" * (n < len(group))
                     for value, n in zip(found.mean(), found.count(), strict=True)]  # fmt: skip
            made = ", old recipe" if preset == "strong" and f"{name}/{row}" in older else ""
            line = {"model": label_of(name, row), "preset": preset + made}
            lines.append(line | dict(zip(("one pass", *WAYS), means, strict=True)) | {"seeds": len(group)})
    frame = pd.DataFrame(lines).replace("", None).dropna(axis=1, how="all").fillna("–")
    return with_header(frame, "model") if lines else frame


def shared_settings(chosen: dict[str, list[Experiment]]) -> pd.DataFrame:
    """What differs between presets or is no default of `Config`, one line per setting and one column per preset, all
    values of its rows: of published runs as their records say, but of today's recipe where there are both; a preset
    without runs says so."""
    defaults = {f.name: str(f.default) for f in dataclasses.fields(Config)}
    made = {(r["table"], r["preset"], r["row"]): Config.read(r["config"]) for r in load_records()
            if dataset_name(r) == PUBLISHED_ON[r["table"]]}  # fmt: skip
    columns = {}
    for at, of in chosen.items():
        configs = [made.get((e.table, e.preset, e.row), e.config) for e in of]
        # On the data that they are published on, which may stand in for the preset's own.
        today = [c for c, e in zip(configs, of, strict=True) if c == dataclasses.replace(e.config, dataset=c.dataset)]
        at, configs = (at, today) if today else (f"{at}, old recipe", configs)
        if not any((e.table, e.preset, e.row) in made for e in of):
            at += ", not run"
        values = {name: {str(getattr(config, name)) for config in configs} for name in defaults}
        columns[at] = {name: ", ".join(sorted(found)) for name, found in values.items()}
    frame = pd.DataFrame(columns)
    alone = len(columns) == 1  # presets that are compared leave out what differs between rows alike in all
    told = [
        name
        for name, values in frame.iterrows()
        if values.nunique() > 1 or (set(values) != {defaults[name]} and (alone or "," not in values.iloc[0]))
    ]
    return frame.loc[told].rename_axis(columns="setting")


def of_older_recipe(records: list[dict]) -> list[str]:
    """Rows and readings, as in `table2/ram-6`, of whose published runs at strong settings any has another recipe than
    today's."""
    meant = lambda r: experiment(r["table"], r["row"], "strong", dataset_name(r)).config  # noqa: E731
    strong = [r for r in records if r["preset"] == "strong" and dataset_name(r) == PUBLISHED_ON[r["table"]]]
    return sorted({f"{r['table']}/{r['row']}" for r in strong if Config.read(r["config"]) != meant(r)})


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all. What is unchanged keeps its date, so that its page is not built again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_tables(root: Path = RESULTS, runs: Path = PUBLISHED) -> list[str]:
    """Rebuild every table, the claims and the readings under `root` from the records under `runs` and the benchmark;
    returns the paths written, as a reader sees them."""
    records = load_records(runs)
    frames = {"claims": claims(records, read_json(root / "bench.json", "canvas")), "tables/readings": readings(records)}
    for name in sorted({record["table"] for record in records}):
        frames[f"tables/{name}"] = table(name, records)
    paths = {root / f"{name}.csv": frame for name, frame in frames.items()}
    for path, frame in paths.items():
        write(path, as_text(frame))
    return [relative(path) for path in paths]


def as_text(frame: pd.DataFrame) -> str:
    """A frame as its file holds it."""
    return frame.to_csv(index=False, float_format="%.4f", lineterminator="\n")


def read(name: str, root: Path = RESULTS) -> pd.DataFrame:
    """A CSV file of `results`, as in `tables/table1` or `claims`; an empty frame where it is not there yet."""
    path = root / f"{name}.csv"
    return pd.read_csv(path, keep_default_na=False, na_values=[""]) if path.exists() else pd.DataFrame()


def same(made: pd.DataFrame, read: pd.DataFrame) -> bool:
    """Whether a frame made from records holds the same as one read from its file: alike once both are written."""
    return as_text(made) == as_text(read)


if __name__ == "__main__":
    print(*write_tables(), sep="\n")
