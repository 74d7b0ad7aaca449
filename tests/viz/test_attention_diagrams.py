"""Drawings of attention: what stands in them is what the tensors say, on the page and in words."""

import re
import xml.etree.ElementTree as ET

import pytest
import torch

from llmtutor.layers.attention import attention_weights, causal_mask
from llmtutor.viz.diagrams import attention as draw
from llmtutor.viz.diagrams.shapes import Drawing

WORDS = ("a", "b", "c")
X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])


def words_of(drawing: Drawing) -> list[str]:
    return ["".join(t.itertext()) for t in ET.fromstring(drawing.svg()).iter("text")]


def count(drawing: Drawing, look: str) -> int:
    return len(re.findall(f'class="lt-{look}"', drawing.shape.body))


def test_a_sentence_shows_each_word_above_its_numbers() -> None:
    drawing = draw.draw_sentence(WORDS, X, ("left", "right"))
    assert words_of(drawing) == [*("left", "right"), *"a10", *"b01", *"c20"]
    assert "a 1 0; b 0 1; c 2 0." in drawing.description
    with pytest.raises(ValueError):
        draw.draw_sentence(WORDS, X[:2], ("left", "right"))


def test_a_projection_shows_what_comes_out() -> None:
    turn = torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    parts = {"query": turn, "key": torch.eye(2), "value": 2 * torch.eye(2)}
    rows = {"query": ("up", "down"), "key": ("up", "down"), "value": ("yes", "no")}
    drawing = draw.draw_projections("c", X[2], parts, ("left", "right"), rows)
    assert drawing.description.endswith("the query 0 6, the key 2 0, the value 4 0.")
    assert words_of(drawing).count("left") == 3 and words_of(drawing).count("yes") == 1
    assert count(drawing, "head lt-line-plain") == 2 * 3  # to each matrix, and out of it


def test_a_query_receives_the_weighted_mean() -> None:
    weights = torch.tensor([0.25, 0.25, 0.5])
    drawing = draw.draw_query(WORDS, torch.zeros(3), weights, X, ("left", "right"))
    assert drawing.description.endswith("add up to 1.25 0.25.")
    assert words_of(drawing)[-2:] == ["left", "right"] and "1.25" in words_of(drawing)


def test_what_is_masked_is_crossed_out_and_has_no_number() -> None:
    weights = attention_weights(X, X, causal=True)
    drawing = draw.draw_scores(WORDS, X @ X.T, weights, causal_mask(3))
    assert count(drawing, "hatch") == 2 * 3
    assert len([w for w in words_of(drawing) if re.fullmatch(r"[\d.]+", w)]) == 2 * 6
    assert "a 1.00; b" in drawing.description


def test_masks_of_a_batch_stand_beside_each_other() -> None:
    masks = torch.stack([causal_mask(3), causal_mask(3) & torch.tensor([True, True, False])])
    drawing = draw.draw_masks([WORDS, ("d", "e", "–")], masks)
    assert count(drawing, "hatch") == 3 + 4
    assert drawing.description.endswith("“a b c” 6 of 9 pairs; “d e –” 5 of 9 pairs.")


def test_heads_are_cut_and_merged_in_order() -> None:
    parts = {role: torch.tensor([[1.0, 2.0], [3.0, 4.0]]) for role in draw.Q_K_V}
    drawing = draw.draw_heads("c", parts, torch.tensor([[0.1, 0.2], [0.3, 0.4]]))
    assert words_of(drawing).count("4") == 2 * 3  # whole and cut, of query, key and value
    assert words_of(drawing)[-5:] == ["0.10", "0.20", "0.30", "0.40", "side by side"]


def test_cross_attention_masks_nothing() -> None:
    weights = torch.tensor([[0.1, 0.7, 0.2]])
    drawing = draw.draw_self_and_cross(("x",), WORDS, weights)
    assert count(drawing, "hatch") == 3  # of the causal mask beside it
    assert "x most to b" in drawing.description
    # Three arrows from the one text; one from text 1, two from text 2.
    assert count(drawing, "head lt-line-plain") == 3 + 3


def test_each_step_of_writing_repeats_all_keys_before() -> None:
    drawing = draw.draw_decoding(WORDS)
    assert (count(drawing, "new"), count(drawing, "cache")) == (3 + 1, 3 + 1)  # and the legend
    assert "6 keys in 3 steps, of which 3 repeat" in drawing.description
