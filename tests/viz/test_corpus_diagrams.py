"""Drawings of chapter 02: what they say is what the texts, sets and rows hold."""

import xml.etree.ElementTree as ET

from llmtutor.data.packing import best_fit, end_to_end
from llmtutor.viz.diagrams.corpus import (
    draw_minhash,
    draw_overlap,
    draw_packing,
    draw_pipeline,
    draw_shift,
)
from llmtutor.viz.diagrams.shapes import WIDEST, Drawing


def words_of(drawing: Drawing) -> list[str]:
    return ["".join(t.itertext()) for t in ET.fromstring(drawing.svg()).iter("text")]


def test_pages_stay_or_are_crossed_out_once() -> None:
    stages = {"read": {"a": 10, "b": 7, "c": 5}, "filtered": {"a": 9, "c": 5}, "new": {"a": 9}}
    drawing = draw_pipeline(stages)
    words = words_of(drawing)
    assert words[:3] == ["a", "b", "c"] and words.count("×") == 2
    assert {"read: 3 documents, 22 words", "new: 1 document, 9 words"} <= set(words)
    assert "filtered: a 9, c 5, dropped: b. new: a 9, dropped: c." in drawing.description
    eight = dict.fromkeys(("mill", "light", "login", "copy", "shop", "offers"), 100)
    assert draw_pipeline({"read": eight | {"salt": 1, "lorem": 2}}).shape.width <= WIDEST


def test_the_window_that_is_held_out_shares_its_pairs() -> None:
    words = ["to", "be", "or", "not", "to", "be", "that", "is"]
    drawing = draw_overlap(words, 4, held_out=2)
    assert words_of(drawing).count("training") == 4
    assert words_of(drawing)[10:15] == ["held out", *words[2:6]]
    assert drawing.description.startswith("Held out is: or not to be. In training are: to be or")


def test_minima_agree_where_a_shared_word_comes_first() -> None:
    a, b = {"sea", "tide", "mill"}, {"sea", "tide", "moon"}
    orders = [["sea", "mill", "moon", "tide"], ["moon", "sea", "mill", "tide"]]
    drawing = draw_minhash(a, b, orders)
    assert words_of(drawing)[4] == "equal" and words_of(drawing)[9] == "differ"
    assert drawing.title == "1 of 2 orders have a shared word in front"
    assert drawing.svg().count("lt-dashed") >= 2 * 2 + 1  # two words in one set only, and the key
    assert "Of 4 words, 2 are in both sets: sea, tide." in drawing.description


def test_targets_are_the_inputs_one_on() -> None:
    drawing = draw_shift(["to", " be", "\n", "or"], [5, 9, 2, 7])
    assert words_of(drawing) == (
        [
            *("4 ids of the file", "to", "␣be", "⏎", "or", "5", "9", "2", "7"),
            *("inputs", "to", "␣be", "⏎", "", "targets", "␣be", "⏎", "or"),
        ]
    )
    assert "'to' → ' be', ' be' → '\\n', '\\n' → 'or'." in drawing.description


def test_packed_rows_show_their_documents_and_the_mask_of_the_first() -> None:
    documents = [[1] * 3, [2] * 4, [3] * 2]
    packed = {"end to end": end_to_end(documents, 6), "best fit": best_fit(documents, 6)}
    drawing = draw_packing(packed, "best fit")
    assert "end to end, 25% padding, 1 cut: A A A B B B | B C C · · ·" in drawing.description
    assert "best fit, 25% padding, 0 cut: B B B B C C | A A A · · ·" in drawing.description
    assert drawing.svg().count("<polyline") == 2 + 1 + 2  # where another begins
    seen = 4 * 5 / 2 + 2 * 3 / 2
    assert drawing.svg().count('lt-hatch"') == 36 - seen
