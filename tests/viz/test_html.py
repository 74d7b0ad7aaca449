"""Bars as HTML: nothing is lost, nothing is read as markup, contrast is enough."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from llmtutor.viz import bar_table
from llmtutor.viz.style import PALETTE


class Reader(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.styles: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        if tag != "br":
            self.open.append(tag)
        self.styles.append(dict(attrs).get("style") or "")

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.texts.append(data)


def luminance(color: str) -> float:
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot((0.2126, 0.7152, 0.0722), channels))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_bars_are_as_long_as_their_share_of_the_largest() -> None:
    html = bar_table([("<a>", 4), ("b", 1), ("c", 0)], columns=("token", "count"), caption="T & U")
    reader = Reader(html)
    assert reader.texts == ["T & U", "token", "count", "<a>", " 4", "b", " 1", "c", " 0"]
    assert re.findall(r"width:([\d.]+)%;background", html) == ["75.00", "18.75", "0.00"]
    assert html.count('scope="row"') == 3 and html.count('scope="col"') == 2


def test_bars_of_zeros_only() -> None:
    assert "width:0.00%" in bar_table([("a", 0)], columns=("x", "y"))


def test_bars_stand_out_from_light_and_dark_pages() -> None:
    assert contrast(PALETTE[0], "#ffffff") >= 3 and contrast(PALETTE[0], "#121212") >= 3


@pytest.mark.parametrize(
    ("rows", "words"),
    [([], "no row"), ([("a", -1)], "'a'"), ([("b", float("nan"))], "'b'")],
)
def test_bad_rows_are_refused(rows, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bar_table(rows, columns=("x", "y"))
