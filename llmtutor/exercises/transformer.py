"""Chapter 09, the transformer: its exercises and the mistakes learners make there."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong

Layer = Callable[[Tensor], Tensor]


# Exercise 1: how many parameters.


def _size_cases() -> Iterator[tuple[int, int, int, int]]:
    yield 50257, 1024, 12, 768
    yield 10, 7, 1, 4
    yield 84, 64, 3, 48


def count(vocab_size: int, max_seq_len: int, n_layers: int, d_model: int) -> int:
    """Parameters of a GPT-2 with tied weights, biases everywhere and d_ff = 4 d_model.

    >>> count(50257, 1024, 12, 768)
    124439808
    """
    return _count(vocab_size, max_seq_len, n_layers, d_model)


def _count(
    vocab_size: int,
    max_seq_len: int,
    n_layers: int,
    d: int,
    *,
    biases: int = 1,
    heads: int = 0,
    last_norm: int = 1,
) -> int:
    attention = 4 * d * d + biases * 4 * d
    feed_forward = 8 * d * d + biases * 5 * d
    norm = (1 + biases) * d
    blocks = n_layers * (attention + feed_forward + 2 * norm)
    return (1 + heads) * vocab_size * d + max_seq_len * d + blocks + last_norm * norm


def _untied(vocab_size: int, max_seq_len: int, n_layers: int, d_model: int) -> int:
    return _count(vocab_size, max_seq_len, n_layers, d_model, heads=1)


def _without_biases(vocab_size: int, max_seq_len: int, n_layers: int, d_model: int) -> int:
    return _count(vocab_size, max_seq_len, n_layers, d_model, biases=0)


def _without_last_norm(vocab_size: int, max_seq_len: int, n_layers: int, d_model: int) -> int:
    return _count(vocab_size, max_seq_len, n_layers, d_model, last_norm=0)


def _without_positions(vocab_size: int, max_seq_len: int, n_layers: int, d_model: int) -> int:
    return _count(vocab_size, 0, n_layers, d_model)


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


# Exercise 3: how small to start.


def _depth_cases() -> Iterator[tuple[int, float]]:
    yield 2, 1.0
    yield 12, 0.02
    yield 48, 0.1


def writer_std(n_layers: int, std: float) -> float:
    """Deviation at the start of the matrices that write into the residual stream, as in GPT-2.

    >>> writer_std(8, 1.0)
    0.25
    """
    return std / math.sqrt(2 * n_layers)


def _one_write_a_layer(n_layers: int, std: float) -> float:
    return std / math.sqrt(n_layers)


def _by_the_number(n_layers: int, std: float) -> float:
    return std / (2 * n_layers)


def _not_at_all(n_layers: int, std: float) -> float:
    return std


def _variance(n_layers: int, std: float) -> float:
    return std**2 / (2 * n_layers)


EXERCISES = [
    Exercise(
        name="transformer.count",
        cases=_size_cases,
        reference=count,
        wrong=[
            Wrong(
                _untied,
                "The output layer is counted as a matrix of its own. With tied weights it is the "
                "embedding, and a matrix is counted once.",
            ),
            Wrong(
                _without_biases,
                "The biases are missing. GPT-2 has one in every linear layer of a block and in "
                "every LayerNorm; only the output layer has none.",
            ),
            Wrong(
                _without_last_norm,
                "The norm between the last block and the logits is missing: a gain and a bias "
                "for each of the d_model channels.",
            ),
            Wrong(
                _without_positions,
                "The table of learned positions is missing: a vector for each of the max_seq_len "
                "positions.",
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
        name="transformer.writer_std",
        cases=_depth_cases,
        reference=writer_std,
        wrong=[
            Wrong(
                _one_write_a_layer,
                "Divided by √n_layers. A block writes twice, once from attention and once from "
                "the feed-forward part.",
            ),
            Wrong(
                _by_the_number,
                "Divided by the number of writes. It is the variances that add up, so the "
                "deviation is divided by the root of that number.",
            ),
            Wrong(
                _not_at_all,
                "The depth does not appear. Without it the variance of the stream grows with "
                "every layer.",
            ),
            Wrong(
                _variance,
                "This is the variance of a weight. Asked for is the deviation, its root.",
            ),
        ],
    ),
]
