"""Chapter 24, forensics: its exercises, and the ways in which referees go wrong themselves."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong

Logits = Callable[[Tensor], Tensor]
V = 5
ROUNDING = 1e-6
"""Changes of a logit up to this are rounding, in single precision as well."""


# Exercise 1: the first output that looks ahead.


def _tokens(ids: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(ids, V).double()


def _honest(ids: Tensor) -> Tensor:
    """Running sums: everything up to now."""
    return _tokens(ids).cumsum(1)


def _whole(ids: Tensor) -> Tensor:
    """Divided by a number of the whole window."""
    x = _tokens(ids) * (1.0 + torch.arange(V))
    return x / x.square().mean((1, 2), keepdim=True).sqrt()


def _next_one(ids: Tensor) -> Tensor:
    """Each position sees the one behind it."""
    x = _tokens(ids)
    return x + torch.cat([x[:, 1:], 0 * x[:, :1]], dim=1)


def _balanced(ids: Tensor) -> Tensor:
    """The future moves two logits in opposite ways: their sum stays."""
    x = _tokens(ids)
    ahead = torch.cat([ids[:, 1:], 0 * ids[:, :1]], dim=1).double()
    return x + torch.stack([ahead, -ahead, *[0 * ahead] * (V - 2)], dim=-1)


def _second_row_only(ids: Tensor) -> Tensor:
    """A leak in the second row of a batch."""
    x = _honest(ids)
    x[1:] = _next_one(ids[1:])
    return x


MODELS: dict[str, Logits] = {
    "honest": _honest,
    "whole": _whole,
    "next": _next_one,
    "balanced": _balanced,
    "second row": _second_row_only,
}
"""By name, so that a case of an exercise is data."""


def _model_cases() -> Iterator[tuple[Logits, Tensor]]:
    ids = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    for model in MODELS.values():
        yield model, ids


def first_leak(model: Logits, ids: Tensor) -> int:
    """The first position whose logits move when the last id of each row is changed; −1 for none.

    Up to ``ROUNDING`` is no move.

    ``ids`` (batch, seq) are below 5; the last position itself may move.

    >>> first_leak(MODELS["next"], torch.tensor([[0, 1, 2, 3]]))
    2
    """
    changed = ids.clone()
    changed[:, -1] = (ids[:, -1] + 1) % V
    moved = (model(ids) - model(changed)).abs().amax((0, 2))[:-1]
    places = (moved > ROUNDING).nonzero()
    return int(places[0]) if len(places) else -1


def _last_too(model: Logits, ids: Tensor) -> int:
    changed = ids.clone()
    changed[:, -1] = (ids[:, -1] + 1) % V
    moved = (model(ids) - model(changed)).abs().amax((0, 2))
    return int((moved > ROUNDING).nonzero()[0])


def _past_changed(model: Logits, ids: Tensor) -> int:
    changed = ids.clone()
    changed[:, 0] = (ids[:, 0] + 1) % V
    moved = (model(ids) - model(changed)).abs().amax((0, 2))[:-1]
    places = (moved > ROUNDING).nonzero()
    return int(places[0]) if len(places) else -1


def _summed(model: Logits, ids: Tensor) -> int:
    changed = ids.clone()
    changed[:, -1] = (ids[:, -1] + 1) % V
    moved = (model(ids) - model(changed)).sum((0, 2)).abs()[:-1]
    places = (moved > ROUNDING).nonzero()
    return int(places[0]) if len(places) else -1


def _one_row(model: Logits, ids: Tensor) -> int:
    changed = ids.clone()
    changed[:, -1] = (ids[:, -1] + 1) % V
    moved = (model(ids) - model(changed))[0].abs().amax(1)[:-1]
    places = (moved > ROUNDING).nonzero()
    return int(places[0]) if len(places) else -1


def _in_place(model: Logits, ids: Tensor) -> int:
    before = model(ids)
    same = ids  # no copy: both names mean one tensor
    same[:, -1] = (same[:, -1] + 1) % V
    moved = (model(ids) - model(same)).abs().amax((0, 2))[:-1] + 0 * before.sum()
    same[:, -1] = (same[:, -1] - 1) % V
    places = (moved > ROUNDING).nonzero()
    return int(places[0]) if len(places) else -1


# Exercise 2: tokens from the sizes of files.


def _file_cases() -> Iterator[tuple[float, int, float, int]]:
    yield 2.72e12, 4_591_240_837, 66e6, 111_785_382
    yield 1000.0, 4000, 100.0, 400
    yield 540.8e6, 2_250_000_000, 546e3, 22_500_000
    yield 5e6, 400, 10.0, 8


def claim_factor(
    claimed: float, train_bytes: int, held_out_tokens: float, held_out_bytes: int
) -> float:
    """By what factor a claimed number of training tokens exceeds what the files allow.

    Both files hold the same kind of text, packed alike. 1 is a claim that fits.

    >>> claim_factor(1000, 4000, 100, 400)
    1.0
    """
    return claimed / (held_out_tokens * train_bytes / held_out_bytes)


def _turned_over(
    claimed: float, train_bytes: int, held_out_tokens: float, held_out_bytes: int
) -> float:
    return held_out_tokens * train_bytes / held_out_bytes / claimed


def _bytes_are_tokens(
    claimed: float, train_bytes: int, held_out_tokens: float, held_out_bytes: int
) -> float:
    return claimed / train_bytes


def _wrong_ratio(
    claimed: float, train_bytes: int, held_out_tokens: float, held_out_bytes: int
) -> float:
    return claimed / (held_out_tokens * held_out_bytes / train_bytes)


def _ratio_of_counts(
    claimed: float, train_bytes: int, held_out_tokens: float, held_out_bytes: int
) -> float:
    return claimed / held_out_tokens


# Exercise 3: a difference that is more than noise.


def _spread_cases() -> Iterator[tuple[float, float, int]]:
    yield 0.77, 0.1, 1
    yield 0.77, 0.5, 1
    yield -0.77, 0.1, 1
    yield 0.77, 0.35, 1  # between 1.96 σ and 1.96 √2 σ
    yield 0.77, 0.5, 4
    yield 0.05, 0.1, 3
    yield 0.1, 0.1, 12
    yield 0.0, 0.1, 5


def is_told(difference: float, spread: float, n_runs: int) -> bool:
    """Whether a difference of two means of ``n_runs`` each is told at 95 %.

    ``spread`` is the standard deviation of one run, and known.

    >>> is_told(0.77, 0.1, 1), is_told(0.77, 0.5, 1)
    (True, False)
    """
    return abs(difference) > 1.96 * spread * math.sqrt(2 / n_runs)


def _one_sided_noise(difference: float, spread: float, n_runs: int) -> bool:
    return abs(difference) > 1.96 * spread / math.sqrt(n_runs)


def _signed(difference: float, spread: float, n_runs: int) -> bool:
    return difference > 1.96 * spread * math.sqrt(2 / n_runs)


def _runs_forgotten(difference: float, spread: float, n_runs: int) -> bool:
    return abs(difference) > 1.96 * spread * math.sqrt(2)


def _any_difference(difference: float, spread: float, n_runs: int) -> bool:
    return difference != 0


def _one_deviation(difference: float, spread: float, n_runs: int) -> bool:
    return abs(difference) > spread * math.sqrt(2 / n_runs)


EXERCISES = [
    Exercise(
        name="forensics.first_leak",
        reference=first_leak,
        cases=_model_cases,
        properties=[
            Property(
                "the result is a whole number, −1 or more",
                lambda place, model, ids: isinstance(place, int) and place >= -1,
            ),
        ],
        wrong=[
            Wrong(
                _last_too,
                "The last position is asked as well. It may move: it has read the id that was "
                "changed. Only what stands before it must stay.",
            ),
            Wrong(
                _past_changed,
                "The first id is changed. That the future depends on the past is what a language "
                "model is for; change a late id and look at what comes before it.",
            ),
            Wrong(
                _summed,
                "Changes are added up with their signs. A leak that raises one logit and lowers "
                "another cancels out: take absolute values first.",
            ),
            Wrong(
                _one_row,
                "Only the first row of the batch is looked at. A leak may need certain ids: look "
                "at all rows.",
            ),
            Wrong(
                _in_place,
                "The ids are changed in place, so both runs read the same ones and nothing ever "
                "moves: clone first.",
            ),
        ],
    ),
    Exercise(
        name="forensics.claim_factor",
        reference=claim_factor,
        cases=_file_cases,
        wrong=[
            Wrong(
                _turned_over,
                "The ratio is upside down: a claim that is too large must give more than 1.",
            ),
            Wrong(
                _bytes_are_tokens,
                "Bytes are taken for tokens. The held-out file tells how many bytes a token takes.",
            ),
            Wrong(
                _wrong_ratio,
                "The sizes are the wrong way round: the larger file has more tokens, not fewer.",
            ),
            Wrong(
                _ratio_of_counts,
                "The files were not used: that is how many times more tokens are claimed, and the "
                "training file is larger too.",
            ),
        ],
    ),
    Exercise(
        name="forensics.is_told",
        reference=is_told,
        cases=_spread_cases,
        wrong=[
            Wrong(
                _one_sided_noise,
                "Only one of the two means is taken to be noisy. Both are: the variance of a "
                "difference is the sum of both variances.",
            ),
            Wrong(
                _signed,
                "The sign matters here, and should not: a difference can be told in both "
                "directions.",
            ),
            Wrong(
                _runs_forgotten,
                "The number of runs has no part in it. A mean of n runs has a standard deviation "
                "smaller by √n.",
            ),
            Wrong(
                _any_difference,
                "Every difference is told. Two runs of the same thing differ too.",
            ),
            Wrong(
                _one_deviation,
                "One standard deviation is too little: in about one of three studies of nothing "
                "the difference is larger. 95 % takes 1.96.",
            ),
        ],
    ),
]
