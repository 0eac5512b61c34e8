"""The readings: which rows an effect compares under each, its pairs and interval, the budgets, and the 2 x 2 x 2."""

import re

import numpy as np
import pytest
import scipy.stats
import torch
from uram_book import comparisons
from uram_book.facts import Facts, Missing

from uram_lib.experiments import READINGS, experiment

IMAGES = 1_000
ROWS = ("ram-6", "ram-6-context", "ram-6-entropy", "ram-6-entropy-context",
        "ours-6", "ours-6-context", "ours-6-entropy", "ours-6-entropy-context")  # fmt: skip


@pytest.fixture
def made(made_record):
    """made({row: [wrong images of seed 0, of seed 1, ...]}) -> records at the preset `paper`. dataset: by default the
    one that the row's reading is on."""

    def make(wrong: dict[str, list[int]], preset: str = "paper", dataset: str | None = None) -> list[dict]:
        found = []
        for row, counts in wrong.items():
            on = dataset or experiment("table2", row, preset).config.dataset
            for seed, count in enumerate(counts):
                correct = (torch.arange(IMAGES) >= count)[None].expand(5, -1)
                record = made_record(row, seed, correct, preset, on, "table2")
                record["curves"]["val_error"] = [50.0 - epoch + count / 100 for epoch in range(22)]
                found.append(record)
        return found

    return make


def line_of(records: list[dict], effect: str, reading: str, budget: str = "paper"):
    """The one line of an effect under a reading, or None."""
    lines = comparisons.readings(records).itertuples()
    found = [line for line in lines if (line.effect, line.reading, line.budget) == (effect, reading, budget)]
    assert len(found) < 2
    return found[0] if found else None


def half_width(values: list[float]) -> float:
    """By hand: scipy's t quantile and the standard error of the mean."""
    return scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)


def and_images(half: float, *pairs: tuple[int, int]) -> float:
    """A half-width with the chance of the test images in it. pairs: how many images each row misread, by seed."""
    index = np.arange(IMAGES)
    by_image = np.mean([100.0 * (index < better) - 100.0 * (index < worse) for better, worse in pairs], 0)
    low, high = scipy.stats.t.interval(0.95, IMAGES - 1, by_image.mean(), scipy.stats.sem(by_image))
    return np.hypot(half, (high - low) / 2)


def test_an_effect_is_paired_by_seed_and_image_and_its_interval_is_of_its_own_pairs(made):
    records = made({"ram-6": [300, 320, 310], "ours-6": [290, 280, 300, 900], "ours-6@two-levels": [250, 270, 280]})
    main, levels = (line_of(records, "top-down", name) for name in (comparisons.MAIN, "two-levels"))
    gains = [-1.0, -4.0, -1.0], [-5.0, -5.0, -3.0]  # points; the fourth seed of ours-6 has no partner
    assert main.n_pairs == levels.n_pairs == 3 and main.paper_effect == levels.paper_effect == pytest.approx(-3.5)
    pairs = ((290, 300), (280, 320), (300, 310)), ((250, 300), (270, 320), (280, 310))
    for line, gain, own in zip((main, levels), gains, pairs, strict=True):
        half = and_images(half_width(gain), *own)
        assert line.effect_mean == pytest.approx(np.mean(gain))
        assert (line.ci_low, line.ci_high) == pytest.approx(
            (line.effect_mean - half, line.effect_mean + half), rel=1e-3
        )
    early = line_of(records, "top-down", comparisons.MAIN, "paper-7")  # of its images the records say nothing
    assert early.ci_high - early.effect_mean == pytest.approx(half_width(gains[0]) / 10, rel=1e-3)  # of `made`
    claim = comparisons.claims(records).iloc[0]
    assert (claim["claim"], claim["part"]) == ("C3", "6 glimpses")
    assert (main.ci_low, main.ci_high) == pytest.approx((claim["ci_low"], claim["ci_high"]))


def test_a_single_pair_is_no_reading(made):
    records = made({"ram-6": [300, 320, 310], "ours-6": [290, 280, 300], "ours-6@greedy": [250]})
    assert line_of(records, "top-down", "greedy") is None and len(comparisons.readings(records)) == 2
    assert not len(comparisons.readings(made({"ram-6": [300], "ours-6": [290]})))


def test_files_have_one_line_per_effect_reading_and_budget_in_order(made):
    records = made({row: [300, 310, 320] for row in ("ram-6", "ours-6", "ours-6-entropy", "ours-6-entropy-context")})
    records += made({"ours-6-entropy@intent": [200, 210, 220], "ram-6@lstm": [100, 110, 120]})
    frame = comparisons.readings(records)
    assert not frame.duplicated(["effect", "reading", "budget"]).any()
    assert list(dict.fromkeys(frame["effect"])) == ["top-down", "entropy", "context", "all"]
    assert set(frame.loc[frame["effect"] == "entropy", "reading"]) == {comparisons.MAIN, "intent"}
    assert set(frame.loc[frame["effect"] != "entropy", "reading"]) == {comparisons.MAIN}  # lstm: one row alone
    claimed = {line.effect: line.paper_effect for line in frame.itertuples()}
    assert claimed == pytest.approx({"top-down": -3.5, "entropy": -2.7, "context": -3.3, "all": -9.5})
    assert comparisons.readings(records[::-1]).equals(frame)


def test_the_short_budget_is_the_validation_error_of_the_same_runs_and_says_so(made):
    records = made({"ram-6": [300, 320, 310], "ours-6": [290, 300, 340]})
    records[0]["curves"]["val_error"][6] = 60.0  # the seventh epoch of ram-6, seed 0
    line, full = (line_of(records, "top-down", comparisons.MAIN, budget) for budget in ("paper-7", "paper"))
    gains = [44 + 2.90 - 60.0, 3.00 - 3.20, 3.40 - 3.10]
    assert line.effect_mean == pytest.approx(np.mean(gains)) and line.n_pairs == 3
    assert line.ci_high - line.effect_mean == pytest.approx(half_width(gains))
    assert "validation" in line.note and "validation" not in full.note
    strong = made({"ram-6": [100, 110, 120], "ours-6": [90, 100, 105]}, "strong")
    assert set(comparisons.readings(strong)["budget"]) == {"strong"}


UNDER = {  # (effect, reading) -> the rows with and without that are compared
    ("top-down", "two-levels"): ("ours-6@two-levels", "ram-6"),  # changes the one row, beside the other as it is
    ("entropy", "intent"): ("ours-6-entropy@intent", "ours-6"),
    ("context", "confidence"): ("ours-6-entropy-context@confidence", "ours-6-entropy"),
    ("all", "confidence"): ("ours-6-entropy-context@confidence", "ram-6"),
    ("top-down", "linear-mean"): ("ours-6@linear-mean", "ram-6@linear-mean"),
    ("top-down", "early-reward"): ("ours-6@early-reward", "ram-6"),  # which has no chooser to pay
    ("top-down", "image-centre"): ("ram-6@image-centre", "ram-6"),  # what a chooser could gain at most
    ("all", "8-pieces"): ("ours-6-entropy-context@8-pieces", "ram-6@8-pieces"),
    ("entropy", "fixed-set"): ("ours-6-entropy@fixed-set", "ours-6@fixed-set"),
}


@pytest.mark.parametrize("effect, reading", UNDER)
def test_which_rows_a_reading_compares(made, effect, reading):
    """Only these two rows have records of their own number of errors; whatever else is compared comes out otherwise."""
    better, worse = UNDER[effect, reading]
    every = {f"{row}@{name}" for name, r in READINGS.items() if r.table == "table2" for row in r.rows}
    base, other = (name.partition("@")[0] for name in (better, worse))
    wrong = {row: [700, 720, 730] for row in every | {base, other} if row.partition("@")[0] in (base, other)}
    wrong |= {better: [100, 110, 130], worse: [200, 230, 240]}
    line = line_of(made(wrong), effect, reading)
    assert line.effect_mean == pytest.approx(-11) and line.n_pairs == 3


def test_a_change_of_the_row_without_alone_says_nothing_of_an_effect(made):
    """A chooser that explores otherwise, or a bounded start, is no reading of the entropy constraint."""
    rows = {row: [300, 310, 320] for row in ("ram-6", "ours-6", "ours-6-entropy", "ours-6-entropy-context")}
    others = {name: [100, 110, 130] for name in ("ours-6@softmax", "ours-6-entropy@intent", "ram-6@true-centre")}
    frame = comparisons.readings(made(rows | others))
    assert {(line.effect, line.reading) for line in frame.itertuples() if line.reading != comparisons.MAIN} == {
        ("top-down", "softmax"), ("entropy", "intent"), ("top-down", "true-centre")
    }  # fmt: skip


def test_records_of_another_preset_or_canvas_do_not_count(made):
    """A run on easier canvases has the same row and preset as the table's own."""
    records = made({"ram-6": [300, 310, 330], "ours-6": [250, 270, 280]})
    for elsewhere in (made({"ram-6": [10]}, dataset="clutter60-4"), made({"ram-6": [10] * 3}, dataset="clutter100-8"),
                      made({"ram-6": [10] * 3}, preset="strong")):  # fmt: skip
        for order in (records + elsewhere, elsewhere + records):
            line = line_of(order, "top-down", comparisons.MAIN)
            assert line is not None and (line.n_pairs, line.effect_mean) == (3, pytest.approx(-(50 + 40 + 50) / 30))


def test_rows_of_an_old_recipe_and_a_new_one_are_not_compared(made):
    """While a table is trained anew, one row may have its new runs and the other not yet."""
    counts = {"ram-6": [300, 310, 330], "ours-6": [250, 270, 280], "ours-6-entropy": [240, 250, 260]}
    records = made(counts)
    assert line_of(records, "top-down", comparisons.MAIN) and line_of(records, "entropy", comparisons.MAIN)
    for record in records:
        record["config"] |= {"epochs": 40} if record["row"] == "ram-6" else {}
    assert line_of(records, "top-down", comparisons.MAIN) is None and line_of(records, "entropy", comparisons.MAIN)
    assert "C3" not in set(comparisons.claims(records)["claim"]) and "C4" in set(comparisons.claims(records)["claim"])
    for record in records:
        record["config"] |= {"epochs": 40}
    assert line_of(records, "top-down", comparisons.MAIN).n_pairs == 3


# ---- The 2 x 2 x 2

ERROR = "error (%), paper settings"
# Error in wrong images: 400, top-down -50, entropy +20, context -10, and -30 more where all three are on.
CELLS = {row: 400 - 50 * row.startswith("ours") + 20 * ("entropy" in row) - 10 * ("context" in row)
         - 30 * (row == "ours-6-entropy-context") for row in ROWS}  # fmt: skip


def mean_of(text: str) -> float:
    return float(re.match(r"[−+\d.]+", text)[0].replace("−", "-"))


def test_main_effects_are_means_over_the_other_factors(made):
    """Runs of the same rows on easier canvases stand in no cell."""
    records = made({row: [count, count + 7, count + 3] for row, count in CELLS.items()})
    easier = made({"ram-6": [10]}, dataset="clutter60-4")
    frame = comparisons.factorial(easier + records + easier, ["paper"])
    truth = {"top-down": -50 - 30 / 4, "entropy": 20 - 30 / 4, "context": -10 - 30 / 4}
    for factor, effect in truth.items():
        assert mean_of(frame.loc[f"main effect of {factor}", ERROR]) == pytest.approx(effect / 10, abs=0.0051)
    for row, count in CELLS.items():
        assert mean_of(frame.loc[row, ERROR]) == pytest.approx((count + 10 / 3) / 10, abs=0.0051)
    assert set(frame.index) == {*ROWS, *(f"main effect of {factor}" for factor in truth)}


def test_each_cell_of_the_factorial_is_the_row_with_just_these_ideas():
    assert set(comparisons.factorial([], ["paper"])[ERROR]) == {"not measured"}
    assert set(comparisons.COMBINATIONS.values()) == set(ROWS)
    for ideas, row in comparisons.COMBINATIONS.items():
        config = experiment("table2", row, "paper").config
        has = (config.model == "unified", config.entropy != "none", config.context != "none")
        assert ideas == has
        assert (config.glimpses, config.patch_size, config.scales) == (6, 12, 4)


def test_one_missing_cell_leaves_the_main_effects_unmeasured_and_the_other_cells_alone(made):
    cells = {row: [count] * 3 for row, count in CELLS.items() if row != "ram-6-context"}
    frame = comparisons.factorial(made(cells), ["paper"])[ERROR]
    assert set(frame[frame == "not measured"].index) == {
        "ram-6-context", *(f"main effect of {factor}" for factor in ("top-down", "entropy", "context"))
    }  # fmt: skip
    assert mean_of(frame["ours-6"]) == pytest.approx(35)


def test_a_published_start_is_compared_with_plain_ram():
    facts = Facts()
    change, line = facts.change("ram-6@image-centre", "ram-6"), facts.under("top-down", "image-centre")
    assert change == facts.change("ram-6@image-centre")  # the row that it changes is RAM
    assert (change.mean, change.low, change.high) == pytest.approx((line.mean, line.low, line.high), abs=1e-3)
    with pytest.raises(Missing):
        facts.change("ours-6@region-centre", "no-such-row")


def test_changes_under_another_way_of_testing_are_paired_by_seed():
    """SciPy's paired t test. One row has a seed more, and a run that was not tested so."""
    facts, metric = Facts(), "test_error_averaged"
    errors = {"ram-6": {0: 5.1, 1: 4.7, 2: 4.9, 3: 60.0}, "ours-6": {0: 5.2, 1: 5.1, 2: 5.3}}
    made = {row: [{"seed": seed, "metrics": {metric: error}} for seed, error in runs.items()]
            for row, runs in errors.items()}  # fmt: skip
    made["ours-6"].append({"seed": 3, "metrics": {}})
    facts.runs_of = lambda table, preset, row: made[row]
    found = facts.tested_change("table2", "strong", "ours-6", "ram-6", metric)
    truth = scipy.stats.ttest_rel([5.2, 5.1, 5.3], [5.1, 4.7, 4.9])
    assert (found.low, found.high) == pytest.approx(tuple(truth.confidence_interval()))
    assert found.mean == pytest.approx(0.3) and found.n == 3
    with pytest.raises(Missing):
        facts.tested_change("table2", "strong", "ours-6", "ram-6", "test_error_sampled")
