"""Drawings of efficient attention: what stands in them is what the objects say."""

import re

import pytest

from llmtutor.layers.attention.tiles import Tiles
from llmtutor.viz.diagrams import efficient_attention as draw
from llmtutor.viz.diagrams.shapes import Drawing


def count(drawing: Drawing, look: str) -> int:
    return len(re.findall(f'class="lt-{look}"', drawing.shape.body))


def test_tiles_that_are_visited_have_their_number() -> None:
    for tiles, visited in ((Tiles(64, 64, 8, 8, True), 36), (Tiles(64, 64, 8, 8, True, 20), 26)):
        drawing = draw.draw_tiles(tiles)
        assert count(drawing, "query") == visited and count(drawing, "off") == 64 - visited
        assert f"{visited} tiles are visited" in drawing.description
        assert f">{visited}</text>" in drawing.shape.body


def test_a_running_softmax_shows_each_step() -> None:
    drawing = draw.draw_online([1, 3], [10, 20], [(1, 1, 10), (3, 1.135, 21.353)])
    assert "after score 3 the maximum is 3, the sum 1.135" in drawing.description
    assert "21.353 / 1.135" in drawing.description and ">21.353<" in drawing.shape.body


@pytest.mark.parametrize(("window", "depth"), [(1, 3), (4, 3), (3, 2)])
def test_reach_is_that_of_the_formula(window: int, depth: int) -> None:
    drawing = draw.draw_reach(window, depth, 12)
    want = [level * (window - 1) + 1 for level in range(depth + 1)]
    assert ", then ".join(map(str, want)) in drawing.description
    assert count(drawing, "new") == sum(want)
    assert f"reach {want[-1]} tokens" in drawing.title
    for words in (*map(str, want), *(f"layer {n + 1}" for n in range(depth)), "input"):
        assert f">{words}</text>" in drawing.shape.body


def test_blocks_and_window_of_a_query() -> None:
    drawing = draw.draw_blocks(block=4, compressed=2, window=5, position=13)
    assert drawing.title == "Position 13 sees 11 rows instead of 14"
    assert count(drawing, "cache") == 3 * 2 and count(drawing, "key") == 4
    assert count(drawing, "query") == 1 and count(drawing, "off") == 9
    for words in ("0–3", "4–7", "8–11", "seen twice: 9, 10, 11"):
        assert f">{words}</text>" in drawing.shape.body
    assert drawing.description.endswith("seen both ways: 9, 10, 11.")
    apart = draw.draw_blocks(block=4, compressed=1, window=4, position=15)
    assert "twice" not in apart.shape.body and "both ways" not in apart.description
