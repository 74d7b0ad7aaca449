"""Searches for a learning rate."""

from math import inf

import pytest

from llmtutor.experiments.rates import best_rates, inner_best, losses_by_rate, search
from llmtutor.experiments.study import Record


def record(*runs: tuple[str, float, float | None]) -> Record:
    made = [
        {"settings": {"who": who, "lr": lr}, "result": {"valid_loss": loss}}
        for who, lr, loss in runs
    ]
    return Record("s", "d", {}, "", [], made)


def test_the_best_rate_of_each_is_taken_and_one_that_diverged_is_not() -> None:
    found = record(("a", 1, 3.0), ("a", 2, 2.0), ("a", 4, None), ("b", 1, 5.0), ("b", 2, 4.0))
    assert losses_by_rate(found, "who", "a") == {1: 3.0, 2: 2.0, 4: inf}
    assert best_rates(found, "who", ["a"]) == {"a": 2}
    other = losses_by_rate(found, "who", "b", lambda result: 9 - result["valid_loss"])
    assert other == {1: 4.0, 2: 5.0}
    with pytest.raises(ValueError, match="b: the lowest loss is at 2, an end of the rates"):
        best_rates(found, "who", ["a", "b"])
    with pytest.raises(ValueError, match="the search: the lowest loss is at 1"):
        inner_best({1: 0.0, 2: 1.0})


@pytest.mark.parametrize(("best", "tried"), [(1.0, 3), (8.0, 6), (0.125, 6)])
def test_a_search_goes_on_until_the_best_has_worse_neighbours(best: float, tried: int) -> None:
    asked: list[float] = []

    def loss_at(lr: float) -> float:
        asked.append(lr)
        return inf if lr > 4 * best else abs(lr - best)

    losses = search(loss_at, 1.0)
    assert min(losses, key=losses.__getitem__) == best
    assert len(losses) == len(asked) == tried and list(losses) == sorted(losses)
    assert {best / 2, 2 * best} <= set(losses)


def test_a_search_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="no lowest loss inside of 5 rates"):
        search(lambda lr: -lr, 1.0, most=5)
