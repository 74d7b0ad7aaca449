"""Figures hold the data they were given, say their units, and keep their labels apart."""

import itertools
from functools import cache

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from llmtutor.viz import (
    alt_text,
    bars,
    heatmap,
    intervals,
    lines,
    loss_curve,
    rank_frequency,
)
from llmtutor.viz.display import png, svg
from llmtutor.viz.labels import spread
from llmtutor.viz.style import GREY, INK, LINE_STYLES, PALETTE, number

STEPS = np.arange(0, 1000, 10)
LOSS = 1.5 + 2.5 * np.exp(-STEPS / 200)


AXES = {"x_label": "time (s)", "y_label": "way (m)"}
MAKE = {
    "lines": lambda: lines([1, 2, 4], {"a": [1, 2, 3], "b": [1, 2, 2.9]}, **AXES, log="x"),
    "loss": lambda: loss_curve(
        STEPS,
        {"train": LOSS, "validation": LOSS + 0.02},
        floor=1.4,
        baselines={"unigram": 3.2, "bigram": 2.51, "trigram": 2.5},
    ),
    "bars": lambda: bars({"the": 20, "and": 5}, value_label="share (%)", category_label="word"),
    "ranks": lambda: rank_frequency({"train": [5, 3, 0, 9], "valid": [1, 2, 2]}),
    "heatmap": lambda: heatmap(
        [[1, 2], [3, 4]], **AXES, value_label="count", x_ticks=["p", "q"], title="T"
    ),
    "intervals": lambda: intervals(
        {"rope": (-0.2, -0.1, 0.05), "none": (0.1, 0.2, 0.3)}, **AXES, marked=["none"]
    ),
}
each = pytest.mark.parametrize("name", MAKE)


@cache
def figure(name: str) -> Figure:
    return MAKE[name]()


@each
def test_both_axes_have_labels(name: str) -> None:
    ax = figure(name).axes[0]
    assert ax.get_xlabel() and ax.get_ylabel()


@each
def test_two_calls_give_the_same_drawing(name: str) -> None:
    assert svg(figure(name), "salt") == svg(MAKE[name](), "salt")


def test_a_file_has_neither_date_nor_program_and_its_names_follow_the_salt() -> None:
    fig = figure("lines")
    picture, drawing = png(fig), svg(fig, "salt")
    assert picture == png(MAKE["lines"]())
    assert drawing != svg(fig, "pepper")
    assert b"tEXt" not in picture and b"Matplotlib" not in picture
    assert "Matplotlib" not in drawing and "<metadata" not in drawing


@each
def test_a_figure_is_as_wide_as_the_text_and_its_letters_can_be_read(name: str) -> None:
    fig = figure(name)
    assert fig.get_size_inches()[0] * 100 == pytest.approx(680)
    texts = [t for t in fig.findobj(Text) if t.get_text() and t.get_visible()]
    assert min(t.get_fontsize() for t in texts) >= 12
    assert fig.get_facecolor()[:3] == (1, 1, 1)


@each
def test_everything_drawn_stays_inside_the_picture(name: str) -> None:
    fig = figure(name)
    fig.draw_without_rendering()
    box = fig.get_tightbbox()
    assert box.x0 >= -0.01 and box.y0 >= -0.01
    assert box.x1 <= fig.get_size_inches()[0] + 0.01
    assert box.y1 <= fig.get_size_inches()[1] + 0.01


def test_importing_and_drawing_change_no_setting() -> None:
    before = dict(matplotlib.rcParams)
    for make in MAKE.values():
        make()
    assert dict(matplotlib.rcParams) == before


def test_the_figure_does_not_depend_on_settings_of_the_reader() -> None:
    plain = png(MAKE["loss"]())
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        assert png(MAKE["loss"]()) == plain


def test_lines_hold_the_data() -> None:
    a, b = figure("lines").axes[0].get_lines()
    assert (a.get_label(), list(a.get_xdata()), list(a.get_ydata())) == ("a", [1, 2, 4], [1, 2, 3])
    assert list(b.get_ydata()) == [1, 2, 2.9]
    assert figure("lines").axes[0].get_xscale() == "log"


def test_ticks_tell_close_values_apart_and_are_written_out() -> None:
    fig = lines([0, 250_000], {"a": [3.211, 3.214]}, x_label="x (tokens)", y_label="y (m)")
    fig.draw_without_rendering()
    ax = fig.axes[0]
    assert "3.212" in [t.get_text() for t in ax.get_yticklabels()]
    assert "200,000" in [t.get_text() for t in ax.get_xticklabels()]
    texts = [t.get_text() for t in ax.get_yticklabels()]
    assert len(set(texts)) == len(texts)


def test_few_even_places_are_the_ticks() -> None:
    fig = lines(range(1, 8), {"a": range(7)}, x_label="order n", y_label="y (m)")
    assert list(fig.axes[0].get_xticks()) == [1, 2, 3, 4, 5, 6, 7]


def test_each_line_may_have_its_own_x() -> None:
    fig = lines({"a": [1, 2], "b": [5]}, {"a": [0, 1], "b": [3]}, x_label="x (m)", y_label="y (m)")
    assert [list(line.get_xdata()) for line in fig.axes[0].get_lines()] == [[1, 2], [5]]


def test_bars_around_points_reach_as_far_as_told_and_are_told_in_words() -> None:
    x, y = [1, 2, 4], {"a": [1.0, 2.0, 3.0], "b": [0.0, 0.5, 0.25]}
    fig = lines(x, y, x_label="x", y_label="y", log="x", around={"b": [0.1, 0.2, 0.4]})
    (bars,) = fig.axes[0].collections
    ends = [path.vertices[:, 1] for path in bars.get_paths()]
    np.testing.assert_allclose(ends, [[-0.1, 0.1], [0.3, 0.7], [-0.15, 0.65]])
    assert alt_text(fig).endswith("Intervals of “b”: ± 0.1 to 0.4.")


@pytest.mark.parametrize("name", ["lines", "loss", "ranks"])
def test_names_of_lines_do_not_overlap_and_stand_level_with_their_ends(name: str) -> None:
    fig = figure(name)
    fig.draw_without_rendering()
    ax = fig.axes[0]
    boxes = {t.get_text(): Text.get_window_extent(t) for t in ax.texts}  # without the leader
    assert set(boxes) == {line.get_label() for line in ax.get_lines()}
    assert all(not a.overlaps(b) for a, b in itertools.combinations(boxes.values(), 2))
    inside = ax.get_window_extent()
    for line in ax.get_lines():
        x, y = ax.transData.transform((line.get_xdata()[-1], line.get_ydata()[-1]))
        box = boxes[line.get_label()]
        assert box.x0 > x
        assert box.x1 <= inside.x1
        assert inside.y0 <= box.y0 and box.y1 <= inside.y1
        assert abs((box.y0 + box.y1) / 2 - y) < 0.15 * inside.height


def test_lines_differ_in_style_too_and_colours_stand_out_from_white() -> None:
    drawn = figure("loss").axes[0].get_lines()
    assert len({(line.get_color(), str(line.get_linestyle())) for line in drawn}) == len(drawn)
    assert len(set(map(str, LINE_STYLES))) == len(PALETTE) == len(LINE_STYLES)
    assert all(contrast(c) >= 3 for c in PALETTE[:4])  # what WCAG 2.2 asks of graphics
    assert all(contrast(c) >= 2 for c in PALETTE)
    assert contrast(INK) >= 7 and contrast(GREY) >= 4.5


def contrast(color: str) -> float:
    """Contrast with white by the formula of WCAG 2.2."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 1.05 / (
        sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True)) + 0.05
    )


@pytest.mark.parametrize(
    ("unit", "base", "span"),
    [
        ("nats per token", np.e, 2.5),
        ("nats per token", np.e, 0.01),
        ("bits per byte", 2, 2.5),
        ("bits per byte", 2, 0.3),
    ],
)
def test_perplexity_stands_at_the_height_of_its_loss(unit: str, base: float, span: float) -> None:
    fig = loss_curve(STEPS, 1.5 + span * np.exp(-STEPS / 200), unit=unit)
    fig.draw_without_rendering()
    ax = fig.axes[0]
    (second,) = ax.child_axes
    assert ax.get_ylabel() == f"loss ({unit})"
    assert second.get_ylabel() == f"perplexity per {unit.split()[-1]}"
    ticks = [t for t in second.get_yticks() if second.get_ylim()[0] <= t <= second.get_ylim()[1]]
    assert 3 <= len(ticks) <= 12
    for tick in ticks:
        _, height = second.transData.transform((0, tick))
        _, level = ax.transData.transform((0, np.log(tick) / np.log(base)))
        assert height == pytest.approx(level, abs=0.5)


def test_floor_and_baselines_are_level_lines() -> None:
    levels = {
        line.get_label(): set(line.get_ydata()) for line in figure("loss").axes[0].get_lines()
    }
    assert levels["floor"] == {1.4} and levels["bigram"] == {2.51}


def test_bars_run_from_top_to_bottom_in_the_given_order() -> None:
    ax = figure("bars").axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["the", "and"]
    assert [patch.get_width() for patch in ax.patches] == [20, 5]
    assert ax.yaxis_inverted()
    assert [t.get_text() for t in ax.texts] == ["20", "5"]


def test_ranks_are_sorted_and_without_zeros() -> None:
    train, valid = figure("ranks").axes[0].get_lines()
    assert list(train.get_ydata()) == [9, 5, 3]
    assert list(valid.get_xdata()) == [1, 2, 3]


def test_numbers_in_cells_stand_out_from_their_colour() -> None:
    ax = figure("heatmap").axes[0]
    (image,) = ax.get_images()
    assert [t.get_text() for t in ax.texts] == ["1", "2", "3", "4"]
    for text, value in zip(ax.texts, [1, 2, 3, 4], strict=True):
        back = contrast(image.cmap(image.norm(value))[:3])
        ink = 1.0 if text.get_color() == "white" else 21.0
        assert max(back, ink) / min(back, ink) >= 4.5


def test_a_masked_cell_is_hatched_and_holds_no_number() -> None:
    fig = heatmap([[0, np.nan], [2, 3]], x_label="key", y_label="query", value_label="weight")
    ax = fig.axes[0]
    assert [t.get_text() for t in ax.texts] == ["0", "2", "3"]
    assert ax.patch.get_hatch()
    assert ax.get_images()[0].get_array().mask.sum() == 1  # what lies behind is seen there


def test_a_large_matrix_is_not_filled_with_numbers() -> None:
    fig = heatmap(np.ones((20, 20)), x_label="a (m)", y_label="b (m)", value_label="v")
    assert not fig.axes[0].texts


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: lines([1], {"a": [1]}, x_label="", y_label="y"), "x axis has no label"),
        (lambda: lines([1, 2], {"a": [1]}, x_label="x", y_label="y"), r"\(2,\) and \(1,\)"),
        (lambda: lines([], {}, x_label="x", y_label="y"), "nothing to plot"),
        (lambda: lines([], {"a": []}, x_label="x", y_label="y"), "at least one"),
        (lambda: loss_curve([1], [1], unit="loss"), "'nats per token'"),
        (lambda: bars({}, value_label="v", category_label="c"), "nothing to plot"),
        (lambda: rank_frequency({}), "nothing to plot"),
        (lambda: heatmap([1, 2], x_label="x", y_label="y", value_label="v"), "matrix"),
    ],
)
def test_bad_input_is_refused_in_words(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_missing_values_leave_a_gap_and_the_name_stands_at_the_last_one() -> None:
    nan = float("nan")
    fig = lines([1, 2, 3], {"a": [1, 5, nan], "b": [1, 1, 1]}, x_label="x (m)", y_label="y (m)")
    fig.draw_without_rendering()
    ax = fig.axes[0]
    label = Text.get_window_extent(next(t for t in ax.texts if t.get_text() == "a"))
    _, height = ax.transData.transform((2, 5))
    assert abs((label.y0 + label.y1) / 2 - height) < 20


def test_one_point_and_equal_values_can_be_drawn() -> None:
    fig = lines([3], {"a": [2], "b": [2]}, x_label="x (m)", y_label="y (m)")
    assert png(fig)
    assert png(loss_curve([0, 1], [2.0, 2.0], floor=2.0))


@pytest.mark.parametrize(
    ("places", "gap", "expected"),
    [
        ([0.5, 0.5], 0.1, [0.45, 0.55]),
        ([0.9, 0.1], 0.1, [0.9, 0.1]),
        ([0.0, 0.0, 0.0], 0.2, [0.0, 0.2, 0.4]),
        ([1.0, 1.0], 0.1, [0.9, 1.0]),
        ([0.3, 0.35, 0.4], 0.1, [0.25, 0.35, 0.45]),
    ],
)
def test_spread(places, gap, expected) -> None:
    assert spread(places, gap) == pytest.approx(expected)


def test_spread_keeps_order_distance_and_bounds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        places = rng.random(rng.integers(1, 9)).tolist()
        moved = spread(places, 0.1)
        order = np.argsort(places, kind="stable")
        gaps = np.diff(np.asarray(moved)[order])
        assert (gaps >= 0.1 - 1e-5).all()
        assert min(moved) >= -1e-9 and max(moved) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (4096, "4,096"),
        (99_999, "99,999"),
        (5_057_198, "5,060,000"),
        (1.23456, "1.23"),
        (0.000123456, "0.000123"),
        (1.5e-7, "1.5e-07"),
        (-0.5, "-0.5"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2e20, "2e+20"),
        (99.96, "100"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_the_last_place_of_a_logarithmic_axis_is_a_tick() -> None:
    fig = lines((0.01, 0.03, 0.1), {"a": [1, 2, 3]}, log="x", **AXES)
    assert list(fig.axes[0].get_xticks()) == [0.01, 0.03, 0.1]


def test_a_leader_crosses_no_name_of_another_line() -> None:
    ends = {"a long name": 1.04, "another name": 1.02, "a third name": 1.0, "far": 5.0}
    fig = lines([0, 1], {name: [3, end] for name, end in ends.items()}, **AXES)
    fig.draw_without_rendering()
    notes = fig.axes[0].texts
    for mine, other in itertools.permutations(notes, 2):
        leader = mine.arrow_patch.get_path().transformed(mine.arrow_patch.get_transform())
        assert not leader.intersects_bbox(Text.get_window_extent(other), filled=False)


def test_the_leader_of_a_line_that_ends_early_is_not_drawn_like_the_line() -> None:
    """Else it passes for more of the data."""
    x = {"short": [1, 2], "long": [1, 4]}
    fig = lines(x, {"short": [3, 2], "long": [3, 1]}, **AXES)
    short, long = (note.arrow_patch for note in fig.axes[0].texts)
    drawn = {line.get_label(): line for line in fig.axes[0].get_lines()}
    colors = [to_hex(patch.get_edgecolor()) for patch in (short, long)]
    assert colors == [to_hex(GREY), to_hex(drawn["long"].get_color())]
    assert short.get_linestyle() == ":" and long.get_linestyle() == drawn["long"].get_linestyle()


def test_a_title_too_long_for_a_line_goes_on_in_the_next() -> None:
    fig = lines([0, 1], {"a": [0, 1]}, title="a title of many words, " * 4, **AXES)
    fig.draw_without_rendering()
    box = fig.get_tightbbox()
    assert box.x1 <= fig.get_size_inches()[0] + 0.01 and box.y1 <= fig.get_size_inches()[1] + 0.01
