"""Chapter 21, generation: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong

Probs = Sequence[float]

# Exercise 1: the nucleus of each row. Sums of powers of two meet an edge exactly.


def _nucleus_cases() -> Iterator[tuple[Tensor, float]]:
    yield torch.tensor([[0.1, 0.5, 0.15, 0.25]], dtype=torch.float64), 0.6
    yield torch.tensor([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75]]), 0.5
    yield torch.tensor([[0.2, 0.3, 0.1, 0.4], [0.05, 0.9, 0.03, 0.02]], dtype=torch.float64), 0.85
    yield torch.tensor([[0.05, 0.9, 0.05]], dtype=torch.float64), 0.3
    yield torch.tensor([[0.125, 0.25, 0.125, 0.5]]), 1.0


def nucleus(probs: Tensor, p: float) -> Tensor:
    """True for the fewest likely tokens of each row with probability ``p`` or more together.

    >>> nucleus(torch.tensor([[0.1, 0.5, 0.15, 0.25]]), 0.6)
    tensor([[False,  True, False,  True]])
    """
    ordered, order = probs.sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return _back(order, before < p)


def _back(order: Tensor, kept: Tensor) -> Tensor:
    """What is said of ranks, said of ids."""
    return torch.zeros_like(kept).scatter(-1, order, kept)


def _without_the_crossing(probs: Tensor, p: float) -> Tensor:
    ordered, order = probs.sort(descending=True, stable=True)
    return _back(order, ordered.cumsum(-1) <= p)


def _one_too_many(probs: Tensor, p: float) -> Tensor:
    ordered, order = probs.sort(descending=True, stable=True)
    n_kept = (ordered.cumsum(-1) - ordered < p).sum(-1, keepdim=True)
    return _back(order, torch.arange(probs.shape[-1]) <= n_kept)


def _unsorted(probs: Tensor, p: float) -> Tensor:
    return probs.cumsum(-1) - probs < p


def _by_rank(probs: Tensor, p: float) -> Tensor:
    ordered = probs.sort(descending=True, stable=True).values
    return ordered.cumsum(-1) - ordered < p


def _more_than_p(probs: Tensor, p: float) -> Tensor:
    ordered, order = probs.sort(descending=True, stable=True)
    return _back(order, ordered.cumsum(-1) - ordered <= p)


# Exercise 2: one step of a beam search. Sums of logs meet no ties.


def _beam_cases() -> Iterator[tuple[list[float], Tensor, int]]:
    yield [0.0], torch.tensor([[0.5, 0.2, 0.3]]).log(), 2
    yield [math.log(0.6), math.log(0.4)], torch.tensor([[0.55, 0.45], [0.9, 0.1]]).log(), 2
    yield [-1.0, -1.5], torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]]).log(), 2
    yield [-4.0, -2.0, -6.0], torch.randn(3, 6, generator=_seeded(0)).log_softmax(-1), 3
    yield [-1.0, -1.1], (3 * torch.randn(2, 5, generator=_seeded(1))).log_softmax(-1), 4


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def beam_step(totals: Sequence[float], log_probs: Tensor, width: int) -> list[tuple[int, int]]:
    """The (beam, id) of the ``width`` likeliest texts that are one token longer, best first.

    >>> beam_step([-1.0, -2.0], torch.tensor([[0.1, 0.9], [0.5, 0.5]]).log(), 2)
    [(0, 1), (1, 0)]
    """
    return _best(torch.tensor(totals)[:, None] + log_probs, width)


def _best(scores: Tensor, width: int, *, largest: bool = True) -> list[tuple[int, int]]:
    order = scores.flatten().sort(descending=largest, stable=True).indices[:width].tolist()
    return [divmod(place, scores.shape[1]) for place in order]


def _newest_only(totals: Sequence[float], log_probs: Tensor, width: int) -> list[tuple[int, int]]:
    return _best(log_probs, width)


def _one_of_each(totals: Sequence[float], log_probs: Tensor, width: int) -> list[tuple[int, int]]:
    scores = torch.tensor(totals)[:, None] + log_probs
    best = [(float(row.max()), beam, int(row.argmax())) for beam, row in enumerate(scores)]
    return [(beam, id) for _, beam, id in sorted(best, reverse=True)[:width]]


def _of_the_best_beam(
    totals: Sequence[float], log_probs: Tensor, width: int
) -> list[tuple[int, int]]:
    beam = max(range(len(totals)), key=totals.__getitem__)
    return [(beam, id) for _, id in _best(log_probs[beam][None], width)]


def _logs_multiplied(
    totals: Sequence[float], log_probs: Tensor, width: int
) -> list[tuple[int, int]]:
    return _best(torch.tensor(totals)[:, None] * log_probs, width)


def _least_likely(totals: Sequence[float], log_probs: Tensor, width: int) -> list[tuple[int, int]]:
    return _best(torch.tensor(totals)[:, None] + log_probs, width, largest=False)


# Exercise 3: one proposal of a draft, and what comes out in the end.


def _proposal_cases() -> Iterator[tuple[list[float], list[float], int]]:
    for proposed in range(3):
        yield [0.6, 0.3, 0.1], [0.3, 0.5, 0.2], proposed
    yield [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], 0
    yield [0.0, 0.5, 0.5], [0.5, 0.25, 0.25], 0
    yield [0.2, 0.5, 0.3], [0.2, 0.3, 0.5], 2


def after_proposal(p: Probs, q: Probs, proposed: int) -> list[float]:
    """Probabilities of the id that comes out, when the draft ``q`` has proposed this one.

    >>> after_proposal([0.5, 0.5], [1.0, 0.0], 0)
    [0.5, 0.5]
    """
    return _accept_or(p, q, proposed, [max(0.0, a - b) for a, b in zip(p, q, strict=True)])


def _accept_or(p: Probs, q: Probs, proposed: int, instead: Probs) -> list[float]:
    accepted = min(1.0, p[proposed] / q[proposed])
    total = sum(instead) or 1.0
    out = [(1 - accepted) * share / total for share in instead]
    out[proposed] += accepted
    return out


def _from_p(p: Probs, q: Probs, proposed: int) -> list[float]:
    return _accept_or(p, q, proposed, p)


def _from_p_without_it(p: Probs, q: Probs, proposed: int) -> list[float]:
    others = [0.0 if id == proposed else share for id, share in enumerate(p)]
    return _accept_or(p, q, proposed, others)


def _from_q(p: Probs, q: Probs, proposed: int) -> list[float]:
    return _accept_or(p, q, proposed, q)


def _likelier_always(p: Probs, q: Probs, proposed: int) -> list[float]:
    lacking = [max(0.0, a - b) for a, b in zip(p, q, strict=True)]
    total = sum(lacking) or 1.0
    if p[proposed] >= q[proposed]:
        return [float(id == proposed) for id in range(len(p))]
    return [share / total for share in lacking]


def _by_its_own_probability(p: Probs, q: Probs, proposed: int) -> list[float]:
    lacking = [max(0.0, a - b) for a, b in zip(p, q, strict=True)]
    total = sum(lacking) or 1.0
    out = [(1 - p[proposed]) * share / total for share in lacking]
    out[proposed] += p[proposed]
    return out


EXERCISES = [
    Exercise(
        name="generation.nucleus",
        cases=_nucleus_cases,
        reference=nucleus,
        wrong=[
            Wrong(
                _without_the_crossing,
                "The token that crosses p is left out, so what stays holds less than p, and "
                "nothing at all where the likeliest alone holds more. Ask what the tokens *before* "
                "it hold.",
            ),
            Wrong(
                _one_too_many,
                "One token more than needed stays: p was reached before it. Stop as soon as those "
                "kept hold p.",
            ),
            Wrong(
                _unsorted,
                "The probabilities are added up in the order of the ids. The nucleus begins with "
                "the likeliest token, so sort first.",
            ),
            Wrong(
                _by_rank,
                "These are ranks, not ids: after sorting, place 0 is the likeliest token, whatever "
                "its id. Carry the ids along.",
            ),
            Wrong(
                _more_than_p,
                "A token is kept although those before it hold exactly p already. Enough is p or "
                "more.",
            ),
        ],
    ),
    Exercise(
        name="generation.beam_step",
        cases=_beam_cases,
        reference=beam_step,
        wrong=[
            Wrong(
                _newest_only,
                "The texts are compared by their newest token alone. A text's logarithm is the sum "
                "over all its tokens: add the beam's total first.",
            ),
            Wrong(
                _one_of_each,
                "Each beam keeps one continuation. The best may be two of the same beam, and then "
                "another beam ends: compare all of them together.",
            ),
            Wrong(
                _of_the_best_beam,
                "Only the best beam goes on, which is greedy decoding with more paper. The point "
                "is that another one may overtake it.",
            ),
            Wrong(
                _logs_multiplied,
                "Logarithms are multiplied. Probabilities of tokens multiply, so their logarithms "
                "add up.",
            ),
            Wrong(
                _least_likely,
                "The smallest sums are taken. Logarithms of probabilities are negative, and the "
                "nearest to 0 is the likeliest.",
            ),
        ],
    ),
    Exercise(
        name="generation.after_proposal",
        cases=_proposal_cases,
        reference=after_proposal,
        properties=[
            Property(
                "the probabilities sum to 1",
                lambda out, p, q, proposed: abs(sum(out) - 1) < 1e-9,
            )
        ],
        wrong=[
            Wrong(
                _from_p,
                "After a rejection the id is drawn from p. But p has had its share by acceptance "
                "already: tokens that the draft likes come out too often. Draw from what the "
                "draft gave too little, max(0, p − q).",
            ),
            Wrong(
                _from_p_without_it,
                "After a rejection the id is drawn from p without the rejected token. Other tokens "
                "that the draft likes too much still come out too often: draw from max(0, p − q).",
            ),
            Wrong(
                _from_q,
                "After a rejection the draft is asked again. That brings in more of q, where the "
                "text should follow p: draw from max(0, p − q).",
            ),
            Wrong(
                _likelier_always,
                "Accepted or not is decided without a draw. A proposal that the draft likes too "
                "much must still be accepted with probability p/q.",
            ),
            Wrong(
                _by_its_own_probability,
                "The proposal is accepted with probability p. It was already drawn with "
                "probability q, so that p is met when it is accepted with p/q (1 at most).",
            ),
        ],
    ),
]
