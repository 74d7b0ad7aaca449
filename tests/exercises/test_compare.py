"""When two values are the same, and how they are shown."""

import math
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch

from llmtutor.exercises.compare import difference, same
from llmtutor.exercises.values import brief

NAN = float("nan")


class Bag:
    def __init__(self, content) -> None:
        self.content = content


@pytest.mark.parametrize(
    ("expected", "received"),
    [
        (1, 1.0),
        (0.1 + 0.2, 0.3),
        (1.0, 1.0 + 1e-7),
        (NAN, NAN),
        (math.inf, math.inf),
        (3, np.int64(3)),
        (1 + 2j, 1 + 2j),
        ("a", "a"),
        (Counter(a=1), {"a": 1}),
        (OrderedDict(b=1, a=2), {"a": 2, "b": 1}),
        ({1, 2}, frozenset({1, 2})),
        ([1, [2.0, NAN]], [1, [2.0, NAN]]),
        (iter([1, 2]), [1, 2]),
        (np.array([1.0, NAN]), np.array([1.0 + 1e-8, NAN])),
        (np.array([1, 2], dtype=np.int32), np.array([1, 2], dtype=np.uint16)),
        (np.array([1.0, 2.0]), np.array([1, 2])),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0], dtype=torch.float64)),
        (torch.ones(2, dtype=torch.bfloat16), torch.ones(2)),
        (torch.ones(2, requires_grad=True), torch.ones(2)),
        (np.array([], dtype=int), np.array([], dtype=int)),
        (Bag([1.0]), Bag([1.0 + 1e-9])),
        (None, None),
    ],
)
def test_same(expected, received) -> None:
    assert same(expected, received)


@pytest.mark.parametrize(
    ("expected", "received", "words"),
    [
        (1, 2, "expected 1, received 2"),
        (10**9, 10**9 + 1, "expected 1000000000, received 1000000001"),
        (1.0, 1.001, "expected 1.0, received 1.001"),
        (1.0, NAN, "expected 1.0, received nan"),
        (NAN, 1.0, "expected nan, received 1.0"),
        (True, 1, "expected a bool, received a number"),
        ([1], (1,), "expected a list, received a tuple"),
        ("a", b"a", "expected a str, received a bytes"),
        (1, None, "expected a number, received None"),
        (torch.ones(2), [1, 1], "expected a tensor, received a list"),
        (torch.ones(2), np.ones(2), "expected a tensor, received a NumPy array"),
        ([1, 2], [1], "expected 2 items, received 1"),
        ([1, [2, 3]], [1, [2, 4]], "at [1][1]: expected 3, received 4"),
        ({"a": 1}, {}, "the key 'a' is missing"),
        ({}, {"b": 1}, "the key 'b' should not be there"),
        ({"a": [1]}, {"a": [2]}, "at ['a'][0]: expected 1, received 2"),
        (np.ones((2, 3)), np.ones((3, 2)), "expected shape (2, 3), received shape (3, 2)"),
        (np.arange(4), np.arange(4.0), "expected int64 values, received float64 values"),
        (np.eye(2), np.ones((2, 2)), "at [0, 1]: expected 0.0, received 1.0"),
        ([np.eye(2)], [np.ones((2, 2))], "at [0][0, 1]: expected 0.0, received 1.0"),
        (torch.tensor(1.0), torch.tensor(2.0), "expected 1.0, received 2.0"),
        (np.array([True]), np.array([1]), "expected bool values, received int64 values"),
        (Bag(1), Bag(2), "at ['content']: expected 1, received 2"),
        (1 + 2j, 1 + 3j, "expected (1+2j), received (1+3j)"),
    ],
)
def test_difference(expected, received, words: str) -> None:
    assert difference(expected, received) == words
    assert not same(expected, received)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "[]"),
        ((1,), "(1,)"),
        ({}, "{}"),
        (set(), "set()"),
        ({"b", "a", "cc"}, "{'a', 'b', 'cc'}"),
        ({"k": [1]}, "{'k': [1]}"),
        (3.0, "3.0"),
        (1 / 3, "0.333333"),
        (1e-9, "1e-09"),
        (np.float32(0.5), "0.5"),
        (np.int64(7), "7"),
        (len, "len"),
        (object(), "<object>"),
        ("x" * 100, "'" + "x" * 40 + "'… (100 characters)"),
        (b"\xff" * 40, "b'" + r"\xff" * 9 + "'… (40 bytes)"),
        (torch.arange(20), "tensor([ 0, 1, ..., 18, 19], shape (20,))"),
        (np.zeros((0, 2)), "array([], shape (0, 2))"),
    ],
)
def test_brief(value, text: str) -> None:
    assert brief(value) == text.replace("[ 0", "[0")


@pytest.mark.parametrize("width", [30, 50, 66])
@pytest.mark.parametrize(
    "value", [list(range(500)), {i: i for i in range(500)}, "é\n" * 300, b"\0" * 99, [b"a"] * 9]
)
def test_brief_keeps_to_its_width(value, width: int) -> None:
    assert len(brief(value, width)) <= width
