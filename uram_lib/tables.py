"""Tables and claims, derived from run records: `results/tables/*.csv` and `results/claims.csv`."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from . import paper, statistics
from .experiments import ROWS, Experiment
from .paths import CLAIMS, PUBLISHED, TABLES, relative, write_atomically
from .records import dataset_name, load_records, wrong

TABLE_COLUMNS = (
    "table,row,label,metric,paper,dataset,preset,n_seeds,ours_mean,ours_ci_low,ours_ci_high,delta,verdict".split(",")
)
DETAIL_COLUMNS = "row,preset,dataset,quantity,value,ci_low,ci_high,n".split(",")
CLAIM_COLUMNS = "claim,part,preset,statement,paper_effect,our_effect,ci_low,ci_high,n_pairs,verdict,evidence".split(",")


def by_cell(records: list[dict]) -> dict[tuple[str, str, str, str], list[dict]]:
    """Records grouped by (table, preset, data set, row), each group ordered by seed."""
    key = lambda r: (r["table"], r["preset"], dataset_name(r), r["row"])  # noqa: E731
    return {cell: sorted(group, key=lambda r: r["seed"]) for cell, group in groupby(sorted(records, key=key), key)}


def outcomes(records: list[dict]) -> np.ndarray:
    """(seeds, images): shares of wrong answers, or of right ones where the metric is an accuracy."""
    return 1 - wrong(records) if records[0]["table"] == "table4" else wrong(records)


def table(name: str, records: list[dict]) -> pd.DataFrame:
    """One line per row, preset and data set, in the paper's order; columns `TABLE_COLUMNS`.

    The paper's value stands beside results on the paper's own data set alone, and so does the verdict.
    """
    lines = []
    for (owner, preset, dataset, row), group in by_cell(records).items():
        if owner != name:
            continue
        reported = paper.row(name, row)
        metric = reported.metric if reported else ("robust_accuracy" if name == "table4" else "error")
        ours = statistics.estimate(outcomes(group))
        comparable = reported is not None and dataset == paper.DATASETS[name]
        test_size = group[0]["dataset"]["sizes"]["test"]
        lines.append({
            "table": name, "row": row, "label": reported.label if reported else row, "metric": metric,
            "paper": reported.value if comparable else None, "dataset": dataset, "preset": preset,
            "n_seeds": ours.n, "ours_mean": ours.mean, "ours_ci_low": ours.low, "ours_ci_high": ours.high,
            "delta": ours.mean - reported.value if comparable else None,
            "verdict": statistics.row_verdict(ours, reported.value, test_size, metric == "robust_accuracy")
            if comparable else "",
        })  # fmt: skip
    order = {row: i for i, row in enumerate(ROWS.get(name, {}))}
    lines.sort(key=lambda line: (line["dataset"], line["preset"], order.get(line["row"], len(order))))
    return pd.DataFrame(lines, columns=TABLE_COLUMNS)


def details(name: str, records: list[dict]) -> pd.DataFrame:
    """What else the records of a table hold, in long form; columns `DETAIL_COLUMNS`. Intervals are over seeds alone."""
    lines = []
    for (owner, preset, dataset, row), group in by_cell(records).items():
        if owner != name:
            continue
        series = {
            "validation error": [r["metrics"]["val_error"] for r in group],
            "best epoch": [r["metrics"]["best_epoch"] for r in group],
            "wall minutes": [r["provenance"]["wall_seconds"] / 60 for r in group],
            "images per second": [r["provenance"]["images_per_second"] for r in group],
            "threads": [r["provenance"]["threads"] for r in group],
        }
        if "test_error_monte_carlo" in group[0]["metrics"]:
            series["Monte Carlo test error"] = [r["metrics"]["test_error_monte_carlo"] for r in group]
            series["spread over start seeds"] = [np.std(r["metrics"]["test_error_by_start"], ddof=1) for r in group]
            for quantity in ("glimpse_distance_px", "patch_entropy_bits", "blank_patch_percent"):
                for t in range(len(group[0]["metrics"][quantity])):
                    series[f"{quantity}, glimpse {t}"] = [r["metrics"][quantity][t] for r in group]
        for quantity, values in series.items():
            mean, low, high = over_seeds(values)
            lines.append({"row": row, "preset": preset, "dataset": dataset, "quantity": quantity, "value": mean,
                          "ci_low": low, "ci_high": high, "n": len(values)})  # fmt: skip
    return pd.DataFrame(lines, columns=DETAIL_COLUMNS)


def over_seeds(values: list[float]) -> tuple[float, float | None, float | None]:
    """Mean and t interval over seeds (no interval for one seed)."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return values.mean(), None, None
    half = statistics.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half


def claims(records: list[dict]) -> pd.DataFrame:
    """One line per claim, part and preset that published records on the paper's data set bear on; `CLAIM_COLUMNS`.

    Effects are `better` minus `worse` in percentage points, paired by seed and test image.
    """
    cells = by_cell(records)
    lines = []
    for claim in paper.CLAIMS:
        for contrast in claim.contrasts:
            dataset = paper.DATASETS[contrast.table]
            presets = sorted({preset for table, preset, data, _ in cells if (table, data) == (contrast.table, dataset)})
            for preset in presets:
                pair = [
                    cells.get((contrast.table, preset, dataset, row), []) for row in (contrast.better, contrast.worse)
                ]
                seeds = sorted(set.intersection(*({r["seed"] for r in group} for group in pair)))
                if not seeds:
                    continue
                better, worse = (outcomes([r for r in group if r["seed"] in seeds]) for group in pair)
                ours = statistics.paired_difference(better, worse)
                effect = (
                    paper.row(contrast.table, contrast.better).value - paper.row(contrast.table, contrast.worse).value
                )
                rows = f"{{{contrast.worse},{contrast.better}}}"
                lines.append({
                    "claim": claim.claim, "part": contrast.part, "preset": preset, "statement": claim.statement,
                    "paper_effect": round(effect, 4), "our_effect": ours.mean, "ci_low": ours.low,
                    "ci_high": ours.high, "n_pairs": len(seeds), "verdict": statistics.claim_verdict(ours, effect),
                    "evidence": f"results/runs/{contrast.table}/{preset}/{dataset}/{rows}",
                })  # fmt: skip
    return pd.DataFrame(lines, columns=CLAIM_COLUMNS)


def write_tables(records_root: Path = PUBLISHED, tables_folder: Path = TABLES, claims_path: Path = CLAIMS) -> list[str]:
    """Rebuild every table and the claims from the records; returns the paths written, as a reader sees them."""
    records = load_records(records_root)
    frames = {claims_path: claims(records)}
    for name in sorted({record["table"] for record in records}):
        frames[tables_folder / f"{name}.csv"] = table(name, records)
        frames[tables_folder / f"{name}_details.csv"] = details(name, records)
    for path, frame in frames.items():
        text = frame.to_csv(index=False, float_format="%.4f", lineterminator="\n")
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text))
    return [relative(path) for path in frames]


def compare(experiments: list[Experiment], published: list[dict], local: list[dict], preset: str) -> pd.DataFrame:
    """Paper, published and this machine side by side, one line an experiment.

    `published` at the converged preset and on the paper's data set; `local` on whatever the experiments use.
    """
    lines = []
    theirs, mine = by_cell(published), by_cell(local)
    for e in experiments:
        reported = paper.row(e.table, e.row)
        book = theirs.get((e.table, "converged", paper.DATASETS[e.table], e.row))
        here = mine.get((e.table, preset, e.config.dataset, e.row))
        lines.append({
            "row": e.row, "model": e.label, "paper": reported.value if reported else None,
            "published": interval_text(statistics.estimate(outcomes(book))) if book else "–",
            "this machine": interval_text(statistics.estimate(outcomes(here))) if here else "–",
        })  # fmt: skip
    return pd.DataFrame(lines).set_index("row")


def interval_text(estimate: statistics.Estimate) -> str:
    """As in `1.09 [0.98, 1.20], 3 seeds`."""
    seeds = f"{estimate.n} seed{'s' if estimate.n > 1 else ''}"
    return f"{estimate.mean:.2f} [{estimate.low:.2f}, {estimate.high:.2f}], {seeds}"
