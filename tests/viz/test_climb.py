"""What rungs gain and write: from a record made by hand."""

import doctest

import pytest

from llmtutor.experiments.study import Record
from llmtutor.viz import alt_text
from llmtutor.viz import climb as module
from llmtutor.viz.climb import gains, samples

LOSSES = {
    "bigram": [2.5],
    "mlp": [2.0, 2.0, 2.0],
    "attention": [2.2, 2.3, 2.25],
    "rope": [2.1, 2.4, 2.2],
}
RUNS = [
    {
        "settings": {"rung": rung, "lr": None, "seed": seed},
        "result": {"bits_per_byte": value, "n_params": 1, "bytes_seen": 2}
        | {"sample": f"{rung} says\n<b>&\x07"},
        "cpu_seconds": 1.0,
    }
    for rung, values in LOSSES.items()
    for seed, value in enumerate(values)
]
RECORD = Record("staircase", "", {}, "", [], RUNS)


def test_examples() -> None:
    assert doctest.testmod(module).failed == 0


def test_a_row_for_each_rung_between_the_two() -> None:
    said = alt_text(gains("mlp", "rope", RECORD))
    # mlp gains 0.5 on the bigram with each seed, and attention loses 0.25 ± 0.124 on it.
    assert "Row “mlp”: 0.5 to 0.5" in said and "Row “attention”: -0.374 to -0.126" in said
    assert "bigram" not in said and "rope" in said
    with pytest.raises(ValueError, match="from the lower to the higher, got 'rope', 'mlp'"):
        gains("rope", "mlp", RECORD)
    with pytest.raises(ValueError, match="did you mean 'bigram'"):
        gains("bigrams", "rope", RECORD)


def test_samples_are_one_line_each() -> None:
    rows = samples("bigram", "mlp", length=12, record=RECORD).rows
    assert rows == [("bigram", "2.50", "bigram says"), ("mlp", "2.00", "mlp says / <b>")]
    with pytest.raises(ValueError, match="'gpt2' is not recorded"):
        samples("gpt2", record=RECORD)
