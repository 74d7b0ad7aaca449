"""Drawings of chapter 20: a table of losses and its parts."""

import re

import pytest

from llmtutor.viz.diagrams.comparison import draw_layout


def test_the_parts_of_a_table_by_hand() -> None:
    """Two options, two seeds: means 2.5 and 3.5, shares -0.2 and +0.2, noise 0.05 either way."""
    drawing = draw_layout({"one": [2.25, 2.75], "two": [3.35, 3.65]})
    svg = drawing.svg()
    shown = re.findall(r">([−+-]?\d+\.\d{3})<", svg)
    assert [float(n.replace("−", "-")) for n in shown] == pytest.approx(
        [2.25, 2.75, 3.35, 3.65, 2.5, 3.5, -0.2, 0.2, -0.05, 0.05, 0.05, -0.05]
    )
    assert "−0.200, 0.200" in svg or "-0.200, 0.200" in svg
    assert "one 2.500" in svg and "two 3.500" in svg
