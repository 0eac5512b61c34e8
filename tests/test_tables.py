"""Tables and claims: columns, values and verdicts from small made records, and the drift of what is published."""

import json

import numpy as np
import pytest
import scipy.stats
import torch
from uram_book import comparisons, pages, tables

from uram_lib import UramError, paper
from uram_lib.common import PUBLISHED, RESULTS, TABLES
from uram_lib.experiments import experiments, label_of
from uram_lib.runs import records

# Typed here from the design, not read from the code.
COLUMNS = {
    "tables/table1":
        "table,row,label,metric,paper,dataset,preset,n_seeds,ours_mean,ours_ci_low,ours_ci_high,delta,verdict",
    "tables/readings": "effect,reading,budget,n_pairs,effect_mean,ci_low,ci_high,paper_effect,note",
    "claims": "claim,part,preset,source,statement,paper_effect,our_effect,ci_low,ci_high,n_pairs,verdict,evidence",
}  # fmt: skip
IMAGES = 2_000
CLUTTERED = {"table": "table2", "dataset": "clutter100-10"}


def outcomes(wrong: int, passes: int = 5, first: int = 0) -> torch.Tensor:
    """(passes, IMAGES): the same `wrong` images are misread in every pass."""
    correct = torch.ones(passes, IMAGES, dtype=torch.bool)
    correct[:, first : first + wrong] = False
    return correct


MADE = {
    ("fc", 0): outcomes(400, passes=1),  # 20 %: far worse than the paper's 1.69
    ("ram-6", 0): outcomes(20),  # 1.0 and 1.2 %: the paper's 1.12 lies within
    ("ram-6", 1): outcomes(24),
    ("entropy-6", 0): outcomes(0),  # nothing wrong
    ("entropy-6", 1): outcomes(0),
    ("entropy-6", 2): outcomes(900),  # without a partner in ram-6, so no part of C1
    ("ram-7", 0): outcomes(60),  # more glimpses hurt here
    ("ram-7", 1): outcomes(64),
}


@pytest.fixture
def written(tmp_path, write_made):
    """Tables made from MADE on MNIST, one smoke record on the digits beside them."""
    write_made(tmp_path / "runs", MADE)
    write_made(tmp_path / "runs", {("fc", 0): outcomes(10, passes=1)}, preset="smoke", dataset="digits")
    said = {name.rsplit("/", 1)[-1] for name in tables.write_tables(tmp_path, tmp_path / "runs")}
    assert said == {f"{name.rsplit('/', 1)[-1]}.csv" for name in COLUMNS}
    return tmp_path


@pytest.fixture
def cluttered(made_record):
    """cluttered({row: [wrong images of seed 0, of seed 1, ...]}): records of Table 2; a tensor stands for itself."""

    def make(wrong: dict[str, list], **options) -> list[dict]:
        return [
            made_record(row, seed, outcomes(w) if isinstance(w, int) else w, **CLUTTERED | options)
            for row, counts in wrong.items() for seed, w in enumerate(counts)
        ]  # fmt: skip

    return make


def line_of(frame, **wanted: str):
    """The one line of a frame with these values."""
    (found,) = [line for line in frame.to_dict("records") if all(line[key] == value for key, value in wanted.items())]
    return found


def claim_line(records: list[dict], claim: str, part: str, preset: str = "strong") -> dict | None:
    frame = comparisons.claims(records)
    found = frame[(frame["claim"] == claim) & (frame["part"] == part) & (frame["preset"] == preset)]
    return found.iloc[0].to_dict() if len(found) else None


def effect(line) -> list[float]:
    return [line["our_effect"], line["ci_low"], line["ci_high"]]


def test_files_have_exactly_the_designs_columns_and_are_alike_whatever_the_order_of_records(written):
    assert {name: (written / f"{name}.csv").read_text().splitlines()[0] for name in COLUMNS} == COLUMNS
    found = records.load_records(written / "runs")
    assert len(found) == len(MADE) + 1
    assert tables.table("table1", found[::-1]).equals(tables.table("table1", found))
    assert comparisons.claims(found[::-1]).equals(comparisons.claims(found))


def test_table_lines_in_the_papers_order_with_papers_values_and_the_digits_without(written):
    """One seed has an interval over images alone, several one over seeds and images."""
    table = tables.read("tables/table1", written)
    lines = table[table["dataset"] == "mnist"]
    assert lines["row"].tolist() == ["fc", "ram-6", "ram-7", "entropy-6"] and lines["n_seeds"].tolist() == [1, 2, 2, 3]
    assert lines["paper"].tolist() == [1.69, 1.12, 1.07, 1.05]
    assert lines["label"].iloc[1] == "RAM, 6 glimpses, 8×8, 1 scale"
    one_seed = scipy.stats.binomtest(400, IMAGES).proportion_ci(method="wilson")
    by_seed, by_image = np.array([0.010, 0.012]), np.zeros(IMAGES)
    by_image[:20], by_image[20:24] = 1, 0.5
    widths = [np.ptp(scipy.stats.ttest_1samp(v, 0).confidence_interval(0.95)) for v in (by_seed, by_image)]
    expected = [
        [20, 100 * one_seed.low, 100 * one_seed.high, 20 - 1.69],
        [1.1, 0, 1.1 + 100 * np.hypot(*widths) / 2, 1.1 - 1.12],  # no error lies below 0
    ]
    found = lines[["ours_mean", "ours_ci_low", "ours_ci_high", "delta"]].head(2)
    assert found.to_numpy() == pytest.approx(np.array(expected), abs=2e-4)
    assert lines["verdict"].tolist()[:3] == ["worse", "too wide to tell", "worse"]  # 1.12 lies within
    embedded = line_of(table, dataset="digits")
    assert np.isnan([embedded["paper"], embedded["delta"]]).all() and embedded["verdict"] != embedded["verdict"]
    assert embedded["ours_mean"] == pytest.approx(0.5)
    assert not tables.read("claims", written)["evidence"].str.contains("digits").any()


def test_an_image_stands_where_it_is_right_and_none_of_the_attacks_breaks_it():
    outcome = lambda *right: records.pack(torch.tensor(right, dtype=torch.bool))  # noqa: E731
    outcomes = {"clean": outcome(1, 1, 1, 0), "pgd": outcome(1, 0, 1, 0), "square": outcome(0, 1), "noise": outcome(0)}
    record = {"metrics": {"outcomes": outcomes}}
    assert comparisons.standing(record, ("pgd", "square", "not run")).tolist() == [False, False, True, False]


def test_readings_are_lines_of_their_table_behind_its_rows(cluttered):
    order = ["ram-6@true-centre", "ram-8", "ours-6@two-levels", "ram-6"]
    frame = tables.table("table2", cluttered({row: [100] for row in order}, preset="paper"))
    assert frame["row"].tolist() == ["ram-6", "ram-8", "ours-6@two-levels", "ram-6@true-centre"]
    assert frame["paper"].notna().tolist() == [True, True, False, False] and frame["verdict"].tolist()[2:] == ["", ""]


def test_claims_are_paired_by_seed_and_image(written):
    lines = tables.read("claims", written)
    c1, c5 = (line_of(lines, claim=claim) for claim in ("C1", "C5"))
    assert c1["n_pairs"] == 2 and c1["verdict"] == "undecided"  # seed 2 has no partner, and two are too few
    assert [c1["paper_effect"], c1["our_effect"]] == pytest.approx([1.05 - 1.12, -1.1], abs=1e-4)
    assert [c5["paper_effect"], c5["our_effect"]] == pytest.approx([1.07 - 1.12, 2.0], abs=1e-4)
    assert c5["ci_low"] > 0 and c5["preset"] == "strong" and "{ram-6,ram-7}" in c5["evidence"]
    assert set(lines["claim"]) == {"C1", "C5", "C12"}  # nothing is said where records are missing


def test_claims_are_judged_at_each_preset(cluttered):
    made = cluttered({"ram-6": [500] * 3, "ours-6": [400] * 3}, preset="paper")
    made += cluttered({"ram-6": [100] * 3, "ours-6": [130] * 3})
    for preset, verdict in (("paper", "supported"), ("strong", "opposite")):
        assert claim_line(made, "C3", "6 glimpses", preset)["verdict"] == verdict


def test_c10_compares_the_spread_over_seeds(cluttered):
    """Independent truth: the F test on the test errors themselves."""
    part = "spread over seeds, 6 glimpses"
    wrong = {"ram-6": [400, 440, 520, 380], "ours-6": [300, 310, 290, 306]}
    made = cluttered(wrong)
    line = claim_line(made, "C10", part)
    ours, ram = (np.var([100 * w / IMAGES for w in wrong[row]], ddof=1) for row in ("ours-6", "ram-6"))
    low, high = scipy.stats.f.ppf([0.025, 0.975], 3, 3)
    assert effect(line) == pytest.approx([100 * ((ours / ram / q) ** 0.5 - 1) for q in (1, high, low)], abs=1e-3)
    assert line["verdict"] == "supported" and np.isnan(line["paper_effect"]) and line["n_pairs"] == 4
    fewer = [record for record in made if record["seed"] < 3]
    assert claim_line(fewer, "C10", part)["verdict"] == "undecided"  # three seeds leave a factor of 6 either way
    assert claim_line([record for record in made if record["seed"] < 1], "C10", part) is None
    assert claim_line(cluttered(wrong | {"ram-6": [400] * 4}), "C10", part) is None  # no spread to compare with


def test_c10_counts_the_images_whose_answer_depends_on_the_start(cluttered):
    """Images read wrongly from two of five starts depend on it; those always or never misread do not."""
    torn = outcomes(300)
    torn[:2, 500:740] = False
    contrasts = [c for one in paper.CLAIMS if one.claim == "C10" for c in one.contrasts]
    (part,) = [c.part for c in contrasts if c.measure == "depends on the start" and c.better == "ours-6"]
    line = claim_line(cluttered({"ram-6": [torn] * 3, "ours-6": [900] * 4}), "C10", part)
    assert line["our_effect"] == pytest.approx(-100 * 240 / IMAGES) and line["n_pairs"] == 3
    assert line["verdict"] == "supported" and line["source"] == "ours"  # though it errs more often


def test_c12_pairs_the_blank_patches_by_seed_and_leaves_out_the_start(made_record):
    blanks = {"ours-6": [[90, 10, 12, 14, 16, 18], [50, 20, 22, 24, 26, 28]],
              "ours-6-entropy": [[0, 9, 11, 13, 15, 17], [100, 16, 18, 20, 22, 24]]}  # fmt: skip
    made = [
        made_record(row, seed, outcomes(100), **CLUTTERED, looks={"blank_patch_percent": [float(v) for v in values]})
        for row, seeds in blanks.items()
        for seed, values in enumerate(seeds)
    ]
    line = claim_line(made, "C12", "cluttered MNIST")
    truth = scipy.stats.ttest_rel([13, 20], [14, 24]).confidence_interval(0.95)
    assert effect(line) == pytest.approx([-2.5, truth.low, truth.high]) and line["verdict"] == "undecided"
    assert claim_line(made[::2], "C12", "cluttered MNIST") is None  # one seed


def test_c14_is_the_difference_of_what_two_more_pieces_do(cluttered, generator):
    ours, part, made = "ours-8-entropy-context", "8 to 10 pieces, URAM against CNN", []
    errors = {(f"{ours}@8-pieces", "clutter100-8"): 0.10, (ours, "clutter100-10"): 0.12,
              ("cnn5@8-pieces", "clutter100-8"): 0.20, ("cnn5", "clutter100-10"): 0.32}  # fmt: skip
    for (row, dataset), share in errors.items():
        draws = [torch.rand(1 if "cnn5" in row else 5, IMAGES, generator=generator) > share for _ in range(3)]
        made += cluttered({row: draws}, dataset=dataset)
    line = claim_line(made, "C14", part)
    assert line["our_effect"] == pytest.approx((0.12 - 0.10 - 0.32 + 0.20) * 100, abs=1.5)
    assert line["ci_low"] < line["our_effect"] < line["ci_high"] < 0 and line["verdict"] == "supported"
    assert claim_line([r for r in made if r["row"] != "cnn5@8-pieces"], "C14", part) is None  # stays open


def test_the_claim_on_cost_is_judged_by_the_growth_with_the_canvas(tmp_path):
    """Flat up to a few percent, in proportion to the pixels, and flat at first and in proportion later."""
    sides = (10, 100, 1000, 10000)
    costs = {"glimpse_ms": (1.0, 1.02, 0.99, 1.03), "pyramid_ms": (1, 100, 10**4, 10**6), "unified_ms": (1, 1, 1, 100)}
    canvas = [{"side_px": side} | {key: values[i] for key, values in costs.items()} for i, side in enumerate(sides)]
    (tmp_path / "bench.json").write_text(json.dumps({"canvas": canvas}))
    tables.write_tables(tmp_path, tmp_path / "runs")
    lines = tables.read("claims", tmp_path)
    assert lines[["claim", "preset", "source", "verdict", "n_pairs"]].to_numpy().tolist() == [
        ["C9", "bench", who, verdict, 4]
        for who, verdict in (("paper", "supported"), ("ours", "opposite"), ("ours", "undecided"))
    ]
    assert effect(lines.iloc[1]) == pytest.approx([1, 1, 1])
    assert [path.name for path in (tmp_path / "tables").iterdir()] == ["readings.csv"]  # no records, no tables


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"shapes": []}'])
def test_a_damaged_benchmark_is_named_before_anything_is_written(tmp_path, text):
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(UramError, match=r"bench.json is damaged \(.*\); measure anew, or take it from git"):
        tables.write_tables(tmp_path, tmp_path / "runs")
    assert not (tmp_path / "claims.csv").exists()


def test_a_reader_s_own_runs_stand_beside_the_published_ones(cluttered):
    """A line for each of their rows, also where nothing is published of it."""
    mine = cluttered({"ram-6": [60, 80], "ours-6@printed-sign": [40]}, preset="quick", dataset="digits-clutter60-4")
    head, _, *lines = [line for line in pages.Pages().rows("table2", mine).splitlines() if line.startswith("|")]
    assert head == "| Model | Paper | Paper settings | Strong settings | This machine |"
    (known, unknown) = sorted(lines, key=lambda line: "sign" in line)
    assert "| 29.8 | " in known and known.count(" seeds") == 3 and "| 3.50 [" in known and "2 seeds" in known
    assert "| – | – | – | 2.00 [" in unknown and unknown.endswith(", 1 seed |")
    assert "This machine" not in pages.Pages().rows("table2")


def test_a_frame_is_the_same_as_its_file_up_to_four_decimals(written):
    made, file = tables.table("table1", records.load_records(written / "runs")), tables.read("tables/table1", written)
    assert tables.same(made, file) and not tables.same(made.iloc[1:], file)
    for column, value in (("ours_mean", 20.001), ("verdict", "matches"), ("n_seeds", 9), ("paper", None)):
        changed = made.copy()
        changed.loc[changed.index[1], column] = value
        assert not tables.same(changed, file), column


def test_published_tables_are_what_the_published_records_give(tmp_path):
    """Drift: a table edited by hand, or not rebuilt after a new record, shows here."""
    (tmp_path / "bench.json").write_bytes((TABLES.parent / "bench.json").read_bytes())
    tables.write_tables(tmp_path, PUBLISHED)
    assert (tmp_path / "claims.csv").read_text() == (RESULTS / "claims.csv").read_text()
    fresh = {path.name: path.read_text() for path in (tmp_path / "tables").iterdir()}
    assert len(fresh) == 5 and {name: (TABLES / name).read_text() for name in fresh} == fresh


def test_every_contrast_has_its_line_among_the_claims():
    """A part without a comparison would be missing on the page without a word. Rows of an older recipe wait for
    today's, and their page says so."""
    lines, waiting = tables.read("claims"), set(tables.of_older_recipe(records.load_records()))
    for claim in paper.CLAIMS:
        parts = lines.loc[lines["claim"] == claim.claim, "part"]
        for contrast in claim.contrasts:
            rows = {f"{contrast.table}/{row}" for row in (contrast.worse, contrast.better)}
            assert rows & waiting or parts.str.startswith(contrast.part).any(), contrast


def test_a_rival_is_compared_with_rows_made_under_its_conditions():
    assert len(paper.RIVALS) == 15 and {r.table for r in paper.RIVALS} == {"table1", "table2", "table3"}
    found = {r: r.ours(lambda table, row, metric: f"{label_of(table, row)}, {metric}") for r in paper.RIVALS}
    compared = {rival: ours for rival, ours in found.items() if ours != "–"}
    assert len(compared) >= 5
    for rival, ours in compared.items():
        assert ours.count(" / ") == rival.error.count(" / ")
        theirs, mine = ([n for n in (4, 8, 10) if f"{n} pieces" in text] for text in (rival.data, ours))
        assert theirs == mine
        way = "averaged" if "averaged" in rival.tested else "sampled" if "sampled" in rival.tested else "error"
        assert ours.endswith(f"test_error_{way}".removesuffix("_error")), rival


def test_three_ways_of_testing_side_by_side(made_record):
    """Old records hold five averaged passes in place of ten; a row without glimpses is tested in one way alone."""
    made = []
    for seed, (one, many, drawn) in enumerate(((40, 20, 50), (44, 22, 54))):
        others = {"averaged_correct": outcomes(many)[0], "sampled_correct": outcomes(drawn)[0]}
        made.append(made_record("ram-6", seed, outcomes(one), **others))
    old = made_record("ram-7", 0, outcomes(60))
    for name in ("sampled", "averaged"):
        del old["metrics"][f"test_error_{name}"]
    old["metrics"]["test_error_monte_carlo"] = 1.25
    frame = tables.ways_of_testing("table1", [*made, old, made_record("fc", 0, outcomes(400, passes=1))])
    ways = ["one pass", "one sampled pass", "averaged over 10", "averaged over 5", "seeds"]
    assert frame.index.str.startswith(("RAM, 6 glimpses", "RAM, 7 glimpses")).all()
    assert frame[ways].values.tolist() == [["2.10", "2.60", "1.05", "–", 2], ["3.00", "–", "–", "1.25", 1]]
    third = made_record("ram-6", 2, outcomes(60))
    del third["metrics"]["test_error_averaged"]
    mixed = tables.ways_of_testing("table1", [*made, third])
    assert mixed["averaged over 10"].tolist() == ["1.05 (2)"] and mixed["seeds"].tolist() == [3]
    assert not len(tables.ways_of_testing("table2", made))


@pytest.mark.parametrize("part, changed, match", [
    ("config", {"epochs": 7}, "records of row fc are of different recipes .seed 0: .*, seed 1: "),
    ("dataset", {"checksum": "md5:1"}, "of different test sets .seed 0: md5:0, seed 1: md5:1"),
    ("test_correct", {"shape": [1, IMAGES + 1]}, "of different numbers of images .seed 0: 2,000, seed 1: 2,001"),
])  # fmt: skip
def test_records_of_two_recipes_or_test_sets_are_not_averaged(made_record, part, changed, match):
    first, second = (made_record("fc", seed, outcomes(400, passes=1)) for seed in (0, 1))
    with pytest.raises(UramError, match=match):
        tables.table("table1", [first, second | {part: second[part] | changed}])


def test_settings_that_all_rows_share_and_those_that_differ_from_the_defaults():
    chosen = {at: [e for e in experiments("table2", at) if e.config.glimpses] for at in ("paper", "strong")}
    frame = tables.shared_settings(chosen)
    assert frame.loc["learning_rate"].tolist() == ["0.0003", "0.001"] and frame.loc["core"].tolist() == ["relu", "lstm"]
    assert "sigma" in frame.index and "width" not in frame.index
    assert frame.loc["chooser_reward"].tolist() == ["outcome", "early, outcome"]  # RAM's is the default
    assert frame.loc["reward"].tolist() == ["outcome", "probability"]  # whatever runs of an older recipe had
