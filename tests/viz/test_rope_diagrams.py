"""Drawings of chapter 06: arrows, arcs and dots lie where the formulas put them."""

import math
import re
from xml.etree import ElementTree

import pytest
import torch

from llmtutor.layers.positions import LinearScaling, Rope
from llmtutor.viz.diagrams.rope import (
    draw_cache,
    draw_dials,
    draw_pairings,
    draw_turns,
    draw_wavelengths,
    turned,
)
from llmtutor.viz.diagrams.shapes import Drawing


def words_of(drawing: Drawing) -> list[str]:
    """Its letters in the order in which they are drawn."""
    body = ElementTree.fromstring(f"<g>{drawing.shape.body}</g>")
    return ["".join(t.itertext()) for t in body.iter("text")]


def arrows(drawing: Drawing, role: str) -> list[tuple[float, float]]:
    """Of each arrow of a role, how far it goes to the right and up."""
    found = re.findall(rf'lt-line-{role}"[^>]*points="([^" ]+) ([^" ]+)"', drawing.shape.body)
    ends = [[tuple(map(float, end.split(","))) for end in both] for both in found]
    return [(b[0] - a[0], a[1] - b[1]) for a, b in ends]


def degrees(arrow: tuple[float, float]) -> float:
    return math.degrees(math.atan2(arrow[1], arrow[0])) % 360


def test_a_turned_pair_is_that_of_the_layer() -> None:
    rope = Rope(2)
    x = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    want = rope.rotate(x, torch.tensor([3]))[0].tolist()
    assert turned((2.0, 1.0), math.degrees(3)) == pytest.approx(want)


def test_arrows_stand_at_their_angles_and_the_product_is_written() -> None:
    drawing = draw_turns((2, 0), (1, 1), 30, [(3, 1), (8, 6), (1, 3)])
    assert [degrees(a) for a in arrows(drawing, "query")] == pytest.approx([90, 240, 30], abs=1)
    assert [degrees(a) for a in arrows(drawing, "key")] == pytest.approx([75, 225, 135], abs=1)
    words = words_of(drawing)
    assert [w for w in words if "=" in w and "·" in w] == [
        "q · k = 2.73", "q · k = 2.73", "q · k = −0.73"
    ]  # fmt: skip
    assert [w for w in words if w.endswith("°")] == ["15°", "15°", "−105°"]
    assert "15° from key to query, product 2.73" in drawing.description


def test_a_dial_covers_as_much_as_was_passed_and_points_where_it_ends() -> None:
    drawing = draw_dials([0.25, 3.0], [0.5, 0.125], "Two pairs")
    arcs = re.findall(
        r"lt-line-(query|key)\" style=\"stroke-width:7\" d=\"([^\"]+)\"", drawing.svg()
    )
    assert [role for role, _ in arcs] == ["query", "key", "query", "key"]
    ends = [list(map(float, re.split(r"[MA ]+", path)[1:])) for _, path in arcs]
    quarter, half = ends[0], ends[1]
    assert quarter[-2:] == pytest.approx([41, 41 - 25]) and half[-2:] == pytest.approx(
        [41 - 33, 41], abs=0.1
    )
    assert ends[2][-2:] == pytest.approx(ends[2][:2], abs=0.1)  # three turns: all around
    assert [degrees(a) for a in arrows(drawing, "plain")] == pytest.approx([180, 45], abs=1)
    assert words_of(drawing) == ["pair 0", "0.25 → 0.5", "pair 1", "3 → 0.12"]
    alone = draw_dials([0.25], None, "One pair")
    assert words_of(alone) == ["pair 0", "0.25"] and "now" not in alone.description


def test_pairs_keep_their_colour_when_they_are_sorted() -> None:
    drawing = draw_pairings(6)
    cells = re.findall(r'<rect class="lt-(\w+)"', drawing.shape.body)
    assert cells[:6] == ["query", "query", "key", "key", "value", "value"]
    assert cells[6:] == ["query", "key", "value", "query", "key", "value"]
    assert [w for w in words_of(drawing) if w.isdigit()] == list("012345024135")
    assert len(re.findall("Q", drawing.shape.body)) == 6  # a bow for each pair, twice


def test_a_cache_holds_turned_keys_and_scores_are_those_of_the_layer() -> None:
    rope, words = Rope(2), ["a", "b", "c"]
    keys, query = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double(), (2.0, 0.5)
    drawing = draw_cache(words, [tuple(k) for k in keys.tolist()], query, math.degrees(1))
    places = torch.arange(3)
    asked = rope.rotate(torch.tensor([query], dtype=torch.float64), places[2:])
    scores = (rope.rotate(keys, places) @ asked.T).flatten().tolist()
    shown = [w.replace("−", "-") for w in words_of(drawing)[-3:]]
    assert [float(w) for w in shown] == pytest.approx(scores, abs=0.006)
    kept = [degrees(a) for a in arrows(drawing, "key")]
    want = [math.degrees(math.atan2(b, a)) % 360 for a, b in rope.rotate(keys, places).tolist()]
    assert kept[3:] == pytest.approx(want, abs=1.5)


def test_interpolation_moves_every_wavelength_by_the_factor() -> None:
    before = Rope(8).frequencies
    after = {"interpolation": LinearScaling(4).scale(before, 10_000), "nothing": before}
    drawing = draw_wavelengths(before, after, 64, 4)
    dots = re.findall(r'<circle class="lt-(\w+)" cx="([\d.]+)"', drawing.shape.body)
    xs = [float(x) for _, x in dots]
    moved = [b - a for a, b in zip(xs[:4], xs[4:8], strict=True)]
    assert moved == pytest.approx(4 * moved[:1], abs=0.2) and moved[0] > 10
    assert xs[8:12] == xs[12:]
    assert "interpolation makes them 4, 4, 4, 4 times as long" in drawing.description
    assert words_of(drawing)[:2] == ["64", "256"]
