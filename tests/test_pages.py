"""Numbers reach a page in one way, and a sentence that the records contradict stops the build with one line."""

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from uram_book import facts, pages
from uram_book.facts import Book, Facts, Missing, plain, signed

from uram_lib import UramError, paper
from uram_lib.paths import ROOT

CLAIM = {"claim": "C3", "part": "6 glimpses", "preset": "paper", "source": "paper", "statement": "x", "evidence": "y"}
NUMBERS = {"paper_effect": -3.5, "our_effect": -0.6893, "ci_low": -1.6558, "ci_high": 0.2771, "n_pairs": 3}
SENTENCE = (
    '{% call finding("C3", "6 glimpses", "paper", "not supported") %}'
    'No help: {{ effect("C3", "6 glimpses", "paper") }}.{% endcall %}'
)


@pytest.fixture
def results(tmp_path):
    """results(verdict): a folder of results with one claim and one row."""

    def write(verdict: str = "not supported"):
        (tmp_path / "tables").mkdir(exist_ok=True)
        pd.DataFrame([CLAIM | NUMBERS | {"verdict": verdict}]).to_csv(tmp_path / "claims.csv", index=False)
        row = {"table": "table2", "row": "ram-6", "label": "RAM", "metric": "error", "paper": 29.8, "delta": 0.12,
               "dataset": "clutter100-10", "preset": "paper", "n_seeds": 3, "ours_mean": 29.922, "ours_ci_low": 25.417,
               "ours_ci_high": 34.427, "verdict": "matches"}  # fmt: skip
        pd.DataFrame([row]).to_csv(tmp_path / "tables" / "table2.csv", index=False)
        return Facts(tmp_path)

    return write


@pytest.fixture
def render(monkeypatch, tmp_path):
    """render(text, facts): a template of this text."""

    def made(text: str, found: Facts) -> tuple[str, Book]:
        (tmp_path / "chapters").mkdir(exist_ok=True)
        (tmp_path / "chapters" / "page.md").write_text(text, encoding="utf-8")
        monkeypatch.setattr(facts, "CHAPTERS", tmp_path / "chapters")
        book = Book(found)
        return book.render("page.md"), book

    return made


@pytest.mark.parametrize(("value", "text"), [
    (29.922, "29.9"), (9.35, "9.35"), (9.996, "10.0"), (0.69, "0.69"), (-0.5, "−0.50"), (100, "100.0"),
])  # fmt: skip
def test_a_number_prints_in_one_way(value, text):
    assert plain(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-0.1951, "−0.20"), (0.0021, "+0.002"), (7.0913, "+7.09"), (16.81, "+16.8"), (0, "0.00")]
)
def test_a_difference_prints_with_its_sign(value, text):
    assert signed(value) == text


def test_an_interval_has_the_decimals_of_its_mean(results):
    found = results()
    assert found.text("interval", "table2", "ram-6", "paper") == "29.9\u00a0% [25.4,\u00a034.4]"
    assert found.text("effect", "C3", "6 glimpses", "paper") == "−0.69 [−1.66,\u00a0+0.28]"
    assert found.text("reported", "table2", "ram-6") == "29.8\u00a0%"
    assert found.text("reported_effect", "C3", "6 glimpses", "paper") == "−3.5"


def test_a_finding_is_printed_with_marked_numbers(results, render):
    text, book = render(SENTENCE, results())
    assert text.startswith('No help: <span data-fact="effect~C3~6 glimpses~paper">−0.69')
    book.check()


def test_a_finding_that_records_contradict_stops_the_build_with_one_line(results, render):
    text, book = render(SENTENCE, results("supported"))
    assert text.strip() == ""
    with pytest.raises(UramError) as error:
        book.check()
    assert re.fullmatch("[^\n]*page.md[^\n]*not supported[^\n]*now say supported[^\n]*", str(error.value))


def test_a_finding_without_records_is_left_out(results, render):
    other = SENTENCE.replace("6 glimpses", "8 glimpses")
    text, book = render(
        other + "{% call given(\"value('error', 'table2', 'ram-9', 'paper') < 5\") %}x{% endcall %}", results()
    )
    assert text.strip() == "" and len(book.left_out) == 2
    book.check()


@pytest.mark.parametrize(("condition", "holds"), [
    ("value('error', 'table2', 'ram-6', 'paper') > 20", True),
    ("value('error', 'table2', 'ram-6', 'paper') < 20", False),
])  # fmt: skip
def test_a_condition_guards_a_sentence(results, render, condition, holds):
    text, book = render('{% call given("' + condition + '") %}It holds.{% endcall %}', results())
    assert (text == "It holds.") == holds == (not book.problems)


@pytest.mark.parametrize(
    "text", ['{{ error("table2", "ram-9", "paper") }}', "{{ unheard_of }}", '{{ effect("C99", "x", "paper") }}']
)
def test_a_page_that_asks_for_a_number_that_is_not_there_is_refused_in_one_line(results, render, text):
    with pytest.raises(UramError, match="page.md") as error:
        render(text, results())
    assert "\n" not in str(error.value)


def test_every_named_number_is_there_or_missing_and_nothing_else():
    found = Facts()
    for name in facts.NAMED:
        try:
            assert found.text("fact", name)
        except Missing:
            pass


def test_templates_hold_with_the_published_records(tmp_path, monkeypatch):
    """Every chapter renders, and no sentence contradicts the records."""
    monkeypatch.setattr(pages, "BOOK", tmp_path)
    monkeypatch.setattr(pages, "GENERATED", tmp_path / "_generated")
    monkeypatch.setattr(pages.live, "write_script", lambda folder: None)
    monkeypatch.setattr(pages, "draw", lambda *arguments: None)
    pages.write_pages()
    written = {path.name for path in tmp_path.glob("*.md")}
    assert written == {path.name for path in facts.CHAPTERS.glob("*.md")}
    texts = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.md")}
    shown = re.compile(r"{% (call|endcall)\b")  # a page shows how a finding is written
    assert not [name for name, text in texts.items() if "{%" in shown.sub("", text)]


def test_what_a_template_says_of_codes_has_a_definition():
    """Every code in the templates is defined in one of the tables that the links lead to."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("codes", ROOT / "book" / "_ext" / "codes.py")
    codes = module_from_spec(spec)
    spec.loader.exec_module(codes)
    pages.write_pages()
    known = codes.definitions(ROOT)
    assert {claim.claim for claim in paper.CLAIMS} <= set(known) and {"A8", "A4'", "K2'", "B6", "T5"} <= set(known)


@pytest.mark.parametrize("markers", [(), (pages.BEGIN,), (pages.BEGIN, pages.END, pages.END)])
def test_a_readme_without_its_markers_is_left_alone(tmp_path, monkeypatch, markers):
    path = tmp_path / "README.md"
    path.write_text("\n".join(("one", *markers, "two")), encoding="utf-8")
    monkeypatch.setattr(pages, "README", path)
    monkeypatch.setattr(pages, "draw", lambda *arguments: None)
    monkeypatch.setattr(pages.looks, "write", lambda: None)
    before = path.read_text(encoding="utf-8")
    with pytest.raises(UramError, match="README.md needs one line"):
        pages.write_readme()
    assert path.read_text(encoding="utf-8") == before


def test_the_readmes_block_is_what_the_records_give(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", path)
    monkeypatch.setattr(pages, "README", path)
    monkeypatch.setattr(pages, "draw", lambda *arguments: None)
    monkeypatch.setattr(pages.looks, "write", lambda: None)
    pages.write_readme()
    text = path.read_text(encoding="utf-8")
    assert text == (ROOT / "README.md").read_text(encoding="utf-8"), "make tables renews it"
    block = text.split(pages.BEGIN)[1].split(pages.END)[0]
    assert "<span" not in block and "![" in block


TABLE_NOTEBOOKS = ("10_table1", "20_table2", "30_table3", "40_table4")
NOTEBOOKS = (*TABLE_NOTEBOOKS, "50_readings", "60_gallery")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_small_and_hides_its_plumbing(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, 4)
    assert path.stat().st_size < 700_000
    tagged = {tag: [c for c in notebook.cells if tag in c.metadata.get("tags", [])] for tag in ("parameters", "yours")}
    assert len(tagged["parameters"]) == 1 and "remove-cell" in tagged["parameters"][0].metadata["tags"]
    assert len(tagged["yours"]) == (name in TABLE_NOTEBOOKS)
    checked = [c for c in notebook.cells if c.cell_type == "code" and c.source.startswith("# NBVAL_CHECK_OUTPUT")]
    assert checked and all(c.outputs for c in checked)
    assert "papermill" not in notebook.metadata
    assert not [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]


def test_nbval_turns_red_when_one_published_number_is_altered(copy_of_project, tmp_path):
    for folder in ("book/uram_book", "notebooks", "results/tables", "results/runs/table1"):
        shutil.copytree(ROOT / folder, copy_of_project / folder)
    path = copy_of_project / "results" / "tables" / "table1.csv"
    table = pd.read_csv(path)
    table.loc[table["row"] == "ram-6", "ours_mean"] += 0.5
    table.to_csv(path, index=False)
    notebook = nbformat.read(copy_of_project / "notebooks" / "10_table1.ipynb", 4)
    # The cells that read what is published, without the training and the figures.
    kept = [c for c in notebook.cells if c.cell_type == "code" and ("read_table" in c.source and "NBVAL" in c.source)]
    setup = nbformat.v4.new_code_cell(
        "from uram_book import tables\nfrom uram_lib import records\npublished = records.load_records(table='table1')"
    )
    notebook.cells = [setup, *kept]
    nbformat.write(notebook, copy_of_project / "notebooks" / "altered.ipynb")
    options = "-m pytest -q -p no:cacheprovider --nbval-lax --nbval-current-env notebooks/altered.ipynb"
    command = [sys.executable, *options.split()]
    environment = {**os.environ, "PYTHONPATH": f"{copy_of_project}:{copy_of_project / 'book'}"}
    ran = subprocess.run(command, cwd=copy_of_project, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 1 and "table1.csv is what the records give" in ran.stdout + ran.stderr, ran.stdout[-2000:]


def test_the_ladder_of_recipes_is_in_order():
    ladder = pd.read_csv(ROOT / "results" / "recipe_ladder.csv")
    assert list(ladder.columns) == ["table", "step", "epochs", "val_error", "note"]
    assert ladder["val_error"].dropna().between(0, 100).all() and ladder["step"].notna().all()
    used = set(re.findall(r'steps\("([\w-]+)"', (facts.CHAPTERS / "recipe.md").read_text(encoding="utf-8")))
    assert used == set(ladder["table"])


def test_the_benchmark_measures_both_shapes_and_all_canvases():
    found = json.loads((ROOT / "results" / "bench.json").read_text(encoding="utf-8"))
    assert [s["shape"] for s in found["shapes"]] == ["table1", "table2"] and len(found["canvas"]) >= 5
    assert all(s["images_per_second"] > 0 and 0 < s["ratio"] < 2 for s in found["shapes"])
