"""Extraction: against another parser, on pages that are broken, and on the sample."""

import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from llmtutor.data.web import PAGES, blocks, extract
from llmtutor.data.web.sample import LIGHT, MILL, SALT

PIECES = st.lists(
    st.sampled_from(
        [
            *("<p>", "</p>", "<a href=x>", "</a>", "<div>", "</div>", "<br>", "<script>"),
            *("</script>", "<![if x]>", "<![foo bar]>", "<!-- no -->", "<", "&amp;", "&#xFFFFFFF;"),
            *("sea ", "<b>"),
        ]
    ),
    max_size=20,
).map("".join)


@pytest.mark.parametrize("name", PAGES)
def test_blocks_hold_the_words_that_another_parser_finds(name: str) -> None:
    soup = BeautifulSoup(PAGES[name], "html.parser")
    for unseen in soup(["head", "script", "style"]):
        unseen.decompose()
    found = " ".join(block.text for block in blocks(PAGES[name]))
    assert found.split() == soup.get_text(" ").split()
    linked = sum(round(b.link_share * b.n_words) for b in blocks(PAGES[name]))
    assert linked == sum(len(link.get_text(" ").split()) for link in soup("a"))


@given(PIECES)
def test_no_page_is_too_broken(page: str) -> None:
    for block in blocks(page):
        assert block.text == " ".join(block.text.split()) != ""
        assert 0 <= block.link_share <= 1


@pytest.mark.parametrize(("name", "written"), [("mill", MILL), ("salt", SALT)])
def test_articles_come_out_whole_and_alone(name: str, written: str) -> None:
    assert (
        extract(PAGES[name]).split() == BeautifulSoup(written, "html.parser").get_text(" ").split()
    )


def test_a_short_paragraph_is_lost() -> None:
    """The price of the rule for length; chapter 02 says so."""
    lost = set(BeautifulSoup(LIGHT, "html.parser").get_text().splitlines())
    lost = {line for line in lost if line and line not in extract(PAGES["light"])}
    assert "Then he knows where he is." in lost


def test_headings_stay_with_content_only() -> None:
    long = "one two three four five six seven eight nine ten"
    page = f"<h1>A</h1><h2>B</h2><p>{long}</p><h2>C</h2><p>short</p><li>{long}<h2>D</h2>"
    assert extract(page) == f"A\nB\n{long}\n• {long}"
    assert extract("") == extract("<h1>A</h1>") == ""
