"""The arithmetic of claims against cases by hand, and a simulated referee."""

import numpy as np
import pytest

from llmtutor.evaluate.budget import (
    Reading,
    largest_spread,
    tokens_by_bytes,
    training_flops,
    unfinished,
)


def test_a_reading_multiplies_and_divides() -> None:
    reading = Reading(steps=10, batch_size=4, seq_len=8, seconds=5)
    assert reading.tokens == 320 and reading.tokens_per_second == 64
    assert training_flops(1000, 320) == 1_920_000
    with pytest.raises(ValueError, match="steps"):
        Reading(0, 4, 8, 5)
    with pytest.raises(ValueError, match="seconds"):
        Reading(1, 4, 8, 0)


def test_two_files_of_one_kind_tell_how_many_tokens_the_larger_has() -> None:
    assert tokens_by_bytes(10, other_bytes=40, n_bytes=400) == 100
    with pytest.raises(ValueError, match="other_bytes"):
        tokens_by_bytes(10, other_bytes=0, n_bytes=400)


def test_the_largest_spread_is_told_in_half_of_all_studies() -> None:
    """At that spread the difference lies on the edge of what is told."""
    spread = largest_spread(0.77, n_runs=2)
    draws = np.random.default_rng(0).normal(0.77, spread * np.sqrt(2 / 2), 20_000)
    told = np.abs(draws) > 1.96 * spread * np.sqrt(2 / 2)
    assert told.mean() == pytest.approx(0.5, abs=0.02)
    assert largest_spread(-0.77) == largest_spread(0.77) < largest_spread(0.77, n_runs=4)
    with pytest.raises(ValueError, match="alpha"):
        largest_spread(1.0, alpha=1.0)


def test_what_is_unfinished_is_found_with_its_line() -> None:
    text = (
        "a table\n| GPT | `TBD` |\n<<<<<<< HEAD\nours\n=======\ntheirs\n>>>>>>> main\n== a title =="
    )
    assert [number for number, _ in unfinished(text)] == [2, 3, 5, 7]
    assert unfinished("TBDs are not marks, nor is <<<<<<<< eight") == []
