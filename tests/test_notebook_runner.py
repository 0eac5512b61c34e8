"""`python -m uram_book`: mistakes come first, failures are one line, weights are really tested."""

import ast
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from types import SimpleNamespace

import nbformat
import pytest
from uram_book import notebook

from uram_lib import UramError
from uram_lib.common import CHECKPOINTS, QUICK, ROOT
from uram_lib.config import Config
from uram_lib.experiments import experiment
from uram_lib.runs import records

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Write a project's notebook of a parameters cell and one cell with `body`; returns where its output goes."""

    def write(body: str):
        cells = [nbformat.v4.new_code_cell('preset = "smoke"\nseeds = 1', metadata={"tags": ["parameters"]})]
        cells.append(nbformat.v4.new_code_cell(body))
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "small.ipynb")
        monkeypatch.setattr(notebook, "ROOT", tmp_path)
        return tmp_path / "out" / "small.ipynb"

    return write


def test_runs_in_its_own_folder_with_parameters_and_leaves_no_dates(small):
    output = small("import os; print(os.path.basename(os.getcwd()), repr((preset, seeds)))")
    executed = notebook.run_notebook("small", {"preset": "paper", "seeds": "4-9"}, output)
    assert executed.cells[-1].outputs[0].text == "notebooks ('paper', '4-9')\n"
    nbformat.validate(executed)
    first = output.read_text(encoding="utf-8")
    assert "papermill" not in executed.metadata and "duration" not in first and "_time" not in first
    notebook.run_notebook("small", {"preset": "paper", "seeds": "4-9"}, output)
    ids = lambda text: [line for line in text.splitlines() if '"id"' not in line]  # noqa: E731
    assert ids(output.read_text(encoding="utf-8")) == ids(first), "two runs of one notebook differ"


@pytest.mark.parametrize(("body", "said"), [
    ("from uram_lib import UramError\nraise UramError('unknown preset; one of: smoke')", "unknown preset; one of"),
    ("1 / 0", "cell 3 of small.ipynb: ZeroDivisionError: division by zero"),
    ("assert False", "cell 3 of small.ipynb: AssertionError"),
    ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "the kernel of small.ipynb was killed"),
], ids=["told", "bug", "no message", "killed"])  # fmt: skip
def test_a_failing_cell_is_one_line_and_the_notebook_is_kept(small, body, said):
    output = small(body)
    with pytest.raises(UramError) as error:
        notebook.run_notebook("small", {"preset": "smoke"}, output)
    assert said in str(error.value) and "small.ipynb)" in str(error.value)
    assert output.exists()


@pytest.mark.parametrize(("words", "said"), [
    ("table1 --preset fast", "unknown preset 'fast' of table1"),
    ("readings --preset fast --train", "unknown preset 'fast'"),
])  # fmt: skip
def test_mistakes_are_told_before_anything_starts(local, monkeypatch, capsys, words, said):
    monkeypatch.setattr(notebook, "show_retest", lambda table: pytest.fail("published models are tested first"))
    assert notebook.main(words.split()) == 1
    told = capsys.readouterr()
    assert told.err.startswith(f"uram: error: {said}") and told.err.count("\n") == 1 and told.out == ""
    assert not (local / "runs").exists()


def test_an_altered_weight_file_changes_what_the_retest_shows(mnist, monkeypatch, tmp_path, capsys):
    path = CHECKPOINTS / "table1/strong/mnist/ram-6/seed-0.safetensors"
    place = tmp_path / path.relative_to(CHECKPOINTS)
    place.parent.mkdir(parents=True)
    shutil.copy(path, place)
    monkeypatch.setattr(notebook, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(notebook, "RETESTED", 200)
    ((row, preset, images, here, there, differ),) = notebook.retest("table1")
    assert (row, preset, images) == ("ram-6", "strong", 200)
    assert differ <= 2 and abs(here - there) <= 1  # none, or a few by rounding on another processor
    weights = bytearray(place.read_bytes())
    size = int.from_bytes(weights[:8], "little")  # of the header, which says where each tensor begins
    first = json.loads(weights[8 : 8 + size])["classifier.bias"]["data_offsets"][0]
    weights[8 + size + first + 3] = 0x7E  # one byte: class 0 is now always likeliest
    place.write_bytes(weights)
    ((*_, differ),) = notebook.retest("table1")
    assert differ > 100
    monkeypatch.setattr(notebook, "retest", lambda table: [("ram-6", "strong", 200, 50.0, 2.0, differ)])
    notebook.show_retest("table1")
    assert f"{differ} of 200 answers differ from the records." in capsys.readouterr().out


def test_a_readers_page_opens_with_the_readers_own_results():
    cells = [nbformat.v4.new_markdown_cell(text) for text in ("# Table", "theirs")]
    cells.append(nbformat.v4.new_code_cell("show", metadata={"tags": ["remove-cell", notebook.YOURS]}))
    cells.append(nbformat.v4.new_code_cell("# Parameters", metadata={"tags": ["injected-parameters"]}))
    book = nbformat.v4.new_notebook(cells=cells)
    made = notebook.reader_first(book)
    assert [cell.source for cell in made.cells] == ["# Table", "show", "theirs"]
    assert "remove-cell" not in made.cells[1].metadata["tags"] and notebook.YOURS in made.cells[1].metadata["tags"]
    assert "remove-cell" in book.cells[2].metadata["tags"], "the executed notebook stays as it is"


def test_slim_figures_keep_the_scales_of_their_pictures():
    image = '<image width="54" transform="matrix(1.38 0 0 1.38 7.25 20.7)" y="-20.7461"/>'
    drawn = notebook.slim(f'<!-- x --><svg>\n\n  {image}<path d="M 10.4567 0.00123"/></svg>\n')
    assert drawn == f'<svg>\n{image.replace("20.7461", "20.7")}<path d="M 10.4 0.00123"/></svg>\n'


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_every_notebook_is_small_hides_its_parameters_and_has_checked_cells_that_were_run(path):
    """A stripped notebook passes nbval and checks nothing, and so does a marker with text after it."""
    book = nbformat.read(path, 4)
    assert path.stat().st_size < 700_000 and "papermill" not in book.metadata
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    tagged = lambda tag: [cell for cell in cells if tag in cell.metadata.get("tags", [])]  # noqa: E731
    (parameters,), table = tagged("parameters"), "_table" in path.stem
    assert "remove-cell" in parameters.metadata["tags"] and len(tagged(notebook.YOURS)) == table
    given = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(parameters.source).body}.keys()
    known = {"preset", "rows", "seeds", "device", "jobs", "dataset", "scheduler"}
    assert given and given <= known and (not table or given == known)  # papermill ignores unknown ones
    assert all(cell.execution_count for cell in cells)
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    marked = [cell for cell in cells if "NBVAL_CHECK_OUTPUT" in cell.source]
    assert marked and all("# NBVAL_CHECK_OUTPUT" in cell.source.splitlines() for cell in marked)
    assert all(cell.outputs for cell in marked if cell.source.startswith("# NBVAL"))
    assert all(output.output_type == "stream" and output.name == "stdout" for cell in marked for output in cell.outputs)


def test_code_shown_in_the_notebooks_is_the_librarys():
    """Stored outputs of `lesson.source`: whoever changes a function that a lesson shows runs the lesson again."""
    sources = [path for folder in ("uram_lib", "book/uram_book") for path in sorted((ROOT / folder).rglob("*.py"))]
    library = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    shown = 0
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", []):
                text = output.get("data", {}).get("text/markdown", "")
                if text.startswith("```python\n"):
                    for piece in text.removeprefix("```python\n").removesuffix("\n```").split("\n\n"):
                        shown += 1
                        found = any(textwrap.indent(piece, indent) in library for indent in ("", "    "))
                        assert found, f"{path.name} shows code that is not in the library:\n{piece}"
    assert shown


def test_quick_trains_as_many_epochs_as_fit_and_keeps_to_them(local, monkeypatch):
    made = notebook.plan.make_plan("table1", rows=notebook.ARGUED["table1"].split(","), dataset="digits", device="cpu")
    whole = [e.config.epochs for e in made.experiments]
    for minutes, epochs in ((1_000, whole), (1e-6, [1] * len(whole))):
        monkeypatch.setitem(notebook.BUDGET, "table1", minutes)
        found = notebook.within_budget(made)
        assert [e.config.epochs for e in found.experiments] == epochs
        monkeypatch.setitem(notebook.BUDGET, "table1", 1)
        assert notebook.within_budget(made) == found, "a second command has another budget"
        (local / "quick-table1.json").unlink()
    assert list(notebook.expected(found))[0].endswith("scale: 1 epoch")


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 1.0])
def test_a_shortened_run_comes_to_the_end_of_its_curriculum(share):
    """The last epoch is on all translations or lengths, and the policy is trained in it."""
    for table, row in (("table2", "ours-6"), ("table3", "dram")):
        config = notebook.shortened(experiment(table, row, "quick"), share).config
        assert config.spread(config.epochs) == 1.0 and config.at(config.epochs).beta2 > 0
    assert notebook.shortened(experiment("table2", "ours-6", "quick"), 1.0) == experiment("table2", "ours-6", "quick")


def test_the_error_to_expect_is_that_of_a_run_with_the_same_configuration():
    assert (paths := sorted(QUICK.glob("**/seed-0.json")))
    for path in paths:
        record = records.read_record(path)
        row, config = record["row"].partition("+")[0], Config.read(record["config"])
        e = replace(experiment(record["table"], row, "quick"), config=config)
        (said,) = notebook.expected(SimpleNamespace(experiments=[e]))
        assert said.endswith(f"; ours had {notebook.error_of(record)}")
        (said,) = notebook.expected(SimpleNamespace(experiments=[replace(e, config=replace(config, sigma=0.9))]))
        assert "ours had" not in said


@pytest.mark.parametrize("after", [0.3, 1.0])
def test_ctrl_c_while_pytorch_is_imported_ends_without_a_traceback(after):
    command = [sys.executable, "-m", "uram_book", "table2", "--rows", "none"]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    # A fast machine has imported all and refused the row by then.
    assert (run.returncode, said) == (-signal.SIGINT, "") or "unknown row" in said
