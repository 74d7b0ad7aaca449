"""Drawings of chapter 01: what is drawn is what the tokenizer does."""

from xml.etree import ElementTree

import pytest

from llmtutor.tokenizer import BPETokenizer
from llmtutor.viz.diagrams.shapes import WIDEST, Drawing
from llmtutor.viz.diagrams.tokenizer import (
    by_rank,
    draw_merge_tree,
    draw_pieces,
    draw_two_orders,
    draw_way,
    merge_tree,
)

WITCHES = "double double toil and trouble fire burn and cauldron bubble"
UB, LE, UBLE = (b"u", b"b"), (b"l", b"e"), (b"ub", b"le")


def words_of(drawing: Drawing) -> list[str]:
    """Its letters in the order in which they are drawn."""
    body = ElementTree.fromstring(f"<g>{drawing.shape.body}</g>")
    return ["".join(t.itertext()) for t in body.iter("text")]


def test_a_tree_has_a_row_for_each_merge_and_its_tokens_stand_out() -> None:
    ranks = {UB: 0, LE: 1, UBLE: 2}
    drawing = draw_merge_tree(b"ruble", [UB, LE, UBLE], ranks)
    assert words_of(drawing) == [*"ruble", "ub", "le", "uble", "merge 1", "merge 2", "merge 3"]
    assert drawing.shape.body.count("lt-new") == 2  # r and uble
    assert "merge 3 makes “uble” of “ub” and “le”" in drawing.description
    assert drawing.description.endswith("the tokens are “r” “uble”.")


@pytest.mark.parametrize("word", ["redoubled", "bundle", "bubble", "and", "é", "aaa", "b"])
def test_the_ends_of_a_tree_are_the_tokens_of_the_library(word: str) -> None:
    tokenizer = BPETokenizer.train(f"{WITCHES} aaa aaa aaaa é é é", 275)
    ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
    data = word.encode("utf-8")
    _, tokens = merge_tree(data, by_rank(data, ranks), ranks)
    assert tokens == [tokenizer.token_bytes(id) for id in tokenizer.encode(word)]


def test_of_two_merges_that_share_a_byte_the_lower_rank_is_made() -> None:
    assert by_rank(b"abc", {(b"a", b"b"): 1, (b"b", b"c"): 0}) == [(b"b", b"c")]


def test_another_order_ends_in_other_tokens() -> None:
    ranks = {UB: 0, (b"b", b"l"): 1, LE: 2, UBLE: 3}
    orders = {"by rank": [UB, LE, UBLE], "otherwise": [(b"b", b"l")]}
    drawing = draw_two_orders(b"uble", ranks, orders)
    assert drawing.description.endswith("by rank: “uble”; otherwise: “u” “bl” “e”.")
    assert drawing.shape.body.count("lt-new") == 1 + 3


def test_a_text_on_its_way_has_pieces_bytes_tokens_and_ids() -> None:
    tokenizer = BPETokenizer.train(WITCHES, 275)
    ids = tokenizer.encode("é and")
    drawing = draw_way("é and", tokenizer)
    words = words_of(drawing)
    assert words[0] == "é␣and" and words[2:4] == ["é", "␣and"]
    assert words[5:11] == ["C3", "A9", "20", "61", "6E", "64"]
    assert [words[i] for i in range(-2 * len(ids) + 1, 0, 2)] == [str(id) for id in ids]
    assert "“é” has the bytes C3 A9 and the tokens “C3” “A9” with the ids 195 169" in (
        drawing.description
    )


def test_rows_of_pieces_wrap_share_and_show_bytes_that_are_no_text() -> None:
    code = [b" ", b" ", b"for", b"\n"]
    rows = {"a": code, "b": list(code), "c": [b"\xf0\x9f", b"ok"], "long": [b"token"] * 30}
    drawing = draw_pieces(rows, "some text")
    words = words_of(drawing)
    assert words[:3] == ["a,", "b", "4"] and words[3:7] == ["␣", "␣", "for", "⏎"]
    assert words[7:11] == ["c", "2", "F0·9F", "ok"]
    assert drawing.shape.width <= WIDEST and drawing.shape.height > 5 * 20
    assert "a and b, 4: “␣” “␣” “for” “⏎”; c, 2: “F0·9F” “ok”" in drawing.description
