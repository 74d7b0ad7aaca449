"""Merges applied to one word: by hand, against the naive rule, and in bounded memory and time."""

from collections.abc import Mapping, Sequence
from heapq import heappop
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtutor.tokenizer import BPETokenizer
from llmtutor.tokenizer import merge as merge_module
from llmtutor.tokenizer.merge import Words, merge


def naive_merge(
    ids: Sequence[int], ranks: Mapping[tuple[int, int], int], results: Sequence[int]
) -> list[int]:
    """Look at all pairs, merge the leftmost of the lowest rank, start again."""
    ids = list(ids)
    while found := [(ranks[p], i) for i, p in enumerate(pairwise(ids)) if p in ranks]:
        rank, i = min(found)
        ids[i : i + 2] = [results[rank]]
    return ids


@pytest.mark.parametrize(
    ("ids", "merged"),
    [
        ([], []),
        ([1], [1]),
        ([1, 2], [3]),
        ([2, 1], [2, 1]),
        ([1, 2, 1, 2], [4]),
        ([1, 2, 1, 2, 1, 2], [4, 3]),
        ([1, 1, 2, 2], [1, 3, 2]),
        ([5, 5, 5], [6, 5]),
        ([5, 5, 5, 5, 5], [6, 6, 5]),
    ],
)
def test_by_hand(ids: list[int], merged: list[int]) -> None:
    """1 2 → 3, then 3 3 → 4, then 5 5 → 6."""
    assert merge(ids, {(1, 2): 0, (3, 3): 1, (5, 5): 2}, [3, 4, 6]) == merged


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_equals_the_naive_rule(data: st.DataObject) -> None:
    """For any table of merges, also one that training would never give."""
    symbol = st.integers(0, 5)
    pairs = data.draw(st.lists(st.tuples(symbol, symbol), unique=True, max_size=8))
    results = data.draw(st.lists(symbol, min_size=len(pairs), max_size=len(pairs)))
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    ids = data.draw(st.lists(symbol, max_size=30))
    assert merge(ids, ranks, results) == naive_merge(ids, ranks, results)


@pytest.mark.parametrize("letters", ["a", "abracadabra", "tobeornottobe"])
def test_long_words_do_not_take_quadratic_time(
    letters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge adds at most two entries to the heap, so a word of n bytes takes at most 3 n."""
    taken = 0

    def count(heap: list[int]) -> int:
        nonlocal taken
        taken += 1
        return heappop(heap)

    monkeypatch.setattr(merge_module, "heappop", count)
    tokenizer = BPETokenizer.train("abracadabra aaaaaaaa tobeornottobe", 290)
    text = (letters * 50_000)[:50_000]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(text) - len(ids) <= taken <= 3 * len(text)


def test_the_memory_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(Words, "MAX_WORDS", 50)
    monkeypatch.setattr(Words, "MAX_LENGTH", 8)
    tokenizer = BPETokenizer.train(code[:20_000], 400)
    words = tokenizer._words
    ids = tokenizer.encode(code[:50_000])
    assert 0 < len(words) <= 50
    assert max(map(len, words)) <= 8
    fresh = BPETokenizer(tokenizer.vocab, tokenizer.merges)
    monkeypatch.undo()
    assert fresh.encode(code[:50_000]) == ids
    assert len(fresh._words) > 50
