"""Chapter 12: what its page says of its fits, beyond the numbers that its cells print."""

import numpy as np
import pytest

from llmtutor.experiments.scaling import bootstrap
from llmtutor.experiments.studies import (
    HELD_OUT,
    TOKENS,
    WIDTHS,
    means,
    measurements,
)
from llmtutor.experiments.study import load_record


@pytest.fixture(scope="module")
def sizes() -> tuple[np.ndarray, np.ndarray]:
    return measurements(load_record("sizes"))


def test_from_two_lengths_most_laws_of_the_bootstrap_have_a_floor_near_zero(sizes) -> None:
    x, loss = sizes
    short = x[:, 1] < 500_000
    laws, _ = bootstrap(x[short], loss[short])
    assert np.mean([law.floor < 0.1 for law in laws]) > 0.5
    laws, _ = bootstrap(x, loss)  # a third length lifts it
    assert np.mean([law.floor > 0.5 for law in laws]) > 0.95


def signs(errors: np.ndarray) -> str:
    return "".join("+" if error > 0 else "-" for error in errors)


def test_a_fit_of_logarithms_is_sound_once_its_law_has_a_floor(sizes) -> None:
    """The floor was missing in the bug, and not the losses themselves."""
    x, loss = sizes
    long = x[:, 1] > 500_000
    n, target = np.log(x[long, 0]), np.log(loss[long])
    fits = {}
    for floor in np.linspace(0, 1.85, 186):
        line = np.polyfit(n, np.log(loss[long] - floor), 1)
        fitted = np.log(floor + np.exp(np.polyval(line, n)))
        fits[floor] = target - fitted
    best = min(fits, key=lambda floor: np.square(fits[floor]).sum())
    assert 1.5 < best < 1.85
    assert signs(fits[0.0]) in ("+---++", "+----+")  # a line: high at both ends
    assert np.abs(fits[best]).max() < 0.5 * np.abs(fits[0.0]).max()


def test_the_rule_for_the_rate_is_used_outside_its_widths_and_its_length() -> None:
    tried = means(load_record("learning-rate"), "d_model", "lr")
    assert max(WIDTHS) == max(d for d, _ in tried) < HELD_OUT["d_model"]
    lengths = {run["settings"]["n_tokens"] for run in load_record("learning-rate").runs}
    assert len(lengths) == 1 and not lengths & {*TOKENS, HELD_OUT["n_tokens"]}
