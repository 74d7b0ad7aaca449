"""Chapter 04, attention: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong
from llmtutor.layers.attention import attention, attention_weights, causal_mask
from llmtutor.layers.basic import softmax


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


# Exercise 1: one query.


def _query_cases() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    keys = torch.zeros(3, 4, dtype=torch.float64)
    keys[:, 0] = torch.tensor([1.0, 2.0, 5.0]).log()
    query = torch.tensor([2.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    yield query, keys, torch.tensor([[8.0], [16.0], [24.0]], dtype=torch.float64)
    yield _normal(0, 3), _normal(1, 5, 3), _normal(2, 5, 2)
    yield 40 * _normal(3, 8), 40 * _normal(4, 6, 8), _normal(5, 6, 3)
    yield _normal(6, 2), _normal(7, 1, 2), _normal(8, 1, 4)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What one query (head_dim,) takes from values (keys, v_dim) by keys (keys, head_dim).

    >>> attend(torch.zeros(2), torch.ones(2, 2), torch.tensor([[1.0], [3.0]]))
    tensor([2.])
    """
    return _attend(q, k, v, 1 / math.sqrt(len(q)))


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return softmax(k @ q * scale) @ v


def _unscaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _attend(q, k, v, 1.0)


def _scaled_by_width(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _attend(q, k, v, 1 / len(q))


def _scaled_by_keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _attend(q, k, v, 1 / math.sqrt(len(k)))


def _overflowing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    exps = (k @ q / math.sqrt(len(q))).exp()
    return (exps / exps.sum()) @ v


def _best_only(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return v[(k @ q).argmax()]


# Exercise 2: from scores to causal weights.


def _score_cases() -> Iterator[tuple[Tensor]]:
    yield (torch.zeros(3, 3, dtype=torch.float64),)
    yield (_normal(10, 4, 4),)
    yield (5 * _normal(11, 2, 3, 3),)


def causal_weights(scores: Tensor) -> Tensor:
    """Weights (…, seq, seq) from scores (…, seq, seq), row = query; nobody sees the future.

    >>> causal_weights(torch.zeros(2, 2))
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000]])
    """
    return softmax(scores.masked_fill(~causal_mask(scores.shape[-1]), -math.inf))


def _masked_afterwards(scores: Tensor) -> Tensor:
    return softmax(scores).tril()


def _zero_scores(scores: Tensor) -> Tensor:
    return softmax(scores.tril())


def _over_the_queries(scores: Tensor) -> Tensor:
    return softmax(scores.masked_fill(~causal_mask(scores.shape[-1]), -math.inf), dim=-2)


def _blind_to_itself(scores: Tensor) -> Tensor:
    allowed = causal_mask(scores.shape[-1]).tril(-1)
    return torch.softmax(scores.masked_fill(~allowed, -math.inf), dim=-1)


def _sees_the_target(scores: Tensor) -> Tensor:
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(1)
    return softmax(scores.masked_fill(~allowed, -math.inf))


def _the_future_only(scores: Tensor) -> Tensor:
    return softmax(scores.masked_fill(~causal_mask(scores.shape[-1]).T, -math.inf))


# Exercise 3: many heads.


def _layer_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int]]:
    for seed, batch, seq, d_model, n_heads in (
        (20, 1, 3, 4, 2),
        (30, 2, 5, 6, 3),
        (40, 2, 4, 8, 2),
    ):
        w_q, w_k, w_v, w_o = (_normal(seed + i, d_model, d_model) for i in range(4))
        yield _normal(seed + 4, batch, seq, d_model), w_q, w_k, w_v, w_o, n_heads


def multi_head(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int
) -> Tensor:
    """Causal multi-head attention, (batch, seq, d_model) → the same shape.

    Weights are (d_out, d_in) as in ``Linear``; head 0 owns the first ``head_dim`` rows of
    ``w_q``, ``w_k`` and ``w_v``.
    """
    q, k, v = (_split(x @ w.T, n_heads) for w in (w_q, w_k, w_v))
    return _merge(attention(q, k, v, causal=True)) @ w_o.T


def _split(x: Tensor, n_heads: int) -> Tensor:
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def _merge(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)


def _cut_across_positions(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int
) -> Tensor:
    batch, seq, d_model = x.shape
    q, k, v = ((x @ w.T).reshape(batch, n_heads, seq, d_model // n_heads) for w in (w_q, w_k, w_v))
    return _merge(attention(q, k, v, causal=True)) @ w_o.T


def _glued_across_heads(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int
) -> Tensor:
    q, k, v = (_split(x @ w.T, n_heads) for w in (w_q, w_k, w_v))
    return attention(q, k, v, causal=True).reshape(x.shape) @ w_o.T


def _scaled_by_d_model(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int
) -> Tensor:
    q, k, v = (_split(x @ w.T, n_heads) for w in (w_q, w_k, w_v))
    weights = attention_weights(q, k, causal=True, scale=1 / math.sqrt(x.shape[-1]))
    return _merge(weights @ v) @ w_o.T


def _no_mask(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int) -> Tensor:
    q, k, v = (_split(x @ w.T, n_heads) for w in (w_q, w_k, w_v))
    return _merge(attention(q, k, v)) @ w_o.T


def _one_wide_head(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int
) -> Tensor:
    return multi_head(x, w_q, w_k, w_v, w_o, 1)


def _weights_on_their_side(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int
) -> Tensor:
    return multi_head(x, w_q.T, w_k.T, w_v.T, w_o.T, n_heads)


EXERCISES = [
    Exercise(
        name="attention.attend",
        cases=_query_cases,
        reference=attend,
        wrong=[
            Wrong(
                _unscaled,
                "The scores are not scaled. A sum of head_dim products grows with the width; "
                "divide it by √head_dim before the softmax.",
            ),
            Wrong(
                _scaled_by_width,
                "Divided by head_dim. It is the variance of a score that is head_dim; its size "
                "is the square root of that.",
            ),
            Wrong(
                _scaled_by_keys,
                "Divided by the root of the number of keys. What grows is the sum inside one dot "
                "product, over the head_dim components; how many keys there are does not matter.",
            ),
            Wrong(
                _overflowing,
                "Right on small scores, nan on large ones: exp overflows. Subtract the largest "
                "score first, or use softmax from llmtutor.layers.basic.",
            ),
            Wrong(
                _best_only,
                "This takes the value of the best key alone. Attention takes a mean of all "
                "values, and a choice by argmax has no gradient to learn from.",
            ),
        ],
    ),
    Exercise(
        name="attention.causal_weights",
        cases=_score_cases,
        reference=causal_weights,
        properties=[
            Property(
                "no weight lies above the diagonal, where the key is later than the query",
                lambda weights, scores: bool((weights.triu(1) == 0).all()),
            ),
        ],
        wrong=[
            Wrong(
                _masked_afterwards,
                "The mask comes after the softmax. The weights of the future were part of the "
                "sum, so the rows no longer add up to 1; set those scores to −inf before it.",
            ),
            Wrong(
                _zero_scores,
                "The scores of the future are set to 0. A score of 0 is a score like another, "
                "and exp(0) is 1; only −inf becomes a weight of 0.",
            ),
            Wrong(
                _over_the_queries,
                "The softmax runs over the queries: the columns add up to 1. Each query shares "
                "out its own weight over the keys, which are the last dimension.",
            ),
            Wrong(
                _blind_to_itself,
                "The diagonal is masked as well, so the first query has nothing to look at and "
                "its row is nan. A position may see itself: what it predicts is the next token.",
            ),
            Wrong(
                _sees_the_target,
                "Each query also sees the position after it, and that is the token it has to "
                "predict. Column j of row i may be used where j ≤ i.",
            ),
            Wrong(
                _the_future_only,
                "The mask is turned round: these queries see the future and not the past. Rows "
                "are queries, columns are keys, and what remains lies below the diagonal.",
            ),
        ],
    ),
    Exercise(
        name="attention.multi_head",
        cases=_layer_cases,
        reference=multi_head,
        wrong=[
            Wrong(
                _cut_across_positions,
                "reshape(batch, n_heads, seq, head_dim) has the right shape and the wrong "
                "content: it cuts a sequence into stretches of positions. Cut the last axis into "
                "(n_heads, head_dim), then swap the axes of heads and positions.",
            ),
            Wrong(
                _glued_across_heads,
                "The heads are put together without swapping the axes back, so a row of the "
                "result holds several positions of one head. Transpose to (batch, seq, n_heads, "
                "head_dim) first.",
            ),
            Wrong(
                _scaled_by_d_model,
                "Divided by √d_model. A head's score is a sum over its own head_dim components, "
                "so that is the width that counts.",
            ),
            Wrong(
                _no_mask,
                "Nothing is masked: every position sees the whole sequence, and with it the "
                "token it should predict.",
            ),
            Wrong(
                _one_wide_head,
                "This is one head of width d_model. Each head has a softmax of its own, over "
                "scores from its own head_dim components.",
            ),
            Wrong(
                _weights_on_their_side,
                "This is x @ W. Weights are stored as (d_out, d_in), so a linear layer is "
                "x @ W.T; with square matrices no error message tells the two apart.",
            ),
        ],
    ),
]
