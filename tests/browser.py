"""The built book, and a headless Chromium (Debian's, driven by Playwright) that is cut off from the network.

Test files import the fixtures: `from browser import browser, built, opened  # noqa: F401`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uram_lib.common import RESULTS, ROOT
from uram_lib.runs.run import only_one

EXECUTABLE = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
           "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--no-proxy-server"]  # fmt: skip
WIDE, PHONE = 1280, 390
# The book's theme and its buttons say these on every visit.
KNOWN = ("invalid theme mode", "[PST]", "[togglebutton]")


def sources() -> list[Path]:
    """What the book is made from."""
    folders = [ROOT / "book" / name for name in ("chapters", "uram_book", "_static", "_ext")]
    found = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    results = [path for path in RESULTS.rglob("*") if RESULTS / "local" not in path.parents]
    named = [ROOT / "_config.yml", ROOT / "_toc.yml", ROOT / "book" / "references.bib"]
    return [path for path in [*named, *found, *results, *(ROOT / "notebooks").glob("*.ipynb")] if path.is_file()]


@pytest.fixture(scope="session")
def built() -> Path:
    """The strict build, reused where it is newer than all that it is made from."""
    strict = ROOT / "_build" / ".strict"  # left by a build without a warning
    with only_one(ROOT / "_build" / ".lock", wait=True):  # tests run in several processes
        if not strict.exists() or strict.stat().st_mtime < max(path.stat().st_mtime for path in sources()):
            build(strict)
    return ROOT / "_build" / "html"


def build(strict: Path) -> None:
    """Make the pages and build the book, every warning an error; `strict` is touched when that worked."""
    made = subprocess.run([sys.executable, "-m", "uram_book.pages"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "--all", "-n", "-W", "--keep-going"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    warnings = [line for line in (ran.stdout + ran.stderr).splitlines() if "WARNING" in line or "ERROR" in line]
    assert ran.returncode == 0, "\n".join(warnings or [ran.stdout[-2000:], ran.stderr[-2000:]])
    strict.touch()


@pytest.fixture(scope="module")
def browser():
    """A running Chromium."""
    sync = pytest.importorskip("playwright.sync_api")
    if EXECUTABLE is None:
        pytest.skip("no Chromium on this machine")
    with sync.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=EXECUTABLE, args=OPTIONS)
        yield running
        running.close()


@pytest.fixture
def opened(browser):
    """opened(address, width=WIDE, theme="light"): a page after it has loaded, with `said`, what its console said, and
    `asked`, all addresses that it asked for."""
    contexts = []

    def load(address: str, width: int = WIDE, theme: str = "light", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **options)
        contexts.append(context)
        page = context.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(f"error: {error}"))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address, wait_until="load")
        page.wait_for_function("() => document.readyState === 'complete'")
        page.said = [line for line in page.said if not any(known in line for known in KNOWN)]
        return page

    yield load
    for context in contexts:
        context.close()
