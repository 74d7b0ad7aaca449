"""Repeats: found where they are planted, by hash as by comparing all pairs."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtutor.data import duplicates, tales
from llmtutor.data.duplicates import (
    BANDS,
    ROWS,
    NearIndex,
    Repeat,
    Shingles,
    find_repeats,
    jaccard,
    mix,
    ngram_overlap,
    signature,
)

WORDS = st.lists(st.sampled_from(["to", "be", "or", "not"]), max_size=12).map(" ".join)


def word_ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """The n-grams of a text, as plain tuples: what `Shingles` hashes."""
    words = text.lower().split()
    width = min(n, len(words))
    return [tuple(words[i : i + width]) for i in range(len(words) - width + 1)] if words else []


def near_pairs_by_comparing_all(documents: list[str], threshold: float) -> set[int]:
    """Positions of documents at least so similar to an earlier, different one."""
    sets = [set(word_ngrams(text, 5)) for text in documents]
    return {
        later
        for earlier, later in combinations(range(len(documents)), 2)
        if documents[earlier] != documents[later]
        and documents[later] not in documents[:later]
        and len(sets[earlier] & sets[later]) >= threshold * len(sets[earlier] | sets[later]) > 0
    }


@given(text=WORDS, other=WORDS, n=st.integers(1, 5))
def test_shingles_are_equal_exactly_when_the_words_are(text, other, n):
    shingles = Shingles(n)
    hashed = dict(zip(word_ngrams(text, n), shingles(text).tolist(), strict=True))
    hashed_other = dict(zip(word_ngrams(other, n), shingles(other).tolist(), strict=True))
    assert len(set(hashed.values())) == len(hashed)
    for gram, number in hashed_other.items():
        assert (number in hashed.values()) == (gram in hashed)


def test_mix_is_splitmix64():
    """First outputs for the seed 1234567, as Rosetta Code gives them for splitmix64."""
    steps = np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert mix(steps + np.uint64(1234567)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_jaccard_is_the_shared_part_of_the_union(a, b):
    expected = len(a & b) / len(a | b) if a | b else 1.0
    assert jaccard(np.array(sorted(a)), np.array(sorted(b))) == pytest.approx(expected)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_minhash_agrees_as_often_as_the_sets_are_similar(share):
    """The share of equal minima estimates the similarity; 40 pairs of sets of 200 together."""
    random = np.random.default_rng(0)
    agree = []
    for _ in range(40):
        union = random.integers(0, 2**63, 200, dtype=np.uint64)
        shared = int(share * 200)
        middle = (200 + shared) // 2
        a, b = union[:middle], union[middle - shared :]
        agree.append(np.mean(signature(np.sort(a)) == signature(np.sort(b))))
    sigma = (share * (1 - share) / (BANDS * ROWS * 40)) ** 0.5
    assert abs(np.mean(agree) - share) < 4 * sigma + 0.005


def test_a_signature_does_not_depend_on_how_the_set_is_cut():
    big = np.random.default_rng(1).integers(0, 2**63, 10_000, dtype=np.uint64)
    parts = [signature(big[start : start + 3_000]) for start in range(0, 10_000, 3_000)]
    assert (signature(big) == np.min(parts, axis=0)).all()


def test_exact_repeats_name_the_first_like_it():
    found, _ = find_repeats(["a", "b", "a", "c", "b", "a"], NearIndex(0.5), add=True)
    assert found == [Repeat(2, 0, 1.0), Repeat(4, 1, 1.0), Repeat(5, 0, 1.0)]


def test_near_repeats_by_hand():
    story = "once upon a time there was a small fox who lived by the sea"
    edited = story.replace("small", "large")
    other = "the king of france went up the hill with forty thousand men"
    found = find_repeats([story, other, edited, story, "", ""], NearIndex(0.3), add=True)
    # 10 shingles each; the changed word is in 5 of them: 5 shared of 15
    assert found == ([Repeat(3, 0, 1.0), Repeat(5, 4, 1.0)], [Repeat(2, 0, 5 / 15)])
    assert find_repeats([story, edited], NearIndex(0.34), add=True) == ([], [])


def spoiled_stories(n: int, seed: int) -> list[str]:
    """Tales, and for every fifth one a copy with some of its words replaced."""
    random = np.random.default_rng(seed)
    documents = []
    for number, story in enumerate(tales.generate(n, seed)):
        documents.append(story)
        if number % 5 == 0:
            words = story.split()
            for place in random.choice(len(words), 1 + number % 7, replace=False):
                words[place] = "xyzzy"
            documents.append(" ".join(words))
    return documents


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_index_finds_what_comparing_all_pairs_finds(seed):
    documents = spoiled_stories(60, seed)
    _, found = find_repeats(documents, NearIndex(0.5), add=True)
    expected = near_pairs_by_comparing_all(documents, 0.5)
    assert {repeat.later for repeat in found} <= expected
    clear = near_pairs_by_comparing_all(documents, 0.7)  # found with probability > 0.9999 each
    assert clear <= {repeat.later for repeat in found}
    assert len(clear) >= 4
    for later, earlier, similarity in found:
        a, b = (set(word_ngrams(documents[place], 5)) for place in (later, earlier))
        assert similarity == pytest.approx(len(a & b) / len(a | b))


def test_a_thousand_variants_of_one_text_stay_cheap(monkeypatch):
    """Each look-up compares with at most MAX_IN_BAND documents a band, not with all."""
    compared = []
    plain = duplicates.jaccard
    monkeypatch.setattr(duplicates, "jaccard", lambda a, b: compared.append(1) or plain(a, b))
    base = "the same old story about the sea and the ship that never came home again " * 5
    documents = [f"{base}number {n}" for n in range(1_000)]
    _, found = find_repeats(documents, NearIndex(0.5), add=True)
    assert len(found) == 999
    assert len(compared) < 1_000 * 1_000 / 2 / 5


def test_ngram_overlap_by_hand_and_at_its_ends():
    train = ["to be or not to be", "that is the question"]
    # to be / be that / that is / is all: two of four
    assert ngram_overlap(train, ["to be that is all"], 2) == 0.5
    assert ngram_overlap(train, train, 3) == 1.0
    assert ngram_overlap(train, ["nothing of it here"], 1) == 0.0
    assert ngram_overlap(train, [], 2) == 0.0
    assert ngram_overlap([], ["to be"], 2) == 0.0


@given(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=4), st.integers(1, 4))
def test_ngram_overlap_is_what_plain_sets_say(train, valid, n):
    known = {gram for text in train for gram in word_ngrams(text, n)}
    asked = [gram for text in valid for gram in word_ngrams(text, n)]
    expected = sum(gram in known for gram in asked) / len(asked) if asked else 0.0
    assert ngram_overlap(train, valid, n) == pytest.approx(expected)
