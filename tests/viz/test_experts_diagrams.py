"""Drawings of experts: every choice is a line and stands in the words."""

import re

import torch

from llmtutor.viz.diagrams import experts as draw
from llmtutor.viz.diagrams import shapes


def test_each_choice_is_a_line_and_a_dropped_token_has_none() -> None:
    chosen = torch.tensor([[0, 1], [1, 2], [2, 0]])
    weights = torch.tensor([[0.75, 0.25], [0.5, 0.0], [0.0, 0.6]])
    drawing = draw.draw_routing(("a", "b", "c"), chosen, weights, 2)
    assert drawing.shape.body.count("<polyline") == 4
    assert "a to expert 0 (0.75) and expert 1 (0.25); b to expert 1 (0.50) and nobody" in (
        drawing.description
    )
    assert drawing.description.endswith("Tokens of the experts: 2, 2.")
    assert drawing.shape.width <= shapes.WIDEST
    widths = [float(w) for w in re.findall(r'stroke-width:([\d.]+)" points', drawing.shape.body)]
    assert widths[0] > widths[2] > widths[1] > draw.THIN  # 0.75, 0.5 and 0.25
    for weight, there in (("0.75", True), ("0.25", True), ("0.60", False)):  # the first token's
        assert (f">{weight}</text>" in drawing.shape.body) is there


def test_a_token_of_nobody_is_dashed_and_dropped() -> None:
    chosen, weights = torch.tensor([[0], [2], [1]]), torch.tensor([[1.0], [0.0], [1.0]])
    drawing = draw.draw_routing(("a", "b", "c"), chosen, weights, 2)
    assert drawing.shape.body.count("lt-dashed") == drawing.shape.body.count(">dropped<") == 1
    assert "b to nobody" in drawing.description


def test_who_travels_is_counted() -> None:
    drawing = draw.draw_exchange((("a", "b"), ("c", "d")), ((0, 2), (1, 3)))
    assert "expert 0 on rank 0 gets a from rank 0; expert 1 on rank 0 gets c from rank 1" in (
        drawing.description
    )
    assert drawing.description.endswith("2 of 4 tokens travel, and their results back.")
    assert drawing.shape.body.count('class="lt-new"') == 2
    assert drawing.shape.width <= shapes.WIDEST
