"""Chapter 02, web pages: rules that tell prose from what only looks like text, as published.

They are those of Gopher (appendix A of :cite:t:`rae2021`) and of C4 (section 2.2 of
:cite:t:`raffel2020`) that judge a whole document. Left out are Gopher's repeats of longer n-grams
and C4's rules for single lines, for sentences and for words that offend.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
ELLIPSES = ("...", "…")
BULLETS = ("•", "-", "*")


@dataclass(frozen=True)
class Rule:
    """Something that a document has to be."""

    name: str
    source: str
    """Who published it."""
    holds: Callable[[str], bool]


def failures(text: str) -> list[Rule]:
    """The rules that a document breaks; a good one breaks none.

    >>> [rule.name for rule in failures("Log in with the name of your boat.")]
    ['50 to 100,000 words']
    """
    return [rule for rule in RULES if not rule.holds(text)]


def n_words(text: str) -> int:
    """Words, as parted by white space."""
    return len(text.split())


def mean_word_length(text: str) -> float:
    """Characters in a word, on average; 0 without words."""
    return _mean(map(len, text.split()))


def symbol_share(text: str, symbols: Sequence[str]) -> float:
    """How often one of the symbols occurs, for each word."""
    return sum(text.count(symbol) for symbol in symbols) / max(1, n_words(text))


def bullet_share(text: str) -> float:
    """Share of lines that begin with a bullet."""
    return _mean(line.lstrip().startswith(BULLETS) for line in _lines(text))


def ellipsis_share(text: str) -> float:
    """Share of lines that end in an ellipsis."""
    return _mean(line.rstrip().endswith(ELLIPSES) for line in _lines(text))


def alphabetic_share(text: str) -> float:
    """Share of words with at least one letter."""
    return _mean(any(map(str.isalpha, word)) for word in text.split())


def n_stop_words(text: str) -> int:
    """How many different of the eight stop words occur."""
    return len(STOP_WORDS & {word.strip(".,;:!?\"'()").lower() for word in text.split()})


def repeated_lines(text: str) -> float:
    """Share of lines that were there before.

    >>> repeated_lines("a\\nb\\na\\na")
    0.5
    """
    lines = _lines(text)
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def characters_in_repeated_lines(text: str) -> float:
    """Share of the characters that stand in a line that was there before."""
    lines = _lines(text)
    total = sum(map(len, lines))
    return 1 - sum(map(len, set(lines))) / total if total else 0.0


def top_ngram_share(text: str, n: int) -> float:
    """Share of the characters that stand in the most frequent n-gram of words.

    >>> round(top_ngram_share("so it is, so it is, so it goes", 2), 2)  # "so it", three times
    0.5
    """
    words = text.split()
    counts = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    most = max((len(gram) * times for gram, times in counts.items() if times > 1), default=0)
    return most / max(1, len(text))


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _top_ngram(n: int, most: float) -> Rule:
    name = f"at most {most:.0%} of characters in one {n}-gram"
    return Rule(name, "Gopher", lambda text: top_ngram_share(text, n) <= most)


RULES = (
    Rule("50 to 100,000 words", "Gopher", lambda text: 50 <= n_words(text) <= 100_000),
    Rule("3 to 10 letters a word", "Gopher", lambda text: 3 <= mean_word_length(text) <= 10),
    Rule("at most 0.1 # a word", "Gopher", lambda text: symbol_share(text, "#") <= 0.1),
    Rule("at most 0.1 … a word", "Gopher", lambda text: symbol_share(text, ELLIPSES) <= 0.1),
    Rule("at most 90% of lines bullets", "Gopher", lambda text: bullet_share(text) <= 0.9),
    Rule("at most 30% of lines end in …", "Gopher", lambda text: ellipsis_share(text) <= 0.3),
    Rule("80% of words with a letter", "Gopher", lambda text: alphabetic_share(text) >= 0.8),
    Rule("2 of 8 stop words", "Gopher", lambda text: n_stop_words(text) >= 2),
    Rule("at most 30% repeated lines", "Gopher", lambda text: repeated_lines(text) <= 0.3),
    Rule(
        "at most 20% of characters in repeated lines",
        "Gopher",
        lambda text: characters_in_repeated_lines(text) <= 0.2,
    ),
    _top_ngram(2, 0.2),
    _top_ngram(3, 0.18),
    _top_ngram(4, 0.16),
    Rule("no lorem ipsum", "C4", lambda text: "lorem ipsum" not in text.lower()),
    Rule("no curly bracket", "C4", lambda text: not set("{}") & set(text)),
)
"""In the order in which the papers name them."""
