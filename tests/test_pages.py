"""Numbers reach a page in one way, and a sentence that the records contradict stops the build with one line."""

import dataclasses
import json
import re
import shutil
from importlib.util import module_from_spec, spec_from_file_location

import nbformat
import pandas as pd
import pytest
from conftest import python
from uram_book import pages
from uram_book.facts import Facts, plain, signed, with_interval
from uram_book.pages import Pages
from uram_book.statistics import Estimate

from uram_lib import UramError, paper
from uram_lib.common import RESULTS, ROOT
from uram_lib.experiments import experiment

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
    """render(text, facts): a template of this text, and the pages that it was rendered with."""

    def made(text: str, found: Facts) -> tuple[str, Pages]:
        (tmp_path / "chapters").mkdir(exist_ok=True)
        (tmp_path / "chapters" / "page.md").write_text(text, encoding="utf-8")
        monkeypatch.setattr(pages, "CHAPTERS", tmp_path / "chapters")
        book = Pages(found)
        return book.render("page.md"), book

    return made


@pytest.mark.parametrize(("form", "value", "text"), [
    (plain, 29.922, "29.9"), (plain, 9.35, "9.35"), (plain, 9.996, "10.0"), (plain, 0.69, "0.69"),
    (plain, -0.5, "−0.50"), (plain, 100, "100.0"), (signed, -0.1951, "−0.20"), (signed, 0.0021, "+0.002"),
    (signed, 7.0913, "+7.09"), (signed, 16.81, "+16.8"), (signed, 0, "0.00"), (signed, float("nan"), "–"),
])  # fmt: skip
def test_a_number_prints_in_one_way(form, value, text):
    assert form(value) == text


def test_an_interval_has_the_decimals_of_its_mean(results):
    found = results()
    assert with_interval(found.row("table2", "ram-6", "paper"), plain) == "29.9 [25.4,\u00a034.4]"
    assert found.text("error", "table2", "ram-6", "paper") == "29.9\u00a0%"
    assert found.text("effect", "C3", "6 glimpses", "paper") == "−0.69 [−1.66,\u00a0+0.28]"
    assert found.text("reported", "table2", "ram-6") == "29.8\u00a0%"
    assert found.text("reported_effect", "C3", "6 glimpses", "paper") == "−3.5"


def given(condition: str) -> str:
    return '{% call given("' + condition + '") %}It holds.{% endcall %}'


def test_a_finding_is_printed_with_marked_numbers_and_stops_the_build_with_one_line_when_contradicted(results, render):
    text, book = render(SENTENCE, results())
    assert text.startswith('No help: <span data-fact="effect~C3~6 glimpses~paper">−0.69')
    book.check()
    text, book = render(SENTENCE, results("supported"))
    assert text.strip() == ""
    with pytest.raises(UramError) as error:
        book.check()
    assert re.fullmatch("[^\n]*page.md[^\n]*not supported[^\n]*now say supported[^\n]*", str(error.value))


def test_a_finding_without_records_is_left_out(results, render):
    other = SENTENCE.replace("6 glimpses", "8 glimpses") + given("value('error', 'table2', 'ram-9', 'paper') < 5")
    text, book = render(other, results())
    assert text.strip() == "" and len(book.left_out) == 2
    book.check()


@pytest.mark.parametrize(("epochs", "said"), [(None, ""), (7, ", old recipe")])
def test_a_number_of_another_recipe_says_so(tmp_path, epochs, said):
    config = experiment("table2", "ram-6", "strong").config
    config = config if epochs is None else dataclasses.replace(config, epochs=epochs)
    place = "runs/table2/strong/clutter100-10/ram-6/seed-0.json"
    record = json.loads((RESULTS / place).read_text()) | {"config": dataclasses.asdict(config)}
    record["config_hash"] = config.hash
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(json.dumps(record))
    found = Facts(tmp_path)
    assert found.recipe_of("strong", "table2", "ours-6", "ram-6") == said
    assert found.recipe_of("paper", "table2", "ram-6") == found.recipe_of("strong", "table2", "ours-6") == ""


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_hours_of_a_core_and_of_an_accelerator_are_counted_apart(tmp_path, device):
    place = "runs/table2/strong/clutter100-10/ram-6/seed-0.json"
    record = json.loads((RESULTS / place).read_text())
    trained, tested = {"device": device, "from_epoch": 0}, {"device": "cpu", "from_epoch": 60}
    record["provenance"] |= {"device": "cpu", "wall_seconds": 1800, "threads": 2, "sessions": [trained, tested]}
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(json.dumps(record))
    found = Facts(tmp_path)
    assert {kind: found.hours(kind != "cpu") for kind in ("cpu", "cuda")} == {"cpu": 0, "cuda": 0} | {device: 1}


@pytest.mark.parametrize("text", [
    '{{ error("table2", "ram-9", "paper") }}', "{{ unheard_of }}", '{{ effect("C99", "x", "paper") }}',
])  # fmt: skip
def test_a_page_that_asks_for_a_number_that_is_not_there_is_refused_in_one_line(results, render, text):
    with pytest.raises(UramError, match="page.md"):
        render(text, results())


@pytest.fixture
def undrawn(monkeypatch, tmp_path):
    """Pages and README are written into `tmp_path`, without pictures and what takes published models."""
    for name, place in (("BOOK", tmp_path), ("GENERATED", tmp_path / "_generated"), ("README", tmp_path / "README.md")):
        monkeypatch.setattr(pages, name, place)
    for module, name in ((pages, "draw"), (pages.live, "write_script"), (pages.looks, "write_looks")):
        monkeypatch.setattr(module, name, lambda *arguments: None)
    return tmp_path


def test_templates_hold_with_the_published_records(undrawn):
    """Every chapter renders, no sentence contradicts the records, and every code that links can lead to is defined."""
    pages.write_pages()
    texts = {path.name: path.read_text(encoding="utf-8") for path in undrawn.glob("*.md")}
    assert texts.keys() == {path.name for path in pages.CHAPTERS.glob("*.md")}
    shown = re.compile(r"{% (call|endcall)\b")  # a page shows how a finding is written
    assert not [name for name, text in texts.items() if "{%" in shown.sub("", text)]
    spec = spec_from_file_location("codes", ROOT / "book" / "_ext" / "codes.py")
    codes = module_from_spec(spec)
    spec.loader.exec_module(codes)
    (undrawn / "book").symlink_to(undrawn)
    known = codes.definitions(undrawn)
    assert {claim.claim for claim in paper.CLAIMS} <= set(known) and {"A8", "A4'", "K2'", "B6", "T5"} <= set(known)


@pytest.mark.parametrize("markers", [(), (pages.BEGIN,), (pages.BEGIN, pages.END, pages.END)])
def test_a_readme_without_its_markers_is_left_alone(undrawn, markers):
    path, before = undrawn / "README.md", "\n".join(("one", *markers, "two"))
    path.write_text(before, encoding="utf-8")
    with pytest.raises(UramError, match="README.md needs one line"):
        pages.write_readme()
    assert path.read_text(encoding="utf-8") == before


def test_the_readmes_block_is_what_the_records_give(undrawn):
    shutil.copy(ROOT / "README.md", undrawn)
    pages.write_readme()
    text = (undrawn / "README.md").read_text(encoding="utf-8")
    assert text == (ROOT / "README.md").read_text(encoding="utf-8"), "make tables renews it"
    block = text.split(pages.BEGIN)[1].split(pages.END)[0]
    assert "<span" not in block and "![" in block


def test_nbval_turns_red_when_one_published_number_is_altered(copy_of_project, tmp_path):
    for folder in ("book/uram_book", "notebooks", "results/tables", "results/runs/table1"):
        shutil.copytree(ROOT / folder, copy_of_project / folder)
    path = copy_of_project / "results" / "tables" / "table1.csv"
    table = pd.read_csv(path)
    table.loc[table["row"] == "ram-6", "ours_mean"] += 0.5
    table.to_csv(path, index=False)
    notebook = nbformat.read(copy_of_project / "notebooks" / "10_table1.ipynb", 4)
    # The cells that read what is published, without the training and the figures.
    kept = [c for c in notebook.cells if c.cell_type == "code" and "tables.read" in c.source and "NBVAL" in c.source]
    setup = nbformat.v4.new_code_cell(
        "from uram_book import tables\nfrom uram_lib.runs import records\n"
        "published = records.load_records(table='table1')"
    )
    notebook.cells = [setup, *kept]
    nbformat.write(notebook, copy_of_project / "notebooks" / "altered.ipynb")
    options = "-m pytest -q -p no:cacheprovider --nbval-lax --nbval-current-env notebooks/altered.ipynb"
    ran = python(*options.split(), cwd=copy_of_project, PYTHONPATH=f"{copy_of_project}:{copy_of_project / 'book'}")
    assert ran.returncode == 1 and "table1.csv is what the records give" in ran.stdout + ran.stderr, ran.stdout[-2000:]


@pytest.mark.parametrize("low, high, reported, said", [
    (-1.4, -0.8, -5.1, "supported, smaller"), (-0.3, -0.1, -0.04, "supported, larger"), (-6, -3, -5.1, "supported"),
    (3, 6, 2.5, "supported, larger"), (-2, -1, float("nan"), "supported"),
])  # fmt: skip
def test_a_supported_effect_says_when_its_size_is_not_the_paper_s(low, high, reported, said):
    found = Estimate((low + high) / 2, low, high, 3, "supported", reported)
    facts = Facts()
    facts.claim, facts.recipe_of = (lambda *_: found), (lambda *_: "")
    assert Pages(facts, marked=False).judgement("C5", "RAM 6 to 8", "strong") == said
