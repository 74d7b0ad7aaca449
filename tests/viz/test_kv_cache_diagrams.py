"""Drawings of the cache: numbers from its tensors, tokens from its pages."""

import re
import xml.etree.ElementTree as ET

import pytest
import torch

from llmtutor.viz.diagrams import kv_cache as draw
from llmtutor.viz.diagrams.shapes import Drawing

WORDS = ("to", "be", "or")
KEYS = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])  # one head, three tokens
PROMPT = ("to", "be")
TEXTS = {"A": (*PROMPT, "or", "not"), "B": (*PROMPT, "is")}
TABLES = {"A": [0, 1], "B": [0, 2]}


def words_of(drawing: Drawing) -> list[str]:
    return ["".join(t.itertext()) for t in ET.fromstring(drawing.svg()).iter("text")]


def count(drawing: Drawing, look: str) -> int:
    return len(re.findall(f'class="lt-{look}"', drawing.shape.body))


def test_the_cache_grows_piece_by_piece_and_what_is_new_stands_out() -> None:
    drawing = draw.draw_growing(WORDS, KEYS, -KEYS, pieces=(2, 1))
    assert count(drawing, "plain lt-dashed") == 2  # two times the drawer
    assert count(drawing, "new") == 2 * (2 + 1) and count(drawing, "plain") == 2 * (3 - 2)
    assert count(drawing, "key") == count(drawing, "value") == 2  # what was there before
    assert words_of(drawing).count("1 2") == 2 and words_of(drawing).count("−5 −6") == 1
    assert "1. to be, at once" in words_of(drawing)
    assert drawing.description.endswith("'or', leaves key 0 5 6, value 0 −5 −6.")
    with pytest.raises(ValueError, match=r"pieces must sum to the 3 tokens, got \[2\]"):
        draw.draw_growing(WORDS, KEYS, KEYS, pieces=(2,))


def test_each_way_to_share_says_what_a_token_leaves() -> None:
    drawing = draw.draw_head_sharing(4, {"multi-head": 4, "grouped": 2}, head_dim=3)
    assert "multi-head: 4 KV heads, 24 numbers a token" in words_of(drawing)
    assert "grouped: 2 KV heads, 12 numbers a token, each head read by 2" in drawing.description
    assert count(drawing, "query") == 8 and count(drawing, "key") == count(drawing, "value") == 6
    assert count(drawing, "plain lt-dashed") == 2


def test_both_tables_point_to_the_pages_that_they_share() -> None:
    drawing = draw.draw_pages(TEXTS, TABLES, n_pages=4, page=2)
    assert count(drawing, "head lt-line-plain") == 4  # an arrow for each entry
    assert (count(drawing, "new"), count(drawing, "cache"), count(drawing, "plain")) == (1, 2, 1)
    assert {"to be", "or not", "is"} <= set(words_of(drawing))
    assert drawing.description.startswith("The table of A is [0, 1]; The table of B is [0, 2].")
    assert "page 0 holds 'to be' for both" in drawing.description
    assert drawing.description.endswith("page 2 holds 'is'; page 3 is free.")


def test_a_page_cannot_hold_two_texts() -> None:
    with pytest.raises(ValueError, match="page 1 holds"):
        draw.draw_pages(TEXTS, {"A": [0, 1], "B": [0, 1]}, n_pages=4, page=2)
    with pytest.raises(ValueError, match="two requests can be drawn, got 1"):
        draw.draw_pages({"A": PROMPT}, {"A": [0]}, n_pages=1, page=2)
