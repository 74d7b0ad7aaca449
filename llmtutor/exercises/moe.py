"""Chapter 18, moe: its exercises and the mistakes learners make there."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


# Exercise 1: parameters, of all experts and of those that a token uses.


def _size_cases() -> Iterator[tuple[int, int, int, int]]:
    yield 4, 8, 4, 2
    yield 4096, 14336, 8, 2
    yield 2048, 768, 128, 8
    yield 16, 10, 5, 1


def parameters(d_model: int, d_ff: int, n_experts: int, top_k: int) -> tuple[int, int]:
    """Parameters of one layer of gated experts with its router: all, and those that a token uses.

    >>> parameters(4, 8, 4, 2)
    (400, 208)
    """
    expert, router = 3 * d_model * d_ff, d_model * n_experts
    return n_experts * expert + router, top_k * expert + router


def _two_matrices(d_model: int, d_ff: int, n_experts: int, top_k: int) -> tuple[int, int]:
    expert, router = 2 * d_model * d_ff, d_model * n_experts
    return n_experts * expert + router, top_k * expert + router


def _no_router(d_model: int, d_ff: int, n_experts: int, top_k: int) -> tuple[int, int]:
    expert = 3 * d_model * d_ff
    return n_experts * expert, top_k * expert


def _router_of_the_chosen(d_model: int, d_ff: int, n_experts: int, top_k: int) -> tuple[int, int]:
    expert = 3 * d_model * d_ff
    return n_experts * (expert + d_model), top_k * (expert + d_model)


# Exercise 2: from logits to weights.


def _logit_cases() -> Iterator[tuple[Tensor, int]]:
    yield torch.tensor([[0.0, 3.0, 2.0, 1.0]], dtype=torch.float64), 2
    yield _normal(1, 6, 4), 2
    yield _normal(2, 5, 8), 3
    yield _normal(3, 4, 3), 1


def route(logits: Tensor, top_k: int) -> Tensor:
    """Weights (tokens, n_experts) of Mixtral's router, 0 for experts that are not chosen.

    >>> route(torch.tensor([[0.0, 1.0, 1.0]]), 2)
    tensor([[0.0000, 0.5000, 0.5000]])
    """
    best = logits.topk(top_k, dim=-1)
    return torch.zeros_like(logits).scatter(-1, best.indices, best.values.softmax(-1))


def _not_normalised(logits: Tensor, top_k: int) -> Tensor:
    p = logits.softmax(-1)
    best = p.topk(top_k, dim=-1)
    return torch.zeros_like(p).scatter(-1, best.indices, best.values)


def _equal_weights(logits: Tensor, top_k: int) -> Tensor:
    best = logits.topk(top_k, dim=-1).indices
    return torch.zeros_like(logits).scatter(-1, best, 1 / top_k)


def _all_experts(logits: Tensor, top_k: int) -> Tensor:
    return logits.softmax(-1)


def _over_tokens(logits: Tensor, top_k: int) -> Tensor:
    k = min(top_k, len(logits))
    best = logits.topk(k, dim=0)
    return torch.zeros_like(logits).scatter(0, best.indices, best.values.softmax(0))


# Exercise 3: who finds room.


def _room_cases() -> Iterator[tuple[Tensor, int]]:
    yield torch.tensor([0, 0, 1, 0, 1, 1]), 2
    yield torch.tensor([2, 2, 2, 2, 0]), 1
    yield torch.tensor(np.random.default_rng(4).integers(0, 4, 24)), 3
    yield torch.tensor([1, 0, 1, 0]), 4


def kept(experts: Tensor, room: int) -> Tensor:
    """Which tokens are kept: True for the first ``room`` of each expert, in the text's order.

    >>> kept(torch.tensor([0, 0, 1, 0]), 2).tolist()
    [True, True, True, False]
    """
    before = (experts[:, None] == experts).tril(-1).sum(1)
    return before < room


def _last_come(experts: Tensor, room: int) -> Tensor:
    return (experts[:, None] == experts).triu(1).sum(1) < room


def _one_short(experts: Tensor, room: int) -> Tensor:
    return (experts[:, None] == experts).tril().sum(1) < room


def _first_of_the_text(experts: Tensor, room: int) -> Tensor:
    return torch.arange(len(experts)) < room * (int(experts.max()) + 1)


# Exercise 4: the loss of balance.


def _loss_cases() -> Iterator[tuple[Tensor]]:
    yield (torch.tensor([[0.0, 1.0], [0.0, 2.0], [1.0, 0.0]], dtype=torch.float64),)
    yield (_normal(5, 40, 4),)
    yield (_normal(6, 30, 8) + 2 * _normal(7, 8),)


def balance_loss(logits: Tensor) -> Tensor:
    """Switch's loss for one expert each: E Σ f_i P_i, from the logits (tokens, n_experts).

    >>> balance_loss(torch.tensor([[4.0, 0.0], [0.0, 4.0]]))
    tensor(1.)
    """
    p, n = logits.softmax(-1), logits.shape[-1]
    share = torch.nn.functional.one_hot(logits.argmax(-1), n).to(p).mean(0)
    return n * (share * p.mean(0)).sum()


def _without_n(logits: Tensor) -> Tensor:
    return balance_loss(logits) / logits.shape[-1]


def _probabilities_twice(logits: Tensor) -> Tensor:
    mean = logits.softmax(-1).mean(0)
    return len(mean) * mean.square().sum()


def _shares_twice(logits: Tensor) -> Tensor:
    n = logits.shape[-1]
    share = torch.nn.functional.one_hot(logits.argmax(-1), n).to(logits).mean(0)
    return n * share.square().sum()


def _each_token(logits: Tensor) -> Tensor:
    p, n = logits.softmax(-1), logits.shape[-1]
    return n * (torch.nn.functional.one_hot(logits.argmax(-1), n) * p).sum(-1).mean()


EXERCISES = [
    Exercise(
        name="moe.parameters",
        cases=_size_cases,
        reference=parameters,
        wrong=[
            Wrong(_two_matrices, "A gated expert has three matrices: gate, up and down."),
            Wrong(_no_router, "The router is missing, a matrix of d_model · n_experts."),
            Wrong(
                _router_of_the_chosen,
                "Only the rows of the chosen experts are counted for a token. To choose, the "
                "router has to score all of them.",
            ),
        ],
    ),
    Exercise(
        name="moe.route",
        cases=_logit_cases,
        reference=route,
        properties=[
            Property(
                "each token has top_k experts with a weight above 0",
                lambda got, logits, top_k: bool(((got > 0).sum(-1) == top_k).all()),
            ),
        ],
        wrong=[
            Wrong(
                _not_normalised,
                "The weights of a token do not sum to 1: they are probabilities among all "
                "experts. Mixtral takes the softmax over those that are chosen.",
            ),
            Wrong(
                _equal_weights,
                "All chosen experts weigh the same, so the router could never learn which of "
                "them is the better one.",
            ),
            Wrong(_all_experts, "Every expert has a weight, so every one would have to work."),
            Wrong(
                _over_tokens,
                "Here experts choose their tokens, along the other axis, and may look at the "
                "future to do so. Each token chooses its experts.",
            ),
        ],
    ),
    Exercise(
        name="moe.kept",
        cases=_room_cases,
        reference=kept,
        wrong=[
            Wrong(
                _last_come,
                "The last ones are kept. Then a token that comes later pushes an earlier one "
                "out: the layer looks into the future.",
            ),
            Wrong(
                _one_short,
                "A token counts itself among those before it, so each expert takes one fewer.",
            ),
            Wrong(
                _first_of_the_text,
                "The whole text is cut, whoever its tokens go to. Each expert counts its own.",
            ),
        ],
    ),
    Exercise(
        name="moe.balance_loss",
        cases=_loss_cases,
        reference=balance_loss,
        wrong=[
            Wrong(
                _without_n,
                "The factor E is missing, so the minimum is 1 / E and a weight would mean "
                "something else for every number of experts.",
            ),
            Wrong(
                _probabilities_twice,
                "The shares of the tokens are missing: this evens the mean probabilities, also "
                "where all tokens go to one expert.",
            ),
            Wrong(
                _shares_twice,
                "The probabilities are missing. Shares are counts and have no gradient, so this "
                "loss would teach nothing.",
            ),
            Wrong(
                _each_token,
                "Product first, then the mean: this makes the router unsure of each token. The "
                "means over tokens come first, and what is even is the whole.",
            ),
        ],
    ),
]
