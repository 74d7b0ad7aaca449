"""Tables: by hand, in both forms."""

import re

import pytest

from llmtutor.viz.table import Table

TABLE = Table(("model", "loss", "note"), (("a<b", 2.5, "x"), ("bigger", 1234567, "")), "Two")


def test_text_by_hand() -> None:
    assert repr(TABLE).splitlines() == [
        "Two",
        "model        loss  note",
        "a<b           2.5  x",
        "bigger  1,234,567",
    ]


def test_html_says_the_same_and_escapes_it() -> None:
    html = TABLE.html()
    cells = re.findall(r"<t[hd] [^>]*>(.*?)</t[hd]>", html)
    assert cells == ["model", "loss", "note", "a&lt;b", "2.5", "x", "bigger", "1,234,567", ""]
    assert html.count('scope="col"') == 3 and html.count('scope="row"') == 2
    assert html.count("text-align:right") == 3 and "<caption" in html
    assert set(TABLE._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_an_empty_cell_is_no_word_and_leaves_numbers_on_the_right() -> None:
    table = Table(("what", "n"), (("a", None), ("b", 3)))
    assert repr(table).splitlines() == ["what  n", "a", "b     3"]


@pytest.mark.parametrize(
    ("rows", "said"), [((), "at least one row"), ((("a",),), r"expected 2 cells \(x, y\)")]
)
def test_what_is_no_table_is_refused(rows, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Table(("x", "y"), rows)
