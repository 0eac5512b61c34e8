"""Tables and claims, derived from run records: `results/tables/*.csv` and `results/claims.csv`."""

from collections.abc import Iterable
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pandas as pd

from . import data, paper, statistics, wording
from .data import cifar10, clutter
from .experiments import PRESETS, Config, Experiment, experiment, label_of, rows_of
from .models import build
from .models.cost import multiply_adds
from .models.vgg import count_parameters
from .paths import BENCH, CLAIMS, PUBLISHED, TABLES, read_json, relative, write_atomically
from .records import dataset_name, load_records, unpack, wrong
from .robustness import FACED_BY_ALL

TABLE_COLUMNS = (
    "table,row,label,metric,paper,dataset,preset,n_seeds,ours_mean,ours_ci_low,ours_ci_high,delta,verdict".split(",")
)
# What a quantity of `details` can be, by a word in its name; the first that fits. Others are from 0 on.
BOUNDS = {"q_value": (-np.inf, np.inf), "bits": (0, 1), "percent": (0, 100), "error": (0, 100), "accuracy": (0, 100)}
DETAIL_COLUMNS = "row,preset,dataset,quantity,value,ci_low,ci_high,n".split(",")
BENCHMARK = "bench"  # what stands for a preset where `make bench` measured
PUBLISHED_AT = ("converged", "paper")  # presets of published records, those that a reader's own resemble first
CLAIM_COLUMNS = "claim,part,preset,statement,paper_effect,our_effect,ci_low,ci_high,n_pairs,verdict,evidence".split(",")


def by_cell(records: list[dict]) -> dict[tuple[str, str, str, str], list[dict]]:
    """Records grouped by (table, preset, data set, row), each group ordered by seed."""
    key = lambda r: (r["table"], r["preset"], dataset_name(r), r["row"])  # noqa: E731
    return {cell: sorted(group, key=lambda r: r["seed"]) for cell, group in groupby(sorted(records, key=key), key)}


def outcomes(records: list[dict]) -> np.ndarray:
    """(seeds, images): shares of wrong answers, or of right ones where the metric is an accuracy."""
    return wrong(records) if paper.metric(records[0]["table"]) == "error" else 1 - wrong(records)


def published_on(table: str, present: set[str]) -> str:
    """The data set that a table is published on, of those `present`: the paper's own, or else what stands in for it."""
    own = paper.DATASETS[table]
    return next((name for name in (own, *data.STAND_INS.get(own, ())) if name in present), own)


def table(name: str, records: list[dict]) -> pd.DataFrame:
    """One line per row, preset and data set, rows in the paper's order; columns `TABLE_COLUMNS`.

    The paper's value stands beside results on the paper's own data set alone, and so does the verdict.
    """
    lines = []
    for (owner, preset, dataset, row), group in by_cell(records).items():
        if owner != name:
            continue
        reported, metric = paper.row(name, row), paper.metric(name)
        ours = statistics.estimate(outcomes(group))
        comparable = reported is not None and dataset == paper.DATASETS[name]
        test_size = group[0]["dataset"]["sizes"]["test"]
        lines.append({
            "table": name, "row": row, "label": label_of(name, row), "metric": metric,
            "paper": reported.value if comparable else None, "dataset": dataset, "preset": preset,
            "n_seeds": ours.n, "ours_mean": ours.mean, "ours_ci_low": ours.low, "ours_ci_high": ours.high,
            "delta": ours.mean - reported.value if comparable else None,
            "verdict": statistics.row_verdict(ours, reported.value, test_size, metric == "robust_accuracy")
            if comparable else "",
        })  # fmt: skip
    order = {row: i for i, row in enumerate(rows_of(name))}
    place = lambda line: order.get(line["row"], len(order))  # noqa: E731
    lines.sort(key=lambda line: (line["dataset"], list(PRESETS).index(line["preset"]), place(line)))
    return pd.DataFrame(lines, columns=TABLE_COLUMNS)


def ram_elsewhere(records: list[dict], preset: str = "converged") -> pd.DataFrame:
    """RAM's error in percent where others report one, on RAM's own canvases and on the paper's: indexed by `canvases`
    and `glimpses`. First ours at `preset`, in one pass and in several that are averaged; then the paper's, and theirs.
    """
    own = paper.DATASETS["table2"]
    glimpses = {row: experiment("table2", row, preset).config.glimpses for row in ("ram-6", "ram-8")}
    reported = {"the paper": {own: {row: paper.row("table2", row).value for row in glimpses}}, **paper.RAM_ELSEWHERE}
    known = [name for name in clutter.VARIANTS if any(name in source for source in reported.values())]
    cells = by_cell(records)
    found = []
    for (dataset, (side, pieces)), row in product(((name, clutter.VARIANTS[name]) for name in known), glimpses):
        group = cells.get(("table2", preset, dataset, row))
        averaged = [r["metrics"]["test_error_monte_carlo"] for r in group or ()]
        theirs = {name: source.get(dataset, {}).get(row) for name, source in reported.items()}
        found.append({
            "canvases": f"{side} × {side} px, {pieces} pieces", "glimpses": glimpses[row],
            "ours": interval_text(statistics.estimate(outcomes(group))) if group else "not measured",
            "ours, Monte Carlo": f"{np.mean(averaged):.2f}" if group else "–",
            **{name: "–" if value is None else f"{value:.2f}" for name, value in theirs.items()},
        })  # fmt: skip
    return pd.DataFrame(found).set_index(["canvases", "glimpses"])


def monte_carlo(name: str, records: list[dict], preset: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What another way of testing makes of a table (ledger B7): rows with glimpses, on the table's own data set, tested
    in one pass and with the class probabilities of several sampled passes averaged (Monte Carlo), all in percent.

    Returns the rows, indexed by `row`, with the paper's value; and the differences of the claims that compare two of
    them, indexed by `claim` and `part`, paired by seed. The intervals are over seeds alone, for records keep of the
    Monte Carlo passes their error alone.
    """
    ways = {"one pass": "test_error", "Monte Carlo": "test_error_monte_carlo"}
    groups = {
        row: group
        for (owner, at, on, row), group in by_cell(records).items()
        if (owner, at, on) == (name, preset, paper.DATASETS[name]) and "test_error_monte_carlo" in group[0]["metrics"]
    }
    errors = lambda group, key: np.array([r["metrics"][key] for r in group])  # noqa: E731
    rows = [
        {"row": row, **{way: errors(groups[row], key).mean() for way, key in ways.items()}, "paper": reported.value}
        for row in rows_of(name)
        if row in groups and (reported := paper.row(name, row))
    ]
    effects = []
    for claim, c in ((one.claim, c) for one in paper.CLAIMS for c in one.contrasts):
        if (c.table, c.measure) != (name, "outcome") or not {c.better, c.worse} <= set(groups):
            continue
        better, worse = in_common(groups[c.better], groups[c.worse])
        if not better:
            continue
        found = {way: over_seeds_text(errors(better, key) - errors(worse, key)) for way, key in ways.items()}
        reported = paper.row(name, c.better).value - paper.row(name, c.worse).value
        effects.append(
            {"claim": claim, "part": c.part, **found, "paper": wording.signed(reported), "pairs": len(better)}
        )
    columns = [["row", *ways, "paper"], ["claim", "part", *ways, "paper", "pairs"]]
    first, second = (pd.DataFrame(lines, columns=c) for lines, c in zip((rows, effects), columns, strict=True))
    return first.set_index("row"), second.set_index(["claim", "part"])


def over_seeds_text(values: np.ndarray) -> str:
    """As in `−0.06 [−0.10, −0.01]`, the interval over seeds; no interval for one."""
    if len(values) < 2:
        return wording.signed(values.mean())
    found = statistics.mean_over_seeds(values)
    return f"{wording.signed(found.mean)} {wording.span(found.low, found.high, wording.signed)}"


def details(name: str, records: list[dict]) -> pd.DataFrame:
    """What else the records of a table hold, in long form; columns `DETAIL_COLUMNS`. Intervals are over seeds alone and
    end where the quantity does."""
    lines = []
    for (owner, preset, dataset, row), group in by_cell(records).items():
        if owner != name:
            continue
        series = [series_of(r) for r in group]
        for quantity in series[0]:
            values = [numbers[quantity] for numbers in series]
            bounds = next((BOUNDS[word] for word in BOUNDS if word in quantity), (0, np.inf))
            mean, low, high = over_seeds(values, *bounds)
            lines.append({"row": row, "preset": preset, "dataset": dataset, "quantity": quantity, "value": mean,
                          "ci_low": low, "ci_high": high, "n": len(values)})  # fmt: skip
    return pd.DataFrame(lines, columns=DETAIL_COLUMNS)


def series_of(record: dict) -> dict[str, float]:
    """Quantity -> value of what one record holds beside its test error."""
    metrics, made = record["metrics"], record["provenance"]
    numbers = {
        "validation error": metrics["val_error"],
        "best epoch": metrics["best_epoch"],
        "wall minutes": made["wall_seconds"] / 60,
        "images per second": made["images_per_second"],
        "threads": made["threads"],
    }
    if "test_error_monte_carlo" in metrics:
        numbers["Monte Carlo test error"] = metrics["test_error_monte_carlo"]
        if len(metrics["test_error_by_start"]) > 1:
            numbers["spread over start seeds"] = np.std(metrics["test_error_by_start"], ddof=1)
            numbers["answers that hang on the start, percent"] = 100 * hang_on_start([record]).mean()
    for quantity in ("glimpse_distance_px", "patch_entropy_bits", "blank_patch_percent"):
        numbers |= {f"{quantity}, glimpse {t}": value for t, value in enumerate(metrics.get(quantity, []))}
    numbers |= series_of_attacks(record) if "accuracy_under" in metrics else {}
    numbers |= series_of_lengths(record) if "test_error_by_length" in metrics else {}
    return numbers | (series_of_choices(metrics) if "top_down" in metrics else {})


def series_of_attacks(record: dict) -> dict[str, float]:
    """Of a row of Table 4: accuracies without an attack, under each, and where the start is a secret; the curves over
    epsilon, over steps and over the rollouts of EOT; how many warnings there are; what the evaluation cost."""
    metrics = record["metrics"]
    numbers = {
        "clean accuracy, whole test set": metrics["clean_accuracy"],
        "clean accuracy, attacked images": metrics["clean_accuracy_attacked_images"],
        "robust accuracy, start unknown": metrics["robust_accuracy_start_unknown"],
        "robust accuracy, attacks on all rows": 100 * standing(record, FACED_BY_ALL).mean(),
        "red flags": len(metrics["flags"]),
        "evaluation minutes": sum(record["provenance"]["attack_seconds"].values()) / 60,
    }
    numbers |= {f"accuracy under {name}": value for name, value in metrics["accuracy_under"].items()}
    for point in metrics["by_epsilon"]:
        of_epsilon = {name: value for name, value in point.items() if name != "epsilon"}
        numbers |= {f"accuracy under {name}, epsilon {point['epsilon']:.4f}": v for name, v in of_epsilon.items()}
    numbers |= {f"accuracy under PGD, {p['steps']} steps": p["accuracy"] for p in metrics["by_steps"]}
    return numbers | {f"accuracy under EOT-PGD, {p['draws']} rollouts": p["accuracy"] for p in metrics["by_draws"]}


def standing(record: dict, attacks: Iterable[str]) -> np.ndarray:
    """(images,) bool: which images of a row of Table 4 are right and none of `attacks` breaks."""
    outcomes = {name: unpack(record["metrics"]["outcomes"][name]) for name in ("clean", *attacks)}
    left = outcomes["clean"].copy()
    for outcome in outcomes.values():
        left[: len(outcome)] &= outcome  # some attacks are tried on the first images alone
    return left


def series_of_choices(metrics: dict) -> dict[str, float]:
    """What the top-down model did: how often the digit's centre lies in the region that it chose, how far the start
    lies from it, how often each region is chosen, and the mean value of each."""
    found = metrics["top_down"]
    numbers = {
        "in_region_percent": found["in_region_percent"],
        "start_distance_px": metrics["glimpse_distance_px"][0],
    }
    for d, (shares, values) in enumerate(zip(found["action_histogram"], found["q_values"], strict=True)):
        numbers |= {f"action_percent, decision {d}, region {a}": 100 * share for a, share in enumerate(shares)}
        numbers |= {f"q_value, decision {d}, region {a}": value for a, value in enumerate(values)}
    return numbers


def series_of_lengths(record: dict) -> dict[str, float]:
    """Of a reader of numbers: its error by their length, and what a prediction costs."""
    config = Config(**record["config"])
    shape, classes = data.shape_of(config.dataset)
    model = build(config, shape, classes)
    by_length = record["metrics"]["test_error_by_length"]
    errors = {f"test error, numbers of {n} digit{'' if n == '1' else 's'}": error for n, error in by_length.items()}
    return errors | {"parameters": count_parameters(model), "multiply-adds": multiply_adds(model, shape)}


def over_seeds(values: list[float], least: float, most: float) -> tuple[float, float | None, float | None]:
    """Mean and t interval over seeds (no interval for one seed), cut to what the quantity can be."""
    if len(values) < 2:
        return values[0], None, None
    found = statistics.mean_over_seeds(values)
    return found.mean, max(found.low, least), min(found.high, most)


def claims(records: list[dict], bench: dict | None = None) -> pd.DataFrame:
    """One line per claim, part and preset that published records on the paper's data set, or on a copy that `part` then
    names, bear on; `CLAIM_COLUMNS`. bench: of `make bench`, for the claim on cost.

    Effects are `better` minus `worse`, in percentage points (a change of spread is in percent). Where the paper gives
    no number to compare with, `paper_effect` is empty and the verdict rests on the sign. Where there are records on
    generated data alone, which `evidence` names, their effect is given and the verdict is `not testable here`.
    """
    cells = by_cell(records)
    lines = []
    for claim in paper.CLAIMS:
        for contrast in claim.contrasts:
            there = {preset for table, preset, *_ in cells if table == contrast.table}
            for preset in sorted(there, key=list(PRESETS).index):
                line = judged(contrast, preset, cells)
                lines += [{"claim": claim.claim, "statement": claim.statement, **line}] if line else []
        if claim.claim == "C9" and bench is not None:
            lines += [{"claim": claim.claim, "statement": claim.statement, **line} for line in growth(bench)]
    return pd.DataFrame(lines, columns=CLAIM_COLUMNS)


COSTS = {"glimpse_ms": "a glimpse", "pyramid_ms": "the pyramid, once an image", "unified_ms": "the whole unified model"}


def growth(bench: dict) -> list[dict]:
    """How the cost of each part grows with the number of pixels (claim C9): the effect is an exponent, and what is
    counted are sizes of the canvas."""
    lines = []
    pixels = [line["side_px"] ** 2 for line in bench["canvas"]]
    for key, part in COSTS.items():
        ours = statistics.exponent(pixels, [line[key] for line in bench["canvas"]])
        lines.append({
            "part": part, "preset": BENCHMARK, "our_effect": ours.mean, "ci_low": ours.low, "ci_high": ours.high,
            "n_pairs": ours.n, "verdict": statistics.growth_verdict(ours), "evidence": "results/bench.json",
        })  # fmt: skip
    return lines


def judged(contrast: paper.Contrast, preset: str, cells: dict) -> dict | None:
    """One contrast at one preset, or None where the records do not tell."""
    own = paper.DATASETS[contrast.table]
    present = {name for table, at, name, _ in cells if (table, at) == (contrast.table, preset)}
    main = published_on(contrast.table, present)
    datasets = [main, *BESIDE.get(contrast.measure, ())]
    ours = MEASURES[contrast.measure](*paired_groups(cells, contrast, preset, datasets))
    if ours is None:
        return None
    effect, verdict = None, statistics.direction_verdict(ours)
    if contrast.measure == "outcome":
        better, worse = (paper.row(contrast.table, row).value for row in (contrast.better, contrast.worse))
        effect, verdict = round(better - worse, 4), statistics.claim_verdict(ours, better - worse)
    part = f"{contrast.part}, {cifar10.TITLES[main]}" if main in data.COPIES else contrast.part
    if main not in (own, *data.COPIES):
        verdict = "not testable here"
    where = datasets[0] if len(datasets) == 1 else f"{{{','.join(datasets)}}}"
    return {
        "part": part, "preset": preset, "paper_effect": effect, "our_effect": ours.mean, "ci_low": ours.low,
        "ci_high": ours.high, "n_pairs": ours.n, "verdict": verdict,
        "evidence": f"results/runs/{contrast.table}/{preset}/{where}/{{{contrast.worse},{contrast.better}}}"
        + deciding_attacks(cells, contrast, preset, main),
    }  # fmt: skip


def deciding_attacks(cells: dict, contrast: paper.Contrast, preset: str, dataset: str) -> str:
    """For rows that are attacked, which attacks broke the most images of each; else nothing."""
    decided = {
        row: sorted({r["metrics"]["decided_by"] for r in cells[contrast.table, preset, dataset, row]})
        for row in (contrast.worse, contrast.better)
        if contrast.table == "table4"
    }
    return "".join(f"; {row} broken most by {' or '.join(names)}" for row, names in decided.items())


def paired_groups(cells: dict, contrast: paper.Contrast, preset: str, datasets: list[str]) -> list[list[dict]]:
    """The records of the better and the worse row on each data set, for the seeds that all of them have."""
    groups = [
        cells.get((contrast.table, preset, dataset, row), [])
        for dataset in datasets
        for row in (contrast.better, contrast.worse)
    ]
    return in_common(*groups)


def in_common(*groups: list[dict]) -> list[list[dict]]:
    """Each group's records of the seeds that all groups have."""
    shared = set.intersection(*({r["seed"] for r in group} for group in groups))
    return [[r for r in group if r["seed"] in shared] for group in groups]


def paired_curves(better: list[dict], worse: list[dict], quantity: str) -> np.ndarray:
    """(pairs, epochs): `better` minus `worse` in a quantity of `curves`, epoch by epoch, a line a seed that both have.

    Cut to the shortest run. Both hold run records (anything with `seed` and `curves`), at least one seed in common.
    """
    ours, theirs = ({r["seed"]: r["curves"][quantity] for r in group} for group in in_common(better, worse))
    epochs = min(len(curve) for curves in (ours, theirs) for curve in curves.values())
    return np.array([np.subtract(ours[seed][:epochs], theirs[seed][:epochs]) for seed in sorted(ours)])


# What a contrast may be measured in. Each function takes the records of the better and the worse row, paired by seed,
# and returns the effect, or None where they are too few to tell.


def effect_on_outcome(better: list[dict], worse: list[dict]) -> statistics.Estimate | None:
    """The difference of the table's metric, in percentage points, paired by seed and test image."""
    return statistics.paired_difference(outcomes(better), outcomes(worse)) if better else None


def effect_on_spread(better: list[dict], worse: list[dict]) -> statistics.Estimate | None:
    """The change of the standard deviation of the test error over seeds, in percent."""
    errors = [[r["metrics"]["test_error"] for r in group] for group in (better, worse)]
    return statistics.spread_change(*errors) if len(better) > 1 and np.ptp(errors[1]) > 0 else None


def effect_on_dependence(better: list[dict], worse: list[dict]) -> statistics.Estimate | None:
    """The difference of the share of images whose answer hangs on the start, in percentage points."""
    return statistics.paired_difference(hang_on_start(better), hang_on_start(worse)) if better else None


def effect_on_blanks(better: list[dict], worse: list[dict]) -> statistics.Estimate | None:
    """The difference of the share of blank patches among those that the policy chose, in percentage points. Records
    hold its mean over images, so the interval is over seeds alone."""
    pairs = zip(better, worse, strict=True)
    differences = [blank_percent(one) - blank_percent(other) for one, other in pairs]
    return statistics.mean_over_seeds(differences) if len(differences) > 1 else None


def effect_on_harm(
    better: list[dict], worse: list[dict], better_fewer: list[dict], worse_fewer: list[dict]
) -> statistics.Estimate | None:
    """The difference of what the table's clutter adds to the error over fewer pieces, in percentage points, paired by
    seed and test digit: the test sets hold the same digits in the same order, at other places."""
    if not better:
        return None
    harm = lambda more, fewer: outcomes(more) - outcomes(fewer)  # noqa: E731
    return statistics.paired_difference(harm(better, better_fewer), harm(worse, worse_fewer))


MEASURES = {
    "outcome": effect_on_outcome,
    "spread over seeds": effect_on_spread,
    "hang on the start": effect_on_dependence,
    "blank patches": effect_on_blanks,
    "harm of clutter": effect_on_harm,
}
# Data sets that a measure needs beside the table's own: RAM's protocol has 8 pieces where Table 2 has 10 (ledger F1).
BESIDE = {"harm of clutter": ("clutter100-8",)}


def hang_on_start(records: list[dict]) -> np.ndarray:
    """(seeds, images): 1 where the image was read rightly from some start locations and wrongly from others."""
    shares = wrong(records)
    return ((shares > 0) & (shares < 1)).astype(float)


def blank_percent(record: dict) -> float:
    """Percent of blank patches, none of whose pixels differ when binarised, among all but the one at the start, which
    no action led to."""
    return float(np.mean(record["metrics"]["blank_patch_percent"][1:]))


def write_tables(
    records_root: Path = PUBLISHED, tables_folder: Path = TABLES, claims_path: Path = CLAIMS, bench_path: Path = BENCH
) -> list[str]:
    """Rebuild every table and the claims, from the records and the benchmark; returns the paths written, as a reader
    sees them."""
    records = load_records(records_root)
    frames = {claims_path: claims(records, read_json(bench_path, "canvas"))}
    for name in sorted({record["table"] for record in records}):
        frames[tables_folder / f"{name}.csv"] = table(name, records)
        frames[tables_folder / f"{name}_details.csv"] = details(name, records)
    for path, frame in frames.items():
        text = frame.to_csv(index=False, float_format="%.4f", lineterminator="\n")
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text))
    return [relative(path) for path in frames]


def compare(experiments: list[Experiment], published: list[dict], local: list[dict], preset: str) -> pd.DataFrame:
    """Paper, published and this machine side by side, one line an experiment.

    `published` on the paper's data set, or on what stands in for it, at one preset for all rows, so that the column can
    be read downwards: `preset` if any is published there, else the one of `PUBLISHED_AT` with the most of them; each
    entry says which. `local` on whatever the experiments use.
    """
    theirs, mine = by_cell(published), by_cell(local)
    present = {e.table: {name for table, _, name, _ in theirs if table == e.table} for e in experiments}
    on = {name: published_on(name, datasets) for name, datasets in present.items()}
    book = {
        at: {e: theirs[cell] for e in experiments if (cell := (e.table, at, on[e.table], e.row)) in theirs}
        for at in (preset, *PUBLISHED_AT)
    }
    at = preset if book[preset] else max(PUBLISHED_AT, key=lambda at: len(book[at]))
    copy = lambda name: f", {cifar10.TITLES[name]}" if name in data.COPIES else ""  # noqa: E731
    text = lambda records: interval_text(statistics.estimate(outcomes(records)))  # noqa: E731
    lines = []
    for e in experiments:
        reported = paper.row(e.table, e.row)
        entry = f"{text(book[at][e])}, {at}{copy(on[e.table])}" if e in book[at] else "–"
        here = mine.get((e.table, preset, e.config.dataset, e.row))
        lines.append({
            "row": e.row, "model": e.label, "paper": f"{reported.value:.2f}" if reported else "–", "published": entry,
            "this machine": text(here) + copy(e.config.dataset) if here else "–",
        })  # fmt: skip
    return pd.DataFrame(lines).set_index("row")


def interval_text(estimate: statistics.Estimate) -> str:
    """As in `1.09 [0.98, 1.20], 3 seeds`."""
    return f"{estimate.mean:.2f} {wording.span(estimate.low, estimate.high)}, {wording.count(estimate.n, 'seed')}"
