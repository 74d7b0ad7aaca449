"""Drawings of chapter 21: the numbers of a search, a cache and two distributions stand there."""

import math
import re
from xml.etree import ElementTree

import pytest

from llmtutor.viz.diagrams.decoding import (
    Candidate,
    draw_acceptance,
    draw_beams,
    draw_cache,
)
from llmtutor.viz.diagrams.shapes import Drawing


def words_of(drawing: Drawing) -> list[str]:
    """Its letters in the order in which they are drawn."""
    body = ElementTree.fromstring(f"<g>{drawing.shape.body}</g>")
    return ["".join(t.itertext()) for t in body.iter("text")]


def found(*texts: tuple[float, str, int]) -> list[Candidate]:
    """Candidates from the probabilities of their texts."""
    return [Candidate(math.log(p), word, parent) for p, word, parent in texts]


def test_a_beam_search_shows_both_probabilities_and_who_is_dropped() -> None:
    first = found((0.6, " a", 0), (0.4, " b", 0), (0.1, " c", 0))
    then = found((0.36, " d", 1), (0.3, " d", 0), (0.24, " e", 0), (0.04, " e", 1))
    drawing = draw_beams("To", [first, then], width=2)
    words = words_of(drawing)
    assert words[:5] == ["To", "␣a", "0.60 → 0.600", "␣b", "0.40 → 0.400"]
    assert words[5:7] == ["␣c", "0.10 → 0.100, dropped"]
    assert words[7:9] == ["␣d", "0.50 → 0.300"]  # those of one parent together
    assert words[-4:] == ["␣d", "0.90 → 0.360", "␣e", "0.10 → 0.040, dropped"]
    assert drawing.shape.body.count("lt-line-off") == 3
    assert drawing.shape.body.count("<polyline") == 7
    assert "step 2: 'd' 0.50 → 0.300, 'e' 0.40 → 0.240, dropped" in drawing.description


def test_a_branch_starts_at_its_parent() -> None:
    steps = [found((0.5, "a", 0), (0.4, "b", 0)), found((0.3, "c", 1))]
    drawn = draw_beams("x", steps, width=2).shape.body
    places = [re.findall(r"[\d.]+,([\d.]+)", p) for p in re.findall(r'points="([^"]+)"', drawn)]
    _to_a, to_b, from_b = places
    assert from_b[0] == to_b[-1]  # the height at which "b" stands


def test_a_cache_is_filled_by_the_prompt_and_then_a_slot_a_pass() -> None:
    drawing = draw_cache(["Give", " me"], [" your", " hand", ","])
    words = words_of(drawing)
    assert words.count("model") == 3 and words.count("K, V") == 3
    roles = re.findall(r'lt-(cache|new|plain)" width="[\d.]+" height="22"/>', drawing.svg())
    slots = [roles[4 * i : 4 * i + 4] for i in range(3)]
    assert slots[0] == ["new", "new", "plain", "plain"]
    assert slots[1] == ["cache", "cache", "new", "plain"]
    assert slots[2] == ["cache", "cache", "cache", "new"]
    assert "Pass 3 reads ' hand' alone, beside 3 kept, and gives ','." in drawing.description


def test_bars_are_as_long_as_their_probabilities_and_add_up() -> None:
    drawing = draw_acceptance(["x", "y", "z"], [0.6, 0.3, 0.1], [0.3, 0.5, 0.2])
    bars = re.findall(
        r'class="lt-(cache|off|new)" width="([\d.]+)" height="17"', drawing.shape.body
    )
    total = {role: sum(float(w) for r, w in bars if r == role) for role in ("cache", "off", "new")}
    whole = total["cache"] / 2 + total["off"]  # what is accepted stands in both bars
    assert total["off"] == pytest.approx(total["new"], rel=1e-3)
    assert total["off"] / whole == pytest.approx(0.3, rel=1e-3)
    words = words_of(drawing)
    assert words.count("model p") == words.count("draft q") == 3
    assert "proposed and accepted, 0.7 together" in words
    assert "'x': q 0.3, p 0.6, accepted 0.3, lacking 0.3" in drawing.description
