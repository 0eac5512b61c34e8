"""The book's and the README's sentences and tables say what the CSV files and records hold."""

import json
import math

import pandas as pd
import pytest
import torch

from uram_lib import UramError, ablations, pages, paper, records, tables, wording
from uram_lib.experiments import ABLATIONS


@pytest.fixture
def published(tmp_path, monkeypatch, write_made):
    """Records of two rows, two seeds each, and the tables made from them, all in a temporary results folder."""
    root = tmp_path / "runs"
    generator = torch.Generator().manual_seed(3)
    outcomes = {
        (row, seed): torch.rand(5, 400, generator=generator) > share
        for row, share in (("ram-6", 0.011), ("entropy-6", 0.3))
        for seed in (0, 1)
    }
    write_made(root, outcomes)
    tables.write_tables(root, tmp_path / "tables", tmp_path / "claims.csv", tmp_path / "bench.json")
    monkeypatch.setattr(pages, "CLAIMS", tmp_path / "claims.csv")
    monkeypatch.setattr(pages, "tables_here", lambda: real(tmp_path / "tables"))
    return tmp_path


real = pages.tables_here


def test_fragments_hold_the_numbers_of_the_csv_files(published):
    folder = published / "generated"
    made = pages.fragments(folder, published / "runs")
    table = pd.read_csv(published / "tables" / "table1.csv")
    shown = (folder / "headline-table1.csv").read_text().replace("\u00a0", " ")
    for line in table.itertuples():
        assert f"{line.ours_mean:.2f}" in shown and f"[{line.ours_ci_low:.2f}, {line.ours_ci_high:.2f}]" in shown
        assert line.label in shown and f"{line.paper:.2f}" in shown
    assert "with 2 seeds a row" in made["tables.md"] and "Table 1" in made["tables.md"]
    for text in (made["verdicts.md"], made["tables.md"]):
        assert "1 of 2 rows" in text and "is worse" in text  # entropy-6 is far off, ram-6 is not
    assert "; 4 of the paper's rows are to come" in made["tables.md"] and "(4 to come)" in made["verdicts.md"]
    assert made["status.md"] == "Under way: Table 1. To come: Table 2, Table 3 and Table 4.\n"


def test_every_claim_stands_once_measured_or_awaited(published):
    claims = pd.read_csv(published / "claims.csv")
    measured, awaited = pages.claim_lines(claims), pages.open_claims(claims)
    for claim in paper.CLAIMS:
        named = [text for text in [*measured["Claim"], *awaited["Claim"]] if text.startswith(f"**{claim.claim}** ")]
        parts = len(claim.contrasts) or 1
        assert 1 <= len(named) <= 2 and all(claim.statement in text for text in named)
        assert len(named) <= parts
    assert len(measured) == len(claims) == 2  # C1, and C12 on the same rows
    assert len(measured) + len(awaited) == sum(len(c.contrasts) or 1 for c in paper.CLAIMS)


@pytest.fixture
def two_presets(tmp_path, monkeypatch, write_made):
    """Records of Table 2 at both published presets, converged without row ours-8, and the tables made from them."""
    generator = torch.Generator().manual_seed(4)
    for preset, share in (("paper", 0.28), ("converged", 0.06)):
        rows = ["ram-6", "ram-8", "ours-6", "ours-8"][: None if preset == "paper" else 3]
        outcomes = {(row, k): torch.rand(5, 400, generator=generator) > share for row in rows for k in (0, 1)}
        write_made(tmp_path / "runs", outcomes, preset=preset, table="table2", dataset="clutter100-10")
    tables.write_tables(tmp_path / "runs", tmp_path / "tables", tmp_path / "claims.csv", tmp_path / "bench.json")
    monkeypatch.setattr(pages, "CLAIMS", tmp_path / "claims.csv")
    monkeypatch.setattr(pages, "tables_here", lambda: real(tmp_path / "tables"))
    return tmp_path


def test_a_table_of_two_presets_has_a_line_a_row_and_two_columns_a_preset(two_presets):
    frame = pd.read_csv(two_presets / "tables" / "table2.csv")
    lines = pages.table_lines(frame).set_index("Model")
    assert list(lines.columns) == ["Paper", "Ours at `paper`", "Verdict at `paper`", "Ours at `converged`",
                                   "Verdict at `converged`"]  # fmt: skip
    labels = [paper.row("table2", row).label for row in ("ram-6", "ram-8", "ours-6", "ours-8")]
    assert list(lines.index) == labels
    for line in frame.itertuples():
        shown = lines.loc[line.label, f"Ours at `{line.preset}`"].replace("\u00a0", " ")
        assert shown == f"{line.ours_mean:.2f} [{line.ours_ci_low:.2f}, {line.ours_ci_high:.2f}]"
        assert lines.loc[line.label, f"Verdict at `{line.preset}`"] == f"{pages.told(line)}, 2 seeds"
    assert lines.loc[labels[3], "Ours at `converged`"] == lines.loc[labels[3], "Verdict at `converged`"] == "–"


def test_a_match_within_an_interval_wider_than_the_number_tells_nothing(two_presets):
    """Three seeds that went three ways would otherwise match whatever the paper says."""
    frame = pd.read_csv(two_presets / "tables" / "table2.csv")
    frame = frame[frame["preset"] == "converged"].assign(paper=17.3, verdict="matches", ours_ci_low=10.0)
    for high, verdict, sentence in ((27.0, "matches", "all 3 rows match the paper"),
                                    (28.0, "too wide to tell", "all 3 rows have an interval that is too wide to tell"),
                                    ):  # fmt: skip
        lines = frame.assign(ours_ci_high=high)
        assert set(pages.table_lines(lines)["Verdict at `converged`"]) == {f"{verdict}, 2 seeds"}
        assert sentence in pages.table_sentence("table2", lines, pd.read_csv(two_presets / "claims.csv"))


def test_the_headline_says_one_preset_after_the_other(two_presets):
    block = pages.headline()
    first, second = block.index("At the preset `paper`, with 2 seeds a row"), block.index("At the preset `converged`")
    assert first < second and "8 of the paper's rows are to come" in block and "9 of the paper's rows" in block
    claims = pd.read_csv(two_presets / "claims.csv")
    drawn = claims[(claims["preset"] == "paper") & claims["paper_effect"].notna()]
    assert 0 < len(drawn) < (claims["preset"] == "paper").sum()  # C10 has no number of the paper's
    assert f"The {len(drawn)} comparisons drawn from it" in block
    columns = {line.count("|") for line in block.splitlines() if line.startswith("|")}
    assert columns == {7}  # every line of the table has all six cells


def test_the_landing_page_has_one_sentence_a_table_with_every_preset_in_it(two_presets):
    (frame,), claims = pages.tables_here().values(), pd.read_csv(two_presets / "claims.csv")
    said = pages.verdict_sentence("table2", frame, claims)
    assert said.startswith("**Table 2**, 100 × 100 ") and said.endswith(".") and said.count(".") == 1
    first, second = said.split("; ")
    assert "at the preset `paper` " in first and "(8 to come), and the " in first
    assert second.startswith("at the preset `converged` ") and "(9 to come), and the " in second
    drawn = claims[(claims["preset"] == "paper") & claims["paper_effect"].notna()]
    assert f"the {len(drawn)} comparisons drawn from it came out {len(drawn)} undecided" in first


def test_claims_of_two_presets_stand_side_by_side(two_presets):
    claims = pd.read_csv(two_presets / "claims.csv")
    lines = pages.claim_lines(claims)
    assert len(lines) == len(claims.drop_duplicates(["claim", "part"]))
    c3 = lines.iloc[list(lines["Part"]).index("8 glimpses")]
    assert c3["Verdict at `paper`"].endswith("**, 2 pairs") and c3["Verdict at `converged`"] == "–"
    spread = lines.iloc[list(lines["Part"]).index("spread over seeds, 6 glimpses")]
    assert spread["Paper"] == "–" and spread["Ours at `paper`"].replace("\u00a0", " ").count(" %") == 3
    made = pages.fragments(two_presets / "generated", two_presets / "runs")
    assert ":name: claims-measured" in made["claims.md"]
    widths = made["claims.md"].split(":widths: ")[1].splitlines()[0].split()
    assert len(widths) == len(lines.columns)


@pytest.mark.parametrize(
    ("paper_effect", "low", "high", "verdict", "said"),
    [
        (-3.5, -1.4, -0.1, "supported", "supported, but smaller"),
        (-3.5, -3.6, -0.1, "supported", "supported"),  # the paper's lies in it
        (-0.1, -3.6, -0.2, "supported", "supported, but larger"),
        (6.5, 0.1, 1.4, "supported", "supported, but smaller"),
        (math.nan, -1.4, -0.1, "supported", "supported"),  # the sign alone was claimed
        (-3.5, -1.4, 0.1, "not supported", "not supported"),
    ],
)
def test_a_supported_effect_may_be_told_as_smaller_or_larger(paper_effect, low, high, verdict, said):
    columns = {"paper_effect": paper_effect, "ci_low": low, "ci_high": high, "verdict": verdict}
    (claim,) = pd.DataFrame([columns]).itertuples()
    assert pages.told_effect(claim) == said


def test_the_claim_on_cost_has_a_table_of_its_own(two_presets):
    canvas = [{"side_px": side, "glimpse_ms": 1, "pyramid_ms": side, "unified_ms": side**2} for side in (10, 20, 40)]
    (two_presets / "bench.json").write_text(json.dumps({"canvas": canvas}))
    folder = two_presets / "generated"
    tables.write_tables(two_presets / "runs", folder, two_presets / "claims.csv", two_presets / "bench.json")
    bench = {"machine": {"git_commit": "0123456789ab", "dirty": True}}
    text = pages.claims_fragment(pd.read_csv(two_presets / "claims.csv"), [], bench, folder)
    assert "Made by `make bench`, at commit `01234567`\u00a0†." in text
    assert ":name: claims-cost" in text and "C9" not in (folder / "claims-measured.csv").read_text()
    lines = pd.read_csv(folder / "claims-cost.csv")
    assert [span.split()[0] for span in lines["Exponent"]] == ["+0.00", "+0.50", "+1.00"]
    assert list(lines["Verdict"]) == ["**supported**, 3 sizes", "**opposite**, 3 sizes", "**opposite**, 3 sizes"]
    assert not (folder / "claims-open.csv").exists() or "C9" not in (folder / "claims-open.csv").read_text()


def test_the_table_of_arms_says_what_is_measured_and_what_is_not(two_presets, write_made):
    generator = torch.Generator().manual_seed(5)
    worse = {("ram-6-detached", seed): torch.rand(5, 400, generator=generator) > 0.9 for seed in (0, 1)}
    write_made(two_presets / "runs", worse, table="ablations", preset="paper", dataset="clutter100-10")
    folder = two_presets / "generated"
    assert ":name: arms-measured" in pages.fragments(folder, two_presets / "runs")["arms.md"]
    lines = pd.read_csv(folder / "arms-measured.csv").set_index("Taken otherwise")
    measured = lines.loc["REINFORCE kept out of the core"]
    assert measured["Entry"] == "B6" and measured["Against"] == "`ram-6` at `paper`"
    assert measured["Difference (points)"].startswith("+") and measured["Verdict"] == "undecided, 2 pairs"
    assert set(lines.drop("REINFORCE kept out of the core")["Verdict"]) == {"not measured"}
    arms = {arm.label for arm in ABLATIONS.values() if arm.ledger not in ("G", "A8", "speed")}
    assert arms < set(lines.index)


def test_provenance_has_a_table_for_each_of_the_papers(two_presets, write_made):
    right = torch.ones(5, 50, dtype=torch.bool)
    write_made(two_presets / "runs", {("fc", 0): right[:1]})
    write_made(two_presets / "runs", {("ram-6-entropy", 0): right}, table="ablations", dataset="clutter100-10")
    folder = two_presets / "generated"
    made = pages.fragments(folder, two_presets / "runs")
    assert ":::{csv-table} Ablations: each published number" in made["provenance.md"]
    assert ":name: provenance-table1" in made["provenance.md"] and ":name: provenance-table2" in made["provenance.md"]
    lines = pd.read_csv(folder / "provenance-table2.csv")
    places = [text.strip("`").split("/") for text in lines["Records"]]
    assert [preset for preset, *_ in places] == ["paper"] * 4 + ["converged"] * 3
    assert [row for *_, row in places][:4] == ["ram-6", "ram-8", "ours-6", "ours-8"]


def test_every_table_and_picture_says_what_made_it(two_presets):
    folder = two_presets / "generated"
    made = pages.fragments(folder, two_presets / "runs")
    shown = [text.count(":::{csv-table}") + text.count(":::{figure}") for text in made.values()]
    assert sum(shown) > 8 and [text.count("\nMade by `make ") for text in made.values()] == shown
    commit = pages.commit_of(records.git_state())
    assert f"`make tables`, from [14 records](provenance.md) of commit {commit}." in made["tables.md"]


def test_many_commits_are_named_by_the_first_and_the_last(made_record):
    made = [made_record("ram-6", seed, torch.ones(5, 50, dtype=torch.bool)) for seed in range(5)]
    for record, (commit, started) in zip(made, zip("bacde", "21345", strict=True), strict=True):
        record["provenance"] |= {"git_commit": commit * 40, "dirty": commit == "e", "started": started}
    of = lambda group: pages.made_from(group).split("(provenance.md) of ")[1]  # noqa: E731
    assert of(made) == f"5 commits, `{'a' * 8}` to `{'e' * 8}`\u00a0†"
    assert of(made[:2]) == f"commits `{'a' * 8}` and `{'b' * 8}`" and of(made[:1]) == f"commit `{'b' * 8}`"
    assert pages.made_from([]) == "`make tables`"


def test_what_a_claim_awaits_names_the_data(published):
    awaited = pages.open_claims(pd.read_csv(published / "claims.csv"))
    of = lambda claim: awaited[awaited["Claim"].str.startswith(f"**{claim}**")]["Awaits"].iloc[0]  # noqa: E731
    assert of("C3") == "Table 2" and of("C14") == "Table 2, also on `clutter100-8`" and of("C9") == "make bench"


def test_status_tells_a_whole_table_from_a_part_of_one():
    rows_of = lambda table: [r.row for r in paper.ROWS if r.table == table]  # noqa: E731
    whole = pd.DataFrame({"row": rows_of("table1"), "preset": "converged", "dataset": "mnist"})
    part = pd.DataFrame({"row": [*rows_of("table2"), "fc"], "dataset": "clutter100-10"})
    part["preset"] = ["paper"] * (len(part) - 1) + ["converged"]  # whole at one preset alone
    copy = pd.DataFrame({"row": rows_of("table4"), "preset": "converged", "dataset": "cifar10-jpeg"})
    said = pages.status({"table1": whole, "table2": part, "table4": copy}, {"table1", "table2", "table4"})
    where = "On other data than the paper's"
    assert said == f"Done: Table 1. Under way: Table 2. {where}: Table 4. To come: Table 3.\n"


def test_provenance_leads_from_each_number_to_what_made_it(published):
    lines, machines = pages.provenance_lines(records.load_records(published / "runs"))
    assert list(lines["Records"]) == ["`converged/mnist/ram-6`", "`converged/mnist/entropy-6`"]
    assert set(lines["Table"]) == {"table1"}
    assert list(lines["Seeds"]) == ["0, 1", "0, 1"]
    assert len(machines) == 1 and "torch" in machines[0] and set(lines["Machine"]) == {"A"}
    assert (lines["Commit"].str.len() >= 8).all()
    assert set(lines["Minutes a run"]) == {"2.0"}


def test_the_compute_budget_adds_up(two_presets):
    made = records.load_records(two_presets / "runs")  # 14 runs of 120 seconds, on processors
    threads = made[0]["provenance"]["threads"]
    made[0]["provenance"]["attack_seconds"] = {"PGD": 1680.0, "EOT-PGD": 1800.0}
    text = pages.compute_fragment(made, two_presets / "generated")
    assert "The 14 published runs took 1.4 hours in all" in text and "14 runs, 1.4 hours" in text
    whole, rows = (pd.read_csv(two_presets / "generated" / f"compute-{name}.csv") for name in ("tables", "rows"))
    assert list(whole["Preset"]) == ["`paper`", "`converged`"] and list(whole["Runs"]) == [8, 6]
    assert list(rows["Row"][:4]) == ["`ram-6`", "`ram-8`", "`ours-6`", "`ours-8`"] and list(rows["Runs"]) == [2] * 7
    first = rows[(rows["Row"] == f"`{made[0]['row']}`") & (rows["Preset"] == f"`{made[0]['preset']}`")].iloc[0]
    assert first["Minutes a run"] == 31 and first["Shortest and longest"].replace("\u00a0", " ") == "[2.0, 60.0]"
    assert first["Core-hours"] == round(threads * 62 / 60, 1)
    made[0]["provenance"]["device"] = "cuda"
    text = pages.compute_fragment(made, two_presets / "generated")
    assert f"{threads * 26 / 60:.1f} core-hours on processors, and 1.0 hours on accelerators." in text
    assert pages.compute_fragment([], two_presets) == f"{pages.NOTHING}\n"


def test_without_published_runs_the_pages_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "CLAIMS", tmp_path / "claims.csv")
    monkeypatch.setattr(pages, "tables_here", lambda: real(tmp_path / "tables"))
    made = pages.fragments(tmp_path / "generated", tmp_path / "runs")
    assert all(pages.NOTHING in made[name] for name in ("verdicts.md", "tables.md", "claims.md", "provenance.md"))
    assert pages.headline() == pages.NOTHING


def test_readme_block_is_replaced_and_nothing_else(published):
    text = f"before\n{pages.BEGIN}\nold\n{pages.END}\nafter\n"
    renewed = pages.renewed_readme(text)
    assert renewed.startswith(f"before\n{pages.BEGIN}\n\n**Table 1") and renewed.endswith(f"{pages.END}\nafter\n")
    assert "old" not in renewed and pages.renewed_readme(renewed) == renewed
    with pytest.raises(UramError, match="needs one line"):
        pages.renewed_readme("no markers")


def test_parity_of_the_engine_compares_the_same_seeds(made_record):
    right = torch.arange(1000)[None] >= torch.tensor([[20], [20]])  # (starts, images): 2 % wrong
    runs = {("table1", "ram-6"): (0, 1, 2), ("ablations", "ram-6-compiled"): (1, 2, 3)}
    made = [made_record(row, seed, right, table=table) for (table, row), seeds in runs.items() for seed in seeds]
    said = pages.parity_sentence(tables.by_cell(made))
    assert said.startswith("The errors were compared, too. Over 2 seeds, RAM with 6 glimpses errs on 2.00 % of MNIST's")
    assert "on 2.00 % in records from before: a paired difference of +0.00 points" in said and said.endswith(
        "holds 0.\n"
    )
    made[3:] = [made_record("ram-6-compiled", seed, ~right, table="ablations") for seed in (1, 2)]
    assert "errs on 98.00 %" in (said := pages.parity_sentence(tables.by_cell(made))) and said.endswith(
        "does not hold 0.\n"
    )
    assert "not measured yet" in pages.parity_sentence(tables.by_cell(made[:3]))


def test_the_chapter_on_speed_says_what_the_benchmark_measured(tmp_path):
    parts = {"matrix products": 5.0, "data": 1.0, "everything else": 4.0}
    shape = {"images_per_second": 12800, "limit_images_per_second": 25600, "ratio": 0.5, "ratio_range": [0.45, 0.55],
             "own_limit_images_per_second": 32000, "own_ratio": 0.4, "start_up_seconds": 1.25,
             "parts_ms": parts}  # fmt: skip
    process = {"kept_by_each_of_two": 0.91, "without": {"kept memory": 0.84, "all of them": 0.6}}
    bench = {
        "machine": {"processor": "A processor", "accelerator": None, "torch": "9.9", "git_commit": "0123456789ab",
                    "dirty": False},
        "shapes": [shape | {"shape": name} for name in ("table1", "table2")],
        "processes": [process | {"shape": name} for name in ("table1", "table2")],
        "together": [{"seeds": 1, "images_per_second": 1000}, {"seeds": 4, "images_per_second": 1500}],
        "canvas": [{"side_px": 10, "pyramid_ms": 0.1, "glimpse_ms": 0.2, "unified_ms": 2},
                   {"side_px": 100, "pyramid_ms": 5, "glimpse_ms": 0.22, "unified_ms": 20}],
    }  # fmt: skip
    made = pages.speed_fragments(bench, tmp_path)
    rates, shares, without = (pd.read_csv(tmp_path / f"speed-{name}.csv") for name in ("rates", "parts", "without"))
    assert list(rates["Ratio"]) == [0.5, 0.5] and list(rates["Limit"]) == ["25,600"] * 2
    assert list(rates["Own limit"]) == ["32,000"] * 2 and list(rates["Ratio to it"]) == [0.4, 0.4]
    assert list(shares["Table 1 (share)"]) == ["50%", "10%", "40%"] and list(shares["Table 2 (ms)"]) == [5, 1, 4]
    assert "each keeps 91% at Table 1's shape and 91% at Table 2's shape" in made["speed-processes.md"]
    assert list(without["Rate at Table 2's shape"]) == ["84%", "60%"]
    assert "4 seeds together 1.50 times as many" in made["speed-processes.md"]
    assert "area grows 100-fold, the pyramid's cost 50-fold, a glimpse's 1.1-fold, and" in made["speed-canvas.md"]
    assert all("No benchmark" in text for text in pages.speed_fragments(None, tmp_path).values())


def test_the_page_on_mutants_names_the_bug_s_own_test_and_a_survivor(tmp_path):
    caught = {"bug": "T9", "file": "uram_lib/glimpse.py", "change": "too near", "tests": 9}
    outcome = {"git_commit": "0123456789ab", "dirty": False, "mutants": [
        caught | {"caught_by": ["test_oracle07_exact", "test_T09_covers_all", "test_T08_side"]},
        caught | {"bug": "D8", "caught_by": ["test_oracle04_sign"]},
    ]}  # fmt: skip
    assert "All 2 mutants of commit `01234567` were caught" in pages.mutants_fragment(outcome, tmp_path)
    table = pd.read_csv(tmp_path / "mutants-table.csv")
    assert list(table["Caught by"]) == ["T09 covers all, and 2 others", "oracle04 sign"]
    assert list(table["In"]) == ["`glimpse.py`"] * 2
    outcome["mutants"][1]["caught_by"] = []
    assert "1 of 2 mutants of" in pages.mutants_fragment(outcome, tmp_path)
    assert list(pd.read_csv(tmp_path / "mutants-table.csv")["Caught by"])[1] == "**nothing**"
    assert "No mutation check" in pages.mutants_fragment(None, tmp_path)


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["matches"] * 6, "all 6 rows match the paper"),
        (["matches"] * 4 + ["better", "worse"], "4 of 6 rows match the paper, 1 is better and 1 is worse"),
        (["better"] * 2 + ["worse"], "2 of 3 rows are better than the paper and 1 is worse"),
        (["matches", "worse", "worse"], "1 of 3 rows matches the paper and 2 are worse"),
        (
            ["better", pages.TOO_WIDE],
            "1 of 2 rows is better than the paper and 1 has an interval that is too wide to tell",
        ),
        (["worse"], "the one row is worse than the paper"),
    ],
)
def test_sentence_on_rows(verdicts, said):
    assert pages.rows_sentence(verdicts) == said


@pytest.mark.parametrize(("value", "said"), [(-0.0048, "−0.005"), (0.004, "+0.004"), (-0.37, "−0.37"), (0.0, "+0.00")])
def test_the_end_of_an_interval_beside_0_keeps_its_side(value, said):
    assert wording.signed(value) == said


@pytest.mark.parametrize(("seeds", "said"), [([0], "0"), ([0, 1], "0, 1"), ([0, 1, 2], "0–2"), ([0, 2, 5], "0, 2, 5")])
def test_seeds_in_words(seeds, said):
    assert pages.seeds_text(seeds) == said


def test_the_landing_page_shows_a_path_of_the_published_model(monkeypatch):
    found = pages.live.find()
    if found is None:
        pytest.skip("no checkpoint is published yet")
    text = pages.path_fragment()
    glimpses = found[1]["config"]["glimpses"]
    assert text.count("<img ") == glimpses and text.count(" hidden>") == glimpses - 1
    assert "not a selected one" in text and len(text) < 600_000
    monkeypatch.setattr(pages.live, "find", lambda: None)
    assert pages.path_fragment() == ""


def test_a_tally_of_verdicts_is_a_sentence():
    assert pages.tally(["undecided", "supported", "supported"]) == "2 supported and 1 undecided"
    verdicts = ["raises the error", "raises the error", "lowers the error"]
    assert pages.tally(verdicts, ablations.ORDER) == "1 lowers the error and 2 raise the error"


def test_what_cannot_be_tested_here_is_counted_apart(two_presets):
    claims = pd.read_csv(two_presets / "claims.csv")
    whole = pages.claims_sentence(claims)
    judged = claims["claim"].nunique()
    assert whole.startswith(
        f"{judged} of the paper's 14 claims have been measured on its own data or a copy of it, in "
    )
    elsewhere = claims.assign(verdict=pages.UNTESTABLE)
    said = pages.claims_sentence(elsewhere)
    assert said.startswith("0 of the paper's 14 claims") and f", {judged} more on generated data alone, in " in said
    n = ((claims["preset"] == "paper") & claims["paper_effect"].notna()).sum()
    assert (
        pages.comparisons("table2", "paper", elsewhere)
        == f"none of the {n} comparisons drawn from it can be tested here"
    )
