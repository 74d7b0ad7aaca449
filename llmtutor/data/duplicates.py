"""Chapter 02, step 8: find documents that are the same, or almost, without comparing all pairs.

Two documents are as alike as their sets of word n-grams ("shingles"): Jaccard similarity, the
shared part of the union. MinHash :cite:`broder1997` estimates it: under a random order of all
shingles, two sets have the same smallest element with a probability equal to their similarity.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

SHINGLE_WORDS = 5
# A band is a group of minima that must all agree. A pair of similarity s agrees in at least one
# band, and so becomes a candidate, with probability 1 - (1 - s**ROWS)**BANDS: 0.23 at s = 0.2,
# 0.986 at 0.5, more than 1 - 1e-9 at 0.8. Every candidate is then compared exactly.
BANDS, ROWS = 32, 3
MAX_IN_BAND = 16  # documents compared for each band; bounds the work when many are alike


class Repeat(NamedTuple):
    """Two documents by position, and their similarity (1 if they are equal)."""

    later: int
    earlier: int
    similarity: float


class Shingles:
    """Turns texts into hashed word n-grams; an instance gives equal n-grams equal numbers."""

    def __init__(self, n_words: int = SHINGLE_WORDS):
        self.n_words = n_words
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str) -> np.ndarray:
        """The n-grams of a text in order, as uint64; a shorter text is a single n-gram.

        >>> [len(Shingles(2)(text)) for text in ("to be or not", "to", "")]
        [3, 1, 0]
        """
        number = self._numbers
        words = [number.setdefault(word, len(number) + 1) for word in text.lower().split()]
        ids = np.array(words, dtype=np.uint64)
        width = min(self.n_words, len(ids))
        hashes = np.zeros(len(ids) - width + 1 if width else 0, dtype=np.uint64)
        for place in range(width):
            hashes = mix(hashes + ids[place : place + len(hashes)])
        return hashes


def mix(x: np.ndarray) -> np.ndarray:
    """A fixed one-to-one scrambling of 64-bit numbers: splitmix64 :cite:`steele2014`."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Size of the intersection over size of the union, for arrays of distinct numbers.

    >>> jaccard(np.array([1, 2, 3]), np.array([2, 3, 4]))
    0.5
    """
    shared = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - shared
    return shared / union if union else 1.0


_SEEDS = mix(np.arange(BANDS * ROWS, dtype=np.uint64))[:, None]


def signature(shingles: np.ndarray) -> np.ndarray:
    """MinHash: the smallest of a non-empty set in each of `BANDS * ROWS` fixed orders."""
    smallest = np.full((BANDS * ROWS, 1), np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(shingles), 4096):
        scrambled = mix(shingles[None, start : start + 4096] ^ _SEEDS)
        smallest = np.minimum(smallest, scrambled.min(axis=1, keepdims=True))
    return smallest[:, 0]


class NearIndex:
    """The documents seen so far, searchable for one that shares much with a given text."""

    def __init__(self, threshold: float):
        self.threshold = threshold
        self.exact: dict[str, int] = {}
        """The documents themselves, with their keys."""
        self._shingles = Shingles()
        self._bands: dict[tuple[int, bytes], list[int]] = defaultdict(list)
        self._sets: dict[int, np.ndarray] = {}

    def find(self, text: str, *, add_as: int | None = None) -> tuple[int, float] | None:
        """The key and the similarity of the most similar document, if any reaches the threshold.

        With `add_as` the text itself is then remembered under that key.
        """
        if add_as is not None:
            self.exact[text] = add_as
        shingles = np.unique(self._shingles(text))
        if len(shingles) == 0:
            return None
        rows = signature(shingles).reshape(BANDS, ROWS)
        bands = [(number, row.tobytes()) for number, row in enumerate(rows)]
        candidates = {key for band in bands for key in self._bands.get(band, ())}
        similar = [(jaccard(shingles, self._sets[key]), -key) for key in candidates]
        if add_as is not None:
            self._sets[add_as] = shingles
            for band in bands:
                if len(self._bands[band]) < MAX_IN_BAND:
                    self._bands[band].append(add_as)
        best, key = max(similar, default=(0.0, 0))
        return (-key, best) if similar and best >= self.threshold else None


def find_repeats(
    documents: Iterable[str], index: NearIndex, *, add: bool
) -> tuple[list[Repeat], list[Repeat]]:
    """The documents that equal one in the index, and those that are only much like one.

    With `add` each document is added after it was looked up, so that it can be an earlier one.

    >>> find_repeats(["a", "b", "a"], NearIndex(0.5), add=True)
    ([Repeat(later=2, earlier=0, similarity=1.0)], [])
    """
    exact, near = [], []
    for position, text in enumerate(documents):
        if (earlier := index.exact.get(text)) is not None:
            exact.append(Repeat(position, earlier, 1.0))
        elif (like := index.find(text, add_as=position if add else None)) is not None:
            near.append(Repeat(position, *like))
    return exact, near


def ngram_overlap(train: Iterable[str], valid: Iterable[str], n_words: int) -> float:
    """Share of the validation n-grams of words that also occur in the training documents.

    >>> ngram_overlap(["to be or not to be"], ["that is not to be"], 2)
    0.5
    """
    shingles = Shingles(n_words)
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *(shingles(t) for t in train)]))
    asked = np.concatenate([np.zeros(0, np.uint64), *(shingles(text) for text in valid)])
    return float(np.isin(asked, known).mean()) if len(asked) else 0.0
