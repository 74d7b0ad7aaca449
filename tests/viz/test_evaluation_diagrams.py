"""Drawings of evaluation: the scores are the model's, the windows those that are read."""

import xml.etree.ElementTree as ET

from llmtutor.evaluate.items import Item, choice
from llmtutor.evaluate.scoring import Score
from llmtutor.viz.diagrams.evaluation import draw_item, draw_windows
from llmtutor.viz.diagrams.shapes import WIDEST, Drawing


def words_of(drawing: Drawing) -> list[str]:
    return ["".join(t.itertext()) for t in ET.fromstring(drawing.svg()).iter("text")]


def test_an_item_has_its_texts_and_scores() -> None:
    item = choice("To be, or", ["not to be", "no"], 0)
    drawing = draw_item(item, [Score(-9.0, True, 3, 0), Score(-4.0, False, 1, 0)])
    words = words_of(drawing)
    assert {"To be, or", "␣not to be", "␣no", "−9.0", "−4.0", "−1.00", "−2.00"} <= set(words)
    assert "not to be: −9.0, −1.00 per character; no: −4.0, −2.00" in drawing.description
    within = Item(("the cup", "the jug"), ("is small", "is small"), 1)
    assert "␣…the cup| is small" in words_of(draw_item(within, [Score(-1.0, True, 1, 0)] * 2))
    long = choice("word " * 60, ["x" * 20] * 4, 0)
    assert draw_item(long, [Score(-1.0, True, 1, 0)] * 4).shape.width <= WIDEST


def test_windows_score_each_token_once() -> None:
    drawing = draw_windows(9, context=4, stride=2)
    assert "Window 1 is given 0 to 0, scores 1 to 4; window 2 is given 2 to 4, scores 5 to 6" in (
        drawing.description
    )
    assert "window 4 is given 5 to 8, scores 9 to 9." in drawing.description
    assert draw_windows(12, 4, 4).shape.width <= WIDEST
    assert "window 3 is given 8 to 8, scores 9 to 12" in draw_windows(12, 4, 4).description
