"""Chapter 16, efficient-attention: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong

# Exercise 1: a softmax that is read once.


def _stream_cases() -> Iterator[tuple[list[float], list[float]]]:
    yield [2.0, 0.0, 3.0, 1.0], [10.0, 20.0, 30.0, 40.0]
    yield [0.5], [7.0]
    yield [1.0, -2.0, 4.0, 4.0, 0.0], [1.0, -1.0, 3.0, 0.5, 2.0]
    yield [-1000.0, -1001.0], [1.0, 3.0]
    yield [3.0, 2.0, 1.0, 0.0], [1.0, 5.0, -3.0, 2.0]
    yield [0.0, 900.0, 901.0], [4.0, 1.0, 2.0]


def stream_mean(scores: list[float], values: list[float]) -> float:
    """The mean of the values weighted by the softmax of the scores, in one pass over both.

    >>> stream_mean([0.0, 0.0], [10.0, 20.0])
    15.0
    """
    top, total, weighted = -math.inf, 0.0, 0.0
    for score, value in zip(scores, values, strict=True):
        higher = max(top, score)
        shrink, weight = math.exp(top - higher), math.exp(score - higher)
        total = shrink * total + weight
        weighted = shrink * weighted + weight * value
        top = higher
    return weighted / total


def _nothing_shrinks(scores: list[float], values: list[float]) -> float:
    top, total, weighted = -math.inf, 0.0, 0.0
    for score, value in zip(scores, values, strict=True):
        top = max(top, score)
        total += math.exp(score - top)
        weighted += math.exp(score - top) * value
    return weighted / total


def _only_the_sum_shrinks(scores: list[float], values: list[float]) -> float:
    top, total, weighted = -math.inf, 0.0, 0.0
    for score, value in zip(scores, values, strict=True):
        higher = max(top, score)
        total = math.exp(top - higher) * total + math.exp(score - higher)
        weighted += math.exp(score - higher) * value
        top = higher
    return weighted / total


def _maximum_from_zero(scores: list[float], values: list[float]) -> float:
    top, total, weighted = 0.0, 0.0, 0.0
    for score, value in zip(scores, values, strict=True):
        higher = max(top, score)
        shrink, weight = math.exp(top - higher), math.exp(score - higher)
        total, weighted = shrink * total + weight, shrink * weighted + weight * value
        top = higher
    return weighted / total if total else math.nan


def _never_divided(scores: list[float], values: list[float]) -> float:
    top, weighted = -math.inf, 0.0
    for score, value in zip(scores, values, strict=True):
        higher = max(top, score)
        weighted = math.exp(top - higher) * weighted + math.exp(score - higher) * value
        top = higher
    return weighted


# Exercise 2: how far windows reach.


def _reach_cases() -> Iterator[tuple[int, int, int]]:
    yield 4, 3, 100
    yield 1, 5, 100
    yield 4096, 32, 200_000
    yield 8, 2, 10
    yield 16, 4, 1000


def reach(window: int, n_layers: int, seq: int) -> int:
    """Tokens, its own included, that the last of ``seq`` positions can know of.

    ``window`` counts the token itself.

    >>> reach(4, 2, 100)
    7
    """
    return min(seq, n_layers * (window - 1) + 1)


def _times(window: int, n_layers: int, seq: int) -> int:
    return min(seq, n_layers * window)


def _without_itself(window: int, n_layers: int, seq: int) -> int:
    return min(seq, n_layers * (window - 1))


def _one_window(window: int, n_layers: int, seq: int) -> int:
    return min(seq, window)


def _longer_than_the_text(window: int, n_layers: int, seq: int) -> int:
    return n_layers * (window - 1) + 1


# Exercise 3: which blocks may be seen.


def _block_cases() -> Iterator[tuple[int, int]]:
    yield 6, 2
    yield 7, 3
    yield 8, 4
    yield 5, 1


def seen_blocks(seq: int, block: int) -> Tensor:
    """Which compressed blocks each position may read, (seq, blocks begun) of bool.

    A position reads the blocks before its own.

    >>> seen_blocks(4, 2).int()
    tensor([[0, 0],
            [0, 0],
            [1, 0],
            [1, 0]], dtype=torch.int32)
    """
    own = torch.arange(seq) // block
    return torch.arange(-(-seq // block)) < own[:, None]


def _own_too(seq: int, block: int) -> Tensor:
    own = torch.arange(seq) // block
    return torch.arange(-(-seq // block)) <= own[:, None]


def _all_blocks(seq: int, block: int) -> Tensor:
    return torch.ones(seq, -(-seq // block), dtype=torch.bool)


def _one_token_early(seq: int, block: int) -> Tensor:
    own = (torch.arange(seq) + 1) // block
    return torch.arange(-(-seq // block)) < own[:, None]


def _last_block_only(seq: int, block: int) -> Tensor:
    own = torch.arange(seq) // block
    return torch.arange(-(-seq // block)) == own[:, None] - 1


EXERCISES = [
    Exercise(
        name="efficient_attention.stream_mean",
        cases=_stream_cases,
        reference=stream_mean,
        wrong=[
            Wrong(
                _nothing_shrinks,
                "What was summed before a larger score came is relative to the old maximum. When "
                "the maximum grows, both sums shrink by the exponential of the difference.",
            ),
            Wrong(
                _only_the_sum_shrinks,
                "The sum of the weights shrinks with the new maximum, and the weighted sum of the "
                "values does not: numerator and denominator are then relative to two maxima.",
            ),
            Wrong(
                _maximum_from_zero,
                "The maximum begins at 0, so scores far below 0 all underflow and 0 / 0 remains. "
                "It begins at minus infinity.",
            ),
            Wrong(
                _never_divided,
                "The weighted sum is not divided by the sum of the weights at the end.",
            ),
        ],
    ),
    Exercise(
        name="efficient_attention.reach",
        cases=_reach_cases,
        reference=reach,
        wrong=[
            Wrong(
                _times,
                "Windows are laid end to end, n_layers · window. The window counts the token "
                "itself, so a layer adds only window − 1 tokens.",
            ),
            Wrong(
                _without_itself,
                "The token itself is missing: with a window of 1 a position still knows itself.",
            ),
            Wrong(
                _one_window,
                "One layer sees one window, but the layer below has gathered further back already.",
            ),
            Wrong(
                _longer_than_the_text,
                "The reach is longer than the text: there are only seq tokens to know of.",
            ),
        ],
    ),
    Exercise(
        name="efficient_attention.seen_blocks",
        cases=_block_cases,
        reference=seen_blocks,
        properties=[
            Property(
                "one row for each position and one column for each block that has begun",
                lambda got, seq, block: tuple(got.shape) == (seq, -(-seq // block)),
            ),
        ],
        wrong=[
            Wrong(
                _own_too,
                "A position reads the block that it stands in. That block holds tokens after it: "
                "the future leaks.",
            ),
            Wrong(
                _all_blocks,
                "Every position reads every block: that is Linformer, which sees the future.",
            ),
            Wrong(
                _one_token_early,
                "The last token of a block reads its own block. That leaks nothing, but it is not "
                "the rule here: its own block is in its window already.",
            ),
            Wrong(
                _last_block_only,
                "Only the block just before its own is read; the older ones are lost.",
            ),
        ],
    ),
]
