"""The book as one PDF: every chapter is in it, and its links lead to places in it."""

import html
import re

import pytest
from browser import EXECUTABLE, built  # noqa: F401
from uram_book import pdf

from uram_lib import UramError


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


def titles(data: bytes) -> list[str]:
    """The titles in a PDF's outline: text in brackets, or UTF-16 in hexadecimal digits where it is not ASCII."""
    plain = re.findall(rb"/Title \((.*?)(?<!\\)\)", data)
    plain = [re.sub(rb"\\(.)", rb"\1", text).decode("latin-1") for text in plain]
    coded = [bytes.fromhex(text.decode()).decode("utf-16") for text in re.findall(rb"/Title <([0-9A-F]+)>", data)]
    return plain + coded


def heading(source: str) -> str:
    """The title of a built page."""
    article = source.split("<article")[1]
    found = re.search(r"<h1>(.*?)<a class=\"headerlink", article, re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", "", found[1]))


@pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium on this machine")
def test_every_chapter_is_in_the_pdf(built, tmp_path):  # noqa: F811
    pdf.write_pdf(built, tmp_path / "uram.pdf")
    data = (tmp_path / "uram.pdf").read_bytes()
    assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) > 3 * len(pdf.pages())
    outline = squeezed(" ".join(titles(data)))
    for page in pdf.pages():
        assert squeezed(heading((built / f"{page}.html").read_text(encoding="utf-8"))) in outline, page
    assert [path.name for path in tmp_path.iterdir()] == ["uram.pdf"] and not (built / "book" / "whole.html").exists()


def test_places_are_named_once_and_links_between_pages_lead_to_them(built):  # noqa: F811
    whole = pdf.one_page(built)
    places = set(re.findall(r'\bid="([^"]+)"', whole))
    assert {pdf.anchor(page) for page in pdf.pages()} <= places
    assert not re.search(r"<script(?![^>]*mathjax|>window)", whole)
    inside = set(re.findall(r'href="#([^"]+)"', whole))
    assert len(inside) > 100 and inside - places == set()
    for page in pdf.pages():  # none is left that would lead out of the PDF into the built book
        assert f'{page.split("/")[1]}.html"' not in whole, page


def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(UramError, match="not built yet"):
        pdf.write_pdf(tmp_path, tmp_path / "uram.pdf")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UramError, match="takes one of these browsers"):
        pdf.write_pdf(tmp_path, tmp_path / "uram.pdf")
    assert list(tmp_path.iterdir()) == []
