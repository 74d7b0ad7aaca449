"""Drawings of chapter 08: numbers are those of the layers, shades those of the units."""

import re
from xml.etree import ElementTree

import torch

from llmtutor.experiments.units import Reading
from llmtutor.layers.ffn import MLP, GatedMLP
from llmtutor.viz.diagrams.feed_forward import draw_beside, draw_plain, draw_units
from llmtutor.viz.diagrams.language import number
from llmtutor.viz.diagrams.shapes import Drawing

X = torch.tensor([1.0, -2.0])


def words_of(drawing: Drawing) -> list[str]:
    """Its letters in the order in which they are drawn."""
    body = ElementTree.fromstring(f"<g>{drawing.shape.body}</g>")
    return ["".join(t.itertext()) for t in body.iter("text")]


def said(values: torch.Tensor, digits: int = 1) -> str:
    return f"({', '.join(number(float(v), digits) for v in values)})"


def test_a_layer_shows_what_the_class_of_the_library_computes() -> None:
    torch.manual_seed(0)
    layer = MLP(2, 5, "relu")
    up, down = layer.up.weight.detach(), layer.down.weight.detach()
    out, drawing = layer(X).detach(), draw_plain(X, up, down)
    words = words_of(drawing)
    assert words[-2:] == [number(float(v)) for v in out]
    assert words[3] == "W₁: 5 × 2" and "W₂: 2 × 5" in words and "5 hidden units" in words
    assert f"ReLU makes {said((up @ X).relu())} of it" in drawing.description
    assert drawing.description.endswith(f"is {said(out)}.")
    wider, narrower = re.findall(r'polygon class="lt-plain" points="([^"]+)"', drawing.shape.body)
    assert below_and_above(wider) > 0 > below_and_above(narrower)


def below_and_above(points: str) -> float:
    """By how much a funnel is wider below."""
    left, right, low_right, low_left = (float(p.split(",")[0]) for p in points.split(" "))
    return (low_right - low_left) - (right - left)


def test_the_gated_layer_stands_beside_the_plain_one() -> None:
    torch.manual_seed(1)
    plain, gated = MLP(2, 3, "relu"), GatedMLP(2, 2)
    left = plain.up.weight.detach(), plain.down.weight.detach()
    right = tuple(p.detach() for p in (gated.gate.weight, gated.up.weight, gated.down.weight))
    drawing = draw_beside(X, left, right, ("left", "right"))
    out, words = gated(X).detach(), words_of(drawing)
    assert words[0] == "left" and "right" in words and words.count("x") == 2
    assert words[-2:] == [number(float(v), 2) for v in out]
    assert drawing.description.startswith("left: x = (1.0, −2.0)")
    assert drawing.description.endswith(f"is {said(out, 2)}.")


def test_a_token_is_the_darker_the_stronger_the_unit_and_long_texts_are_cut() -> None:
    readings = [
        Reading(["a", " b"], [1.0, -4.0], "c"),
        Reading(30 * ["word"] + ["\n"], 31 * [2.0], ""),
    ]
    drawing = draw_units([("block 0, unit 7", readings)], "Units")
    shades = [float(s) for s in re.findall(r"fill-opacity:([\d.]+)", drawing.shape.body)]
    assert shades[:3] == [0.25, 1, 0]  # a, b, and what follows, which the unit has not seen
    assert set(shades[3:]) == {0.5, 0} and 5 < len(shades[3:]) < 12
    words = words_of(drawing)
    assert words[:4] == ["block 0, unit 7", "a", "␣b", "→"] and "−4.0" in words and "⏎" in words
    assert "block 0, unit 7 is strongest at ␣b (−4.0, then c), ⏎ (2.0, then ∅)." in (
        drawing.description
    )
