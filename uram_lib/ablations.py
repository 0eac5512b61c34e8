"""The ablations: rows of the tables with one decision taken otherwise, judged from records by seed and test image.

An effect is the arm's error minus its row's, in percentage points. What has no pair of records is "not measured".
"""

import itertools

import numpy as np
import pandas as pd

from . import data, paper
from .experiments import ABLATIONS, RECIPES, ROWS, Arm, experiment, label_of, rows_of
from .statistics import Estimate, direction_verdict, estimate, mean_over_seeds, paired_difference
from .tables import BESIDE, by_cell, effect_on_outcome, in_common, outcomes, paired_curves
from .wording import listed, signed, span

NOT_MEASURED, REFERENCE = "not measured", "the reference"
VERDICTS = {"supported": "lowers the error", "opposite": "raises the error", "undecided": "undecided"}
ORDER = (*VERDICTS.values(), NOT_MEASURED)

# What the ledger's entries ask; an entry without a line here is shown without its question.
QUESTIONS = {
    "A1": "Do two decisions, the second on the chosen quadrant, do better than one?",
    "A7": "Is the centre of the chosen region a better start than a random place in it?",
    "B4": "How far should the location policy explore?",
    "B6": "Does it matter that REINFORCE's gradient reaches the core?",
    "B9": "Does it matter that each scale is brought to comparable magnitude?",
    "D3": "Does the entropy constraint act as intended when it scales the reward, not the advantage?",
    "F1": "How much do two pieces of clutter less make the task easier?",
    "K3": "Is it the context of Eq. 11 that helps, or would something simpler do as well?",
}
ELSEWHERE = ("G", "A8", "speed")  # arms that are no decision of the ledger, or have a section of their own
FACTORS = ("top-down", "entropy", "context")
FIELDS = "our_effect,ci_low,ci_high,n_pairs,verdict".split(",")


def preset_of(table: str, preset: str) -> str:
    """`preset`, or "converged" for a table that does not have it (Table 1 is published at that preset alone)."""
    return preset if preset in RECIPES[table] else "converged"


def rows_at(records: list[dict], table: str, preset: str, dataset: str | None = None) -> dict[str, list[dict]]:
    """Row -> records by seed, of a table and of the arms that vary it, at `preset_of` the table and on one data set: by
    default the preset's own, or the embedded one that stood in for it where these records were made."""
    preset = preset_of(table, preset)
    cells = {
        key: group for key, group in by_cell(records).items() if key[0] in (table, "ablations") and key[1] == preset
    }
    if dataset is None:
        dataset = experiment(table, rows_of(table)[0], preset).config.dataset
        present = {on for owner, _, on, _ in cells if owner == table}
        if dataset not in present:
            dataset = min(filter(data.is_embedded, present), default=dataset)
    return {row: group for (_, _, on, row), group in cells.items() if on == dataset}


def judged(effect: Estimate | None) -> dict:
    """The `FIELDS` of a line. An effect of fewer than FEWEST pairs is shown, but stands undecided."""
    if effect is None:
        return dict.fromkeys(FIELDS) | {"n_pairs": 0, "verdict": NOT_MEASURED}
    verdict = VERDICTS[direction_verdict(effect)]
    return dict(zip(FIELDS, (effect.mean, effect.low, effect.high, effect.n, verdict), strict=True))


def legible(lines: pd.DataFrame) -> pd.DataFrame:
    """`lines` with their `FIELDS` as a reader sees them: `difference (points)`, `pairs` and `verdict`."""
    texts = [
        "–" if pd.isna(line.our_effect) else effect_text(line.our_effect, line.ci_low, line.ci_high)
        for line in lines.itertuples()
    ]
    return lines.drop(columns=FIELDS).assign(
        **{"difference (points)": texts, "pairs": lines["n_pairs"], "verdict": lines["verdict"]}
    )


def effect_text(mean: float, low: float, high: float) -> str:
    """As in `−0.69 [−1.37, −0.01]`."""
    return f"{signed(mean)} {span(low, high, signed)}"


def effect_of(rows: dict[str, list[dict]], better: str, worse: str) -> Estimate | None:
    """The error of `better` minus that of `worse` over the seeds that both have; None where there are none."""
    return effect_on_outcome(*in_common(rows.get(better, []), rows.get(worse, [])))


def decisions(records: list[dict], preset: str) -> pd.DataFrame:
    """The ledger's decisions, a line an arm in the ledger's order: `ledger`, `question`, `arm` (what is taken
    otherwise), `row` (what it is compared with), `preset`, and `FIELDS`."""
    lines = [decision(arm, name, records, preset) for name, arm in ABLATIONS.items() if arm.ledger not in ELSEWHERE]
    lines += fewer_pieces(records, preset)
    return pd.DataFrame(sorted(lines, key=lambda line: line["ledger"]))


def decision(arm: Arm, name: str, records: list[dict], preset: str) -> dict:
    """One arm's line of `decisions`."""
    effect = effect_of(rows_at(records, arm.table, preset), name, arm.row)
    return {
        "ledger": arm.ledger, "question": QUESTIONS.get(arm.ledger, ""), "arm": arm.label, "row": arm.row,
        "preset": preset_of(arm.table, preset), **judged(effect),
    }  # fmt: skip


def fewer_pieces(records: list[dict], preset: str) -> list[dict]:
    """Lines of `decisions` for canvases with RAM's own 8 pieces in place of 10, for the rows that claim C14 compares;
    paired by seed and test digit, for the test sets hold the same digits in the same order."""
    (contrasts,) = (claim.contrasts for claim in paper.CLAIMS if claim.claim == "C14")
    used = {row for contrast in contrasts for row in (contrast.worse, contrast.better)}
    (eight,) = BESIDE["harm of clutter"]
    ten, fewer = (rows_at(records, "table2", preset, dataset) for dataset in (None, eight))
    lines = []
    for row in filter(used.__contains__, ROWS["table2"]):
        effect = effect_on_outcome(*in_common(fewer.get(row, []), ten.get(row, [])))
        lines.append({"ledger": "F1", "question": QUESTIONS["F1"], "arm": f"8 pieces, {row}", "row": row,
                      "preset": preset, **judged(effect)})  # fmt: skip
    return lines


def factorial_rows() -> dict[tuple[bool, bool, bool], str]:
    """(top-down, entropy, context) -> the row or arm with 6 glimpses of 12 x 12 at 4 scales that has just these."""
    named = [("table2", row) for row in ROWS["table2"]]
    named += [("ablations", name) for name, arm in ABLATIONS.items() if arm.ledger == "G"]
    configs = {row: experiment(table, row, "paper").config for table, row in named}
    return {
        (c.model == "unified", c.entropy != "none", c.context): row
        for row, c in configs.items()
        if (c.glimpses, c.patch_size, c.scales) == (6, 12, 4)
    }


def factorial_cells(rows: dict[str, list[dict]]) -> pd.DataFrame:
    """The eight cells, a line each: the factors, `row`, and the error in percent (`mean`, `low`, `high`, `n`, empty
    where it is not measured). rows: of `rows_at`."""
    lines = []
    for levels, row in sorted(factorial_rows().items()):
        found = estimate(outcomes(rows[row])) if row in rows else None
        measured = vars(found) if found else dict.fromkeys(("mean", "low", "high", "n"))
        lines.append(dict(zip(FACTORS, levels, strict=True)) | {"row": row} | measured)
    return pd.DataFrame(lines)


def in_words(levels: dict[str, bool]) -> str:
    """As in `entropy and context`, or `neither` of two factors."""
    return " and ".join(factor for factor, on in levels.items() if on) or "neither"


def factorial_effects(rows: dict[str, list[dict]]) -> pd.DataFrame:
    """What each factor does: `factor`, `with` (which of the other two are on), and `FIELDS`; first its main effect
    (`with`: "all four, mean"), the mean over the other factors' four settings, which takes all eight cells."""
    named = factorial_rows()
    lines = []
    for i, factor in enumerate(FACTORS):
        others = [f for f in FACTORS if f != factor]
        pairs = {}  # what else is on -> (row with the factor, row without)
        for levels in itertools.product((False, True), repeat=len(others)):
            on, off = ((*levels[:i], value, *levels[i:]) for value in (True, False))
            pairs[in_words(dict(zip(others, levels, strict=True)))] = named[on], named[off]
        lines.append({"factor": factor, "with": "all four, mean", **judged(main_effect(rows, list(pairs.values())))})
        lines += [{"factor": factor, "with": w, **judged(effect_of(rows, *pair))} for w, pair in pairs.items()]
    return pd.DataFrame(lines)


def main_effect(rows: dict[str, list[dict]], pairs: list[tuple[str, str]]) -> Estimate | None:
    """The mean of several differences (row with, row without) over the seeds that all of these rows have."""
    groups = in_common(*(rows.get(row, []) for pair in pairs for row in pair))
    if not groups[0]:
        return None
    shares = np.stack([outcomes(group) for group in groups])  # (2 pairs, seeds, images), with and without in turn
    return paired_difference(shares[::2].mean(0), shares[1::2].mean(0))


def starts(rows: dict[str, list[dict]]) -> pd.DataFrame:
    """Where RAM with 6 glimpses starts, and what it errs: RAM's own start, top-down's, and the arms that bound it
    (ledger A8). A line a start: `start`, `row`, `distance_px` and `last_px` (mean from the start, and from the last
    glimpse, to the digit's centre), `mean`, `low`, `high` and `n` of the error in percent, empty where it is not
    measured, and the `FIELDS` of its difference from the first line, RAM's own."""
    arms = [name for name, arm in ABLATIONS.items() if arm.ledger == "A8"]
    names = {"ram-6": "Start anywhere (RAM)", "ours-6": "Start where top-down says"}
    lines = []
    for row in (*names, *arms):
        group = rows.get(row)
        line = {"start": names.get(row) or label_of("ablations", row), "row": row}
        for quantity, glimpse in (("distance_px", 0), ("last_px", -1)):
            line[quantity] = np.mean([r["metrics"]["glimpse_distance_px"][glimpse] for r in group]) if group else None
        line |= vars(estimate(outcomes(group))) if group else dict.fromkeys(("mean", "low", "high", "n"))
        compared = judged(None if row == "ram-6" else effect_of(rows, row, "ram-6"))
        lines.append(line | compared | ({"verdict": REFERENCE} if row == "ram-6" else {}))
    return pd.DataFrame(lines)


def starts_sentence(lines: pd.DataFrame) -> str:
    """What top-down's start is worth, what a perfect one would be, and whether a policy keeps to the digit once it is
    there. lines: of `starts`."""
    by_row = lines.set_index("row")
    ram, ours, perfect = by_row.loc["ram-6"], by_row.loc["ours-6"], by_row.loc["start-true-centre"]
    parts = []
    for line, name in ((ours, "Top-down's start"), (perfect, "A start at the digit's centre, which nobody knows,")):
        if line["verdict"] == NOT_MEASURED:
            parts.append(f"{name} is not measured at this preset.")
            continue
        effect = effect_text(line["our_effect"], line["ci_low"], line["ci_high"])
        what = "Its effect on the error is undecided" if line["verdict"] == "undecided" else f"It {line['verdict']}"
        parts.append(
            f"{name} lies {line['distance_px']:.0f} px from the digit's centre on average, RAM's own start "
            f"{ram['distance_px']:.0f} px. {what}: {effect} points."
        )
    distances = by_row[["distance_px", "last_px"]].astype(float)
    ends = [
        f"`{row}` ({first:.0f} px, then {last:.0f} px)" for row, first, last in distances.itertuples() if last > first
    ]
    if ends:
        parts.append(
            f"The glimpses end farther from the digit's centre than they began in {listed(ends)}: "
            "there the policy leaves the place where it was put."
        )
    return " ".join(parts)


# Second losses, from none to a plain one: what a reader calls them, and whether their weights can tell the label.
SECOND_LOSSES = {
    "none": ("none", "–"),
    "attended": ("context, Eq. 11", "yes"),
    "detached": ("context, no gradient through its weights", "yes"),
    "uniform": ("context with equal weights", "no"),
    "each-step": ("cross entropy of each step", "no"),
}


def second_losses(records: list[dict], table: str, preset: str) -> pd.DataFrame:
    """What a second loss does beside the entropy constraint, form by form (ledger K3): `second loss`, `label in its
    weights`, `row`, `mean`, `low`, `high` and `n` of the error in percent, and the `FIELDS` of its difference from the
    row without any."""
    arms = {name: arm for name, arm in ABLATIONS.items() if (arm.table, arm.ledger) == (table, "K3")}
    (printed,) = {arm.row for arm in arms.values()}
    without = printed.replace("-context", "")
    named = {"none": without, "attended": printed, **{arm.changes["context_form"]: name for name, arm in arms.items()}}
    rows = rows_at(records, table, preset)
    lines = []
    for form, (name, leaks) in SECOND_LOSSES.items():
        row = named[form]
        measured = vars(estimate(outcomes(rows[row]))) if row in rows else dict.fromkeys(("mean", "low", "high", "n"))
        compared = judged(None if form == "none" else effect_of(rows, row, without))
        line = {"second loss": name, "label in its weights": leaks, "row": row, **measured, **compared}
        lines.append(line | ({"verdict": REFERENCE} if form == "none" else {}))
    return pd.DataFrame(lines)


def gain_by_quarter(better: list[dict], worse: list[dict]) -> pd.DataFrame:
    """The difference of the validation errors in points, its mean over each quarter of the shortest run (single epochs
    are noisy), with a t interval over the seeds that both have: columns `epochs`, `difference (points)`, `pairs`."""
    gains = paired_curves(better, worse, "val_error")  # (pairs, epochs)
    lines = []
    for epochs in np.array_split(np.arange(gains.shape[1]), min(4, gains.shape[1])):
        means = gains[:, epochs].mean(1)
        text = signed(means.mean())
        if len(means) > 1:
            found = mean_over_seeds(means)
            text = effect_text(found.mean, found.low, found.high)
        label = f"{epochs[0] + 1} to {epochs[-1] + 1}" if len(epochs) > 1 else str(epochs[0] + 1)
        lines.append({"epochs": label, "difference (points)": text, "pairs": len(gains)})
    return pd.DataFrame(lines)
