"""The ablations' effects, from made records: signs, pairs, the factorial's cells, and what is not measured."""

import numpy as np
import pytest
import torch

from uram_lib import ablations, experiments, notebook, records, statistics, tables
from uram_lib.experiments import ABLATIONS
from uram_lib.paths import ROOT

IMAGES = 1_000
ROWS = ("ram-6", "ram-6-context", "ram-6-entropy", "ram-6-entropy-context",
        "ours-6", "ours-6-context", "ours-6-entropy", "ours-6-entropy-context")  # fmt: skip


@pytest.fixture
def made(made_record):
    """made({row: [wrong images of seed 0, of seed 1, ...]}) -> records at the preset `paper`."""

    def make(wrong: dict[str, list[int]], preset: str = "paper", dataset: str = "clutter100-10") -> list[dict]:
        found = []
        for row, counts in wrong.items():
            table = "ablations" if row in ABLATIONS else "table2"
            for seed, count in enumerate(counts):
                correct = (torch.arange(IMAGES) >= count)[None].expand(5, -1)
                found.append(made_record(row, seed, correct, preset, dataset, table))
        return found

    return make


def decision(records: list[dict], arm: str, preset: str = "paper"):
    frame = ablations.decisions(records, preset)
    (line,) = frame[(frame["arm"] == arm)].itertuples()
    return line


def test_every_decision_stands_in_the_list_and_is_not_measured_without_records():
    frame = ablations.decisions([], "paper")
    named = {arm.label for arm in ABLATIONS.values() if arm.ledger not in ("G", "A8", "speed")}
    assert named <= set(frame["arm"]) and set(frame["verdict"]) == {"not measured"} and set(frame["n_pairs"]) == {0}
    assert list(frame["ledger"]) == sorted(frame["ledger"]) and frame["our_effect"].isna().all()
    assert set(frame.loc[frame["ledger"] == "F1", "row"]) == {"fc", "cnn5", "ram-6", "ours-8-entropy-context"}


def test_an_effect_is_the_arm_s_error_minus_its_row_s_over_shared_seeds(made):
    records = made({"ours-6": [300, 310, 320, 900], "ours-6-two-levels": [250, 270, 280]})
    line = decision(records, "Two decisions")
    assert line.our_effect == pytest.approx(100 * (-50 - 40 - 40) / 3 / IMAGES) and line.n_pairs == 3
    assert line.ci_low < line.our_effect < line.ci_high < 0 and line.verdict == "lowers the error"
    swapped = made({"ours-6": [250, 270, 280], "ours-6-two-levels": [300, 310, 320]})
    assert decision(swapped, "Two decisions").verdict == "raises the error"
    apart = made({"ours-6": [300, 310, 320], "ours-6-two-levels": [200, 400, 320]})
    assert decision(apart, "Two decisions").verdict == "undecided"


def test_two_pairs_are_shown_and_stand_undecided(made):
    line = decision(made({"ours-6": [300, 310], "ours-6-region-centre": [200, 210]}), "Start in the region's centre")
    assert (line.n_pairs, line.verdict) == (2, "undecided") and line.ci_high < 0


def test_records_of_another_preset_or_canvas_do_not_count(made):
    errors = {"ours-6": [300, 310, 320], "ours-6-two-levels": [250, 270, 280]}
    for elsewhere in (made(errors, preset="converged"), made(errors, dataset="clutter60-4")):
        assert decision(elsewhere, "Two decisions").verdict == "not measured"
    assert decision(made(errors, preset="converged"), "Two decisions", "converged").n_pairs == 3


def test_arms_of_table_1_are_read_at_the_preset_that_it_has(made_record):
    right = torch.ones(5, IMAGES, dtype=torch.bool)
    records = [made_record("entropy-context-6", k, right) for k in range(3)]
    records += [made_record("mnist-equal-weights", k, ~right, table="ablations") for k in range(3)]
    line = decision(records, ABLATIONS["mnist-equal-weights"].label)
    assert (line.preset, line.our_effect, line.verdict) == ("converged", 100, "raises the error")


def test_fewer_pieces_are_compared_with_the_table_s_own(made):
    records = made({"ram-6": [300, 320, 310]}) + made({"ram-6": [250, 270, 260]}, dataset="clutter100-8")
    line = decision(records, "8 pieces, ram-6")
    assert line.our_effect == pytest.approx(-5) and line.n_pairs == 3 and line.verdict == "lowers the error"


def test_the_factorial_names_each_cell_by_its_configuration():
    found = ablations.factorial_rows()
    assert set(found.values()) == set(ROWS)
    for (topdown, entropy, context), row in found.items():
        assert row.startswith("ours") == topdown and ("entropy" in row, "context" in row) == (entropy, context)


# Error in wrong images: 400, top-down -50, entropy +20, context -10, and -30 more where all three are on.
CELLS = {row: 400 - 50 * row.startswith("ours") + 20 * ("entropy" in row) - 10 * ("context" in row)
         - 30 * (row == "ours-6-entropy-context") for row in ROWS}  # fmt: skip


def test_main_effects_are_means_over_the_other_factors(made):
    records = made({row: [count, count + 7, count + 3] for row, count in CELLS.items()})
    rows = ablations.rows_at(records, "table2", "paper")
    frame = ablations.factorial_effects(rows)
    assert len(frame) == 15
    main = frame[frame["with"] == "all four, mean"].set_index("factor")
    truth = {"top-down": -50 - 30 / 4, "entropy": 20 - 30 / 4, "context": -10 - 30 / 4}
    assert main["our_effect"].astype(float).to_dict() == pytest.approx({k: v / 10 for k, v in truth.items()})
    assert main["verdict"].to_dict() == {
        "top-down": "lowers the error", "entropy": "raises the error", "context": "lowers the error"
    }  # fmt: skip
    simple = frame.set_index(["factor", "with"])["our_effect"].astype(float)
    assert simple["top-down", "neither"] == pytest.approx(-5)
    assert simple["top-down", "entropy and context"] == pytest.approx(-8)
    assert simple["context", "top-down and entropy"] == pytest.approx(-4)
    assert simple["entropy", "context"] == pytest.approx(2)


def test_one_missing_cell_leaves_the_main_effects_unmeasured_and_the_other_pairs_alone(made):
    cells = {row: [count] * 3 for row, count in CELLS.items() if row != "ram-6-context"}
    rows = ablations.rows_at(made(cells), "table2", "paper")
    verdicts = ablations.factorial_effects(rows).set_index(["factor", "with"])["verdict"]
    assert {verdicts[factor, "all four, mean"] for factor in ablations.FACTORS} == {"not measured"}
    assert (verdicts == "not measured").sum() == 3 + 3  # each factor's main effect, and its pair with that cell
    cells = ablations.factorial_cells(rows).set_index("row")
    assert np.isnan(cells.loc["ram-6-context", "mean"]) and cells.loc["ours-6", "mean"] == pytest.approx(35)
    assert cells.loc["ours-6", ["low", "high"]].tolist() == pytest.approx(
        list(vars(statistics.estimate(tables.outcomes(rows["ours-6"]))).values())[1:3]
    )


def test_starts_have_their_distance_and_are_compared_with_ram_s_own(made_record, made):
    wrong = {"ram-6": 300, "ours-6": 290, "start-true-centre": 100}
    far = {"ram-6": 46.0, "ours-6": 39.0, "start-true-centre": 0.0}
    records = []
    for row, count in wrong.items():
        for seed in range(3):
            correct = (torch.arange(IMAGES) >= count + seed)[None].expand(5, -1)
            table = "ablations" if row in ABLATIONS else "table2"
            per_glimpse = [far[row] + seed - 1] + [9.0] * 5
            records.append(made_record(row, seed, correct, "paper", "clutter100-10", table,
                                       glimpse_distance_px=per_glimpse))  # fmt: skip
    frame = ablations.starts(ablations.rows_at(records, "table2", "paper")).set_index("row")
    assert list(frame.index[:2]) == ["ram-6", "ours-6"] and len(frame) == 6
    assert frame.loc[list(far), "distance_px"].to_dict() == pytest.approx(far)
    assert frame.loc[list(far), "last_px"].tolist() == pytest.approx([9.0] * 3)
    said = "The glimpses end farther from the digit's centre than they began in `start-true-centre` (0 px, then 9 px): "
    assert said in ablations.starts_sentence(frame.reset_index())
    assert frame.loc["start-true-centre", "our_effect"] == pytest.approx(-20)
    assert frame.loc["start-true-centre", "verdict"] == "lowers the error"
    assert frame.loc["start-image-centre", "verdict"] == "not measured"
    assert np.isnan(frame.loc["ram-6", "our_effect"]) and frame.loc["ram-6", "verdict"] == ablations.REFERENCE


def test_rows_are_taken_on_the_presets_own_data_or_on_what_stood_in_for_it(made_record):
    right = torch.ones(5, IMAGES, dtype=torch.bool)
    arm = {"table": "ablations"}
    small = [made_record("ram-6", 0, right, "smoke", "digits-clutter60-4", "table2"),
             made_record("ram-6-sigma-05", 0, right, "smoke", "digits-clutter60-4", **arm)]  # fmt: skip
    assert set(ablations.rows_at(small, "table2", "smoke")) == {"ram-6", "ram-6-sigma-05"}
    stood_in = [made_record("ram-6", 0, right, "quick", "digits-clutter100-10", "table2")]
    assert set(ablations.rows_at(stood_in, "table2", "quick")) == {"ram-6"}
    own = [made_record("ours-6", 0, right, "quick", "clutter100-10", "table2")]
    assert set(ablations.rows_at(stood_in + own, "table2", "quick")) == {"ours-6"}  # never both in one


def test_the_notebook_shows_a_readers_own_runs_however_few(local, made_record, tmp_path):
    right = (torch.arange(300) >= 120)[None].expand(5, -1)
    for row, table in (("ram-6", "table2"), ("ours-6", "table2"), ("start-true-centre", "ablations")):
        record = made_record(row, 0, right, "smoke", "digits-clutter60-4", table)
        place = experiments.experiment(table, row, "smoke", "digits-clutter60-4")
        records.write_record(records.record_path(place, 0, published=False), record)
    old = made_record("ram-8", 0, right, "smoke", "digits-clutter60-4", "table2") | {"config_hash": "0" * 12}
    place = experiments.experiment("table2", "ram-8", "smoke", "digits-clutter60-4")
    records.write_record(records.record_path(place, 0, published=False), old)
    output = tmp_path / "50.ipynb"
    notebook.run_notebook(ROOT / "notebooks" / "50_ablations.ipynb", [("preset", "smoke"), ("seeds", "1")], output)
    shown = output.read_text()
    assert "Left out, because the recipes have changed since: 1 run." in shown and "EMBEDDED DEFAULT" in shown
    assert "1 of 23 arms have records" in shown and "The sweep over σ is not measured yet." in shown


def test_an_arm_about_a_new_entry_of_the_ledger_is_shown_without_a_question():
    arm = experiments.Arm("table2", "ram-6", {"sigma": 0.3}, "σ = 0.30", "Z9")
    line = ablations.decision(arm, "ram-6-sigma-30", [], "paper")
    assert (line["ledger"], line["question"], line["verdict"]) == ("Z9", "", "not measured")


def test_a_reader_sees_effects_with_their_sign_and_what_is_not_measured(made):
    records = made({"ours-6": [300, 300, 300], "ours-6-two-levels": [250, 250, 250]})
    frame = ablations.legible(ablations.decisions(records, "paper")).set_index("arm")
    assert frame.loc["Two decisions", "difference (points)"].startswith("−5.00 [−")
    assert frame.loc["Two decisions", ["pairs", "verdict"]].tolist() == [3, "lowers the error"]
    other = frame.loc["Scales as they are"]
    assert (other["difference (points)"], other["pairs"], other["verdict"]) == ("–", 0, "not measured")


def test_the_sentence_on_starts_says_what_is_measured(made):
    lines = ablations.starts(ablations.rows_at(made({"ram-6": [300] * 3, "ours-6": [310] * 3}), "table2", "paper"))
    text = ablations.starts_sentence(lines)
    assert text.startswith("Top-down's start lies 0 px from the digit's centre on average, RAM's own start 0 px. It")
    assert (
        "It raises the error: +1.00 [" in text and "A start at the digit's centre, which nobody knows, is not" in text
    )
    assert ablations.starts_sentence(ablations.starts({})).count("is not measured at this preset.") == 2


def test_the_gain_by_quarter_is_paired_and_cut(made_record):
    """Means over quarters of 10 epochs: 3, 3, 2 and 2 of them."""
    right = torch.ones(1, IMAGES, dtype=torch.bool)
    runs = [[made_record(row, k, right, "paper", "clutter100-10", "table2") for k in seeds]
            for row, seeds in (("ours-6", (0, 1, 2)), ("ram-6", (1, 2, 5)))]  # fmt: skip
    for group, curve in zip(runs, ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, -9], [1.0] * 10), strict=True):
        for r in group:
            r["curves"]["val_error"] = [value + r["seed"] / 2 * (group is runs[0]) for value in curve]
    lines = ablations.gain_by_quarter(*runs)
    assert lines["epochs"].tolist() == ["1 to 3", "4 to 6", "7 to 8", "9 to 10"] and lines["pairs"].tolist() == [2] * 4
    texts = lines["difference (points)"].tolist()
    assert [text.split(" [")[0] for text in texts] == ["+7.75", "+4.75", "+2.25", "+0.25"] and "[" in texts[0]
    assert ablations.gain_by_quarter(runs[0][:2], runs[1])["difference (points)"][0] == "+7.50"


def test_second_losses_are_held_against_the_row_without_one(made):
    records = made(
        {"ours-6-entropy": [300] * 3, "ours-6-entropy-context": [380] * 3, "ours-6-equal-weights": [290] * 3}
    )
    frame = ablations.second_losses(records, "table2", "paper").set_index("second loss")
    assert frame["row"].tolist() == ["ours-6-entropy", "ours-6-entropy-context", "ours-6-detached-weights",
                                     "ours-6-equal-weights", "ours-6-each-step"]  # fmt: skip
    assert frame["label in its weights"].tolist() == ["–", "yes", "yes", "no", "no"]
    assert frame.loc["none", ["mean", "verdict"]].tolist() == [pytest.approx(30), ablations.REFERENCE]
    assert frame.loc["context, Eq. 11", ["our_effect", "verdict"]].tolist() == [pytest.approx(8), "raises the error"]
    assert frame.loc["context with equal weights", "verdict"] == "lowers the error"
    assert frame.loc["cross entropy of each step", "verdict"] == ablations.NOT_MEASURED
    mnist = ablations.second_losses([], "table1", "paper")
    assert mnist["row"].tolist()[:2] == ["entropy-6", "entropy-context-6"] and set(mnist["n_pairs"]) == {0}
