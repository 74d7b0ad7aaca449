"""Exercises, every chapter: when is a learner's value the same as the expected one?

Containers must be of the same kind (a list is not a tuple, a tensor is not a list), numbers need
only agree to rounding, iterators are compared by what they yield, and objects without an equality
of their own by their attributes (so two functions are always the same: give an own ``same`` there).
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from llmtutor.exercises.values import (
    as_numpy,
    brief,
    is_array,
    is_number,
    kind,
    settle,
    with_article,
)

RELATIVE = 1e-5
ABSOLUTE = 1e-6


def same(expected: object, received: object) -> bool:
    """Whether ``received`` is what was expected, up to rounding of numbers; NaN equals NaN.

    >>> same([1, 2.0000001], [1, 2]), same([1, 2], (1, 2))
    (True, False)
    """
    return difference(expected, received) == ""


def difference(expected: Any, received: Any, place: str = "") -> str:
    """Where and how two values first differ, in words; the empty string when they do not.

    >>> difference([1, 2, 3], [1, 2, 4])
    'at [2]: expected 3, received 4'
    """
    expected, received = settle(expected), settle(received)
    at = f"at {place}: " if place else ""
    if kind(expected) != kind(received):
        return f"{at}expected {with_article(expected)}, received {with_article(received)}"
    if is_array(expected):
        return _array_difference(as_numpy(expected), as_numpy(received), place)
    if isinstance(expected, Mapping):
        return _mapping_difference(expected, received, place)
    if isinstance(expected, list | tuple):
        return _sequence_difference(expected, received, place)
    if type(expected).__eq__ is object.__eq__:  # equal by identity only: look inside instead
        one, other = (getattr(value, "__dict__", {}) for value in (expected, received))
        return _mapping_difference(one, other, place)
    if _close(expected, received) if is_number(expected) else bool(expected == received):
        return ""
    return f"{at}expected {brief(expected, 30)}, received {brief(received, 30)}"


def _close(expected: Any, received: Any) -> bool:
    """Whole numbers must be equal, others need only be near."""
    if isinstance(expected, Integral) and isinstance(received, Integral):
        return bool(expected == received)
    if not (isinstance(expected, Real) and isinstance(received, Real)):
        return bool(np.isclose(complex(received), complex(expected), RELATIVE, ABSOLUTE, True))
    if math.isnan(expected) or math.isnan(received):
        return math.isnan(expected) and math.isnan(received)
    return math.isclose(expected, received, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _array_difference(expected: np.ndarray, received: np.ndarray, place: str) -> str:
    at = f"at {place}: " if place else ""
    if expected.shape != received.shape:
        return f"{at}expected shape {expected.shape}, received shape {received.shape}"
    families = {"i": "whole", "u": "whole", "b": "bool"}
    wanted, got = (families.get(a.dtype.kind, "other") for a in (expected, received))
    if wanted != got and wanted != "other":  # whole numbers pass for floats, floats never for ids
        return f"{at}expected {expected.dtype} values, received {received.dtype} values"
    if expected.dtype.kind in "fc":
        equal = np.isclose(received, expected, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    else:
        equal = np.asarray(expected == received)
    if equal.all():
        return ""
    index = tuple(int(i) for i in np.argwhere(~equal)[0])
    where = f"at {place}{list(index) if index else ''}: " if place or index else ""
    return f"{where}expected {brief(expected[index])}, received {brief(received[index])}"


def _mapping_difference(expected: Mapping, received: Mapping, place: str) -> str:
    at = f"at {place}: " if place else ""
    for key, value in expected.items():
        if key not in received:
            return f"{at}the key {brief(key, 40)} is missing"
        if problem := difference(value, received[key], f"{place}[{brief(key, 30)}]"):
            return problem
    extra = [key for key in received if key not in expected]
    return f"{at}the key {brief(extra[0], 40)} should not be there" if extra else ""


def _sequence_difference(expected: Sequence, received: Sequence, place: str) -> str:
    at = f"at {place}: " if place else ""
    for i, (a, b) in enumerate(zip(expected, received, strict=False)):
        if problem := difference(a, b, f"{place}[{i}]"):
            return problem
    if len(expected) == len(received):
        return ""
    return f"{at}expected {len(expected):,} items, received {len(received):,}"
