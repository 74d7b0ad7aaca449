"""Drawings of chapter 07: lines to scale, dots where numbers share a mean, norms where they are."""

import re
from xml.etree import ElementTree

import pytest
import torch

from llmtutor.model.presets import preset
from llmtutor.viz.diagrams.norms import draw_growth, draw_places, draw_shared, draw_steps
from llmtutor.viz.diagrams.shapes import Drawing

X = torch.tensor([1.0, 3.0, 5.0, 7.0])


def words_of(drawing: Drawing) -> list[str]:
    """Its letters in the order in which they are drawn."""
    body = ElementTree.fromstring(f"<g>{drawing.shape.body}</g>")
    return ["".join(t.itertext()) for t in body.iter("text")]


def test_entries_lie_on_one_scale_in_all_rows() -> None:
    drawing = draw_steps({"a": [("x", X), ("minus 4", X - 4)], "b": [("half", X / 2)]}, "title")
    dots = [float(x) for x in re.findall(r'<circle class="lt-vector" cx="([\d.]+)"', drawing.svg())]
    assert len(dots) == 12
    unit = (dots[3] - dots[0]) / 6
    assert dots[0] - dots[4] == pytest.approx(4 * unit, abs=0.2)  # a shift by 4
    assert dots[11] - dots[8] == pytest.approx(3 * unit, abs=0.2)  # half as far apart
    words = words_of(drawing)
    assert words[:3] == ["a", "x", "1"] and {"minus 4", "half", "0.50", "−3"} <= set(words)
    assert "a: x: (1, 3, 5, 7), then minus 4: (−3, −1, 1, 3)." in drawing.description
    assert drawing.description.endswith("b: half: (0.50, 1.50, 2.50, 3.50).")


def test_numbers_that_share_a_mean_hold_a_dot() -> None:
    shared = torch.zeros(2, 3, 4, dtype=torch.bool)
    shared[:, :, 2] = True
    drawing = draw_shared({"batch\nnorm": shared}, "title")
    assert drawing.shape.body.count('class="lt-new"') == 6
    assert drawing.shape.body.count("<circle") == 6
    assert drawing.shape.body.count('class="lt-plain"') == 18
    assert drawing.description == (
        "batch norm: 6 numbers, of 2 of 2 sequences, 3 of 3 positions, 1 of 4 channels."
    )


def test_norms_stand_where_the_configuration_says() -> None:
    config = preset("llama-nano")
    places = ("pre", "post", "res-post", "sandwich")
    blocks = {p: config.replace(norm_placement=p).blocks[0] for p in places}
    drawing = draw_places({**blocks, "none": None}, "title")
    for name, n_norms in (("pre", 1), ("post", 1), ("res-post", 1), ("sandwich", 2), ("none", 0)):
        one = draw_places({name: {**blocks, "none": None}[name]}, "title")
        assert words_of(one).count("norm") == n_norms and words_of(one).count("f") == 1
    assert "sandwich: x + norm(f(norm(x)))." in drawing.description
    bodies = {draw_places({"x": block}, "t").shape.body for block in (*blocks.values(), None)}
    assert len(bodies) == 5


def test_the_stream_is_as_wide_as_it_is_large() -> None:
    drawing = draw_growth({"a": [0.0, 1.0, 3.0], "b": [1.0, 1.0, 155.2]}, (0, 2), "title")
    points = re.findall(r'polygon class="lt-stream" points="([^"]+)"', drawing.shape.body)
    widths = [w for some in points for w in widths_of(some)]
    assert widths == pytest.approx([2, 10, 18, 10, 10, 60.3], abs=0.1)  # 8 for each doubling, and 2
    assert words_of(drawing)[:3] == ["block", "0", "2"] and "155" in words_of(drawing)
    assert "b: 1.0 after 0, 155 after 2." in drawing.description


def widths_of(points: str) -> list[float]:
    """Of a tapered stream at each block: right edge minus left edge."""
    xs = [float(p.split(",")[0]) for p in points.split(" ")]
    n = len(xs) // 2
    return [right - left for right, left in zip(xs[:n], xs[: n - 1 : -1], strict=True)]
