"""`transformers` (Bloom, for head counts of every kind), the paper's numbers, a loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtutor.layers.positions import Alibi
from llmtutor.layers.positions.alibi import alibi_slopes


def bias(n_heads, q_positions, k_positions, dtype=torch.float64):
    q = torch.zeros(1, n_heads, len(q_positions), 4, dtype=dtype)
    return Alibi(n_heads).score_bias(q, q_positions, k_positions)


def test_slopes_equal_bloom():
    from transformers.models.bloom.modeling_bloom import _get_alibi_slopes

    for n_heads in [*range(1, 34), 40, 48, 112]:
        want = _get_alibi_slopes(n_heads, torch.device("cpu")).double()
        got = torch.tensor(alibi_slopes(n_heads), dtype=torch.float64)
        torch.testing.assert_close(got, want, rtol=2e-6, atol=0)  # theirs are float32


@pytest.mark.parametrize("n_heads", [1, 3, 8, 12])
def test_bias_equals_bloom_up_to_a_constant_a_row(n_heads):
    """Bloom adds slope · j in place of −slope · (i − j): for the softmax of a row the same."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    seq = 9
    theirs = build_alibi_tensor(torch.ones(1, seq, dtype=torch.long), n_heads, torch.float32)
    future = torch.ones(seq, seq, dtype=torch.bool).triu(1)
    scores = torch.randn(n_heads, seq, seq, dtype=torch.float64)
    ours = scores + bias(n_heads, torch.arange(seq), torch.arange(seq))
    got, want = (
        s.masked_fill(future, -math.inf).softmax(-1) for s in (ours, scores + theirs.double())
    )
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def test_slopes_of_the_paper():
    """Section 3: 8 heads have 1/2, 1/4, …, 1/256; 16 heads 2^−0.5, 2^−1, …, 2^−8."""
    assert alibi_slopes(8) == [2.0**-h for h in range(1, 9)]
    assert alibi_slopes(16) == pytest.approx([2 ** (-h / 2) for h in range(1, 17)])
    assert alibi_slopes(6) == [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]


def test_bias_by_hand():
    got = bias(2, torch.tensor([2, 3]), torch.arange(4))
    distances = torch.tensor([[2.0, 1, 0, 1], [3, 2, 1, 0]], dtype=torch.float64)
    assert torch.equal(got, torch.stack((-(2**-4) * distances, -(2**-8) * distances)))


@given(st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_only_distances_count_and_they_count_linearly(n_heads, shift):
    positions = torch.arange(6)
    near = bias(n_heads, positions, positions)
    assert torch.equal(bias(n_heads, positions + shift, positions + shift), near)
    torch.testing.assert_close(bias(n_heads, 3 * positions, 3 * positions), 3 * near)
    assert torch.equal(near, near.transpose(1, 2))


def test_far_distances_are_rounded_once():
    """In bfloat16 the slope 2^-0.5 and the distance 1001 would each be rounded before."""
    got = bias(16, torch.tensor([1001]), torch.arange(40), torch.bfloat16)
    exact = bias(16, torch.tensor([1001]), torch.arange(40))
    assert torch.equal(got, exact.float().bfloat16())


@pytest.mark.parametrize("n_heads", [0, -1])
def test_heads(n_heads):
    with pytest.raises(ValueError, match=f"n_heads must be at least 1, got {n_heads}"):
        Alibi(n_heads)
