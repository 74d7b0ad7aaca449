"""Chapter 09, the transformer: its exercises and the mistakes learners make there."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong

Layer = Callable[[Tensor], Tensor]


# Exercise 1: how many parameters.


def _size_cases() -> Iterator[tuple[int, int, int, int]]:
    yield 32000, 32, 4096, 11008
    yield 10, 1, 4, 6
    yield 84, 3, 48, 128


def count(vocab_size: int, n_layers: int, d_model: int, d_ff: int) -> int:
    """Parameters of a Llama: no biases, a gate in the MLP, an output layer of its own.

    >>> count(32000, 32, 4096, 11008)
    6738415616
    """
    return _count(vocab_size, n_layers, d_model, d_ff)


def _count(
    vocab_size: int,
    n_layers: int,
    d: int,
    d_ff: int,
    *,
    matrices: int = 3,
    ends: int = 2,
    last_norm: int = 1,
    norm: int = 1,
) -> int:
    block = 4 * d * d + matrices * d * d_ff + 2 * norm * d
    return ends * vocab_size * d + n_layers * block + last_norm * norm * d


def _tied(vocab_size: int, n_layers: int, d_model: int, d_ff: int) -> int:
    return _count(vocab_size, n_layers, d_model, d_ff, ends=1)


def _without_gate(vocab_size: int, n_layers: int, d_model: int, d_ff: int) -> int:
    return _count(vocab_size, n_layers, d_model, d_ff, matrices=2)


def _without_last_norm(vocab_size: int, n_layers: int, d_model: int, d_ff: int) -> int:
    return _count(vocab_size, n_layers, d_model, d_ff, last_norm=0)


def _layer_norms(vocab_size: int, n_layers: int, d_model: int, d_ff: int) -> int:
    return _count(vocab_size, n_layers, d_model, d_ff, norm=2)


# Exercise 2: the whole model.


def _double(x: Tensor) -> Tensor:
    return 2 * x


def _turn(x: Tensor) -> Tensor:
    return x.flip(-1) + 1


def _norm(x: Tensor) -> Tensor:
    return x / (x**2).mean(-1, keepdim=True).sqrt()


def _model_cases() -> Iterator[tuple[Tensor, Tensor, Sequence[Layer], Layer]]:
    towers: list[list[Layer]] = [
        [_double, _turn],
        [_turn, torch.tanh, _double],
        [_double, _turn, _double, _turn],
    ]
    for seed, (vocab, d_model) in enumerate(((5, 3), (4, 4), (7, 2))):
        random = np.random.default_rng(seed)
        ids = torch.tensor(random.integers(vocab, size=(2, 3)))
        table = torch.tensor(random.normal(size=(vocab, d_model)))
        yield ids, table, towers[seed], _norm


def logits(ids: Tensor, table: Tensor, blocks: Sequence[Layer], norm: Layer) -> Tensor:
    """A decoder with tied weights: ids (batch, seq), table (vocab, d) → (batch, seq, vocab).

    >>> logits(torch.tensor([[0, 1]]), torch.eye(2), [], lambda x: x)
    tensor([[[1., 0.],
             [0., 1.]]])
    """
    x = table[ids]
    for block in blocks:
        x = block(x)
    return norm(x) @ table.T


def _no_last_norm(ids: Tensor, table: Tensor, blocks: Sequence[Layer], norm: Layer) -> Tensor:
    return logits(ids, table, blocks, lambda x: x)


def _norm_first(ids: Tensor, table: Tensor, blocks: Sequence[Layer], norm: Layer) -> Tensor:
    return logits(ids, table, [norm, *blocks], lambda x: x)


def _norm_each(ids: Tensor, table: Tensor, blocks: Sequence[Layer], norm: Layer) -> Tensor:
    return logits(ids, table, [f for block in blocks for f in (block, norm)], lambda x: x)


def _added_again(ids: Tensor, table: Tensor, blocks: Sequence[Layer], norm: Layer) -> Tensor:
    x = table[ids]
    for block in blocks:
        x = x + block(x)
    return norm(x) @ table.T


def _first_block_only(ids: Tensor, table: Tensor, blocks: Sequence[Layer], norm: Layer) -> Tensor:
    return logits(ids, table, [blocks[0]] * len(blocks), norm)


def _side_by_side(ids: Tensor, table: Tensor, blocks: Sequence[Layer], norm: Layer) -> Tensor:
    x = table[ids]
    total = x
    for block in blocks:
        total = total + block(x)
    return norm(total) @ table.T


# Exercise 3: queries, keys and values that a file keeps as one.


def _fused_cases() -> Iterator[tuple[Tensor, int]]:
    for n_heads, head_dim in ((2, 2), (3, 1), (2, 3)):
        d_model = n_heads * head_dim
        yield torch.arange(3.0 * d_model**2).view(3 * d_model, d_model), n_heads


def split_fused(fused: Tensor, n_heads: int) -> Tensor:
    """Weights of queries, keys and values, (3, d_model, d_model), from one (3 d_model, d_model).

    The rows of ``fused`` go head by head, and in each head queries, keys, values: GPT-NeoX.

    >>> split_fused(torch.arange(6.0).view(6, 1), n_heads=2).flatten(1)
    tensor([[0., 3.],
            [1., 4.],
            [2., 5.]])
    """
    return fused.unflatten(0, (n_heads, 3, -1)).transpose(0, 1).flatten(1, 2)


def _as_gpt2(fused: Tensor, n_heads: int) -> Tensor:
    return torch.stack(fused.chunk(3))


def _one_row_each(fused: Tensor, n_heads: int) -> Tensor:
    return torch.stack([fused[part::3] for part in range(3)])


def _keys_first(fused: Tensor, n_heads: int) -> Tensor:
    return split_fused(fused, n_heads)[[1, 0, 2]]


def _turned(fused: Tensor, n_heads: int) -> Tensor:
    return split_fused(fused, n_heads).mT


EXERCISES = [
    Exercise(
        name="transformer.count",
        cases=_size_cases,
        reference=count,
        wrong=[
            Wrong(
                _tied,
                "The matrix of the logits is missing. Llama does not tie: a table at the entrance "
                "and one at the exit.",
            ),
            Wrong(
                _without_gate,
                "The feed-forward part has two matrices here. A gated one has three: gate, up and "
                "down.",
            ),
            Wrong(
                _without_last_norm,
                "The norm between the last block and the logits is missing: a gain for each of the "
                "d_model channels.",
            ),
            Wrong(
                _layer_norms,
                "The norms have a bias here. RMSNorm has a gain and nothing else.",
            ),
        ],
    ),
    Exercise(
        name="transformer.logits",
        cases=_model_cases,
        reference=logits,
        properties=[
            Property(
                "there is one logit for each row of the table, at each position",
                lambda received, ids, table, *_: received.shape == (*ids.shape, len(table)),
            ),
        ],
        wrong=[
            Wrong(
                _no_last_norm,
                "The norm before the logits is missing. The residual stream of pre-norm blocks is "
                "never normalised on its way, so this has to happen at the end.",
            ),
            Wrong(
                _norm_first,
                "The norm is applied to the embedding and not after the last block. What the "
                "output layer reads is the stream at its end.",
            ),
            Wrong(
                _norm_each,
                "The norm is applied after every block. That overwrites the residual stream; one "
                "norm, after the last block, is enough.",
            ),
            Wrong(
                _added_again,
                "x is added to what a block returns. A block has its residual connections inside "
                "and returns the whole stream.",
            ),
            Wrong(
                _first_block_only,
                "The same block is applied each time. Each layer has weights of its own; take the "
                "next element of blocks in each round.",
            ),
            Wrong(
                _side_by_side,
                "All blocks read the embedding. Each block reads what the one before returned.",
            ),
        ],
    ),
    Exercise(
        name="transformer.split_fused",
        cases=_fused_cases,
        reference=split_fused,
        properties=[
            Property(
                "there are three square matrices",
                lambda received, fused, n_heads: received.shape == (3, *2 * fused.shape[1:]),
            ),
        ],
        wrong=[
            Wrong(
                _as_gpt2,
                "Cut into three thirds, as in GPT-2's file. Here the first third holds queries, "
                "keys and values of the first heads.",
            ),
            Wrong(
                _one_row_each,
                "Every third row is taken. Inside a head all rows of the query come first, then "
                "all of the key, then all of the value.",
            ),
            Wrong(_keys_first, "Queries and keys are in each other's place."),
            Wrong(
                _turned,
                "The matrices are transposed. This file keeps (d_out, d_in), as nn.Linear does.",
            ),
        ],
    ),
]
