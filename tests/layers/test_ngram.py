"""N-gram embedding against torch's EmbeddingBag, and against counting by hand."""

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmtutor.evaluate.causality import assert_causal
from llmtutor.layers import ngram
from llmtutor.layers.ngram import KNUTH, PRIME, NgramEmbedding
from llmtutor.optim.groups import split

VOCAB = 5


def layer(rows: tuple[int, ...] = (11, 17)) -> NgramEmbedding:
    torch.manual_seed(0)
    return NgramEmbedding(VOCAB, 4, rows).double()


def rows_by_hand(ids: list[int], n: int, rows: int) -> list[int]:
    """Python's integers, one place after the other."""
    padded = [VOCAB] * (n - 1) + ids
    found = []
    for place in range(len(ids)):
        digits = padded[place : place + n]  # the present token is the last digit
        number = int("".join(map(str, digits)), base=VOCAB + 1)
        found.append(number * KNUTH % PRIME % rows)
    return found


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12))
def test_equals_embedding_bag_over_rows_counted_by_hand(ids: list[int]) -> None:
    ours = layer()
    parts = [ours.weight, *(table.weight for table in ours.tables)]
    bag = nn.EmbeddingBag.from_pretrained(torch.cat([p.detach() for p in parts]), mode="sum")
    pairs, triples = rows_by_hand(ids, 2, 11), rows_by_hand(ids, 3, 17)
    places = [
        [token, VOCAB + pair, VOCAB + 11 + triple]
        for token, pair, triple in zip(ids, pairs, triples, strict=True)
    ]
    want = bag(torch.tensor(places))
    torch.testing.assert_close(ours(torch.tensor([ids]))[0], want, rtol=1e-12, atol=1e-12)


def test_gradient_reaches_the_rows_used_and_no_other() -> None:
    ours = layer()
    ours(torch.tensor([[1, 2]])).sum().backward()
    used = {int(i) for i in ours.tables[0].weight.grad.abs().sum(1).nonzero()}
    assert used == set(rows_by_hand([1, 2], 2, 11))


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(VOCAB)))
def test_the_same_three_tokens_give_the_same_vector_wherever_they_stand(ids: list[int]) -> None:
    """And what came before them does not matter."""
    here, there = [0, *ids[:3]], [4, 4, 1, *ids[:3]]
    ours = layer()
    a, b = (ours(torch.tensor([x]))[0, -1] for x in (here, there))
    assert torch.equal(a, b)


def test_the_order_of_the_tokens_counts() -> None:
    ours = layer((101, 1009))
    a, b = ours(torch.tensor([[1, 2, 3], [2, 1, 3]]))[:, -1]
    assert not torch.allclose(a, b)


def test_numbers_are_distinct_for_distinct_runs() -> None:
    grid = torch.cartesian_prod(*3 * [torch.arange(VOCAB)])
    pairs, triples = (numbers[:, -1] for numbers in layer().numbers(grid))
    assert len(pairs.unique()) == VOCAB**2
    assert len(triples.unique()) == VOCAB**3


def test_hash_spreads_runs_over_the_rows() -> None:
    """No row of 64 holds more than four times its share of the runs of three among 40 tokens."""
    ours = NgramEmbedding(40, 1, (64, 64))
    grid = torch.cartesian_prod(*3 * [torch.arange(40)])
    numbers = ours.numbers(grid)[1][:, -1]
    counts = torch.bincount(numbers * KNUTH % PRIME % 64, minlength=64)
    assert counts.min() > 0
    assert counts.max() < 4 * 40**3 / 64


def test_no_place_sees_a_later_token() -> None:
    assert_causal(nn.Sequential(layer(), nn.Linear(4, VOCAB).double()), VOCAB)


def test_without_tables_it_is_an_embedding() -> None:
    ours = layer(())
    ids = torch.tensor([[0, 3, 1]])
    assert torch.equal(ours(ids), ours.weight[ids])


def test_optimizers_take_it_for_tables() -> None:
    model = nn.ModuleDict({"embedding": layer(), "hidden": nn.Linear(4, 4)})
    rest = {id(p) for p in split(model)["rest"]}
    assert {id(p) for p in model["embedding"].parameters()} <= rest


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="vocab_size must be at least 1, got 0"):
        NgramEmbedding(VOCAB, 4, (7, 0))
    with pytest.raises(ValueError, match="ids must lie in 0 … 4"):
        layer()(torch.tensor([[5]]))
    with pytest.raises(ValueError, match="must be integers"):
        layer()(torch.tensor([[0.5]]))


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(ngram).failed == 0
