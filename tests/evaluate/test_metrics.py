"""Marks by hand, where the three rules disagree; perplexities of whole texts."""

import math

import pytest

from llmtutor.evaluate.items import choice
from llmtutor.evaluate.metrics import (
    METRICS,
    Rolled,
    answer_perplexity,
    confidence,
    rolling_metrics,
    sizes,
    tied,
)
from llmtutor.evaluate.scoring import Score


def scores(*values: float) -> list[Score]:
    return [Score(value, False, 3, 0) for value in values]


def test_three_rules_find_three_answers() -> None:
    """As a whole the short one; per character the long one; per byte the one without accents."""
    answers = ["no", "nevermore", "éééééé"]
    found = scores(-4.0, -17.0, -11.0)
    best = {  # -2, -1.89, -1.83 a character; -2, -1.89, -0.92 a byte
        "acc": 0,
        "acc_norm": 2,
        "acc_bytes": 2,
    }
    for name, place in best.items():
        marks = [METRICS[name](choice("?", answers, gold), found) for gold in range(3)]
        assert marks == [gold == place for gold in range(3)], name
    found = scores(-4.0, -15.0, -10.8)  # -1.67 and -1.8 a character; -1.67 and -0.9 a byte
    assert METRICS["acc_norm"](choice("?", answers, 1), found)
    assert METRICS["acc_bytes"](choice("?", answers, 2), found)


def test_of_equal_ones_the_first_is_taken_and_that_is_told() -> None:
    found = scores(-2.0, -2.0)
    assert METRICS["acc"](choice("", ["ab", "cd"], 0), found)
    assert not METRICS["acc"](choice("", ["ab", "cd"], 1), found)
    assert tied(choice("", ["ab", "cd"], 0), found)
    assert not tied(choice("", ["ab", "cd"], 0), scores(-2.0, -2.1))
    assert not tied(choice("x", ["ab"], 0), scores(-2.0))
    assert confidence(found) == 0.5
    assert confidence(scores(math.log(0.2) - 900, math.log(0.6) - 900)) == pytest.approx(0.75)


def test_the_last_word_is_right_if_it_would_be_written() -> None:
    item = choice("To", ["be"], 0)
    assert METRICS["exact_match"](item, [Score(-0.1, True, 1, 0)])
    assert not METRICS["exact_match"](item, [Score(-0.1, False, 1, 0)])
    each = [scores(math.log(0.5)), scores(math.log(0.125))]
    assert answer_perplexity([item, item], each) == pytest.approx(4.0)


def test_whole_texts_weigh_by_their_length() -> None:
    texts = ["ab cd", "naïve"]
    rolled = [
        Rolled(8 * math.log(2), 4, *sizes(texts[0])),
        Rolled(14 * math.log(2), 2, *sizes(texts[1])),
    ]
    assert sizes(texts[0]) == (2, 5) and sizes(texts[1]) == (1, 6)
    found = rolling_metrics(rolled)
    assert found["bits_per_byte"] == pytest.approx(22 / 11)
    assert found["byte_perplexity"] == pytest.approx(4.0)
    assert found["word_perplexity"] == pytest.approx(2 ** (22 / 3))
    with pytest.raises(ValueError, match="at least one text"):
        rolling_metrics([])
