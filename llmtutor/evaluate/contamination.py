"""Chapter 22, evaluation: has the model been trained on the questions?

A question that stands in the training text is recalled, not answered. Runs of n words that occur in
both are looked for, as GPT-3's authors did (Brown et al. 2020, appendix C), with n up to 13.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llmtutor.checks import check_at_least

N_WORDS = 13
LEAST_WORDS = 8
"""A shorter text is looked for whole if it has so many words; of fewer nothing is said."""


@dataclass(frozen=True)
class Contamination:
    """Which texts of a benchmark share a run of words with a corpus."""

    n_texts: int
    found: dict[int, str]
    """Place of a text, from 0: the run of words that the corpus has too."""
    too_short: frozenset[int] = field(default_factory=frozenset)
    """Places of texts that are too short to say anything about."""

    @property
    def n_examined(self) -> int:
        """Texts that were long enough."""
        return self.n_texts - len(self.too_short)

    @property
    def clean(self) -> list[int]:
        """Places of texts that were examined and not found."""
        return [i for i in range(self.n_texts) if i not in self.found and i not in self.too_short]


def words(text: str) -> list[str]:
    """Words in small letters, without what stands between them.

    >>> words("Can't you, Sir Toby?")
    ["can't", 'you', 'sir', 'toby']
    """
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def find_overlap(
    texts: Sequence[str],
    documents: Iterable[str],
    *,
    n_words: int = N_WORDS,
    least_words: int = LEAST_WORDS,
) -> Contamination:
    """Look for runs of ``n_words`` words of the texts in documents, which are read once.

    Memory is that of the texts' runs, however large the corpus is. A run in common proves no
    training on the question (proverbs, laws and recipes are everywhere), and a question in other
    words is not found.

    Raises:
        ValueError: a number of words below 1, ``least_words`` above ``n_words``.
    """
    check_at_least(1, n_words=n_words, least_words=least_words)
    if least_words > n_words:
        raise ValueError(f"expected least_words <= n_words, got {least_words} and {n_words}")
    sought: dict[tuple[str, ...], set[int]] = {}
    too_short = set()
    for i, text in enumerate(texts):
        all_words = words(text)
        if len(all_words) < least_words:
            too_short.add(i)
        else:
            for run in runs(all_words, min(n_words, len(all_words))):
                sought.setdefault(run, set()).add(i)
    lengths = sorted({len(run) for run in sought})
    found: dict[int, str] = {}
    for document in documents:
        all_words = words(document)
        for length in lengths:
            for run in runs(all_words, length):
                for i in sought.get(run, ()):
                    found.setdefault(i, " ".join(run))
    return Contamination(len(texts), dict(sorted(found.items())), frozenset(too_short))


def runs(all_words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    """Every run of ``n`` words.

    >>> list(runs(["a", "b", "c"], 2))
    [('a', 'b'), ('b', 'c')]
    """
    return zip(*(all_words[i:] for i in range(n)), strict=False)
