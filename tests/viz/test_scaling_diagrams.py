"""Drawings of chapter 12: areas are equal, numbers are those of the models and of the records."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch

from llmtutor.experiments.mup import parametrised
from llmtutor.experiments.scaling import Prediction
from llmtutor.optim.groups import split
from llmtutor.viz.diagrams.scaling import draw_bet, draw_budget, draw_mup, draw_two_lengths
from llmtutor.viz.diagrams.shapes import Drawing

BET = Prediction(1.83, 1.8, 1.85, 0.9)


def words_of(drawing: Drawing) -> list[str]:
    body = ElementTree.fromstring(f"<g>{drawing.shape.body}</g>")
    return ["".join(t.itertext()) for t in body.iter("text")]


def test_rectangles_of_a_budget_have_one_area_and_their_corners_lie_on_the_curve() -> None:
    drawing = draw_budget(6e6, [100.0, 400.0, 1600.0])
    found = re.findall(r'lt-weight" width="([\d.]+)" height="([\d.]+)"', drawing.shape.body)
    sides = [(float(w), float(h)) for w, h in found]
    areas = [w * h for w, h in sides]
    assert len(areas) == 3 and max(areas) / min(areas) < 1.001
    assert sides[0] == pytest.approx((300, 300 / 16), rel=1e-3)
    assert "N = 400, D = 2,500" in words_of(drawing)
    (points,) = re.findall(r'lt-line-off" points="([^"]+)"', drawing.shape.body)
    curve = [tuple(map(float, p.split(","))) for p in points.split()]
    for width, height in sides:  # from the lower left corner at (20, 330)
        near = min(abs(x - 20 - width) + abs(330 - y - height) for x, y in curve)
        assert near < 6


def test_the_numbers_of_mup_are_those_of_the_model_of_the_study() -> None:
    drawing = draw_mup(32, 256, 84)
    said, marked = words_of(drawing), drawing.shape.body.count('class="lt-new"')
    torch.manual_seed(0)
    for d in (32, 256):
        net, part = parametrised(d, 84, mup=True)
        groups = split(net)
        start = groups["hidden"][0].std().item()
        assert f"hidden at width {d}: standard deviation {start:.2f}" in drawing.description
        head = groups["head"][0].std().item()
        assert f"output at width {d}: standard deviation {head:.2f}" in drawing.description
        assert (f"rate η / {round(1 / part)}" if part < 1 else "rate η") in said
        assert f"logits / {round(getattr(net, 'by', 1))}" in said
    assert marked == 3  # the rate of hidden matrices, the start and the divisor of the output


def test_laws_agree_at_two_lengths_and_part_at_the_third() -> None:
    laws = {0.5: [2.5, 2.2, 2.0], 2.0: [2.5, 2.2, 2.1]}
    drawing = draw_two_lengths([1e5, 2e5, 4e5], laws, 2.02)
    assert drawing.shape.body.count("<circle") == 5  # two fitted, one measured, and both names
    assert {"β = 0.5: 2.00", "β = 2: 2.10", "measured 2.02", "100k", "400k"} <= {*words_of(drawing)}
    with pytest.raises(ValueError, match="agree at two lengths"):
        draw_two_lengths([1e5, 2e5, 4e5], {**laws, 1.0: [2.6, 2.3, 2.0]}, 2.02)


def test_a_bet_says_whether_it_was_won_and_is_sealed_before_the_run() -> None:
    found = {"sizes": "36 runs\na law"}
    drawing = draw_bet(found, BET, "2026-11-22 10:00", "2026-11-22 10:05", 1.83)
    assert "run: 1.830, inside" in words_of(drawing) and "36 runs a law" in drawing.description
    lost = draw_bet(found, replace(BET, high=1.81), "2026-11-22 10:00", "2026-11-22 10:05", 1.83)
    assert "run: 1.830, outside" in words_of(lost)
    with pytest.raises(ValueError, match="is none"):
        draw_bet(found, BET, "2026-11-22 10:00", "2026-11-22 09:59", 1.83)
