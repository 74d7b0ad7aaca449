"""Masks against a rule written with two loops, against torch, and by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.masking_utils import sliding_window_causal_mask_function

from llmtutor.layers.attention import causal_mask, padding_mask, sliding_window_mask


def rows(mask: torch.Tensor) -> list[str]:
    return ["".join(".x"[int(allowed)] for allowed in row) for row in mask]


def test_causal_by_hand() -> None:
    assert rows(causal_mask(3)) == ["x..", "xx.", "xxx"]
    assert rows(causal_mask(2, 4)) == ["xxx.", "xxxx"]  # the last two of four positions
    assert rows(causal_mask(1, 4)) == ["xxxx"]  # one new token sees all the past and itself


@pytest.mark.parametrize("window", [1, 2, 7])
def test_window_is_counted_as_transformers_does(window) -> None:
    rule = sliding_window_causal_mask_function(window)
    places = torch.arange(6)
    assert torch.equal(sliding_window_mask(6, window), rule(0, 0, places[:, None], places))


def test_window_includes_the_current_token() -> None:
    assert rows(sliding_window_mask(3, 1)) == ["x..", ".x.", "..x"]
    assert rows(sliding_window_mask(4, 2)) == ["x...", "xx..", ".xx.", "..xx"]
    assert rows(sliding_window_mask(2, 2, 4)) == [".xx.", "..xx"]


def test_padding_by_hand() -> None:
    mask = padding_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.shape == (3, 1, 1, 3)
    assert rows(mask[:, 0, 0]) == ["...", "xx.", "xxx"]


@given(st.integers(1, 8), st.integers(0, 8), st.integers(1, 20))
def test_equal_the_rule_position_by_position(seq_q: int, more: int, window: int) -> None:
    seq_k = seq_q + more
    causal, windowed = causal_mask(seq_q, seq_k), sliding_window_mask(seq_q, window, seq_k)
    for i in range(seq_q):
        for j in range(seq_k):
            position = more + i
            assert causal[i, j] == (j <= position)
            assert windowed[i, j] == (position - window < j <= position)
    assert windowed.sum(1).max() == min(window, seq_k)
    assert torch.equal(causal, torch.ones(seq_q, seq_k).tril(more).bool())
    assert torch.equal(sliding_window_mask(seq_q, seq_k, seq_k), causal)


def test_masks_combine() -> None:
    mask = causal_mask(3) & padding_mask(torch.tensor([1, 3]), 3)
    assert mask.shape == (2, 1, 3, 3)
    assert rows(mask[0, 0]) == ["x..", "x..", "x.."]
    assert rows(mask[1, 0]) == rows(causal_mask(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: causal_mask(0), "seq_q = 0"),
        (lambda: causal_mask(3, 2), "seq_q = 3, seq_k = 2"),
        (lambda: sliding_window_mask(3, 0), "window must be at least 1.*got 0"),
        (lambda: sliding_window_mask(3, 2, 1), "seq_k = 1"),
        (lambda: padding_mask(torch.tensor([4]), 3), r"0 … 3, got \[4\]"),
        (lambda: padding_mask(torch.tensor([-1]), 3), r"got \[-1\]"),
        (lambda: padding_mask(torch.tensor([1.0]), 3), "one integer.*float32"),
        (lambda: padding_mask(torch.tensor([True]), 3), "one integer.*bool"),
        (lambda: padding_mask(torch.tensor(2), 3), "one integer for each of 1 rows"),
    ],
)
def test_refuses(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
