"""The built book in a real browser without a network: every page at a desk and on a phone, light and dark."""

import re
from html import unescape

import pandas as pd
import pytest
import yaml
from browser import PHONE, WIDE, browser, built, opened  # noqa: F401
from uram_book.facts import Facts, plain, signed

from uram_lib import paper
from uram_lib.common import RESULTS, ROOT, TABLES

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
FACT = re.compile(r'<span data-fact="([^"]+)">([^<]*)</span>')
SMALLEST_PX = 9  # text of a figure as shown


def source(built, page: str) -> str:
    return (built / f"{page}.html").read_text(encoding="utf-8")


def article(built, page: str) -> str:
    return re.search(r'<article class="bd-article">(.*?)</article>', source(built, page), re.DOTALL)[1]


def text_of(html: str) -> str:
    """What a reader sees, in one line; spaces that do not break count as spaces."""
    html = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)).replace("\u00a0", " "))


@pytest.mark.parametrize("page", PAGES)
def test_page_in_the_browser(built, opened, page):
    """No console message, nothing from elsewhere, every formula typeset, nothing cut off, at a desk and on a phone."""
    address = (built / f"{page}.html").as_uri()
    for width in (WIDE, PHONE):
        seen = opened(address, width)
        seen.wait_for_function("() => !window.MathJax || (MathJax.startup && MathJax.startup.promise)")
        seen.evaluate("() => window.MathJax?.startup?.promise")
        where = f"{page}, {width} px"
        formulas = len(re.findall(r'class="math (?:notranslate|inline)', source(built, page)))
        assert seen.locator("mjx-container").count() >= formulas, where
        assert seen.locator("mjx-merror, [data-mjx-error]").count() == 0, where
        assert seen.evaluate("document.documentElement.scrollWidth") <= width, where
        # Whatever reaches beyond the window lies in a box that scrolls, or it could not be read.
        assert seen.evaluate("""(width) => [...document.querySelectorAll(
            ".bd-article :is(table, img, pre, mjx-container, svg)")]
            .filter((one) => one.getBoundingClientRect().right > width + 1)
            .filter((one) => {
              for (let box = one; box; box = box.parentElement)
                if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return false;
              return true;
            }).map((one) => one.outerHTML.slice(0, 200))""", width) == [], where  # fmt: skip
        if width == WIDE:  # no formula under its own number
            assert seen.evaluate("""[...document.querySelectorAll("div.math")].filter((one) => {
              const [number, formula] = [one.querySelector(".eqno"), one.querySelector("mjx-math")];
              return number && formula && formula.getBoundingClientRect().right > number.getBoundingClientRect().left;
            }).map((one) => one.id)""") == [], where  # fmt: skip
        assert small_print(built, seen) == [], where
        assert seen.evaluate(UNSEEN) == [], where
        for theme in ("light", "dark"):
            seen.emulate_media(color_scheme=theme)
            seen.wait_for_function(f"document.documentElement.dataset.theme === '{theme}'")
            assert seen.evaluate(CONTRAST) == [], f"{where}, {theme}"
        assert seen.said == [], where
        assert not [one for one in seen.asked if not one.startswith(("file:", "data:", "blob:"))], where
        seen.close()


# Tables and pictures that take no room, outside what a reader may fold or the page's own menus.
UNSEEN = """() => [...document.querySelectorAll(".bd-article :is(table, img, figure, .text_html > svg)")]
  .filter((one) => !one.closest("details:not([open]), .toggle-hidden, .admonition.dropdown, .live"))
  .filter((one) => !one.getBoundingClientRect().height).map((one) => one.outerHTML.slice(0, 120))"""

# Words whose colour is too near to their ground's (4.5 : 1), of what this book colours itself.
CONTRAST = """() => {
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (one) => {
    for (let box = one; box; box = box.parentElement) {
      const [r, g, b, a = 1] = numbers(getComputedStyle(box).backgroundColor);
      if (a > 0.9) return [r, g, b];
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll(".verdict, .made-by p, .live-status, .live-answer, caption, figcaption")]
    .filter((one) => one.textContent.trim() && one.offsetParent)
    .filter((one) => {
      const [a, b] = [light(numbers(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05) < 4.5;
    }).map((one) => one.outerHTML.slice(0, 120));
}"""


def small_print(built, seen) -> list[str]:
    """Figures, files or part of the page, whose smallest text is shown with fewer than SMALLEST_PX pixels."""
    found = []
    shown = seen.evaluate("""[...document.querySelectorAll(".bd-article :is(img[src$='.svg'], .text_html > svg)")]
      .map((one) => [one.src?.split("/").at(-1), one.outerHTML, one.getBoundingClientRect().width])""")  # fmt: skip
    for name, drawing, width in (one for one in shown if one[2]):
        if name:
            drawing = next(built.glob(f"_[is]*/{name}")).read_text(encoding="utf-8")
        across = float(re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+)', drawing)[1])
        sizes = re.findall(r"font(?:-size)?[:=]\s*\"?(?:normal |bold )?([\d.]+)(?:px)?", drawing)
        glyphs = re.findall(r"scale\((0\.\d+) -0\.\d+\)", drawing)  # as paths
        sizes = [*map(float, sizes), *(100 * float(scale) for scale in glyphs)]
        if sizes and min(sizes) * width / across < SMALLEST_PX:
            found.append(f"{name}: {min(sizes) * width / across:.1f} px")
    return found


def test_every_link_leads_somewhere(built):
    """Links inside the book, with their places, on all pages."""
    places = {page: set(re.findall(r'\bid="([^"]+)"', source(built, page))) for page in PAGES}
    dead = []
    for page in PAGES:
        for target in re.findall(r'<a [^>]*?href="([^"]+)"', article(built, page)):
            address, _, place = unescape(target).partition("#")
            if re.match(r"\w+:|_", address) or "/_" in address:
                continue
            path = (built / page).parent.joinpath(address).resolve() if address else built / f"{page}.html"
            name = str(path.relative_to(built)).removesuffix(".html")
            if name not in places or (place and place not in places[name]):
                dead.append(f"{page}: {target}")
    assert dead == []


def test_every_code_is_linked(built):
    """A8, T5, C3 in running text lead to their definition."""
    for page in PAGES:
        unlinked = r"(?s)<(a|code|pre|h[1-4]|script|svg|title|style|table)\b.*?</\1>"
        text = re.sub(unlinked, " ", article(built, page))
        text = re.sub(r'(?s)<div class="(?:output|highlight).*?</div>', " ", text)
        assert re.findall(r"(?<![\w.'-])(?:[ABCDKT]\d|A10|B10|C1[0-4]|T1\d)(?![\w%.])", text_of(text)) == [], page


def test_named_values_print_alike_everywhere(built):
    """Every marked number is what its name gives, on every page."""
    facts, found = Facts(), 0
    for page in PAGES:
        for name, shown in FACT.findall(source(built, page)):
            assert unescape(shown) == facts.text(*unescape(name).split("~")), f"{page}: {name}"
            found += 1
    assert found > 50


@pytest.mark.parametrize("page", [TOC["root"], "a page of its own"])
@pytest.mark.parametrize(("name", "own"), [("table1", "notebooks/10_table1"), ("table2", "notebooks/20_table2")])
def test_every_number_of_a_table_is_on_the_page(built, name, own, page):
    """Our means and intervals at every published preset, straight from the CSV file."""
    table = pd.read_csv(TABLES / f"{name}.csv")
    table = table[(table["dataset"] == paper.DATASETS[name]) & ~table["row"].str.contains("@")]
    assert len(table)
    shown = text_of(source(built, TOC["root"] if page == TOC["root"] else own))
    for line in table.itertuples():
        low, high = plain(line.ours_ci_low, line.ours_mean), plain(line.ours_ci_high, line.ours_mean)
        assert f"{plain(line.ours_mean)} [{low}, {high}]" in shown, line.row
        assert line.label in shown


def test_every_effect_of_the_claims_is_on_their_page(built):
    shown = text_of(source(built, "book/claims"))
    for line in pd.read_csv(RESULTS / "claims.csv").itertuples():
        assert signed(line.our_effect) in shown, (line.claim, line.part, line.preset)
    for claim in paper.CLAIMS:
        assert f"{claim.claim} {claim.statement}" in shown


def test_pages_show_no_plumbing(built):
    """Numbers of a smoke run, parameters and checks stay in the notebooks."""
    for page in PAGES:
        shown = text_of(source(built, page))
        assert not re.search('NBVAL_CHECK_OUTPUT|preset = "smoke"|{(math|cite|ref)}', shown), page


def test_pictures_say_what_to_see(built):
    """No picture without an alternative text, or with its file's name for one."""
    for page in PAGES:
        for image in re.findall(r"<img\b[^>]*>", article(built, page)):
            words = re.search(r'alt="([^"]*)"', image)
            assert words and len(words[1].split()) > 3, f"{page}: {image[:200]}"
