"""The built book, read in a real browser without a network: everything that a page needs is in the build."""

import functools
import html
import http.server
import importlib
import re
import subprocess
import tempfile
import threading

import pandas as pd
import pytest
import yaml
from chromium import EXECUTABLE, OPTIONS

from uram_lib import paper
from uram_lib.paths import ROOT, TABLES

PHONE_PX = 390
BUILT = ROOT / "_build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]


@pytest.fixture(scope="module")
def server(built):
    """The book on localhost; yields its address and the list of requests that found nothing."""
    missing: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def log_error(self, *_):
            missing.append(self.path)

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=built))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}", missing
    serving.shutdown()
    serving.server_close()


@pytest.fixture(scope="module")
def read(server):
    """read(page): the page's document after its scripts ran, and what the browser's console said."""
    if EXECUTABLE is None:
        pytest.skip("no Chromium on this machine")

    @functools.cache
    def document(page: str) -> tuple[str, list[str]]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            ran = subprocess.run(
                [EXECUTABLE, *OPTIONS, "--enable-logging=stderr", f"--user-data-dir={profile}",
                 "--virtual-time-budget=20000", "--dump-dom", f"{server[0]}/{page}.html"],
                capture_output=True, text=True, timeout=120,
            )  # fmt: skip
        assert ran.returncode == 0 and "<html" in ran.stdout, ran.stderr[-2000:]
        return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]

    return document


def text_of(document: str) -> str:
    """What a reader sees, in one line; spaces that do not break count as spaces."""
    document = re.sub(r"<(script|style)\b.*?</\1>", " ", document, flags=re.DOTALL)
    plain = html.unescape(re.sub(r"<[^>]+>", " ", document))
    return re.sub(r"\s+", " ", plain.replace("\u00a0", " "))


@pytest.mark.parametrize("page", PAGES)
def test_no_page_loads_anything_from_elsewhere(built, page):
    """Links that a reader may click are free; what a browser fetches by itself is not."""
    source = (built / f"{page}.html").read_text()
    loaded = re.findall(r"<(?:script|img|iframe|source|video)\b[^>]*?\bsrc=[\"']([^\"']+)", source)
    loaded += re.findall(
        r"<link\b(?![^>]*rel=[\"']?(?:canonical|next|prev|search|index))[^>]*?href=[\"']([^\"']+)", source
    )
    assert loaded and not [address for address in loaded if re.match(r"(https?:)?//", address)]


def test_style_sheets_and_fonts_are_local(built):
    for sheet in (built / "_static").rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet.name


@pytest.mark.parametrize("page", PAGES)
def test_page_reads_without_a_network_and_without_an_error(read, server, page):
    document, console = read(page)
    assert not [line for line in console if re.search(r"error|failed|refused|exception|is not defined", line, re.I)]
    assert [path for path in server[1] if "favicon" not in path] == []
    assert re.search(r"<h1\b", document)
    for image in re.findall(r"<img\b[^>]*?\bsrc=\"([^\"]+)\"", document):
        assert image.startswith("data:") or (BUILT / page).parent.joinpath(image).resolve().exists(), image


@pytest.mark.parametrize("page", PAGES)
def test_every_formula_is_typeset(read, page):
    formulas = len(re.findall(r"class=\"math (?:notranslate|inline)", (BUILT / f"{page}.html").read_text()))
    document, _ = read(page)
    assert len(re.findall(r"<mjx-container\b", document)) >= formulas
    assert "<mjx-merror" not in document and "data-mjx-error" not in document


def test_some_pages_have_formulas(read):
    assert sum("<mjx-container" in read(page)[0] for page in PAGES) >= 3


@pytest.mark.parametrize("page", [TOC["root"], "a page of its own"])
@pytest.mark.parametrize(("name", "own"), [("table1", "notebooks/10_table1"), ("table2", "notebooks/20_table2")])
def test_every_number_of_a_table_is_on_the_page(read, name, own, page):
    """Paper's values, our means and their intervals at every published preset, straight from the CSV file."""
    if not (TABLES / f"{name}.csv").exists():
        pytest.skip(f"nothing of {name} is published yet")
    table = pd.read_csv(TABLES / f"{name}.csv")
    table = table[table["dataset"] == paper.DATASETS[name]]
    assert len(table) and set(table["row"]) <= {row.row for row in paper.ROWS if row.table == name}
    shown = text_of(read(TOC["root"] if page == TOC["root"] else own)[0])
    for line in table.itertuples():
        assert line.label in shown
        assert f"{line.paper:.2f}" in shown
        assert f"{line.ours_mean:.2f}" in shown
        assert f"[{line.ours_ci_low:.2f}, {line.ours_ci_high:.2f}]" in shown


def test_all_claims_are_on_their_page(read):
    shown = text_of(read("book/claims")[0])
    for claim in paper.CLAIMS:
        assert f"{claim.claim} {claim.statement}" in shown


@pytest.mark.parametrize("page", PAGES)
def test_no_page_is_wider_than_a_phone(tab, built, page):
    """Wide tables, formulas, code and pictures scroll inside themselves."""
    tab.open((built / f"{page}.html").as_uri(), width=PHONE_PX)
    assert tab.evaluate("window.innerWidth") == PHONE_PX
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE_PX
    # Whatever reaches beyond the window lies in a box that scrolls, or it could not be read.
    assert (
        tab.evaluate(f"""[...document.querySelectorAll(".bd-article :is(table, img, pre, mjx-container)")]
        .filter((one) => one.getBoundingClientRect().right > {PHONE_PX})
        .filter((one) => {{
          for (let box = one; box; box = box.parentElement)
            if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return false;
          return true;
        }}).map((one) => one.outerHTML.slice(0, 200))""")
        == []
    )


def test_the_reference_holds_every_public_function_and_class_of_its_modules(built):
    source = (built / "book" / "api.html").read_text()
    modules = re.findall(r"automodule:: (\S+)", (ROOT / "book" / "api.md").read_text())
    assert len(modules) > 10
    for name in modules:
        module = importlib.import_module(name)
        for one, what in vars(module).items():
            own = getattr(what, "__module__", "") == name and not one.startswith("_")
            if own and callable(what) and what.__doc__:
                assert f'id="{name}.{one}"' in source, f"{name}.{one}"
    assert str(ROOT) not in source
