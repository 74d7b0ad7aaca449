"""Chapter 14, gqa: its exercises and the mistakes learners make there."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong
from llmtutor.layers.attention import attention, attention_weights, first_heads, mean_pool_heads


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


# Exercise 1: what the cache costs.


def _cache_cases() -> Iterator[tuple[int, int, int, int, int, int]]:
    yield 1, 4, 2, 8, 1, 4
    yield 12, 12, 12, 768, 1024, 2
    yield 32, 32, 8, 4096, 8192, 2
    yield 5, 8, 1, 64, 512, 4


def cache_bytes(
    n_layers: int, n_heads: int, n_kv_heads: int, d_model: int, seq: int, size: int
) -> int:
    """Bytes of the keys and values of ``seq`` past tokens; a number takes ``size`` bytes.

    >>> cache_bytes(1, 4, 2, 8, 1, 4)  # two heads of 2, keys and values, 4 bytes each
    32
    """
    return 2 * n_layers * n_kv_heads * (d_model // n_heads) * seq * size


def _keys_only(
    n_layers: int, n_heads: int, n_kv_heads: int, d_model: int, seq: int, size: int
) -> int:
    return n_layers * n_kv_heads * (d_model // n_heads) * seq * size


def _every_query_head(
    n_layers: int, n_heads: int, n_kv_heads: int, d_model: int, seq: int, size: int
) -> int:
    return 2 * n_layers * d_model * seq * size


def _one_layer(
    n_layers: int, n_heads: int, n_kv_heads: int, d_model: int, seq: int, size: int
) -> int:
    return 2 * n_kv_heads * (d_model // n_heads) * seq * size


def _numbers_not_bytes(
    n_layers: int, n_heads: int, n_kv_heads: int, d_model: int, seq: int, size: int
) -> int:
    return 2 * n_layers * n_kv_heads * (d_model // n_heads) * seq


def _square(n_layers: int, n_heads: int, n_kv_heads: int, d_model: int, seq: int, size: int) -> int:
    return n_layers * n_heads * seq * seq * size


# Exercise 2: shared heads written out.


def _head_cases() -> Iterator[tuple[Tensor, int]]:
    yield torch.arange(4, dtype=torch.float64).reshape(1, 2, 2, 1), 4
    yield _normal(10, 2, 2, 3, 4), 6
    yield _normal(11, 1, 1, 3, 2), 3
    yield _normal(12, 2, 4, 2, 2), 4


def write_out(x: Tensor, n_heads: int) -> Tensor:
    """Keys or values (batch, n_kv_heads, seq, head_dim), one copy for each query head.

    >>> write_out(torch.tensor([[[[7.0]], [[9.0]]]]), 4).flatten()
    tensor([7., 7., 9., 9.])
    """
    return x.repeat_interleave(n_heads // x.shape[1], dim=1)


def _in_turns(x: Tensor, n_heads: int) -> Tensor:
    return x.repeat(1, n_heads // x.shape[1], 1, 1)


def _along_the_text(x: Tensor, n_heads: int) -> Tensor:
    return x.repeat_interleave(n_heads // x.shape[1], dim=2)


def _first_for_all(x: Tensor, n_heads: int) -> Tensor:
    return x[:, :1].repeat(1, n_heads, 1, 1)


def _group_as_often_as_heads(x: Tensor, n_heads: int) -> Tensor:
    return x.repeat_interleave(n_heads, dim=1)


# Exercise 3: the layer whole.


def _layer_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int, int]]:
    for seed, batch, seq, d_model, n_heads, n_kv_heads in (
        (20, 1, 3, 8, 4, 2),
        (30, 2, 4, 12, 6, 2),
        (40, 2, 5, 8, 4, 1),
    ):
        width = n_kv_heads * d_model // n_heads
        w_q, w_o = _normal(seed, d_model, d_model), _normal(seed + 1, d_model, d_model)
        w_k, w_v = _normal(seed + 2, width, d_model), _normal(seed + 3, width, d_model)
        yield _normal(seed + 4, batch, seq, d_model), w_q, w_k, w_v, w_o, n_heads, n_kv_heads


def _layer(x: Tensor, w: tuple[Tensor, ...], heads: tuple[int, int], own, attend) -> Tensor:  # type: ignore[no-untyped-def]
    """``own`` gives each query head its keys or values, ``attend`` is the attention."""
    w_q, w_k, w_v, w_o = w
    q = (x @ w_q.T).unflatten(-1, (heads[0], -1)).transpose(1, 2)
    k, v = (
        own((x @ part.T).unflatten(-1, (heads[1], -1)).transpose(1, 2), heads[0])
        for part in (w_k, w_v)
    )
    return attend(q, k, v).transpose(1, 2).flatten(2) @ w_o.T


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention(q, k, v, causal=True)


def grouped(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int, n_kv_heads: int
) -> Tensor:
    """Causal grouped-query attention, (batch, seq, d_model) → the same shape.

    ``w_k`` and ``w_v`` are (n_kv_heads · head_dim, d_model); query head h looks at the keys and
    values of head h // (n_heads / n_kv_heads).
    """
    return _layer(x, (w_q, w_k, w_v, w_o), (n_heads, n_kv_heads), write_out, _causal)


def _heads_in_turns(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int, n_kv_heads: int
) -> Tensor:
    return _layer(x, (w_q, w_k, w_v, w_o), (n_heads, n_kv_heads), _in_turns, _causal)


def _one_head_for_all(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int, n_kv_heads: int
) -> Tensor:
    return _layer(x, (w_q, w_k, w_v, w_o), (n_heads, n_kv_heads), _first_for_all, _causal)


def _unmasked(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int, n_kv_heads: int
) -> Tensor:
    return _layer(x, (w_q, w_k, w_v, w_o), (n_heads, n_kv_heads), write_out, attention)


def _scaled_by_the_group(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int, n_kv_heads: int
) -> Tensor:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_weights(q, k, causal=True, scale=(x.shape[-1] // n_kv_heads) ** -0.5) @ v

    return _layer(x, (w_q, w_k, w_v, w_o), (n_heads, n_kv_heads), write_out, attend)


# Exercise 4: heads merged.


def _pool_cases() -> Iterator[tuple[Tensor, int, int]]:
    yield torch.arange(8, dtype=torch.float64)[:, None], 4, 2
    yield _normal(50, 12, 3), 6, 2
    yield _normal(51, 8, 2), 4, 1


def merge(weight: Tensor, n_heads: int, n_kv_heads: int) -> Tensor:
    """A projection (n_heads · head_dim, d_in) → (n_kv_heads · head_dim, d_in), by group means.

    >>> merge(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), 4, 2).flatten()
    tensor([1.5000, 3.5000])
    """
    return mean_pool_heads(weight, n_heads, n_kv_heads)


def _far_apart(weight: Tensor, n_heads: int, n_kv_heads: int) -> Tensor:
    return weight.unflatten(0, (n_heads // n_kv_heads, n_kv_heads, -1)).mean(0).flatten(0, 1)


def _summed(weight: Tensor, n_heads: int, n_kv_heads: int) -> Tensor:
    return merge(weight, n_heads, n_kv_heads) * (n_heads // n_kv_heads)


def _first_kept(weight: Tensor, n_heads: int, n_kv_heads: int) -> Tensor:
    return first_heads(weight, n_heads, n_kv_heads)


def _rows_not_heads(weight: Tensor, n_heads: int, n_kv_heads: int) -> Tensor:
    return weight.unflatten(0, (-1, n_heads // n_kv_heads)).mean(1)


EXERCISES = [
    Exercise(
        name="gqa.cache_bytes",
        cases=_cache_cases,
        reference=cache_bytes,
        wrong=[
            Wrong(
                _keys_only,
                "Half of it: a value is kept beside every key.",
            ),
            Wrong(
                _every_query_head,
                "This counts keys and values for every query head, as in multi-head attention. "
                "Only n_kv_heads of them are kept.",
            ),
            Wrong(
                _one_layer,
                "This is one layer. Each has keys and values of its own.",
            ),
            Wrong(
                _numbers_not_bytes,
                "These are numbers; each takes `size` bytes.",
            ),
            Wrong(
                _square,
                "These are the weights of attention, which grow with the square of the length and "
                "are not kept. Keys and values grow with the length.",
            ),
        ],
    ),
    Exercise(
        name="gqa.write_out",
        cases=_head_cases,
        reference=write_out,
        wrong=[
            Wrong(
                _in_turns,
                "The heads come in turns: a, b, a, b. A group is query heads side by side, so "
                "the copies of one head stand together: a, a, b, b.",
            ),
            Wrong(
                _along_the_text,
                "The axis of positions is repeated, so every token comes several times. The heads "
                "are the axis before it.",
            ),
            Wrong(
                _first_for_all,
                "The first head serves all queries: that is multi-query attention, and the "
                "other heads are lost.",
            ),
            Wrong(
                _group_as_often_as_heads,
                "Each head is copied n_heads times, so there are too many. It is copied for the "
                "query heads of its group alone.",
            ),
        ],
    ),
    Exercise(
        name="gqa.grouped",
        cases=_layer_cases,
        reference=grouped,
        wrong=[
            Wrong(
                _heads_in_turns,
                "Query heads take keys and values in turns, h modulo n_kv_heads. Neighbours "
                "share: h divided by the size of a group, rounded down.",
            ),
            Wrong(
                _one_head_for_all,
                "All query heads look at the first head of keys and values; the others are never "
                "used.",
            ),
            Wrong(
                _unmasked,
                "Nothing is masked, so every position sees the future.",
            ),
            Wrong(
                _scaled_by_the_group,
                "The scores are divided by the root of d_model / n_kv_heads. Heads are as wide as "
                "ever, d_model / n_heads; there are fewer of them.",
            ),
        ],
    ),
    Exercise(
        name="gqa.merge",
        cases=_pool_cases,
        reference=merge,
        properties=[
            Property(
                "a weight with n_kv_heads · head_dim rows comes out",
                lambda got, weight, n_heads, n_kv_heads: (
                    len(got) * n_heads == len(weight) * n_kv_heads
                ),
            ),
        ],
        wrong=[
            Wrong(
                _far_apart,
                "Heads that stand far apart are merged: 0 with n_kv_heads and so on. Queries of "
                "a group stand side by side, and so do the heads that they will share.",
            ),
            Wrong(
                _summed,
                "This is the sum over a group. Keys as many times too large give scores as many "
                "times too large, and the softmax saturates.",
            ),
            Wrong(
                _first_kept,
                "The first head of each group is kept and the others are thrown away; the mean "
                "keeps something of each.",
            ),
            Wrong(
                _rows_not_heads,
                "Neighbouring rows are averaged, which mixes the channels inside one head. "
                "Cut the rows into heads first.",
            ),
        ],
    ),
]
