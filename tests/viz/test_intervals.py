"""Intervals are drawn where they lie, named in the alternative text, refused when impossible."""

import pytest

from llmtutor.viz import alt_text, intervals

ROWS = {"rope": (-0.25, -0.2, -0.125), "gelu": (-0.5, 0.25, 1.0)}
LABELS = {"x_label": "difference (nats)", "y_label": "variant"}


def test_bars_and_dots_lie_at_the_numbers() -> None:
    ax = intervals(ROWS, **LABELS).axes[0]
    drawn = [(c.patches[0].get_x(), c.patches[0].get_width()) for c in ax.containers]
    assert drawn == [(-0.25, 0.125), (-0.5, 1.5)]
    dots = [tuple(c.get_offsets()[0]) for c in ax.collections if len(c.get_offsets()) == 1]
    assert (-0.2, 0.0) in dots and (0.25, 1.0) in dots
    assert [tick.get_text() for tick in ax.get_yticklabels()] == list(ROWS)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is on top


def test_marked_rows_have_another_colour() -> None:
    rows = {**ROWS, "alibi": (0.125, 0.2, 0.25)}
    ax = intervals(rows, **LABELS, marked=["rope", "alibi"]).axes[0]
    below, other, above = (c.patches[0].get_facecolor() for c in ax.containers)
    assert len({below, other, above}) == 3  # each side of 0 has its own


def test_the_alternative_text_reads_the_intervals_out() -> None:
    text = alt_text(intervals(ROWS, **LABELS))
    assert "Row “rope”: -0.25 to -0.125." in text and "Row “gelu”: -0.5 to 1." in text


@pytest.mark.parametrize(
    ("rows", "marked", "message"),
    [
        ({}, (), "nothing to plot"),
        ({"a": (1.0, 0.0, 2.0)}, (), "row 'a': expected low ≤ middle ≤ high"),
        (ROWS, ("alibi",), r"not among the rows: \['alibi'\]"),
    ],
)
def test_impossible_rows_are_refused(rows: dict, marked: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        intervals(rows, **LABELS, marked=marked)
