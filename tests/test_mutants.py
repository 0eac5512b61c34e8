"""The mutation check itself: every mutant still fits the source, and one that no test notices is told as a failure."""

import ast
import json
from pathlib import Path

import mutants
import pytest
from mutants import MUTANTS, RESULT, Mutant

from uram_lib import UramError
from uram_lib.cli import exit_status
from uram_lib.common import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.bug}-{Path(mutant.file).stem}")
def test_every_mutant_fits_the_source_however_it_is_laid_out(mutant):
    """Each swap exactly once, or `mutated` raises; what comes out is other code that compiles."""
    source = (ROOT / "uram_lib" / mutant.file).read_text(encoding="utf-8")
    bad, anew = mutants.mutated(source, mutant), ast.unparse(ast.parse(source))  # no comments, other ends and quotes
    assert bad != anew + "\n" and mutants.mutated(anew, mutant) == bad
    compile(bad, mutant.file, "exec")
    assert all((ROOT / test).is_file() for test in mutant.tests)


def test_real_runs_tell_a_bug_from_what_is_right_and_from_a_broken_copy():
    """Each a pytest of its own on a copy of the library; one test, to be quick."""
    right, other = "test_T11_x_is_the_column_and_y_is_the_row", "test_locations_and_pixels_are_inverse"
    two = tuple(f"tests/test_glimpse.py::{name}" for name in (right, other))
    assert mutants.failures(two, next(mutant for mutant in MUTANTS if mutant.bug == "T11")) == ([right], 2)
    broken = Mutant("T0", "no import", "config.py", "", (("import hashlib", "import no_such_module"),), two)
    with pytest.raises(UramError, match="T0 in config.py: no import: pytest did not run"):
        mutants.failures(two, broken)


@pytest.mark.parametrize("outcomes, status, said", [
    ({None: [], "T1": ["test_T01_a", "test_b"], "D8": ["test_c"]}, 0, "all 2 mutants were caught"),
    ({None: [], "T1": ["test_T01_a"], "D8": []}, 1, "1 of 2 mutants survived: D8 in objectives.py"),
    ({None: ["test_b"], "T1": ["test_b"], "D8": ["test_b"]}, 1, "without a mutant, test_b failed already"),
])  # fmt: skip
def test_survivors_and_a_suite_that_is_red_anyway_are_failures(tmp_path, monkeypatch, capsys, outcomes, status, said):
    """`examine` with made outcomes: the names of failing tests by bug, None being the library as it is."""
    two = tuple(next(mutant for mutant in MUTANTS if mutant.bug == bug) for bug in ("T1", "D8"))
    monkeypatch.setattr(mutants, "failures", lambda _, mutant=None: (outcomes[mutant and mutant.bug], 7))
    result = tmp_path / "mutants.json"
    assert exit_status(lambda: mutants.examine(two, result, jobs=2)) == status
    heard = capsys.readouterr()
    assert said in heard.out + heard.err and result.exists() == (not outcomes[None])
    if result.exists():
        written = json.loads(result.read_text())
        assert {line["bug"]: line["caught_by"] for line in written["mutants"]} == {b: outcomes[b] for b in ("T1", "D8")}
        assert written["git_commit"] and str(ROOT) not in json.dumps(written)


def test_published_outcome_is_that_of_these_mutants():
    """As published: every mutant of today's list, each caught, among them those that the oracles name."""
    lines = json.loads(RESULT.read_text())["mutants"]
    assert [(line["bug"], line["file"], line["change"]) for line in lines] == [
        (mutant.bug, f"uram_lib/{mutant.file}", mutant.change) for mutant in MUTANTS
    ], "run make mutants"
    known = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert all(f"def {name}(" in known for line in lines for name in line["caught_by"]), "run make mutants"
    assert all(line["caught_by"] for line in lines) and len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {"T1", "T4", "T9", "T10", "D8"} <= {mutant.bug for mutant in MUTANTS}
