"""Drawings of differential attention: the numbers in them are those of maps and layer."""

import xml.etree.ElementTree as ET

import torch

from llmtutor.layers.attention.differential import DifferentialAttention
from llmtutor.viz.diagrams.differential import draw_difference, draw_layer
from llmtutor.viz.diagrams.shapes import Drawing


def words_of(drawing: Drawing) -> list[str]:
    return ["".join(t.itertext()) for t in ET.fromstring(drawing.svg()).iter("text")]


def test_the_difference_is_that_of_the_maps() -> None:
    first, second = torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5])
    drawing = draw_difference(("x", "y"), first, second, 0.5, wanted=0)
    numbers = [w for w in words_of(drawing) if w[0] in "0−" and "×" not in w]
    assert numbers == ["0.75", "0.25", "0.50", "0.50", "0.50", "0.00"]
    assert "− 0.50 ×" in words_of(drawing)
    assert "x 0.75 and 0.50 leave 0.50; y 0.25 and 0.50 leave 0.00." in drawing.description
    assert drawing.description.endswith("x has 75% in map 1 and 100% in the difference.")


def test_the_layer_has_the_sizes_and_the_start_of_the_real_one() -> None:
    drawing = draw_layer(DifferentialAttention(48, 4, layer=2))
    words = words_of(drawing)
    assert words.count("12 wide") == 4 and words.count("24 wide") == 1
    assert "RMSNorm of 24 numbers" in words and "λ starts at 0.47" in words
    assert "starting at 0.47" in drawing.description
