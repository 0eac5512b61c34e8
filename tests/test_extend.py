"""The book's page on extending: its worked example really runs, as it stands on the page, in a copy of the library."""

import json
import re
import shlex

from conftest import python

from uram_lib.common import ROOT

PAGE = (ROOT / "book" / "chapters" / "extend.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_a_row_a_reading_and_a_data_set_are_one_entry_each(copy_of_project, local):
    """Every line that the page shows is put after an entry of its kind; then the page's commands are run."""
    code = blocks("python")
    (module,) = [block for block in code if block.startswith("# uram_lib/")]
    (copy_of_project / module.splitlines()[0].removeprefix("# ")).write_text(module, encoding="utf-8")
    row, label, reading, entry = [block for block in code if block.startswith(" ")]
    places = {
        '        "ram-6": _looking("ram", 6, 8, 1),\n': ("experiments.py", row),
        "CONTROLS = {\n": ("experiments.py", label),
        "READINGS = {\n": ("experiments.py", reading),
        "REGISTRY = {\n": ("data/__init__.py", entry),
    }
    for anchor, (name, line) in places.items():
        path = copy_of_project / "uram_lib" / name
        text = path.read_text(encoding="utf-8")
        assert text.count(anchor) == 1, anchor
        path.write_text(text.replace(anchor, anchor + line), encoding="utf-8")

    def run(*words: str) -> str:
        ran = python(*words, cwd=copy_of_project, PYTHONPATH=str(copy_of_project))
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    command = "-m", "uram_lib.cli"
    check, train = [shlex.split(line)[1:] for line in blocks("bash")[0].splitlines()]
    assert "inverted, 1,297 / 200 / 300 train / validation / test" in run(*command, *check)
    assert "error" in run(*command, *train, "--jobs", "2")
    record = json.loads(next(local.rglob("seed-0.json")).read_text(encoding="utf-8"))
    assert record["config"]["glimpses"] == 4 and record["dataset"]["variant"] == "inverted"
    assert record["metrics"]["test_error"] < 60  # a guess errs on 90 %: something was learnt
    script = "from uram_lib.experiments import label_of, readings_of; "
    script += "print('ours-6@sigma-0.1' in readings_of('table2'), label_of('table1', 'ram-4')[:5])"
    assert run("-c", script) == "True RAM, \n"
