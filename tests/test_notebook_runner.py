"""`python -m uram_lib.notebook`: parameters are checked, failures are one line, outputs carry no dates."""

import textwrap

import nbformat
import pytest

from uram_lib import UramError, notebook
from uram_lib.experiments import ROWS
from uram_lib.paths import ROOT


@pytest.fixture
def small_notebook(tmp_path):
    """Write a notebook of one parameters cell and one cell with `body`; returns its path."""

    def write(body: str, parameters: str = 'preset = "smoke"\nseeds = 1\nrate = 0.5\nquiet = False') -> object:
        cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
        cells.append(nbformat.v4.new_code_cell(body))
        path = tmp_path / "lesson" / "small.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return write


def test_runs_in_its_own_folder_with_typed_parameters_and_leaves_no_dates(small_notebook, tmp_path, capsys):
    path = small_notebook("import os; print(os.path.basename(os.getcwd()), repr((preset, seeds, rate, quiet)))")
    output = tmp_path / "out" / "small.ipynb"
    words = [str(path), "--output", str(output), "-p", "seeds", "3", "-p", "quiet", "True", "-p", "preset", "0,1"]
    assert notebook.main(words) == 0
    said = capsys.readouterr().out
    assert "small.ipynb" in said and "small.html" in said
    executed = nbformat.read(output, 4)
    assert executed.cells[-1].outputs[0].text == "lesson ('0,1', 3, 0.5, True)\n"
    nbformat.validate(executed)
    text = output.read_text()
    assert "papermill" not in executed.metadata and "duration" not in text and "_time" not in text
    first = text
    assert notebook.main(words) == 0
    assert output.read_text() == first, "two runs of one notebook differ"
    assert "0,1" in output.with_suffix(".html").read_text()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seed", "3", "unknown parameter 'seed'; one of: preset, seeds, rate, quiet"),
        ("seeds", "[0,1]", "seeds must be a whole number, got '[0,1]'"),
        ("rate", "fast", "rate must be a number, got 'fast'"),
        ("quiet", "maybe", "quiet must be True or False, got 'maybe'"),
    ],
)
def test_wrong_parameters_are_one_line_and_run_nothing(small_notebook, tmp_path, capsys, name, value, said):
    output = tmp_path / "out.ipynb"
    assert notebook.main([str(small_notebook("1 / 0")), "--output", str(output), "-p", name, value]) == 1
    assert capsys.readouterr().err == f"uram: error: {said}\n"
    assert not output.exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("from uram_lib import UramError\nraise UramError('unknown preset; one of: smoke')", "unknown preset; one of"),
        ("from uram_lib.data import DataUnavailable\nraise DataUnavailable('no data')", "no data"),
        ("1 / 0", "cell 2 of small.ipynb: ZeroDivisionError: division by zero"),
    ],
)
def test_a_failing_cell_is_one_line_and_a_status(small_notebook, tmp_path, capsys, body, said):
    output = tmp_path / "out.ipynb"
    assert notebook.main([str(small_notebook(body)), "--output", str(output)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"uram: error: {said}") and "out.ipynb" in lines[0]
    assert output.exists()


def test_a_kernel_that_dies_is_one_line(small_notebook, tmp_path, capsys):
    path = small_notebook("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")  # as where memory runs out
    assert notebook.main([str(path), "--output", str(tmp_path / "out.ipynb")]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("uram: error: the kernel of small.ipynb was killed") and "Traceback" not in "".join(said)


def test_a_parameters_cell_holds_literals_alone(small_notebook):
    path = small_notebook("1", parameters="seeds = 1 + len('a')")
    with pytest.raises(UramError, match="literals"):
        notebook.parameters_of(nbformat.read(path, 4), path.name)
    with pytest.raises(UramError, match="0 cells tagged"):
        notebook.parameters_of(nbformat.v4.new_notebook(), "empty")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("preset", "fast", "unknown preset 'fast' of table1"),
        ("seeds", "0", "seeds must be whole numbers from 0 on, at least one, got 0"),
        ("jobs", "-1", "jobs must be a whole number from 1 on"),
        ("device", "tpu", "unknown device 'tpu'"),
        ("dataset", "imagenet", "unknown data set 'imagenet'"),
    ],
)
def test_table_mistakes_are_told_before_anything_starts(local, monkeypatch, capsys, name, value, said):
    monkeypatch.chdir(ROOT)
    words = ["notebooks/10_table1.ipynb", "--table", "table1", "-p", name, value]
    assert notebook.main(words) == 1
    told = capsys.readouterr()
    assert told.err.startswith(f"uram: error: {said}") and told.err.count("\n") == 1 and told.out == ""
    assert not (local / "runs").exists()


@pytest.mark.parametrize(("name", "said"), [("preset", "unknown preset 'x' of table2; one of: paper, converged,"),
                                            ("dataset", "unknown data set 'x'")])  # fmt: skip
def test_table2_tells_its_own_presets(local, monkeypatch, capsys, name, said):
    monkeypatch.chdir(ROOT)
    assert notebook.main(["notebooks/20_table2.ipynb", "--table", "table2", "-p", name, "x"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith(f"uram: error: {said}") and told.err.count("\n") == 1 and told.out == ""
    assert not (local / "runs").exists()


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_every_notebook_has_parameters_and_checked_cells_that_were_run(path):
    """A stripped notebook passes nbval and checks nothing, and so does a marker with text after it."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert {"preset", "seeds", "device"} <= notebook.parameters_of(nbformat.read(path, 4), path.name).keys()
    assert all(cell.execution_count for cell in cells)
    marked = [cell for cell in cells if "NBVAL_CHECK_OUTPUT" in cell.source]
    assert marked and all("# NBVAL_CHECK_OUTPUT" in cell.source.splitlines() for cell in marked)
    assert all(output.output_type == "stream" and output.name == "stdout" for cell in marked for output in cell.outputs)


def test_code_shown_in_the_notebooks_is_the_librarys():
    """Stored outputs of `lesson.source`: whoever changes a function that a lesson shows runs the lesson again."""
    library = "\n".join(path.read_text() for path in sorted((ROOT / "uram_lib").rglob("*.py")))
    shown = 0
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", []):
                text = output.get("data", {}).get("text/markdown", "")
                if not text.startswith("```python\n"):
                    continue
                for piece in text.removeprefix("```python\n").removesuffix("\n```").split("\n\n"):
                    shown += 1
                    found = any(textwrap.indent(piece, indent) in library for indent in ("", "    "))
                    assert found, f"{path.name} shows code that is not in uram_lib:\n{piece}"
    assert shown > 20


def test_table2_prints_its_twelve_rows_side_by_side(local, monkeypatch):
    """What `make reproduce-table2` ends with, before anything is trained."""
    from uram_lib import data, sweep

    plan = sweep.plan("table2", "smoke")
    lines = notebook.comparison(plan).splitlines()
    assert lines[0] == data.BANNER and lines[1].startswith("Table 2: 100 × 100 Cluttered Translated MNIST")
    assert [line.split()[0] for line in lines[3:]] == list(ROWS["table2"])
    assert all(line.endswith("–") for line in lines[3:])


def test_a_notebook_that_is_not_there(capsys):
    assert notebook.main(["nowhere.ipynb"]) == 1
    assert "there is no notebook nowhere.ipynb" in capsys.readouterr().err


def test_an_output_that_would_destroy_something_is_refused(small_notebook, tmp_path, capsys):
    path = small_notebook("print(seeds)")
    before = path.read_bytes()
    (tmp_path / "folder.ipynb").mkdir()
    for output in (path, tmp_path / "out.html", tmp_path / "folder.ipynb"):
        assert notebook.main([str(path), "--output", str(output)]) == 1
        assert "the output must be another .ipynb file than the notebook itself" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_full_disk_is_one_line(small_notebook, full_disk, tmp_path, capsys):
    path, output = small_notebook("print(seeds)"), tmp_path / "out" / "small.ipynb"
    with full_disk(100):
        assert notebook.main([str(path), "--output", str(output)]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("uram: error: cannot write ") and "Traceback" not in "".join(said)


@pytest.mark.parametrize("content", [b"# Notes", b"{}", b'{"cells": 3}', b"[]", b"\xff\xfe"])
@pytest.mark.parametrize("words", [[], ["--table", "table1"]])
def test_a_file_that_is_no_notebook(tmp_path, capsys, content, words):
    path = tmp_path / "notes.ipynb"
    path.write_bytes(content)
    assert notebook.main([str(path), *words]) == 1
    said = capsys.readouterr().err
    assert "notes.ipynb" in said and said.count("\n") == 1
