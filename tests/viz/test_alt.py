"""The alternative text says what was drawn: by hand here, read from the figure there."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from llmtutor.viz import alt_text, bars, heatmap, lines, loss_curve, rank_frequency


def test_lines() -> None:
    fig = lines(
        [0, 10, 20, 30],
        {"train": [4.0, 1.23456, 2.5, 3], "valid": [1, 2, 9, 3]},
        x_label="step",
        y_label="loss (nats)",
        title="Up and down",
        baselines={"uniform": 4.174},
    )
    assert alt_text(fig) == (
        "Up and down. x axis: step. y axis: loss (nats). "
        "Line “train”: from 4 at 0 to 3 at 30, lowest 1.23 at 10. "
        "Line “valid”: from 1 at 0 to 3 at 30, highest 9 at 20. "
        "Level line “uniform” at 4.17."
    )


def test_loss_curve() -> None:
    fig = loss_curve([0, 100], [4.0, 2.0], floor=1.5, unit="bits per byte")
    assert alt_text(fig) == (
        "x axis: training step. y axis: loss (bits per byte). "
        "Second y axis: perplexity per byte. "
        "Line “loss”: from 4 at 0 to 2 at 100. Level line “floor” at 1.5."
    )


def test_bars() -> None:
    fig = bars({"the": 20.123, "and": 5}, value_label="share (%)", category_label="word")
    assert alt_text(fig) == (
        "x axis: share (%). y axis: word. 2 bars: the 20.1, and 5. Largest: the 20.1; "
        "smallest: and 5."
    )


def test_every_bar_is_called_by_its_name() -> None:
    values = {name: i for i, name in enumerate("abcdef", start=1)}
    text = alt_text(bars(values, value_label="count", category_label="letter"))
    assert "6 bars: a 1, b 2, c 3, d 4, e 5, f 6. Largest: f 6; smallest: a 1." in text


def test_many_bars_are_not_read_one_by_one() -> None:
    values = {f"w{i}": 100 - i for i in range(20)}
    text = alt_text(bars(values, value_label="count", category_label="word"))
    assert "20 bars: w0 100, w1 99," in text
    assert "and 12 more. Largest: w0 100; smallest: w19 81." in text


def test_negative_bars() -> None:
    text = alt_text(bars({"a": -2.0, "b": 1.0}, value_label="change (%)", category_label="x"))
    assert "2 bars: a -2, b 1. Largest: b 1; smallest: a -2." in text


def test_rank_frequency() -> None:
    assert alt_text(rank_frequency([3, 100, 0, 7])) == (
        "x axis: rank (1 = most frequent), logarithmic. y axis: occurrences, logarithmic. "
        "Line “counts”: from 100 at 1 to 3 at 3."
    )


def test_heatmap() -> None:
    fig = heatmap(
        [[1, 2, 9], [0.123456, 4, 5]],
        x_label="next token",
        y_label="token",
        value_label="count",
        x_ticks=["a", "b", "c"],
    )
    assert alt_text(fig) == (
        "x axis: next token. y axis: token. Matrix of 2 rows and 3 columns, count: "
        "lowest 0.123 at row 1, column a, highest 9 at row 0, column c."
    )


def test_heatmap_counts_the_cells_that_have_no_value() -> None:
    fig = heatmap([[1, float("nan")], [2, 3]], x_label="key", y_label="query", value_label="weight")
    assert alt_text(fig).endswith("highest 3 at row 1, column 1, 1 without a value.")


def test_missing_values_are_skipped() -> None:
    nan = float("nan")
    fig = lines([1, 2, 3], {"a": [nan, 5, 6], "b": [nan] * 3}, x_label="x (m)", y_label="y (m)")
    assert "Line “a”: from 5 at 2 to 6 at 3." in alt_text(fig)
    assert "Line “b”: no finite value." in alt_text(fig)


def test_a_figure_made_by_hand_can_be_described() -> None:
    fig, (left, right) = plt.subplots(1, 2)
    left.plot([1, 2], [3, 4], label="l")
    left.set(xlabel="x (s)", ylabel="y (m)", title="Left")
    right.bar(["p", "q"], [2, 1])
    right.set(xlabel="kind", ylabel="count")
    assert alt_text(fig) == (
        "Left. x axis: x (s). y axis: y (m). Line “l”: from 3 at 1 to 4 at 2. "
        "x axis: kind. y axis: count. 2 bars: p 2, q 1. Largest: p 2; smallest: q 1."
    )
    plt.close(fig)


def test_an_empty_figure_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        alt_text(Figure())
    fig = Figure()
    fig.add_subplot()
    with pytest.raises(ValueError, match="empty"):
        alt_text(fig)
