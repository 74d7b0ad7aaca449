"""Chapter 01, tokenizer: its exercises, each with the mistakes that people make there."""

import codecs
import re
from collections.abc import Callable, Iterator, Sequence

from llmtutor.exercises.core import Exercise, Property, Wrong
from llmtutor.tokenizer.ranks import merges_of

Merge = tuple[bytes, bytes]


# Exercise 1: characters, and bytes for those that the vocabulary lacks.


def _with_fallback_cases() -> Iterator[tuple[str, set[str]]]:
    yield "bad cab", set("abcd ")
    yield "café", set("acf")
    yield "愛 be", set("be ")
    yield "🌹", set("r")
    yield "", set("a")


def with_fallback(text: str, vocabulary: set[str]) -> list[str]:
    """The pieces of a text: a known character is itself, another one the names of its bytes.

    >>> with_fallback("né", {"n"})
    ['n', '<0xC3>', '<0xA9>']
    """
    pieces = []
    for character in text:
        if character in vocabulary:
            pieces.append(character)
        else:
            pieces += [f"<0x{byte:02X}>" for byte in character.encode("utf-8")]
    return pieces


def _unknown(text: str, vocabulary: set[str]) -> list[str]:
    return [character if character in vocabulary else "<unk>" for character in text]


def _code_points(text: str, vocabulary: set[str]) -> list[str]:
    return [c if c in vocabulary else f"<0x{ord(c):02X}>" for c in text]


def _all_bytes(text: str, vocabulary: set[str]) -> list[str]:
    if set(text) <= vocabulary:
        return list(text)
    return [f"<0x{byte:02X}>" for byte in text.encode("utf-8")]


# Exercise 2: long numbers, cut as people read them.


def _cut_numbers_cases() -> Iterator[tuple[str]]:
    yield ("1234567",)
    yield ("in 1603 and 16031603",)
    yield ("a12b3456c",)
    yield ("100 + 1000",)
    yield ("no digits",)


def cut_numbers(text: str) -> list[str]:
    """The text in pieces: what is no digit stays whole, digits are in threes from the right.

    >>> cut_numbers("in 1603")
    ['in ', '1', '603']
    """
    return _in_threes(text, lambda digits: digits % 3 or 3)


def _in_threes(text: str, first_of: Callable[[int], int]) -> list[str]:
    """Runs of digits in threes, after a first piece of ``first_of(digits)``; the rest whole."""
    pieces: list[str] = []
    for run in re.findall("[0-9]+|[^0-9]+", text):
        first = first_of(len(run)) if run[0] in "0123456789" else len(run)
        pieces += [run[:first], *(run[i : i + 3] for i in range(first, len(run), 3))]
    return pieces


def _from_the_left(text: str) -> list[str]:
    return re.findall("[0-9]{1,3}|[^0-9]+", text)


def _empty_first(text: str) -> list[str]:
    return _in_threes(text, lambda digits: digits % 3)


def _numbers_alone(text: str) -> list[str]:
    return [piece for piece in cut_numbers(text) if piece[0] in "0123456789"]


# Exercise 3: show a growing text while its tokens arrive.


def _stream_cases() -> Iterator[tuple[list[bytes]]]:
    yield ([b"To", b" be"],)
    yield ([b"caf", b"\xc3", b"\xa9", b"!"],)
    yield ([b"\xf0\x9f", b"\x8c", b"\xb9 rose"],)
    yield ([b"na\xc3", b"\xafve"],)
    yield ([b"\xe6\x84\x9b\xe6", b"\x84\x9b"],)


def stream(tokens: Sequence[bytes]) -> list[str]:
    """For each arriving token the characters that became complete with it.

    >>> stream([b"caf", b"\\xc3", b"\\xa9!"])
    ['caf', '', 'é!']
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(token) for token in tokens]


def _token_by_token(tokens: Sequence[bytes]) -> list[str]:
    return [token.decode("utf-8", errors="replace") for token in tokens]


def _ignores_errors(tokens: Sequence[bytes]) -> list[str]:
    return [token.decode("utf-8", errors="ignore") for token in tokens]


def _waits_for_clean_bytes(tokens: Sequence[bytes]) -> list[str]:
    shown, waiting = [], b""
    for token in tokens:
        waiting += token
        try:
            shown.append(waiting.decode("utf-8"))
            waiting = b""
        except UnicodeDecodeError:
            shown.append("")
    return shown


def _repeats_the_beginning(tokens: Sequence[bytes]) -> list[str]:
    ends = range(1, len(tokens) + 1)
    return [b"".join(tokens[:end]).decode("utf-8", errors="ignore") for end in ends]


# Exercise 4: the merges, found again from the vocabulary alone.


def _recover_merges_cases() -> Iterator[tuple[list[bytes]]]:
    yield ([b"ub", b"le", b"uble", b"ouble", b"nd", b"double", b"and"],)
    yield ([b"ab", b"bc", b"abc"],)
    yield ([b"bc", b"ab", b"abc"],)
    yield ([b"th", b"he", b"the", b" the", b"er", b"re", b"her", b"ther", b" ther", b" there"],)
    yield ([b"aa", b"aaaa", b"aaa"],)


def recover_merges(tokens: Sequence[bytes]) -> list[Merge]:
    """The pair that each token was merged from; the tokens come in the order of their ids.

    Split a token by the merges found before it: exactly two symbols are left.

    >>> recover_merges([b"ub", b"le", b"uble"])
    [(b'u', b'b'), (b'l', b'e'), (b'ub', b'le')]
    """
    return merges_of([*(bytes([byte]) for byte in range(256)), *tokens])


def _last_byte(tokens: Sequence[bytes]) -> list[Merge]:
    return [(token[:-1], token[-1:]) for token in tokens]


def _shortest_known_start(tokens: Sequence[bytes]) -> list[Merge]:
    return [next(_known_splits(tokens, token)) for token in tokens]


def _longest_known_start(tokens: Sequence[bytes]) -> list[Merge]:
    return [list(_known_splits(tokens, token))[-1] for token in tokens]


def _known_splits(tokens: Sequence[bytes], token: bytes) -> Iterator[Merge]:
    """Every split of a token into two parts that are single bytes or earlier tokens."""
    known = tokens[: tokens.index(token)]
    for i in range(1, len(token)):
        if all(len(part) == 1 or part in known for part in (token[:i], token[i:])):
            yield token[:i], token[i:]


EXERCISES = [
    Exercise(
        name="tokenizer.with_fallback",
        cases=_with_fallback_cases,
        reference=with_fallback,
        wrong=[
            Wrong(
                _unknown,
                "An unknown character became one piece, the same for all of them: the text could "
                "not be put together again. Its bytes can.",
            ),
            Wrong(
                _code_points,
                "It names the code point, of which there are more than a million. A byte has two "
                'hexadecimal digits: take those of `character.encode("utf-8")`.',
            ),
            Wrong(
                _all_bytes,
                "One unknown character turned the whole text into bytes. The known ones stay.",
            ),
        ],
    ),
    Exercise(
        name="tokenizer.cut_numbers",
        cases=_cut_numbers_cases,
        reference=cut_numbers,
        wrong=[
            Wrong(
                _from_the_left,
                "It cuts from the left, as `\\p{N}{1,3}` does: 1234567 becomes 123, 456, 7, and "
                "the 7 has lost its place. From the right it is 1, 234, 567.",
            ),
            Wrong(
                _empty_first,
                "A number whose digits are a multiple of three has an empty piece in front: "
                "`len(run) % 3` is 0 there.",
            ),
            Wrong(
                _numbers_alone,
                "What stands between the numbers has gone, and the text could not be put together "
                "again. Keep it, whole.",
            ),
        ],
        properties=[
            Property("the pieces joined are the text", lambda pieces, text: "".join(pieces) == text)
        ],
    ),
    Exercise(
        name="tokenizer.stream",
        cases=_stream_cases,
        reference=stream,
        wrong=[
            Wrong(
                _token_by_token,
                "Each token is decoded alone, so a character whose bytes lie in two tokens "
                "turns into replacement characters. Keep the unfinished bytes for the next token.",
            ),
            Wrong(
                _ignores_errors,
                'With `errors="ignore"` the unfinished bytes of a character are thrown away '
                "instead of being kept for the next token: the character never appears.",
            ),
            Wrong(
                _waits_for_clean_bytes,
                "It waits until everything that has arrived can be decoded. Characters that are "
                "complete should be shown at once, even if another one has begun behind them.",
            ),
            Wrong(
                _repeats_the_beginning,
                "It returns the whole text so far for every token. Only what is new since the "
                "last token is asked for, or the reader sees the beginning again and again.",
            ),
        ],
        properties=[
            Property(
                "the pieces joined are the whole text",
                lambda pieces, tokens: "".join(pieces) == b"".join(tokens).decode("utf-8"),
            )
        ],
    ),
    Exercise(
        name="tokenizer.recover_merges",
        cases=_recover_merges_cases,
        reference=recover_merges,
        wrong=[
            Wrong(
                _last_byte,
                "It cuts off the last byte. A merge joins two symbols of any length: `uble` was "
                "made of `ub` and `le`.",
            ),
            Wrong(
                _shortest_known_start,
                "It takes the first cut that leaves two known tokens. There can be several; which "
                "one was made is decided by the merges that came earlier, applied by rank.",
            ),
            Wrong(
                _longest_known_start,
                "It takes the longest known beginning. BPE never looks for long tokens: the merges "
                "that came earlier, applied by rank, decide which two symbols are left.",
            ),
        ],
        properties=[
            Property(
                "each pair joined is its token",
                lambda merges, tokens: [a + b for a, b in merges] == list(tokens),
            )
        ],
    ),
]
