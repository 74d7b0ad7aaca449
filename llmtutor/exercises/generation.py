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


# Exercise 2: min-p on logits.


def _min_p_cases() -> Iterator[tuple[Tensor, float]]:
    yield torch.tensor([[2.0, 1.0, 0.5, -1.0]]), 0.3
    yield torch.tensor([[3.0, 2.5, -2.0], [-1.0, -1.5, -4.0]]), 0.1
    yield torch.tensor([[0.0, 0.1, -0.1, 0.2, 0.05, -0.2]]), 0.5
    yield torch.tensor([[-3.0, -1.0, -2.0], [1.0, 0.0, 1.0]]), 1.0
    yield torch.tensor([[6.0, 4.5, 1.0]]), 0.2


def min_p(logits: Tensor, p: float) -> Tensor:
    """Logits with −inf for each token less than ``p`` times as likely as the likeliest of its row.

    >>> min_p(torch.tensor([[2.0, 1.0, 0.0]]), 0.3)
    tensor([[2., 1., -inf]])
    """
    return _cut(logits, logits.amax(-1, keepdim=True) + math.log(p))


def _cut(logits: Tensor, floor: Tensor | float) -> Tensor:
    return logits.masked_fill(logits < floor, -math.inf)


def _against_one(logits: Tensor, p: float) -> Tensor:
    return logits.masked_fill(logits.softmax(-1) < p, -math.inf)


def _ratio_of_logits(logits: Tensor, p: float) -> Tensor:
    return _cut(logits, p * logits.amax(-1, keepdim=True))


def _one_maximum_for_all(logits: Tensor, p: float) -> Tensor:
    return _cut(logits, logits.max() + math.log(p))


def _zero_for_the_rest(logits: Tensor, p: float) -> Tensor:
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(p), 0.0)


def _strictly_above(logits: Tensor, p: float) -> Tensor:
    floor = logits.amax(-1, keepdim=True) + math.log(p)
    return logits.masked_fill(logits <= floor, -math.inf)


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
    stands = min(1.0, p[proposed] / q[proposed])
    total = sum(instead) or 1.0
    out = [(1 - stands) * share / total for share in instead]
    out[proposed] += stands
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


# Exercise 4: which token a second head is asked for.


def _second_cases() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for batch, seq, vocab in ((1, 3, 4), (2, 6, 5), (3, 9, 7)):
        ahead = 3 * torch.randn(batch, seq - 1, vocab, generator=generator, dtype=torch.float64)
        yield ahead, torch.randint(vocab, (batch, seq), generator=generator)


def second_loss(ahead: Tensor, ids: Tensor) -> Tensor:
    """Mean nats of a second head, whose row t was made of h_t and token t + 1.

    >>> ahead = torch.tensor([[[0.0, 9.0], [5.0, 5.0]]])  # the second row's target is not in ids
    >>> second_loss(ahead, torch.tensor([[0, 0, 1]]))
    tensor(0.0001)
    """
    return _mean_nats(ahead[:, :-1], ids[:, 2:])


def _mean_nats(logits: Tensor, targets: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, targets[..., None]).mean()


def _what_it_was_told(ahead: Tensor, ids: Tensor) -> Tensor:
    return _mean_nats(ahead, ids[:, 1:])


def _where_it_stands(ahead: Tensor, ids: Tensor) -> Tensor:
    return _mean_nats(ahead, ids[:, :-1])


def _around_the_end(ahead: Tensor, ids: Tensor) -> Tensor:
    return _mean_nats(ahead, ids.roll(-2, 1)[:, :-1])


def _rows_shifted(ahead: Tensor, ids: Tensor) -> Tensor:
    return _mean_nats(ahead[:, 1:], ids[:, 2:])


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
        name="generation.min_p",
        cases=_min_p_cases,
        reference=min_p,
        wrong=[
            Wrong(
                _against_one,
                "The threshold is p itself, as if the likeliest token always had probability 1. It "
                "is p times the largest probability: low where the model is unsure.",
            ),
            Wrong(
                _ratio_of_logits,
                "The largest *logit* is multiplied by p. A ratio of probabilities is a difference "
                "of logits: add log p to the largest.",
            ),
            Wrong(
                _one_maximum_for_all,
                "One maximum is taken for the whole batch, so a confident row empties the others. "
                "Each row has its own.",
            ),
            Wrong(
                _zero_for_the_rest,
                "Rejected tokens get the logit 0. After the softmax that is e⁰, not nothing; only "
                "−inf becomes probability 0.",
            ),
            Wrong(
                _strictly_above,
                "A token exactly at the threshold goes, and with p = 1 the likeliest goes with it. "
                "At the threshold a token stays.",
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
                "After a refusal the id is drawn from p. But p has had its share by acceptance "
                "already: tokens that the draft likes come out too often. Draw from what the "
                "draft gave too little, max(0, p − q).",
            ),
            Wrong(
                _from_p_without_it,
                "After a refusal the id is drawn from p without the refused token. Other tokens "
                "that the draft likes too much still come out too often: draw from max(0, p − q).",
            ),
            Wrong(
                _from_q,
                "After a refusal the draft is asked again. That brings in more of q, where the "
                "text should follow p: draw from max(0, p − q).",
            ),
            Wrong(
                _likelier_always,
                "Accepted or not is decided without a draw. A proposal that the draft likes too "
                "much must still stand with probability p/q.",
            ),
            Wrong(
                _by_its_own_probability,
                "The proposal stands with probability p. It was already drawn with probability q, "
                "so that p is met when it stands with p/q (1 at most).",
            ),
        ],
    ),
    Exercise(
        name="generation.second_loss",
        cases=_second_cases,
        reference=second_loss,
        wrong=[
            Wrong(
                _what_it_was_told,
                "The target is token t + 1. The shapes fit, but that token went into the row: the "
                "head would learn to copy it. Ask for the one after.",
            ),
            Wrong(
                _where_it_stands,
                "The target is token t, which h_t was made of. Nothing is predicted: the head is "
                "two places behind.",
            ),
            Wrong(
                _around_the_end,
                "roll takes the first token of the text as what comes after its end. The last row "
                "has no target: leave it out.",
            ),
            Wrong(
                _rows_shifted,
                "The rows are shifted as well, so each is asked for token t + 1 again. It is the "
                "last row that has no target, not the first.",
            ),
        ],
    ),
]
