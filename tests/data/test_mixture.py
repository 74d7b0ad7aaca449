"""Mixtures: the sums of a published table, and rows from each source as often as asked."""

from itertools import islice

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from llmtutor.data.mixture import epochs, mixed_batches, shares, tempered

SOURCES = {"a": np.arange(0, 50), "b": np.arange(100, 700), "c": np.arange(1000, 1020)}
WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}


def test_epochs_of_gpt3_are_those_of_its_table() -> None:
    """Table 2.2 of Brown et al. (2020): Common Crawl and Books2 as printed, in 300 billion tokens.

    The printed weights are rounded and add up to 101 %.
    """
    sizes = {"cc": 410, "webtext": 19, "books1": 12, "books2": 55, "wikipedia": 3}
    weights = {"cc": 60, "webtext": 22, "books1": 8, "books2": 8, "wikipedia": 3}
    found = epochs(sizes, weights, 300 * 1.01)
    assert round(found["cc"], 2) == 0.44 and round(found["books2"], 2) == pytest.approx(
        0.43, abs=0.011
    )
    read = sum(found[name] * sizes[name] for name in sizes)
    assert read == pytest.approx(303)


def test_power_moves_weights_from_sizes_to_all_alike() -> None:
    sizes = {"a": 900, "b": 100}
    assert tempered(sizes, 1) == shares(sizes)
    assert tempered(sizes, 0) == {"a": 0.5, "b": 0.5}
    assert 0.1 < tempered(sizes, 0.7)["b"] < 0.5


def test_rows_are_windows_of_one_source_as_often_as_its_weight_says() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = mixed_batches(SOURCES, WEIGHTS, 16, 5, generator=generator)
    counts = dict.fromkeys(SOURCES, 0)
    for inputs, targets in islice(batches, 100):
        assert inputs.shape == targets.shape == (16, 5)
        assert torch.equal(targets, inputs + 1)  # the sources count up
        for row in targets:
            (name,) = [n for n, ids in SOURCES.items() if set(row.tolist()) <= set(ids.tolist())]
            counts[name] += 1
    expected = [1600 * WEIGHTS[name] for name in counts]
    assert chisquare(list(counts.values()), expected).pvalue > 0.01


def test_a_weight_of_zero_is_never_drawn_and_equal_seeds_give_equal_batches() -> None:
    first, second = (
        mixed_batches(
            SOURCES, {"a": 0, "b": 1, "c": 0}, 64, 3, generator=torch.Generator().manual_seed(1)
        )
        for _ in range(2)
    )
    inputs, _ = next(first)
    assert torch.equal(inputs, next(second)[0]) and 100 <= inputs.min() <= inputs.max() < 700


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shares({"a": 1, "b": -0.1}), "none is negative"),
        (lambda: shares({"a": 0.0}), "one is positive"),
        (lambda: shares({"a": float("nan")}), "one is positive"),
        (lambda: epochs({"a": 10}, {"b": 1}, 5), r"sizes for \['a'\] and weights for \['b'\]"),
        (lambda: epochs({"a": 0}, {"a": 1}, 5), "tokens in a"),
        (
            lambda: mixed_batches({}, {"b": 1}, 1, 1, generator=torch.Generator()),
            r"texts for \[\] and weights for \['b'\]",
        ),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
