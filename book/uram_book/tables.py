"""Tables, claims and readings, derived from run records: `results/tables/*.csv` and `results/claims.csv`."""

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from uram_lib import data, paper
from uram_lib.config import Config
from uram_lib.experiments import PRESETS, READINGS, Experiment, experiment, label_of, readings_of, rows_of
from uram_lib.models import build, count_parameters
from uram_lib.paths import BENCH, CLAIMS, PUBLISHED, TABLES, read_json, relative, write_atomically
from uram_lib.records import dataset_name, load_records, unpack, wrong
from uram_lib.robustness import FACED_BY_ALL

from . import statistics
from .statistics import Estimate

TABLE_COLUMNS = (
    "table,row,label,metric,paper,dataset,preset,n_seeds,ours_mean,ours_ci_low,ours_ci_high,delta,verdict".split(",")
)
DETAIL_COLUMNS = "row,preset,dataset,quantity,value,ci_low,ci_high,n".split(",")
CLAIM_COLUMNS = (
    "claim,part,preset,source,statement,paper_effect,our_effect,ci_low,ci_high,n_pairs,verdict,evidence".split(",")
)
READING_COLUMNS = "effect,reading,budget,n_pairs,effect_mean,ci_low,ci_high,paper_effect,note".split(",")
# What a quantity of `details` can be, by a word in its name; the first that fits. Others are from 0 on.
BOUNDS = {"q_value": (-np.inf, np.inf), "bits": (0, 1), "percent": (0, 100), "error": (0, 100), "accuracy": (0, 100)}
# A table's own data set, and what stands in for it.
HOMES = {table: (own, *data.STAND_INS.get(own, ())) for table, own in paper.DATASETS.items()}
BENCHMARK = "bench"  # what stands for a preset where `make bench` measured
PUBLISHED_AT = ("strong", "paper")  # presets of published records, those that a reader's own resemble first
# P-value of Bartlett's test below which standard deviations are not pooled. Where readings spread alike this costs
# little; where one of ten spreads five times as widely, its interval covers in 85 % of simulations, at 0.01 in 69 %.
UNLIKE = 0.2
EARLY = 7  # the epoch of the short budget at paper settings


def by_cell(records: list[dict]) -> dict[tuple[str, str, str, str], list[dict]]:
    """Records grouped by (table, preset, data set, row), each group ordered by seed."""
    cells = {}
    for r in records:
        cells.setdefault((r["table"], r["preset"], dataset_name(r), r["row"]), []).append(r)
    return {cell: sorted(group, key=lambda r: r["seed"]) for cell, group in sorted(cells.items())}


def cells_of(name: str, records: list[dict]) -> dict[tuple[str, str, str], list[dict]]:
    """Records of one table, grouped by (preset, data set, row)."""
    return {cell[1:]: group for cell, group in by_cell(records).items() if cell[0] == name}


def with_header(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The frame with a column as its index. The column's name heads the index in the one row of headers; as the name of
    the index, pandas would show it in a second."""
    return frame.set_index(column).rename_axis(index=None, columns=column)


def outcomes(records: list[dict]) -> np.ndarray:
    """(seeds, images): shares of wrong answers, or of right ones where the metric is an accuracy."""
    return wrong(records) if paper.metric(records[0]["table"]) == "error" else 1 - wrong(records)


def published_on(table: str, present: set[str]) -> str:
    """The data set that a table is published on, of those `present`: the paper's own, or else what stands in for it."""
    return next((name for name in HOMES[table] if name in present), paper.DATASETS[table])


def table(name: str, records: list[dict]) -> pd.DataFrame:
    """One line per row, preset and data set, rows in the paper's order; columns `TABLE_COLUMNS`.

    The paper's value, and so the verdict, is given for results on the paper's own data set alone.
    """
    lines = []
    for (preset, dataset, row), group in cells_of(name, records).items():
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
    order = {row: i for i, row in enumerate([*rows_of(name), *readings_of(name)])}
    place = lambda line: order.get(line["row"], len(order))  # noqa: E731
    lines.sort(key=lambda line: (line["dataset"], list(PRESETS).index(line["preset"]), place(line)))
    return pd.DataFrame(lines, columns=TABLE_COLUMNS)


def ways_of_testing(name: str, records: list[dict]) -> pd.DataFrame:
    """Test error in percent of a table's rows with glimpses, by preset and way of testing: one pass along the mean
    path, one sampled pass, and the class probabilities of several sampled passes averaged."""
    ways = {
        "one pass": "test_error", "one sampled pass": "test_error_sampled",
        "averaged over 10": "test_error_averaged", "averaged over 5": "test_error_monte_carlo",
    }  # fmt: skip
    lines = []
    for (preset, dataset, row), group in cells_of(name, records).items():
        if "@" in row or not any(way in group[0]["metrics"] for way in list(ways.values())[1:]):
            continue
        found = {way: [r["metrics"][key] for r in group if key in r["metrics"]] for way, key in ways.items()}
        means = {way: round(float(np.mean(values)), 2) if values else None for way, values in found.items()}
        lines.append({"preset": preset, "data": dataset, "row": row, **means, "seeds": len(group)})
    frame = pd.DataFrame(lines)
    return with_header(frame.dropna(axis=1, how="all").astype(object).fillna("–"), "row") if len(frame) else frame


def details(name: str, records: list[dict]) -> pd.DataFrame:
    """What else the records of a table hold, in long form; columns `DETAIL_COLUMNS`. Intervals are over seeds alone and
    end where the quantity does."""
    lines = []
    for (preset, dataset, row), group in cells_of(name, records).items():
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
        "million rollouts": made["rollouts"] / 1e6,
    }
    for key, name in (
        ("sampled", "one sampled pass"),
        ("averaged", "averaged over 10"),
        ("monte_carlo", "averaged over 5"),
    ):
        if f"test_error_{key}" in metrics:
            numbers[f"test error, {name}"] = metrics[f"test_error_{key}"]
    if len(metrics.get("test_error_by_start", ())) > 1:
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
    kept = record["metrics"]["outcomes"]
    outcomes = {name: unpack(kept[name]) for name in ("clean", *attacks) if name in kept}
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
    config = Config.read(record["config"])
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


@torch.no_grad()
def multiply_adds(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of the matrix products and convolutions in one forward pass for one image of (C, H, W), for models
    that take images alone. Of a reader of numbers these are all its glimpses, as many as the longest takes."""
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *image_shape))
    return counter.get_total_flops() // 2  # it counts a multiplication and an addition as two


def claims(records: list[dict], bench: dict | None = None) -> pd.DataFrame:
    """One line per part of a claim and preset that published records on the paper's data set, or on a copy that `part`
    then names, bear on; `CLAIM_COLUMNS`. bench: of `make bench`, for costs.

    Effects are `better` minus `worse`, in percentage points (a change of spread is in percent, a cost an exponent).
    Where the paper gives no number to compare with, `paper_effect` is empty and the verdict rests on the sign. Where
    there are records on generated data alone, which `evidence` names, the verdict is `not testable here`.
    """
    cells = by_cell(records)
    lines = []
    for claim, contrast in [(one, contrast) for one in paper.CLAIMS for contrast in one.contrasts]:
        if contrast.measure.startswith("cost of "):
            found = [growth(contrast, bench)] if bench else []
        else:
            there = {preset for table, preset, *_ in cells if table == contrast.table}
            found = [judged(contrast, preset, cells) for preset in sorted(there, key=list(PRESETS).index)]
        shared = {"claim": claim.claim, "statement": claim.statement, "source": contrast.source}
        lines += [shared | line for line in found if line]
    return pd.DataFrame(lines, columns=CLAIM_COLUMNS)


def growth(contrast: paper.Contrast, bench: dict) -> dict:
    """How a cost grows with the number of pixels: the effect is an exponent, and what is counted are canvas sizes."""
    key = contrast.measure.removeprefix("cost of ")
    ours = statistics.exponent(
        [line["side_px"] ** 2 for line in bench["canvas"]], [line[key] for line in bench["canvas"]]
    )
    return {
        "part": contrast.part, "preset": BENCHMARK, "our_effect": ours.mean, "ci_low": ours.low, "ci_high": ours.high,
        "n_pairs": ours.n, "verdict": statistics.growth_verdict(ours), "evidence": "results/bench.json",
    }  # fmt: skip


def judged(contrast: paper.Contrast, preset: str, cells: dict) -> dict | None:
    """One contrast at one preset, or None where the records do not tell."""
    own = paper.DATASETS[contrast.table]
    present = {name for table, at, name, _ in cells if (table, at) == (contrast.table, preset)}
    main = published_on(contrast.table, present)
    groups = paired_groups(cells, contrast, preset, main)
    ours = MEASURES[contrast.measure](*groups) if groups[0] else None
    if ours is None:
        return None
    effect, verdict = None, statistics.direction_verdict(ours)
    if contrast.measure == "outcome":
        better, worse = (paper.row(contrast.table, row).value for row in (contrast.better, contrast.worse))
        effect, verdict = round(better - worse, 4), statistics.claim_verdict(ours, better - worse)
    part = f"{contrast.part}, {data.about(main).title}" if main in data.COPIES else contrast.part
    if main not in (own, *data.COPIES):
        verdict = "not testable here"
    return {
        "part": part, "preset": preset, "paper_effect": effect, "our_effect": ours.mean, "ci_low": ours.low,
        "ci_high": ours.high, "n_pairs": ours.n, "verdict": verdict,
        "evidence": f"results/runs/{contrast.table}/{preset}/{main}/{{{contrast.worse},{contrast.better}}}"
        + deciding_attacks(cells, contrast, preset, main),
    }  # fmt: skip


def deciding_attacks(cells: dict, contrast: paper.Contrast, preset: str, dataset: str) -> str:
    """For rows that are attacked, which attacks broke the most images of each; else nothing."""
    if contrast.table != "table4":
        return ""
    text = ""
    for row in (contrast.worse, contrast.better):
        names = sorted({r["metrics"]["decided_by"] for r in cells[contrast.table, preset, dataset, row]})
        text += f"; {row} broken most by {' or '.join(names)}"
    return text


def paired_groups(cells: dict, contrast: paper.Contrast, preset: str, dataset: str) -> list[list[dict]]:
    """The records of the better and the worse row, and of the readings that the measure needs beside them, for the
    seeds that all of them have."""
    groups = []
    for suffix, row in itertools.product(BESIDE.get(contrast.measure, ("",)), (contrast.better, contrast.worse)):
        on = READINGS[suffix[1:]].changes["dataset"] if suffix else dataset
        groups.append(cells.get((contrast.table, preset, on, row + suffix), []))
    return compared(*groups)


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


def in_common(*groups: list[dict]) -> list[list[dict]]:
    """Each group's records of the seeds that all groups have."""
    shared = set.intersection(*({r["seed"] for r in group} for group in groups))
    return [[r for r in group if r["seed"] in shared] for group in groups]


def paired_curves(better: list[dict], worse: list[dict]) -> np.ndarray:
    """(pairs, epochs): `better` minus `worse` in validation error, epoch by epoch, a line a seed that both have.

    Cut to the shortest run. Both hold run records (anything with `seed` and `curves`), at least one seed in common.
    """
    ours, theirs = ({r["seed"]: r["curves"]["val_error"] for r in group} for group in in_common(better, worse))
    epochs = min(len(curve) for curves in (ours, theirs) for curve in curves.values())
    return np.array([np.subtract(ours[seed][:epochs], theirs[seed][:epochs]) for seed in sorted(ours)])


# What a contrast may be measured in. Each function takes the records of the better and the worse row, at least one pair
# by seed, and returns the effect, or None where they are too few to tell.


def effect_on_outcome(better: list[dict], worse: list[dict]) -> Estimate:
    """The difference of the table's metric, in percentage points, paired by seed and test image."""
    return statistics.paired_difference(outcomes(better), outcomes(worse))


def effect_on_spread(better: list[dict], worse: list[dict]) -> Estimate | None:
    """The change of the standard deviation of the test error over seeds, in percent."""
    errors = [[r["metrics"]["test_error"] for r in group] for group in (better, worse)]
    return statistics.spread_change(*errors) if len(better) > 1 and np.ptp(errors[1]) > 0 else None


def effect_on_dependence(better: list[dict], worse: list[dict]) -> Estimate:
    """The difference of the share of images whose answer hangs on the start, in percentage points."""
    return statistics.paired_difference(hang_on_start(better), hang_on_start(worse))


def effect_on_blanks(better: list[dict], worse: list[dict]) -> Estimate | None:
    """The difference of the share of blank patches (none of whose pixels differ when binarised) among those that the
    policy chose, so without the start, in percentage points. Records hold its mean over images, so the interval is over
    seeds alone."""
    blanks = [[float(np.mean(r["metrics"]["blank_patch_percent"][1:])) for r in group] for group in (better, worse)]
    return statistics.mean_over_seeds(np.subtract(*blanks)) if len(better) > 1 else None


def effect_on_harm(
    better: list[dict], worse: list[dict], better_fewer: list[dict], worse_fewer: list[dict]
) -> Estimate:
    """The difference of what the table's clutter adds to the error over fewer pieces, in percentage points, paired by
    seed and test digit: the test sets hold the same digits in the same order, at other places."""
    ours, theirs = outcomes(better) - outcomes(better_fewer), outcomes(worse) - outcomes(worse_fewer)
    return statistics.paired_difference(ours, theirs)


MEASURES = {
    "outcome": effect_on_outcome,
    "spread over seeds": effect_on_spread,
    "hang on the start": effect_on_dependence,
    "blank patches": effect_on_blanks,
    "harm of clutter": effect_on_harm,
}
# Readings that a measure needs beside the row itself: RAM's protocol has 8 pieces where Table 2 has 10 (ledger F1).
BESIDE = {"harm of clutter": ("", "@8-pieces")}


def hang_on_start(records: list[dict]) -> np.ndarray:
    """(seeds, images): 1 where the image was read rightly from some start locations and wrongly from others."""
    shares = wrong(records)
    return ((shares > 0) & (shares < 1)).astype(float)


# ---- Readings

# The paper's effects on Table 2 at 6 glimpses: (row with, row without).
EFFECTS = {
    "top-down": ("ours-6", "ram-6"),
    "entropy": ("ours-6-entropy", "ours-6"),
    "context": ("ours-6-entropy-context", "ours-6-entropy"),
    "all": ("ours-6-entropy-context", "ram-6"),
}
MAIN = "main reading"


def rows_under(reading: str, effect: str) -> tuple[str, str] | None:
    """The two rows whose difference is `effect` under a reading, the reading's own row where it has one; None where it
    leaves the row with the effect as it is. A start that is bounded and not chosen counts as a chooser's row."""
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
    # The row without is read alike as far as the reading says something of it: `early` pays a chooser that RAM lacks.
    alike = [name for name, other in READINGS.items() if other.table == "table2" and worse in other.rows
             and other.changes.items() <= known.changes.items()]  # fmt: skip
    base = max(alike, key=lambda name: len(READINGS[name].changes), default="")
    return f"{better}@{reading}", f"{worse}@{base}" if base else worse


def is_home(table: str, dataset: str, row: str) -> bool:
    """Whether records of Table 2 are on its own canvases, or on those of the row's reading: others do not count."""
    reading = READINGS.get(row.partition("@")[2])
    home = reading.changes.get("dataset", paper.DATASETS["table2"]) if reading else paper.DATASETS["table2"]
    return table == "table2" and dataset == home


def readings(records: list[dict]) -> pd.DataFrame:
    """One line per effect, reading and budget that records bear on, `READING_COLUMNS`, in points of error.

    Intervals come from paired seeds with a standard deviation pooled over the readings of an effect and budget. The
    budget `paper-7` is the validation error after epoch 7 of the same runs.
    """
    cells = {(at, row): group for (table, at, on, row), group in by_cell(records).items() if is_home(table, on, row)}
    lines = []
    for effect, (better, worse) in EFFECTS.items():
        reported = round(paper.row("table2", better).value - paper.row("table2", worse).value, 4)
        for budget in ("paper", f"paper-{EARLY}", "strong"):
            differences = {}
            for reading in (MAIN, *READINGS):
                if rows := rows_under(reading, effect):
                    groups = compared(*(cells.get((budget.split("-")[0], row), []) for row in rows))
                    if groups[0]:
                        differences[reading] = [
                            error_of(a, budget) - error_of(b, budget) for a, b in zip(*groups, strict=True)
                        ]
            if not any(len(values) > 1 for values in differences.values()):
                continue
            spread, freedom, alike = statistics.pooled_spread(list(differences.values()))
            for reading, values in differences.items():
                own = alike < UNLIKE and len(values) > 1  # readings that spread too differently to be pooled
                shared = statistics.pooled_spread([values])[:2] if own else (spread, freedom)
                found = statistics.pooled_interval(values, *shared)
                note = "its own SD" if own else f"SD pooled over {len(differences)} readings"
                note += f": {shared[0]:.2f}, {shared[1]} degrees of freedom; Bartlett p = {alike:.3f}"
                note += "; validation error" if budget.startswith("paper-") else ""
                lines.append((effect, reading, budget, found.n, found.mean, found.low, found.high, reported, note))
    return pd.DataFrame(lines, columns=READING_COLUMNS)


def error_of(record: dict, budget: str) -> float:
    """Test error in percent, or for the short budget the validation error after its epoch."""
    if budget.startswith("paper-"):
        return record["curves"]["val_error"][EARLY - 1]
    return record["metrics"]["test_error"]


def factorial(records: list[dict], preset: str) -> pd.DataFrame:
    """The eight combinations of top-down, entropy and context with 6 glimpses: error in percent with its interval, and
    the main effect of each idea, the mean over the other two's four settings, paired by seed."""
    cells = {row: group for (table, at, on, row), group in by_cell(records).items()
             if at == preset and is_home(table, on, row)}  # fmt: skip
    factors = ("top-down", "entropy", "context")
    names = {}  # (top-down, entropy, context) -> row
    for top_down, *others in itertools.product((False, True), repeat=3):
        ideas = itertools.compress(factors[1:], others)
        names[top_down, *others] = "-".join(("ours-6" if top_down else "ram-6", *ideas))
    lines = [
        {"row": row, **{factor: "yes" if on else "–" for factor, on in zip(factors, levels, strict=True)},
         "error (%)": interval_text(statistics.estimate(outcomes(cells[row]))) if row in cells else "not measured"}
        for levels, row in names.items()
    ]  # fmt: skip
    for i, factor in enumerate(factors):
        pairs = [(row, names[*levels[:i], False, *levels[i + 1 :]]) for levels, row in names.items() if levels[i]]
        groups = compared(*(cells.get(row, []) for pair in pairs for row in pair))
        text = "not measured"
        if groups[0]:
            shares = np.stack([outcomes(group) for group in groups])  # (2 pairs, seeds, images), with, without in turn
            text = interval_text(statistics.paired_difference(shares[::2].mean(0), shares[1::2].mean(0)))
        lines.append({"row": f"main effect of {factor}", **dict.fromkeys(factors, ""), "error (%)": text})
    return with_header(pd.DataFrame(lines), "row")


def shared_settings(chosen: dict[str, list[Experiment]]) -> pd.DataFrame:
    """What all experiments of each preset have in common and what differs from `Config`'s defaults somewhere, one line
    per setting and one column per preset: of published runs as their records say, of others as they would be run."""
    defaults = {f.name: f.default for f in dataclasses.fields(Config)}
    made = {
        (r["table"], r["preset"], r["row"]): Config.read(r["config"])
        for r in load_records()
        if dataset_name(r) in HOMES[r["table"]]
    }
    columns = {}
    for at, of in chosen.items():
        settings = [dataclasses.asdict(made.get((e.table, e.preset, e.row), e.config)) for e in of]
        values = {name: {str(one[name]) for one in settings} for name in defaults}
        columns[at] = {name: found.pop() if len(found) == 1 else "by row" for name, found in values.items()}
    frame = pd.DataFrame(columns)
    told = [name for name in frame.index if not set(frame.loc[name]) <= {str(defaults[name]), "by row"}]
    return frame.loc[told].rename_axis(columns="setting")


def of_older_recipe(records: list[dict]) -> list[str]:
    """Rows, as in `table2/ram-6`, of whose published runs at strong settings any was made with another recipe than
    today's."""
    found = set()
    for r in records:
        if r["preset"] == "strong" and "@" not in r["row"] and dataset_name(r) in HOMES[r["table"]]:
            if Config.read(r["config"]) != experiment(r["table"], r["row"], "strong", dataset_name(r)).config:
                found.add(f"{r['table']}/{r['row']}")
    return sorted(found)


# ---- Files


def write_tables(
    records_root: Path = PUBLISHED, tables_folder: Path = TABLES, claims_path: Path = CLAIMS, bench_path: Path = BENCH
) -> list[str]:
    """Rebuild every table, the claims and the readings from the records and the benchmark; returns the paths written,
    as a reader sees them."""
    records = load_records(records_root)
    frames = {
        claims_path: claims(records, read_json(bench_path, "canvas")),
        tables_folder / "readings.csv": readings(records),
    }
    for name in sorted({record["table"] for record in records}):
        frames[tables_folder / f"{name}.csv"] = table(name, records)
        frames[tables_folder / f"{name}_details.csv"] = details(name, records)
    for path, frame in frames.items():
        write_atomically(path, lambda temporary, frame=frame: temporary.write_text(as_text(frame), encoding="utf-8"))
    return [relative(path) for path in frames]


def as_text(frame: pd.DataFrame) -> str:
    """A frame as its file holds it."""
    return frame.to_csv(index=False, float_format="%.4f", lineterminator="\n")


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def read_table(name: str) -> pd.DataFrame:
    return _read(TABLES / f"{name}.csv")


def read_details(name: str) -> pd.DataFrame:
    return _read(TABLES / f"{name}_details.csv")


def read_claims() -> pd.DataFrame:
    return _read(CLAIMS)


def read_readings() -> pd.DataFrame:
    return _read(TABLES / "readings.csv")


def same(made: pd.DataFrame, read: pd.DataFrame) -> bool:
    """Whether a frame made from records holds the same as one read from its file: alike once both are written."""
    return as_text(made) == as_text(read)


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
    copy = lambda name: f", {data.about(name).title}" if name in data.COPIES else ""  # noqa: E731
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
    return with_header(pd.DataFrame(lines), "row")


def interval_text(estimate: Estimate) -> str:
    """As in `1.09 [0.98, 1.20], 3 seeds`."""
    seeds = f"{estimate.n} seed{'' if estimate.n == 1 else 's'}"
    return f"{estimate.mean:.2f} [{estimate.low:.2f}, {estimate.high:.2f}], {seeds}".replace("-", "−")


if __name__ == "__main__":
    print(*write_tables(), sep="\n")
