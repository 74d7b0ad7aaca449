"""One call at a time: what `run` keeps of it."""

import numpy as np
import pytest
import torch

from llmtutor.exercises.run import LONGEST_ERROR, run


def one(function, *inputs):
    (outcome,) = run(function, [inputs])
    return outcome


def test_a_call_keeps_value_and_inputs_as_they_were() -> None:
    def pops(items):
        return items.pop()

    items = [1, 2, 3]
    outcome = one(pops, items)
    assert (outcome.value, outcome.shown) == (3, "3")
    assert outcome.inputs == (items,) == ([1, 2, 3],)
    assert outcome.shown_inputs == ["[1, 2, 3]"]
    assert outcome.changed and not one(sum, items).changed


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (np.zeros(2), lambda a: a.__iadd__(1)),
        (torch.zeros(2), lambda t: t.add_(1)),
        ({"a": [1]}, lambda d: d["a"].append(2)),
        ({1}, lambda s: s.add(2)),
    ],
)
def test_changes_deep_inside_are_noticed(value, change) -> None:
    assert one(change, value).changed
    assert not one(lambda v: None, value).changed


def test_reading_an_iterator_is_no_change() -> None:
    outcome = one(list, iter("ab"))
    assert outcome.value == ["a", "b"] and not outcome.changed


def test_an_object_without_equality_is_no_change() -> None:
    assert not one(lambda g: torch.rand(1, generator=g), torch.Generator()).error
    assert not one(lambda f: 1, len).changed


def test_a_tensor_with_a_history_is_handed_on() -> None:
    grown = torch.ones(2, requires_grad=True) * 2
    assert torch.equal(one(lambda t: t + 1, grown).value, torch.full((2,), 3.0))


def test_what_is_printed_belongs_to_its_own_call() -> None:
    first, second, third = run(lambda x: print(x) if x else None, [(1,), (0,), (22,)])
    assert [o.printed for o in (first, second, third)] == ["1\n", "", "22\n"]


def test_errors_are_one_line_without_addresses_and_of_bounded_length() -> None:
    def fails(text):
        raise ValueError(text)

    outcome = one(fails, f"{object()}\n  twice")
    assert outcome.error == "ValueError: <object object at 0x…> twice"
    assert outcome.error_type == "ValueError"
    assert outcome.line and outcome.line[0] == __file__
    assert len(one(fails, "x" * 999).error) == LONGEST_ERROR


@pytest.mark.parametrize(
    ("function", "unfilled"),
    [
        (lambda x: None, True),
        (lambda x: ..., True),
        (lambda x: (..., ...), True),
        (lambda x: NotImplemented, True),
        (lambda x: ... + x, True),
        (lambda x: [], False),
        (lambda x: 0, False),
        (lambda x: (x, ...), False),
        (lambda x: x / 0, False),
        (lambda: None, False),
    ],
)
def test_unfilled(function, unfilled: bool) -> None:
    assert one(function, 1).unfilled is unfilled
