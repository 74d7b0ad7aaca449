"""Words by hand, their counts for any number of processes, and where a stream may be cut."""

import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, product, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtutor.tokenizer import pretokenize
from llmtutor.tokenizer.pretokenize import (
    GPT2_PATTERN,
    check_special_tokens,
    count_words,
    safe_pieces,
    special_pattern,
    split,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("Hello world", ["Hello", " world"]),
        ("I'll we've it's", ["I", "'ll", " we", "'ve", " it", "'s"]),
        ("they're I'd I'm don't", ["they", "'re", " I", "'d", " I", "'m", " don", "'t"]),
        ("a  b", ["a", " ", " b"]),
        ("a\n\nb", ["a", "\n", "\n", "b"]),
        ("end  ", ["end", "  "]),
        ("x2 y 37!?", ["x", "2", " y", " 37", "!?"]),
        ("O'er 'tis", ["O", "'", "er", " '", "tis"]),
        ("café中文1½", ["café中文", "1½"]),
    ],
)
def test_split_by_hand(text: str, words: list[str]) -> None:
    assert split(text) == words


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_character_is_lost(text: str) -> None:
    assert "".join(split(text)) == text


@pytest.mark.parametrize(("pattern", "said"), [("(a", "missing"), ("(a)|b", "(?:…)")])
def test_bad_patterns(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match="expected a pattern") as error:
        split("ab", pattern)
    assert said in str(error.value)


def test_a_pattern_that_loses_text() -> None:
    assert split("ab ab", "[ab]| ") == ["a", "b", " ", "a", "b"]
    with pytest.raises(ValueError, match="matches all of the text"):
        split("abc", "[ab]")


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["<a>", "<b>", "<a>"], "'<a>' twice"),
        (["<a>", ""], "at least one character"),
        (["\ud800"], "U\\+D800"),
        ("<a>", "found the string '<a>'"),
    ],
)
def test_bad_special_tokens(tokens: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_special_tokens(tokens)


# Counting


def test_count_by_hand() -> None:
    text = "to be<|end|>or not to be"
    expected = {"to": 1, " be": 2, "or": 1, " not": 1, " to": 1}
    assert count_words(text, ["<|end|>"]) == expected
    assert count_words(["to be", "or not to be"]) == expected


def test_documents_do_not_share_words() -> None:
    assert count_words(["ab", "cd"]) == {"ab": 1, "cd": 1}
    assert count_words("abcd") == {"abcd": 1}


def test_counts_do_not_depend_on_processes(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted = []
    submit = ProcessPoolExecutor.submit

    def spy(self, function, /, *args):
        submitted.append(function)
        return submit(self, function, *args)

    text = code[:200_000].replace("def ", "<|d|>").replace("self", "<|d|> <|x|>")
    special = ["<|d|>", "<|d|> <|x|>"]
    expected: Counter[str] = Counter()
    divider = special_pattern(tuple(special))
    for part in divider.split(text)[::2]:
        expected.update(split(part))
    assert count_words(text, special) == expected
    monkeypatch.setattr(ProcessPoolExecutor, "submit", spy)
    monkeypatch.setattr(pretokenize, "JOB", 5_000)
    assert count_words(text, special, num_processes=2) == expected
    assert len(submitted) >= 2
    documents = text.splitlines(keepends=True)
    alone = sum((count_words(document, special) for document in documents), Counter())
    assert count_words(documents, special, num_processes=3) == alone


def test_no_process_is_started_for_a_small_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(pretokenize, "ProcessPoolExecutor", refuse)
    monkeypatch.setattr(pretokenize, "JOB", 100)
    assert count_words("to be " * 50, num_processes=8) == {"to": 1, " be": 50, " to": 49, " ": 1}
    with pytest.raises(AssertionError, match="a process was started"):
        count_words("to be " * 500, num_processes=2)


def test_no_process_at_all() -> None:
    with pytest.raises(ValueError, match="num_processes must be at least 1, got 0"):
        count_words("a", num_processes=0)


def test_a_helper_that_cannot_start_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretokenize, "JOB", 100)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/no/such/script.py", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(RuntimeError, match="__main__"):
        count_words("to be " * 200, num_processes=2)


# Safe cuts


def test_cuts_are_safe_in_every_short_text() -> None:
    """All 37,448 texts of up to five of these eight characters, at each place that is offered."""
    cuts = 0
    for length in range(1, 6):
        for characters in product("ls'1 \n!é", repeat=length):
            text = "".join(characters)
            for match in pretokenize._SAFE_CUT.finditer(text):
                cut = match.start()
                cuts += 1
                assert split(text) == split(text[:cut]) + split(text[cut:]), (text, cut)
    assert cuts > 50_000


def test_text_has_many_safe_cuts(code: str) -> None:
    words = len(split(code))
    assert len(pretokenize._SAFE_CUT.findall(code)) > 0.5 * words
    assert all(len(piece) <= 1100 for piece in safe_pieces([code], size=1000))


PARTS = ["aaa", "<a>", "<a> b", "> <", " ", "\n", "a", "b<", "'", "'s", "1", "!", "é", "word ", "<"]
SPECIAL = ["<a>", "<a> b", "> <", " b", "aa", "<"]


def words_and_specials(text: str, special: tuple[str, ...]) -> list[str]:
    divider = special_pattern(special)
    if divider is None:
        return split(text)
    words = []
    for i, part in enumerate(divider.split(text)):
        words += [part] if i % 2 else split(part)
    return words


@settings(max_examples=1500, deadline=None)
@given(
    chunks=st.lists(st.lists(st.sampled_from(PARTS), max_size=4).map("".join), max_size=12),
    special=st.lists(st.sampled_from(SPECIAL), unique=True).map(tuple),
    size=st.integers(1, 12),
)
def test_pieces_split_as_the_whole(chunks: list[str], special: tuple[str, ...], size: int) -> None:
    text = "".join(chunks)
    pieces = list(safe_pieces(chunks, special, size=size))
    assert "".join(pieces) == text
    split_alone = [word for piece in pieces for word in words_and_specials(piece, special)]
    assert split_alone == words_and_specials(text, special)


@settings(max_examples=300, deadline=None)
@given(
    chunks=st.lists(st.text("ab <>", max_size=8), max_size=12),
    size=st.integers(1, 8),
)
def test_other_patterns_are_cut_at_special_tokens_only(chunks: list[str], size: int) -> None:
    special = ("<>", "<> <>")
    text = "".join(chunks)
    pieces = list(safe_pieces(chunks, special, r"[a b]+|[<>]+", size=size))
    assert "".join(pieces) == text
    assert all(piece.endswith(special) for piece in pieces[:-1])


def test_a_stream_is_read_only_as_far_as_needed() -> None:
    read = []

    def endless() -> Iterator[str]:
        for i in range(10**9):
            read.append(i)
            yield "to be "

    pieces = list(islice(safe_pieces(endless(), size=600), 3))
    assert [len(piece) for piece in pieces] == [599, 600, 600]
    assert len(read) == 300


def test_a_stream_of_one_endless_word() -> None:
    with pytest.raises(ValueError, match="no end of a word in 1,680 characters, from 'aaa"):
        list(safe_pieces(repeat("a" * 7), size=100, limit=1000))


@pytest.mark.parametrize("word", ["a", "\n", " 'a", "\U000323b0"])
def test_a_long_word_is_held_back_and_looked_at_a_few_times(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as much is there at each look, so that all looks together are linear."""
    seen = []
    look = pretokenize._last_safe_cut

    def counted(text: str, *rest: object) -> int:
        seen.append(len(text))
        return look(text, *rest)

    monkeypatch.setattr(pretokenize, "_last_safe_cut", counted)
    text = "to be" + word * 40_000
    chunks = [text[i : i + 100] for i in range(0, len(text), 100)]
    pieces = list(safe_pieces([*chunks, "\nor not"], size=100))
    assert [word for piece in pieces for word in split(piece)] == split(text + "\nor not")
    assert sum(seen) < 4 * len(text)


def test_a_custom_pattern_without_special_tokens_is_held_back() -> None:
    with pytest.raises(ValueError, match="no end of a word"):
        list(safe_pieces(repeat("to be "), (), r"\s|\S+", size=100, limit=1000))
    assert list(safe_pieces(["to be"], (), r"\s|\S+", size=2)) == ["to be"]
    assert GPT2_PATTERN != r"\s|\S+"
