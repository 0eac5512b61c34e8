"""Long tables of the book can be sorted by a reader, with the mouse or the keyboard, in a real browser."""

import json
import re

import pandas as pd
import pytest

from uram_lib import pages
from uram_lib.paths import ROOT

SCRIPT = ROOT / "book" / "_static" / "sort.js"
# What a cell begins with, as the script is to see it; written in another way than there.
LEADING = re.compile(r"[-+]?[\d.]+")


def cells(tab, table: str, column: int) -> list[str]:
    """The texts of a column as they stand; table: a CSS selector."""
    found = tab.evaluate(f"[...document.querySelector({json.dumps(table)}).tBodies[0].rows]"
                         f".map((row) => row.cells[{column}].textContent.trim())")  # fmt: skip
    return [text.replace("\u00a0", " ") for text in found]


def header(table: str, column: int) -> str:
    """A JavaScript expression for a header's button."""
    return f"document.querySelector({json.dumps(table)}).tHead.rows[0].cells[{column}].querySelector('button.sort')"


def state(tab, table: str, column: int) -> str | None:
    return tab.evaluate(f"{header(table, column)}.closest('th').getAttribute('aria-sort')")


@pytest.fixture
def shown(tab, tmp_path):
    """shown(frame): a page with this table alone; written as Sphinx writes one of ours, or, with `index`, as pandas."""

    def show(frame: pd.DataFrame, index: bool = False):
        table = frame.to_html(index=index)
        table = table if index else table.replace('class="dataframe"', 'class="numbers"')
        path = tmp_path / "page.html"
        path.write_text(f"<!doctype html><meta charset=utf-8><script>{SCRIPT.read_text()}</script>{table}")
        tab.open(path.as_uri())
        return tab

    return show


def click(tab, table: str, column: int) -> None:
    x, y = tab.evaluate(f"""(() => {{
        const button = {header(table, column)};
        button.scrollIntoView({{ block: "center", behavior: "instant" }});
        const {{ left, top, height }} = button.getBoundingClientRect();
        return [left + 5, top + height / 2];
    }})()""")
    tab.mouse("Pressed", x, y)
    tab.mouse("Released", x, y)


@pytest.mark.parametrize(
    ("texts", "upwards"),
    [
        (["10.6 [10.2, 11.1]", "9.35 [8.4, 10.3]", "–", "29.9 [25.9, 33.9]", "0.5 [0.1, 0.9]"], [4, 1, 0, 3, 2]),
        (["+0.5 [0, 1]", "−3.2 [−4, −2]", "", "−12 [−13, −1]", "0.07"], [3, 1, 4, 0, 2]),
        (["1,234", "99", "12,345", "100", "7"], [4, 1, 3, 0, 2]),
        (["50%", "7 %", "100%", "–", "8%"], [1, 4, 0, 2, 3]),
        (["C10", "C9", "C1 helps", "C1", "–"], [3, 2, 1, 0, 4]),
        (["worse, 3 seeds", "better", "2 × two", "matches", "–"], [2, 1, 3, 0, 4]),
    ],
    ids=["intervals", "signs", "thousands", "percent", "names with numbers", "words"],
)
def test_a_column_is_sorted_as_what_it_holds_up_and_down_and_back(shown, texts, upwards):
    tab = shown(pd.DataFrame({"place": list("abcde"), "value": texts}))
    absent = [i for i in upwards if texts[i] in ("", "–")]
    downwards = [*reversed([i for i in upwards if i not in absent]), *absent]
    for order, said in ((upwards, "ascending"), (downwards, "descending"), (range(5), None)):
        click(tab, "table", 1)
        assert cells(tab, "table", 1) == [texts[i] for i in order]
        assert cells(tab, "table", 0) == ["abcde"[i] for i in order]  # whole lines move
        assert state(tab, "table", 1) == said


def test_the_keyboard_sorts_too_and_one_column_at_a_time(shown):
    tab = shown(pd.DataFrame({"a": [3, 1, 2, 5, 4], "b": [1, 5, 3, 2, 4]}))
    tab.press("Tab")
    tab.press("Enter")
    assert cells(tab, "table", 0) == ["1", "2", "3", "4", "5"] and state(tab, "table", 0) == "ascending"
    tab.press("Tab")
    tab.press(" ")
    assert cells(tab, "table", 1) == ["1", "2", "3", "4", "5"]
    assert (state(tab, "table", 0), state(tab, "table", 1)) == (None, "ascending")


def test_a_frame_with_a_named_index_is_sorted_and_one_that_counts_is_not(shown):
    frame = pd.DataFrame({"error": [3, 1, 2, 5, 4]}, index=pd.Index(list("edcba"), name="row"))
    tab = shown(frame, index=True)
    click(tab, "table", 1)
    assert cells(tab, "table", 0) == list("dceab")
    sortable = "document.querySelectorAll('button.sort').length"
    assert tab.evaluate(sortable) == 2
    assert shown(frame.set_index(pd.Index(range(5), name="glimpse")), index=True).evaluate(sortable) == 0
    assert shown(frame[:4], index=True).evaluate(sortable) == 0  # short
    twice = frame.set_index(pd.MultiIndex.from_product([["a"], range(5)]))
    assert shown(twice, index=True).evaluate(sortable) == 0  # cells that span rows


@pytest.mark.parametrize(
    ("page", "table", "column"),
    [("intro", "headline-table2", 2), ("claims", "claims-measured", 3), ("provenance", "provenance-table2", 2)],
)
def test_tables_of_the_book_are_sorted_by_their_numbers(tab, built, page, table, column):
    path = pages.GENERATED / f"{table}.csv"
    if not path.exists():
        pytest.skip(f"no {table} is published yet")
    tab.errors.clear()
    tab.requests.clear()
    tab.open((built / "book" / f"{page}.html").as_uri())
    before = cells(tab, f"#{table}", column)
    click(tab, f"#{table}", column)
    after = cells(tab, f"#{table}", column)
    assert sorted(before) == sorted(after) and len(after) == len(pd.read_csv(path))
    values = [float(LEADING.match(text.replace("−", "-"))[0]) for text in after if text != "–"]
    assert len(values) > 3 and values == sorted(values) and set(after[len(values) :]) <= {"–"}
    assert [line for line in tab.errors if "invalid theme mode" not in line] == []
    assert not [address for address in tab.requests if not address.startswith(("file:", "data:"))]


def test_the_papers_rows_in_a_table_s_notebook_can_be_sorted(tab, built):
    tab.open((built / "notebooks" / "20_table2.html").as_uri())
    assert tab.evaluate("document.querySelectorAll('table.dataframe button.sort').length") > 4
