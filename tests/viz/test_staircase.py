"""The staircase as HTML and in words: the same numbers, nothing read as markup."""

import doctest
import re
from html.parser import HTMLParser

import pytest

from llmtutor.experiments.study import Record
from llmtutor.viz import staircase as module
from llmtutor.viz.staircase import printable, staircase
from llmtutor.viz.style import PALETTE


def record(**losses: list[float]) -> Record:
    runs = [
        {
            "settings": {"rung": rung, "lr": None, "seed": seed},
            "result": {"bits_per_byte": value, "n_params": 1, "bytes_seen": 2}
            | {"sample": f"{rung} says\n<b>&\x07"},
            "cpu_seconds": 1.0,
        }
        for rung, values in losses.items()
        for seed, value in enumerate(values)
    ]
    return Record("staircase", "", {}, "", [], runs)


RECORD = record(
    uniform=[4.0],
    bigram=[2.5],
    mlp=[2.0, 2.0, 2.0],
    attention=[2.2, 2.3, 2.25],
    rope=[2.1, 2.4, 2.2],
)


class Texts(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)

    def handle_data(self, data) -> None:
        self.texts.append(data)


def test_examples() -> None:
    assert doctest.testmod(module).failed == 0


def test_bars_are_as_long_as_the_bits_and_end_with_the_rung_asked_for() -> None:
    html = staircase("mlp", RECORD)._repr_html_()
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%;background", html)]
    assert widths == pytest.approx([100, 62.5, 50], abs=0.01)
    read = Texts(html)
    colours = re.findall(r"background:(#\w+)", html)
    assert colours == 2 * [PALETTE[0]] + [PALETTE[1]]  # both stand out from light and dark pages
    assert "attention" not in html and read.tags.count("strong") == 1 and "b" not in read.tags
    assert "mlp says\n<b>&·" in read.texts
    folded = html[html.index("<details>") :]
    assert "bigram says" in folded and "mlp says" not in folded


def test_the_text_says_the_same_as_the_picture() -> None:
    shown = staircase("rope", RECORD)
    lines = repr(shown).splitlines()
    assert lines[1].startswith("uniform (") and lines[1].endswith("4.000")
    assert lines[3].endswith("2.000")
    assert lines[4].endswith("2.250 ± 0.124, worse than the rung before")
    assert lines[5].endswith("2.233 ± 0.379, not distinguishable from the rung before")
    assert lines[6:] == ["rope writes:", "rope says", "<b>&·"]
    read = " ".join(Texts(shown._repr_html_()).texts)
    for line in lines[1:6]:
        assert line.partition("): ")[2] in read


def test_all_rungs_by_default_and_none_that_is_not_recorded() -> None:
    assert [step.rung for step in staircase(record=RECORD).shown][-1] == "rope"
    with pytest.raises(ValueError, match="'gpt2' is not recorded with all its seeds"):
        staircase("gpt2", RECORD)
    with pytest.raises(ValueError, match="did you mean 'bigram'"):
        staircase("bigrams", RECORD)


def test_characters_that_no_screen_shows_are_dots() -> None:
    assert printable("a\x00\ufffd\n\té") == "a··\n·é"
