"""Drawings of chapter 03: the numbers in them are those of counts, tables, slopes and models."""

import re
from collections import Counter, defaultdict
from xml.etree import ElementTree

import pytest
import torch

from llmtutor.model.mlp import WindowMLP
from llmtutor.viz.diagrams.language_modelling import (
    STOREY,
    draw_counts,
    draw_lookup,
    draw_slopes,
    draw_window,
)
from llmtutor.viz.diagrams.shapes import Drawing


def words_of(drawing: Drawing) -> list[str]:
    """Its letters in the order in which they are drawn."""
    body = ElementTree.fromstring(f"<g>{drawing.shape.body}</g>")
    return ["".join(t.itertext()) for t in body.iter("text")]


def test_counts_are_those_of_the_word_and_the_pair_in_view_stands_out() -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for a, b in zip("banana", "anana", strict=False):
        counts[a][b] += 1
    drawing = draw_counts("banana", counts, at=2)
    words = words_of(drawing)
    assert words[:6] == list("banana") and words[6] == "one more for: n after a"
    assert [word for word in words if word.isdigit()] == list("002" + "100" + "200")
    assert drawing.shape.body.count("lt-query") == 1  # the letter that is known
    assert drawing.shape.body.count("lt-new") == 2  # what comes, and its cell
    assert "after a came n 2; after b came a 1; after n came a 2." in drawing.description


def test_a_row_is_looked_up() -> None:
    table = torch.tensor([[1.0, -2.0], [0.5, 3.0], [4.0, 0.0]])
    drawing = draw_lookup("abc", table, id=1)
    words = words_of(drawing)
    assert words[:2] == ["b", "1"] and words[2:6] == ["0", "1", "0", "@"]
    assert words[-2:] == ["0.5", "3.0"]
    cells = re.findall(r"<rect class=\"lt-(weight|new)", drawing.shape.body)
    assert cells[1:] == ["weight"] * 2 + ["new"] * 2 + ["weight"] * 2  # the first is the frame
    assert "rows a (1.0, −2.0); b (0.5, 3.0); c (4.0, 0.0), gives (0.5, 3.0)." in (
        drawing.description
    )


def test_slopes_flow_down_in_levels() -> None:
    nodes = {"x": (3.0, 12.0), "y": (6.0, 1.0), "z": (9.0, 1.0), "loss": (15.0, 1.0)}
    ways = {("x", "y"): ("2x", "", 2.0), ("x", "z"): ("x²", "2x", 6.0)}
    ways |= {("y", "loss"): ("", "1", 1.0), ("z", "loss"): ("+", "", 1.0)}
    drawing = draw_slopes(nodes, ways)
    words = words_of(drawing)
    for name, (value, slope) in nodes.items():
        i = words.index(name)
        assert words[i + 1 : i + 3] == [f"{value:g}", f"{slope:g}"]
    for label in (["2x", "slope 2"], ["x²", "slope 2x = 6"], ["slope 1 = 1"], ["+", "slope 1"]):
        assert any(words[i : i + len(label)] == label for i in range(len(words))), label
    assert drawing.shape.body.count("<polygon") == len(ways)  # an arrow's head for each
    assert 2 * STOREY < drawing.shape.height < 3 * STOREY  # y and z share a level
    assert "x is 3 with slope 12" in drawing.description
    assert "x to z has 6" in drawing.description


def test_a_window_says_the_sizes_of_the_model() -> None:
    model = WindowMLP(65, window=3, d_embedding=4, d_hidden=8)
    drawing = draw_window(model, "a b")
    words = words_of(drawing)
    assert words[:3] == ["a", "␣", "b"]
    for size in ("4 numbers for", "12 numbers", "12 × 8", "hidden, 8", "8 × 65", "65 logits"):
        assert any(size in word for word in words), size
    with pytest.raises(ValueError, match="expected 3 tokens, the window, got 2"):
        draw_window(model, "ab")


def test_strips_of_a_window_are_as_long_as_their_numbers_are_many() -> None:
    drawing = draw_window(WindowMLP(84, window=2, d_embedding=24, d_hidden=256), "ab")
    cells = re.findall(r'class="lt-(\w+)" width="([\d.]+)" height="([\d.]+)"/', drawing.shape.body)
    upright = [float(height) for _, width, height in cells if width == "22"]
    vectors = [float(w) for role, w, height in cells if role == "vector" and height == "22"]
    logits = [float(w) for role, w, _ in cells if role == "token"]
    assert "each cell stands for 8 of the numbers" in words_of(drawing)
    unit = sum(vectors) / (2 * 24 + 256)  # x and the hidden numbers
    assert sum(upright) / (2 * 24) == pytest.approx(unit)
    assert sum(logits) / 84 == pytest.approx(unit)
