"""Long tables of the book can be sorted by a reader, with the mouse or the keyboard, in a real browser."""

import json

import pandas as pd
import pytest
from browser import browser, built, opened  # noqa: F401

from uram_lib.common import ROOT

SCRIPT = ROOT / "book" / "_static" / "sort.js"


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
def shown(opened, tmp_path):  # noqa: F811
    """shown(frame): a page with this table alone; written as Sphinx writes one of ours, or, with `index`, as pandas."""

    def show(frame: pd.DataFrame, index: bool = False):
        table = frame.to_html(index=index)
        table = table if index else table.replace('class="dataframe"', 'class="numbers"')
        path = tmp_path / "page.html"
        script = SCRIPT.read_text(encoding="utf-8")
        path.write_text(f"<!doctype html><meta charset=utf-8><script>{script}</script>{table}", encoding="utf-8")
        return opened(path.as_uri())

    return show


def click(tab, table: str, column: int) -> None:
    tab.locator(f"{table} thead tr:first-child > *").nth(column).locator("button.sort").click(position={"x": 5, "y": 8})


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
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert cells(tab, "table", 0) == ["1", "2", "3", "4", "5"] and state(tab, "table", 0) == "ascending"
    tab.keyboard.press("Tab")
    tab.keyboard.press("Space")
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


def test_tables_of_the_book_can_be_sorted(opened, built):  # noqa: F811
    page = opened((built / "notebooks" / "20_table2.html").as_uri())
    assert page.evaluate("document.querySelectorAll('table button.sort').length") > 4
    assert page.said == [] and all(address.startswith(("file:", "data:")) for address in page.asked)
