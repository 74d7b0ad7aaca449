"""Chapter 23, export: its exercises and the mistakes learners make there."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Wrong

# Exercise 1: whole numbers.


def _row_cases() -> Iterator[tuple[Tensor, int]]:
    yield torch.tensor([0.13, -0.4, 0.33, 0.7, -0.07, 0.0, 0.26, -0.18]).double(), 4
    yield torch.tensor([-3.0, 1.1, 0.4]).double(), 4
    yield torch.tensor(np.random.default_rng(0).normal(size=16)), 8
    yield torch.tensor(np.random.default_rng(1).normal(size=9)) - 2.0, 3


def to_integers(row: Tensor, bits: int) -> tuple[Tensor, float]:
    """Whole numbers (as floats) and their scale, symmetric: row ≈ scale · numbers.

    >>> numbers, scale = to_integers(torch.tensor([0.5, -1.4, 0.1]), 4)
    >>> numbers.int().tolist(), round(scale, 3)
    ([2, -7, 0], 0.2)
    """
    scale = float(row.abs().max()) / (2 ** (bits - 1) - 1)
    return (row / scale).round(), scale


def _by_largest_alone(row: Tensor, bits: int) -> tuple[Tensor, float]:
    scale = float(row.max()) / (2 ** (bits - 1) - 1)
    return (row / scale).round(), scale


def _all_codes(row: Tensor, bits: int) -> tuple[Tensor, float]:
    scale = float(row.abs().max()) / (2**bits - 1)
    return (row / scale).round(), scale


def _cut_off(row: Tensor, bits: int) -> tuple[Tensor, float]:
    scale = float(row.abs().max()) / (2 ** (bits - 1) - 1)
    return (row / scale).trunc(), scale


def _inverse_scale(row: Tensor, bits: int) -> tuple[Tensor, float]:
    scale = (2 ** (bits - 1) - 1) / float(row.abs().max())
    return (row * scale).round(), scale


def _one_too_many(row: Tensor, bits: int) -> tuple[Tensor, float]:
    scale = float(row.abs().max()) / 2 ** (bits - 1)
    return (row / scale).round(), scale


# Exercise 2: bits of a weight.


def _bits_cases() -> Iterator[tuple[int, int, int, bool]]:
    yield 4, 32, 16, False
    yield 4, 128, 16, True
    yield 8, 256, 32, False
    yield 3, 64, 16, True


def bits_a_weight(bits: int, group: int, scale_bits: int, asymmetric: bool) -> float:
    """Bits of storage for each weight; an asymmetric group also keeps the code of 0.

    >>> bits_a_weight(4, 32, 16, False), bits_a_weight(4, 32, 16, True)
    (4.5, 4.625)
    """
    return bits + (scale_bits + (bits if asymmetric else 0)) / group


def _codes_alone(bits: int, group: int, scale_bits: int, asymmetric: bool) -> float:
    return float(bits)


def _whole_scale_each(bits: int, group: int, scale_bits: int, asymmetric: bool) -> float:
    return float(bits + scale_bits + (bits if asymmetric else 0))


def _no_zero(bits: int, group: int, scale_bits: int, asymmetric: bool) -> float:
    return bits + scale_bits / group


def _zero_always(bits: int, group: int, scale_bits: int, asymmetric: bool) -> float:
    return bits + (scale_bits + bits) / group


# Exercise 3: one step of GPTQ.


def _step_cases() -> Iterator[tuple[Tensor, Tensor, float]]:
    yield (
        torch.tensor([0.4, 1.2]).double(),
        torch.tensor([[2.0, 1.8], [1.8, 2.0]]).double(),
        0.0,
    )
    for seed, n in ((2, 3), (4, 5)):
        random = np.random.default_rng(seed)
        inputs = torch.tensor(random.normal(size=(20, n)) + random.normal(size=(20, 1)))
        row = torch.tensor(random.normal(size=n))
        yield row, 2 * inputs.T @ inputs / 20, float(row[0].round())


def make_up(row: Tensor, hessian: Tensor, value: float) -> Tensor:
    """The row with its first weight set to ``value`` and the others moved to make up for it.

    >>> new = make_up(torch.tensor([0.4, 1.2]), torch.tensor([[2.0, 1.8], [1.8, 2.0]]), 0.0)
    >>> [round(weight, 2) + 0 for weight in new.tolist()]
    [0.0, 1.56]
    """
    inverse = torch.linalg.inv(hessian)
    return row - (row[0] - value) / inverse[0, 0] * inverse[0]


def _first_only(row: Tensor, hessian: Tensor, value: float) -> Tensor:
    return torch.cat((torch.tensor([value], dtype=row.dtype), row[1:]))


def _wrong_sign(row: Tensor, hessian: Tensor, value: float) -> Tensor:
    inverse = torch.linalg.inv(hessian)
    return row + (row[0] - value) / inverse[0, 0] * inverse[0]


def _not_inverted(row: Tensor, hessian: Tensor, value: float) -> Tensor:
    return row - (row[0] - value) / hessian[0, 0] * hessian[0]


def _whole_error(row: Tensor, hessian: Tensor, value: float) -> Tensor:
    return row - (row[0] - value) * torch.linalg.inv(hessian)[0]


def _one_by_one(row: Tensor, hessian: Tensor, value: float) -> Tensor:
    moved = row + (row[0] - value) * hessian[0] / hessian.diagonal()
    return torch.cat((torch.tensor([value], dtype=row.dtype), moved[1:]))


EXERCISES = [
    Exercise(
        name="export.to_integers",
        cases=_row_cases,
        reference=to_integers,
        wrong=[
            Wrong(
                _by_largest_alone,
                "The scale comes from the largest entry, not from the largest *absolute value*: "
                "where a negative one is larger, its number does not fit.",
            ),
            Wrong(
                _all_codes,
                "There are 2^bits − 1 steps on the scale: so many codes stand on both sides of 0 "
                "together. One side has 2^(bits − 1) − 1.",
            ),
            Wrong(
                _cut_off,
                "The numbers are cut towards 0 and not rounded: an entry can be off by a whole "
                "step, and every error makes a weight smaller.",
            ),
            Wrong(
                _inverse_scale,
                "The scale is upside down. It is what a number is multiplied by to come back.",
            ),
            Wrong(
                _one_too_many,
                "The largest positive number would be 2^(bits − 1), which has no code: in 4 bits "
                "they end at 7.",
            ),
        ],
    ),
    Exercise(
        name="export.bits_a_weight",
        cases=_bits_cases,
        reference=bits_a_weight,
        wrong=[
            Wrong(
                _codes_alone,
                "Only the codes are counted. Each group stores its scale as well.",
            ),
            Wrong(
                _whole_scale_each,
                "Every weight pays for a whole scale. A group shares one.",
            ),
            Wrong(
                _no_zero,
                "An asymmetric group also stores which code means 0, in as many bits as a code.",
            ),
            Wrong(
                _zero_always,
                "A symmetric group stores no code for 0: it is the middle one in all of them.",
            ),
        ],
    ),
    Exercise(
        name="export.make_up",
        cases=_step_cases,
        reference=make_up,
        wrong=[
            Wrong(
                _first_only,
                "The other weights stay where they were. They can be moved so that the outputs "
                "change less.",
            ),
            Wrong(
                _wrong_sign,
                "The others move the wrong way, and double the error of the first.",
            ),
            Wrong(
                _not_inverted,
                "The Hessian stands where its inverse belongs. The row of the inverse says how the "
                "others move when all of them may.",
            ),
            Wrong(
                _whole_error,
                "The error is not divided by the first entry of the inverse, so the first weight "
                "does not arrive at its value.",
            ),
            Wrong(
                _one_by_one,
                "Each weight makes up for the whole error as if it were alone. Together they "
                "overdo it: they are correlated with each other too.",
            ),
        ],
    ),
]
