"""Drawings of chapter 24: numbers by hand, and as wide as a phone at most."""

import re

import torch

from llmtutor.viz.diagrams import shapes
from llmtutor.viz.diagrams.forensics import Mark, draw_budget, draw_leak
from llmtutor.viz.diagrams.shapes import Drawing


def words_of(drawing: Drawing) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawing.shape.body)


def test_the_leak_is_drawn_with_its_numbers() -> None:
    x = torch.tensor([[3.0, 3.0], [1.0, -1.0]])
    drawing = draw_leak(["T", "o"], x, torch.tensor([[3.0, 3.0], [0.0, 0.0]]), "!")
    words = words_of(drawing)
    assert words[2:] == ["T", "9.00", "÷ 2.24", "o", "1.00", "÷ 2.24"]  # √((18 + 2) / 4)
    assert words[:2] == ["one RMS of all 4 numbers: 2.236", "with ! at the end: 2.121"]
    assert "means of its squares are T 9.00, o 1.00" in drawing.description
    # Thick: from the last token to the norm, and from the norm to every earlier position.
    assert drawing.shape.body.count("stroke-width:3") == 3


def test_a_budget_has_time_and_work_for_each_number() -> None:
    marks = [Mark("read", 1e6), Mark("claimed", 2e9, doubtful=True)]
    drawing = draw_budget(marks, tokens_per_second=1000, n_params=1e6)
    words = words_of(drawing)
    assert words[:5] == ["1 M", "10 M", "100 M", "1 G", "10 G"]
    assert {"read: 1 M", "17 min, 6 · 10¹² FLOPs", "claimed: 2 G"} < set(words)
    assert "23 days, 1 · 10¹⁶ FLOPs" in words
    assert drawing.shape.width <= shapes.WIDEST
    assert "claimed, 2 G tokens, 23 days (doubtful)" in drawing.description
