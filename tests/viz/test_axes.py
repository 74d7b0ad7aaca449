"""What the kinds of figure share."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from llmtutor.viz.axes import PLAIN, pairs, perplexity_axis, refuse_empty


def test_pairs_takes_one_x_for_all_or_one_for_each() -> None:
    both = pairs([1, 2], {"a": [3, 4], "b": (5, 6)})
    assert {label: (list(x), list(y)) for label, (x, y) in both.items()} == {
        "a": ([1, 2], [3, 4]),
        "b": ([1, 2], [5, 6]),
    }
    (x, _) = pairs({"a": [7]}, {"a": [1]})["a"]
    assert list(x) == [7]


@pytest.mark.parametrize(
    ("x", "y"), [([1, 2], [1]), ([], []), ([[1]], [[1]])], ids=["lengths", "nothing", "matrix"]
)
def test_pairs_that_do_not_match_are_refused_by_name(x, y) -> None:
    with pytest.raises(ValueError, match="line 'a'"):
        pairs(x, {"a": y})


def test_nothing_to_plot() -> None:
    with pytest.raises(ValueError, match="nothing to plot"):
        refuse_empty({})


@pytest.mark.parametrize(
    ("value", "text"),
    [(20_000, "20,000"), (0.1 + 0.2, "0.3"), (-0.0, "0"), (3.2115, "3.2115"), (5e6, "5,000,000")],
)
def test_ticks_are_written_out(value: float, text: str) -> None:
    assert PLAIN(value, 0) == text


@pytest.mark.parametrize("low", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("height", [0.02, 0.5, 2, 6])
def test_every_range_of_losses_gets_a_few_perplexities(low: float, height: float) -> None:
    ax = Figure().add_subplot()
    ax.set_ylim(low, low + height)
    perplexity_axis(ax, "nats", "token")
    ticks = np.log(ax.child_axes[0].get_yticks())
    assert 3 <= len(ticks) <= 12
    assert (low <= ticks).all() and (ticks <= low + height).all()
