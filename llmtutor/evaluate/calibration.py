"""Chapter 22, evaluation: of the answers that a model is 80 % sure of, are 80 % right?

A model is *calibrated* if they are. Accuracy does not say it: a model can be right half of the time
and sure all of the time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llmtutor.checks import check_at_least
from llmtutor.evaluate.certainty import Share


@dataclass(frozen=True)
class Bin(Share):
    """Answers of like confidence."""

    low: float
    high: float
    confidence: float
    """Mean of what the model thought."""


def reliability(confidences: Sequence[float], right: Sequence[bool], n_bins: int = 10) -> list[Bin]:
    """Answers in bins of equal width by confidence, low ones first; empty bins are left out.

    A bin holds what lies above its lower end and up to its upper one.

    Raises:
        ValueError: not a mark for each confidence, or none; a confidence outside [0, 1].
    """
    check_at_least(1, n_bins=n_bins)
    if len(confidences) != len(right) or not len(right):
        raise ValueError(
            f"expected a mark for each confidence, got {len(right)} for {len(confidences)}"
        )
    if not all(0 <= value <= 1 for value in confidences):
        raise ValueError("expected confidences between 0 and 1")
    held: dict[int, list[tuple[float, bool]]] = {}
    for value, mark in zip(confidences, right, strict=True):
        place = next(i for i in range(n_bins) if value <= (i + 1) / n_bins)
        held.setdefault(place, []).append((value, mark))
    return [
        Bin(
            low=i / n_bins,
            high=(i + 1) / n_bins,
            n=len(some),
            confidence=sum(value for value, _ in some) / len(some),
            right=sum(mark for _, mark in some),
        )
        for i, some in sorted(held.items())
    ]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Distance of confidence and accuracy, a bin weighing as much as it has answers.

    It is never negative, so a calibrated model has an error too, from few answers in a bin; and it
    depends on the number of bins.

    >>> expected_calibration_error(reliability([0.9, 0.9, 0.6, 0.6], [True, False, True, False]))
    0.25
    """
    n = sum(one.n for one in bins)
    return sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / n
