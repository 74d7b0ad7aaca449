"""Times by a clock that is moved by hand."""

import pytest

from llmtutor.generate.speed import measure


def test_times_by_a_clock_of_our_own(make_model) -> None:
    """Reading the model moves the clock: by 5 seconds for the prompts, by 2 for each token."""
    model, now = make_model(), [100.0]
    model.register_forward_hook(lambda _, given, __: now.__setitem__(0, now[0] + cost(given)))

    def cost(given: tuple) -> float:
        return 5.0 if given[0].shape[1] > 1 else 2.0

    speed = measure(model, [[1, 2], [3, 4], [5, 6]], max_new_tokens=6, clock=lambda: now[0])
    assert speed.first == 5
    assert speed.per_second == pytest.approx(3 * 6 / (5 + 5 * 2))
    assert speed.per_row == pytest.approx(5 / (5 * 2))
    with pytest.raises(ValueError, match="at least 2 to be timed, got 1"):
        measure(model, [[1]], max_new_tokens=1)
