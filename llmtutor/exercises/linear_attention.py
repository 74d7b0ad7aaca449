"""Chapter 25, linear_attention: its exercises and the mistakes learners make there."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Wrong
from llmtutor.layers.recurrent.delta import delta_rule_recurrent, unit_keys
from llmtutor.layers.recurrent.linear_attention import linear_attention_parallel


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


# Exercise 1: the state.


def _read_cases() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for seed, seq, d_key, d_value in ((0, 2, 2, 1), (10, 5, 3, 2), (20, 6, 2, 4)):
        yield (
            _normal(seed, seq, d_key),
            _normal(seed + 1, seq, d_key),
            _normal(seed + 2, seq, d_value),
        )


def read_from_state(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Outputs (seq, d_value) of linear attention without a normaliser, by a state.

    >>> read_from_state(torch.ones(2, 1), torch.ones(2, 1), torch.tensor([[2.0], [3.0]]))
    tensor([[2.],
            [5.]])
    """
    return linear_attention_parallel(q, k, v)


def _reads_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).tril(-1) @ v


def _sees_all(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT) @ v


def _with_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    future = torch.ones(len(q), len(k), dtype=torch.bool).triu(1)
    return (q @ k.mT).masked_fill(future, -torch.inf).softmax(-1) @ v


def _last_only(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q * k).sum(-1, keepdim=True) * v


# Exercise 2: one write.


def _write_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
    yield torch.zeros(2, 2).double(), torch.tensor([0.6, 0.8]).double(), _normal(30, 2), 1.0
    yield _normal(31, 3, 2), unit_keys(_normal(32, 3), 0.0), _normal(33, 2), 0.5
    yield _normal(34, 4, 4), unit_keys(_normal(35, 4), 0.0), _normal(36, 4), 0.9


def delta_write(state: Tensor, k: Tensor, v: Tensor, beta: float) -> Tensor:
    """The state (d_key, d_value) after v (d_value,) was written under the unit key k (d_key,).

    >>> state, key = torch.tensor([[4.0], [0.0]]), torch.tensor([1.0, 0.0])
    >>> delta_write(state, key, torch.tensor([9.0]), beta=1.0)
    tensor([[9.],
            [0.]])
    """
    return _write(state, k, beta * (v - k @ state))


def _write(state: Tensor, k: Tensor, what: Tensor) -> Tensor:
    return state + k[:, None] * what


def _adds(state: Tensor, k: Tensor, v: Tensor, beta: float) -> Tensor:
    return _write(state, k, beta * v)


def _wrong_way(state: Tensor, k: Tensor, v: Tensor, beta: float) -> Tensor:
    return _write(state, k, beta * (k @ state - v))


def _full_strength(state: Tensor, k: Tensor, v: Tensor, beta: float) -> Tensor:
    return _write(state, k, v - k @ state)


def _beta_on_value(state: Tensor, k: Tensor, v: Tensor, beta: float) -> Tensor:
    return _write(state, k, beta * v - k @ state)


def _fades_all(state: Tensor, k: Tensor, v: Tensor, beta: float) -> Tensor:
    return _write((1 - beta) * state, k, beta * v)


# Exercise 3: what a chunk writes.


def _chunk_cases() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for seed, seq, d_key, d_value in ((40, 2, 2, 1), (50, 4, 3, 2), (60, 6, 4, 4)):
        strengths = torch.sigmoid(_normal(seed + 2, seq))
        yield unit_keys(_normal(seed, seq, d_key), 0.0), _normal(seed + 1, seq, d_value), strengths


def chunk_writes(k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """What each token of a chunk writes, u (seq, d_value), where the state was empty before it.

    >>> chunk_writes(torch.ones(2, 1), torch.tensor([[4.0], [10.0]]), torch.tensor([0.5, 0.5]))
    tensor([[2.],
            [4.]])
    """
    written = []
    state = k.new_zeros(k.shape[1], v.shape[1])
    for t in range(len(k)):
        step = slice(t, t + 1)
        written.append(beta[t] * (v[t] - k[t] @ state))
        _, state = delta_rule_recurrent(k[step], k[step], v[step], beta[step], state=state)
    return torch.stack(written)


def _solved(lower: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.solve(torch.eye(len(lower), dtype=lower.dtype) + lower, right)


def _ignores_the_others(k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    return beta[:, None] * v


def _with_the_diagonal(k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    return _solved((beta[:, None] * (k @ k.mT)).tril(), beta[:, None] * v)


def _both_ways(k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    products = k @ k.mT
    return _solved(beta[:, None] * (products - products.diag().diag()), beta[:, None] * v)


def _one_correction(k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    lower = (beta[:, None] * (k @ k.mT)).tril(-1)
    return beta[:, None] * v - lower @ (beta[:, None] * v)


def _strength_of_the_others(k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    return _solved((beta * (k @ k.mT)).tril(-1), beta[:, None] * v)


EXERCISES = [
    Exercise(
        name="linear_attention.read_from_state",
        cases=_read_cases,
        reference=read_from_state,
        wrong=[
            Wrong(
                _reads_first,
                "The state is read before the token has written. In attention a position sees "
                "itself as well: write first, then read.",
            ),
            Wrong(
                _sees_all,
                "Every query reads the last state, in which the future is. Query t reads the state "
                "as it is after token t.",
            ),
            Wrong(
                _with_softmax,
                "There is a softmax in it. With one, the weights of a query depend on all its "
                "scores, and no sum of keys and values can be made beforehand.",
            ),
            Wrong(
                _last_only,
                "The state is overwritten by each token: only the last pair is in it. Add the "
                "product of key and value to what is there.",
            ),
        ],
    ),
    Exercise(
        name="linear_attention.delta_write",
        cases=_write_cases,
        reference=delta_write,
        wrong=[
            Wrong(
                _adds,
                "This adds, as linear attention does. What the key returns already has to be "
                "taken off the value first.",
            ),
            Wrong(
                _wrong_way,
                "The error has the wrong sign: the state moves away from the value. A step of "
                "gradient descent goes against the gradient, k ⊗ (k S − v).",
            ),
            Wrong(
                _full_strength,
                "Right for β = 1 alone. The error is written as far as β says.",
            ),
            Wrong(
                _beta_on_value,
                "Only the value is scaled by β, so with β = 0 the old value would still be "
                "erased. β scales the whole error.",
            ),
            Wrong(
                _fades_all,
                "The whole state fades, with everything under other keys. Only what this key "
                "returns is to be replaced.",
            ),
        ],
    ),
    Exercise(
        name="linear_attention.chunk_writes",
        cases=_chunk_cases,
        reference=chunk_writes,
        wrong=[
            Wrong(
                _ignores_the_others,
                "Each token writes β v, as if it were alone. What earlier tokens of the chunk "
                "wrote under a similar key has to be taken off.",
            ),
            Wrong(
                _with_the_diagonal,
                "The diagonal is in the system: a token would correct its own write. It reads "
                "the state before it writes, so only i < t counts.",
            ),
            Wrong(
                _both_ways,
                "Later tokens are in the system as well. A token can only know what those before "
                "it have written.",
            ),
            Wrong(
                _one_correction,
                "This takes off what the others would have written alone. But they were "
                "corrected too: the writes stand on both sides of the equation.",
            ),
            Wrong(
                _strength_of_the_others,
                "β of the earlier token stands at its product of keys. u_i has its own β in it "
                "already; row t is scaled by β of token t.",
            ),
        ],
    ),
]
