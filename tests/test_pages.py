"""The book's and the README's sentences and tables say what the CSV files and records hold."""

import pandas as pd
import pytest
import torch

from uram_lib import UramError, pages, paper, records, tables


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
    tables.write_tables(root, tmp_path / "tables", tmp_path / "claims.csv")
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
    assert "with 2 seeds a row" in made["verdicts.md"] and "Table 1" in made["verdicts.md"]
    assert "1 of 2 rows" in made["verdicts.md"]  # entropy-6 is far off, ram-6 is not
    assert "is worse" in made["verdicts.md"]
    assert made["status.md"] == "Done: Table 1. To come: Table 2, Table 3 and Table 4.\n"


def test_every_claim_stands_once_measured_or_awaited(published):
    claims = pd.read_csv(published / "claims.csv")
    measured, awaited = pages.claim_lines(claims), pages.open_claims(claims)
    for claim in paper.CLAIMS:
        named = [text for text in [*measured["Claim"], *awaited["Claim"]] if text.startswith(f"**{claim.claim}** ")]
        parts = len(claim.contrasts) or 1
        assert 1 <= len(named) <= 2 and all(claim.statement in text for text in named)
        assert len(named) <= parts
    assert len(measured) == len(claims) == 1
    assert len(measured) + len(awaited) == sum(len(c.contrasts) or 1 for c in paper.CLAIMS)


def test_provenance_leads_from_each_number_to_what_made_it(published):
    lines, machines = pages.provenance_lines(records.load_records(published / "runs"))
    assert list(lines["Records"]) == ["`table1/converged/mnist/ram-6`", "`table1/converged/mnist/entropy-6`"]
    assert list(lines["Seeds"]) == ["0, 1", "0, 1"]
    assert len(machines) == 1 and "torch" in machines[0] and set(lines["Machine"]) == {"A"}
    assert (lines["Commit"].str.len() >= 8).all()
    assert set(lines["Minutes"].str.replace("\u00a0", " ")) == {"2 × 2.0"}


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


def test_the_chapter_on_speed_says_what_the_benchmark_measured(tmp_path):
    parts = {"matrix products": 5.0, "data": 1.0, "everything else": 4.0}
    shape = {"images_per_second": 12800, "limit_images_per_second": 25600, "ratio": 0.5, "ratio_range": [0.45, 0.55],
             "own_limit_images_per_second": 32000, "own_ratio": 0.4, "start_up_seconds": 1.25,
             "parts_ms": parts}  # fmt: skip
    process = {"kept_by_each_of_two": 0.91, "without": {"kept memory": 0.84, "all of them": 0.6}}
    bench = {
        "machine": {"processor": "A processor", "accelerator": None, "torch": "9.9", "git_commit": "0123456789ab"},
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


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["matches"] * 6, "all 6 rows match the paper"),
        (["matches"] * 4 + ["better", "worse"], "4 of 6 rows match the paper, 1 is better and 1 is worse"),
        (["better"] * 2 + ["worse"], "2 of 3 rows are better than the paper and 1 is worse"),
        (["matches", "worse", "worse"], "1 of 3 rows matches the paper and 2 are worse"),
        (["worse"], "the one row is worse than the paper"),
    ],
)
def test_sentence_on_rows(verdicts, said):
    assert pages.rows_sentence(verdicts) == said


@pytest.mark.parametrize(("seeds", "said"), [([0], "0"), ([0, 1], "0, 1"), ([0, 1, 2], "0–2"), ([0, 2, 5], "0, 2, 5")])
def test_seeds_in_words(seeds, said):
    assert pages.seeds_text(seeds) == said
