"""The mutation check itself: every mutant still fits the source, and one that no test notices is told as a failure."""

import json
from pathlib import Path

import mutants
import pytest
from mutants import MUTANTS, Mutant

from uram_lib import UramError, pages
from uram_lib.cli import exit_status
from uram_lib.paths import ROOT

RIGHT = "test_T11_x_is_the_column_and_y_is_the_row"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.bug}-{Path(mutant.file).stem}")
def test_every_mutant_fits_the_source_and_leaves_python(mutant):
    """Exactly once each, or `mutated` raises; what comes out is other code that compiles."""
    source = (ROOT / "uram_lib" / mutant.file).read_text()
    bad = mutants.mutated(source, mutant)
    assert bad != source
    compile(bad, mutant.file, "exec")
    assert all((ROOT / test).is_file() for test in mutant.tests)


def test_the_bugs_that_must_be_caught_are_there():
    assert {"T1", "T4", "T9", "T10", "D8"} <= {mutant.bug for mutant in MUTANTS}
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
    sensors = {mutant.file for mutant in MUTANTS if mutant.bug in ("T9", "T10", "T11", "T18")}
    assert {"glimpse.py", "compiled.py"} <= sensors  # each way to read a patch has its own mutants


@pytest.mark.parametrize("text", ["no such text", "a = 1\na = 1\n"])
def test_a_mutant_that_no_longer_fits_is_told_with_its_text(text):
    mutant = Mutant("T0", "a bug", "glimpse.py", (("a = 1", "a = 2"),), ())
    with pytest.raises(UramError, match=r"T0 in glimpse.py: a bug: 'a = 1' is found \d times in uram_lib/glimpse.py"):
        mutants.mutated(text, mutant)


def test_real_runs_tell_a_bug_from_harmless_text_and_from_a_broken_copy():
    """Each a pytest of its own on a copy of the library; one test, to be quick."""
    only = (f"tests/test_glimpse.py::{RIGHT}",)
    swap = next(mutant for mutant in MUTANTS if mutant.bug == "T11" and mutant.file == "glimpse.py")
    assert mutants.failures(only, swap) == ([RIGHT], 1)
    harmless = Mutant("T0", "nothing", "glimpse.py", (("The inverse of", "The reverse of"),), only)
    assert mutants.failures(only, harmless) == ([], 1)
    broken = Mutant("T0", "no Python", "glimpse.py", (("import torch\n", "import torch torch\n"),), only)
    with pytest.raises(UramError, match="T0 in glimpse.py: no Python: pytest did not run"):
        mutants.failures(only, broken)


@pytest.fixture
def examined(tmp_path, monkeypatch, capsys):
    """Run `examine` with made outcomes: the names of failing tests by bug, None being the library as it is. Returns the
    exit status, what was said, and what was written."""

    def run(outcomes: dict) -> tuple[int, str, dict | None]:
        two = tuple(next(mutant for mutant in MUTANTS if mutant.bug == bug) for bug in ("T1", "D8"))
        monkeypatch.setattr(mutants, "failures", lambda _, mutant=None: (outcomes[mutant and mutant.bug], 7))
        result = tmp_path / "mutants.json"
        status = exit_status(lambda: mutants.examine(two, result, jobs=2))
        said = capsys.readouterr()
        return status, said.out + said.err, json.loads(result.read_text()) if result.exists() else None

    return run


def test_all_caught(examined):
    status, said, written = examined({None: [], "T1": ["test_T01_a", "test_b"], "D8": ["test_c"]})
    assert status == 0 and "all 2 mutants were caught" in said
    assert [(line["bug"], line["caught_by"]) for line in written["mutants"]] == [
        ("T1", ["test_T01_a", "test_b"]), ("D8", ["test_c"])
    ]  # fmt: skip
    assert written["git_commit"] and str(ROOT) not in json.dumps(written)


def test_a_survivor_is_a_failure(examined):
    status, said, written = examined({None: [], "T1": ["test_T01_a"], "D8": []})
    assert status == 1 and "SURVIVED" in said and "1 of 2 mutants survived: D8 in objectives.py" in said
    assert written["mutants"][1]["caught_by"] == []


def test_a_suite_that_is_red_anyway_proves_nothing(examined):
    status, said, written = examined({None: ["test_b"], "T1": ["test_b"], "D8": ["test_b"]})
    assert status == 1 and "without a mutant, test_b failed already" in said and written is None


def test_published_outcome_is_that_of_these_mutants():
    """As published: every mutant of today's list, and each was caught."""
    lines = json.loads(pages.MUTANTS.read_text())["mutants"]
    assert [(line["bug"], line["file"], line["change"]) for line in lines] == [
        (mutant.bug, f"uram_lib/{mutant.file}", mutant.change) for mutant in MUTANTS
    ], "run make mutants"
    assert all(line["caught_by"] for line in lines)
