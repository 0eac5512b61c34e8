"""The book's page on citing and extending: its citation is that of CITATION.cff, and its worked example really runs."""

import json
import os
import re
import shlex
import subprocess
import sys

import yaml

from uram_lib.paths import ROOT

PAGE = (ROOT / "book" / "extend.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_bibtex_entry_says_what_the_citation_file_says():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (entry,) = blocks("bibtex")
    fields = dict(re.findall(r"^  (\w+) = \{+(.*?)\}+,$", entry, re.MULTILINE))
    author = citation["authors"][0]["name"]
    assert fields == {"title": citation["title"], "author": author, "version": str(citation["version"])}


def test_the_worked_example_runs_as_it_stands(copy_of_project):
    def run(*words: str, given: str | None = None) -> str:
        environment = os.environ | {"PYTHONPATH": str(copy_of_project), "URAM_LOCAL": str(copy_of_project / "local")}
        ran = subprocess.run(words, cwd=copy_of_project, env=environment, input=given, capture_output=True, text=True,
                             timeout=300)  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    for edit in blocks("diff"):
        run("git", "apply", "--recount", given=edit)
    for module in blocks("python"):
        first = module.splitlines()[0]
        (copy_of_project / first.removeprefix("# ")).write_text(module)
    commands, renewal = blocks("bash")
    check, train = (shlex.split(line) for line in commands.splitlines())
    assert check[0] == train[0] == ".venv/bin/uram"
    uram = (sys.executable, "-m", "uram_lib.cli")
    assert "inverted, 1,297 / 200 / 300 train / validation / test" in run(*uram, *check[1:])
    *_, path = run(*uram, *train[1:]).splitlines()
    assert path == "local/runs/table1/smoke/digits-inverted/ram-4/seed-0.json"
    record = json.loads((copy_of_project / path).read_text())
    assert record["config"]["glimpses"] == 4 and record["dataset"]["variant"] == "inverted"
    assert record["metrics"]["test_error"] < 50  # a guess errs on 90 %: something was learnt
    assert renewal.startswith(".venv/bin/jupyter nbconvert ") and (ROOT / renewal.split()[-1]).exists()
    # The new row leaves the tests on rows and hashes as they were.
    chosen = ("every_row_of_the_paper", "different_rows_have_different_hashes")
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", " or ".join(chosen),
        str(ROOT / "tests" / "test_experiments.py"), str(ROOT / "tests" / "test_records.py"))  # fmt: skip
