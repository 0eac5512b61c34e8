"""The book as one PDF, printed by a headless Chromium from the built pages: no TeX, no network.

The articles of all pages are put into one page, since a browser prints one page into one file. All pages lie one folder
deep, so what they load from `../_static` and `../_images` is found from the one page, too.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from uram_lib import UramError
from uram_lib.cli import exit_status
from uram_lib.common import ROOT, relative, write_atomically

BUILT, PDF = ROOT / "_build" / "html", ROOT / "_build" / "uram.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Half an hour of the page's own time, which passes as fast as the formulas are typeset.
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-pdf-header-footer",
           "--generate-pdf-document-outline", "--virtual-time-budget=1800000",
           "--host-resolver-rules=MAP * ~NOTFOUND", "--no-proxy-server"]  # fmt: skip
STYLE = """@page { size: A4; margin: 18mm 16mm; } article { break-before: page; } body { font-size: 10pt; }
.headerlink, button, input, .live { display: none; } .bd-article { padding: 0; } pre { white-space: pre-wrap; }
figure, img, tr { break-inside: avoid; } table { width: 100%; }"""


def pages() -> list[str]:
    """The book's pages in their order, as in `book/intro`."""
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    return re.findall(r"^(?:root| *- file): (\S+)", toc, re.MULTILINE)


def anchor(page: str, place: str = "") -> str:
    """The name of a page, or of a place on it, in the one page."""
    return f"{page.replace('/', '-')}{'--' * bool(place)}{place}"


def article(page: str, source: str, names: list[str]) -> str:
    """The article of a built page without its scripts, its places and links renamed for the one page."""
    found = re.search(r'<article class="bd-article">(.*?)</article>', source, re.DOTALL)
    text = re.sub(r"<(script|noscript)\b.*?</\1>", "", found[1], flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', lambda m: f'id="{anchor(page, m[1])}"', text)

    def link(match: re.Match) -> str:
        target, _, place = match[1].partition("#")
        folder = "" if target.startswith("../") else page.split("/")[0] + "/"
        name = (folder + target.removeprefix("../")).removesuffix(".html") if target else page
        return f'href="#{anchor(name, place)}"' if name in names else match[0]

    text = re.sub(r'\bhref="([^"]*)"', link, text)
    return f'<article class="bd-article" id="{anchor(page)}">{text}</article>'


def one_page(built: Path = BUILT) -> str:
    """All articles in one HTML page, to lie beside the built pages of `book/`."""
    names = pages()
    sources = {name: (built / f"{name}.html").read_text(encoding="utf-8") for name in names}
    first = sources[names[0]]
    sheets = "\n".join(dict.fromkeys(re.findall(r'<link [^>]*?href="[^"]+\.css[^"]*"[^>]*>', first)))
    scripts = re.findall(r"<script>window\.MathJax.*?</script>|<script[^>]*mathjax[^>]*></script>", first)
    articles = "\n".join(article(name, source, names) for name, source in sources.items())
    head = f"<title>URAM, replicated</title>{sheets}<style>{STYLE}</style>{''.join(scripts)}"
    start = '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
    return f"{start}{head}</head><body>{articles}</body></html>"


def write_pdf(built: Path = BUILT, path: Path = PDF) -> None:
    """Print the built book to `path`. Raises UramError where there is no browser, no book, or no PDF comes of it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UramError(f"a PDF takes one of these browsers on the path: {', '.join(BROWSERS)}")
    if not (built / f"{pages()[0]}.html").exists():
        raise UramError("the book is not built yet: make book")
    page = built / "book" / "whole.html"
    page.write_text(one_page(built), encoding="utf-8")

    def print_to(temporary: Path) -> None:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            places = (f"--user-data-dir={profile}", f"--print-to-pdf={temporary}", page.as_uri())
            try:
                ran = subprocess.run([browser, *OPTIONS, *places], capture_output=True, text=True, timeout=900)
            except subprocess.TimeoutExpired as error:
                raise UramError(f"{browser} printed nothing in a quarter of an hour") from error
        if ran.returncode or not temporary.stat().st_size:
            raise UramError(f"{browser} printed nothing: {ran.stderr.strip()[-500:]}")

    try:
        write_atomically(path, print_to)
    finally:
        page.unlink()
    print(relative(path))


if __name__ == "__main__":
    sys.exit(exit_status(write_pdf))
