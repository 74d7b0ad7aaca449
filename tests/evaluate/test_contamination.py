"""Contamination: a planted question is found however it is printed, and nothing else is."""

import pytest

from llmtutor.data import tales
from llmtutor.evaluate.contamination import find_overlap, words

QUESTIONS = [
    "A woman pours oil into a hot pan. She then adds the onions and stirs them until they are.",
    "The boy climbs on the wall, looks around for his friends and waves at the girl on the bridge.",
    "Two and two are four.",
    "The captain of the ship gave orders to the men.",
]


def test_a_planted_leak_is_found() -> None:
    documents = tales.generate(200, 1)
    clean = find_overlap(QUESTIONS, documents)
    assert clean.found == {} and clean.clean == [0, 1, 3]
    assert clean.too_short == {2} and clean.n_examined == 3
    printed = QUESTIONS[0].upper().replace(".", " --").replace(" THE ", "\n  the ")
    documents.insert(77, f"{documents[5]} {printed} {documents[6]}")
    leak = find_overlap(QUESTIONS, documents)
    assert list(leak.found) == [0] and leak.clean == [1, 3]
    assert leak.found[0] == "a woman pours oil into a hot pan she then adds the onions"


def test_a_short_text_is_looked_for_whole() -> None:
    found = find_overlap(QUESTIONS, ["... and the captain of the ship gave orders to the men."])
    assert list(found.found) == [3]
    part = find_overlap(QUESTIONS, ["the captain of the ship gave orders to the"])
    assert part.found == {}


def test_fewer_words_find_more() -> None:
    half = " ".join(words(QUESTIONS[1])[3:13])
    assert find_overlap(QUESTIONS, [half]).found == {}
    assert list(find_overlap(QUESTIONS, [half], n_words=10).found) == [1]
    with pytest.raises(ValueError, match="least_words <= n_words"):
        find_overlap(QUESTIONS, [half], n_words=5)
