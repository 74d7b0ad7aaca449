"""Rules of quality: each at its limit, by hand, and all of them on the sample."""

import pytest

from llmtutor.data.web import PAGES, RULES, extract, failures
from llmtutor.data.web.quality import (
    alphabetic_share,
    bullet_share,
    characters_in_repeated_lines,
    ellipsis_share,
    mean_word_length,
    n_stop_words,
    repeated_lines,
    symbol_share,
    top_ngram_share,
)

GOOD = "The tide and the moon have much to do with each other.\n"


def broken(text: str) -> set[str]:
    """Names of the rules."""
    return {rule.name for rule in failures(text)}


@pytest.mark.parametrize(
    ("measure", "text", "value"),
    [
        (mean_word_length, "to be or", 2.0),
        (lambda t: symbol_share(t, "#"), "# one #two three", 0.5),
        (bullet_share, "• a\n\n- b\nc\n* d", 0.75),
        (ellipsis_share, "more...\nand more…\nend.", 2 / 3),
        (alphabetic_share, "12 mm, 3 pieces", 0.5),
        (n_stop_words, "The the THE, with be.", 3),
        (repeated_lines, "a\nb\na\na", 0.5),
        (characters_in_repeated_lines, "aaaa\nb\naaaa\nc", 0.4),
        (lambda t: top_ngram_share(t, 2), "a b a b c d", 6 / 11),
        (lambda t: top_ngram_share(t, 3), "a b c d", 0.0),
    ],
)
def test_measures_by_hand(measure, text: str, value: float) -> None:
    assert measure(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "kept", "lost"),
    [
        ("50 to 100,000 words", "the of " * 25, "the of " * 24),
        ("3 to 10 letters a word", "tea " * 10, "so " * 10),
        ("at most 0.1 # a word", "# " + "a " * 9, "# # " + "a " * 9),
        ("at most 90% of lines bullets", "• x\n" * 9 + "y", "• x\n" * 10 + "y" * 0),
        ("at most 30% of lines end in …", "x…\n" * 3 + "y\n" * 7, "x…\n" * 4 + "y\n" * 6),
        ("80% of words with a letter", "a b c d 5", "a b c 4 5"),
        ("2 of 8 stop words", "the of", "the the"),
        ("at most 30% repeated lines", "a\na\nb\nc", "a\na\nb\nb"),
        ("no lorem ipsum", "Lorem", "a Lorem IPSUM b"),
        ("no curly bracket", "(a)", "if {a}"),
    ],
)
def test_each_rule_holds_up_to_its_limit(name: str, kept: str, lost: str) -> None:
    assert name not in broken(kept)
    assert name in broken(lost)


def test_of_the_sample_what_people_wrote_for_readers_stays() -> None:
    passed = [name for name, page in PAGES.items() if not failures(extract(page))]
    assert passed == ["mill", "light", "copy", "salt"]
    assert "at most 90% of lines bullets" in broken(extract(PAGES["shop"]))
    assert "at most 30% repeated lines" in broken(extract(PAGES["offers"]))
    assert {"no lorem ipsum", "2 of 8 stop words"} <= broken(extract(PAGES["lorem"]))
    assert "50 to 100,000 words" in broken(extract(PAGES["login"]))


def test_any_text_can_be_judged() -> None:
    assert {rule.name for rule in RULES} > broken("") and broken(GOOD) == {"50 to 100,000 words"}
    assert len({rule.name for rule in RULES}) == len(RULES)
