"""Chapter 01, tokenizer: its exercises, each with the mistakes that people make there."""

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from llmtutor.exercises.core import Exercise, Property, Wrong

Merge = tuple[bytes, bytes]


# Exercise 1: the compression of a whole corpus.


def _bytes_per_token_cases() -> Iterator[tuple[list[str], list[list[int]]]]:
    yield ["to be or not to be"], [[3, 7, 9, 11, 3, 7]]
    yield ["O!", "The quality of mercy is not strain'd"], [[1, 2], [5, 6, 8, 2, 4, 9]]
    yield ["café", "naïve"], [[1, 2, 3], [4, 5]]
    yield ["愛", "love"], [[1, 2, 3], [4]]


def bytes_per_token(texts: Sequence[str], ids: Sequence[Sequence[int]]) -> float:
    """UTF-8 bytes of all texts over the number of all their tokens.

    >>> bytes_per_token(["to be", "é"], [[1, 2], [3]])  # 5 + 2 bytes, 3 tokens
    2.3333333333333335
    """
    return sum(len(text.encode("utf-8")) for text in texts) / sum(len(i) for i in ids)


def _counts_characters(texts: Sequence[str], ids: Sequence[Sequence[int]]) -> float:
    return sum(len(text) for text in texts) / sum(len(i) for i in ids)


def _mean_of_ratios(texts: Sequence[str], ids: Sequence[Sequence[int]]) -> float:
    ratios = [len(t.encode("utf-8")) / len(i) for t, i in zip(texts, ids, strict=True)]
    return sum(ratios) / len(ratios)


def _upside_down(texts: Sequence[str], ids: Sequence[Sequence[int]]) -> float:
    return 1 / bytes_per_token(texts, ids)


# Exercise 2: special tokens are cut out of a text first.

END, END_TEXT, PAD = "<|end|>", "<|end|><|text|>", "[PAD]"


def _split_special_cases() -> Iterator[tuple[str, list[str]]]:
    yield f"To be.{END}Or not.", [END]
    yield f"{END}{END}exit", [END]
    yield f"one{END_TEXT}two{END}three", [END, END_TEXT]
    yield f"a | b{PAD}P.A.D", [PAD, END]
    yield "no special token here", [END]
    yield "and none is defined", []


def split_special(text: str, special_tokens: Sequence[str]) -> list[str]:
    """The pieces of a text, each special token a piece of its own; no piece is empty.

    Where two special tokens begin at the same place, the longer one counts.

    >>> split_special("To be.<|end|>Or not.", ["<|end|>"])
    ['To be.', '<|end|>', 'Or not.']
    """
    return [
        piece for piece in _parts(text, map(re.escape, _longest_first(special_tokens))) if piece
    ]


def _longest_first(tokens: Sequence[str]) -> list[str]:
    return sorted(tokens, key=len, reverse=True)


def _parts(text: str, patterns: Iterable[str]) -> list[str]:
    """The text cut at each match of a pattern, the matches included, and empty pieces too."""
    pattern = "|".join(patterns)
    return re.split(f"({pattern})", text) if pattern else [text]


def _unescaped(text: str, special_tokens: Sequence[str]) -> list[str]:
    return [piece for piece in _parts(text, _longest_first(special_tokens)) if piece]


def _as_listed(text: str, special_tokens: Sequence[str]) -> list[str]:
    return [piece for piece in _parts(text, map(re.escape, special_tokens)) if piece]


def _loses_the_tokens(text: str, special_tokens: Sequence[str]) -> list[str]:
    return [p for p in split_special(text, special_tokens) if p not in special_tokens]


def _keeps_empty_pieces(text: str, special_tokens: Sequence[str]) -> list[str]:
    return _parts(text, map(re.escape, _longest_first(special_tokens)))


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
    ranks: dict[Merge, int] = {}
    for token in tokens:
        left, right = _encode_word(token, ranks)
        ranks[left, right] = len(ranks)
    return list(ranks)


def _encode_word(word: bytes, ranks: dict[Merge, int]) -> list[bytes]:
    symbols = [bytes([byte]) for byte in word]
    while True:
        known = [pair for pair in pairwise(symbols) if pair in ranks]
        if not known:
            return symbols
        left, right = min(known, key=ranks.__getitem__)
        i = 0
        while i + 1 < len(symbols):
            if (symbols[i], symbols[i + 1]) == (left, right):
                symbols[i : i + 2] = [left + right]
            i += 1


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
        name="tokenizer.bytes_per_token",
        cases=_bytes_per_token_cases,
        reference=bytes_per_token,
        wrong=[
            Wrong(
                _counts_characters,
                "It counts characters: `len` of a string is its number of code points, and in "
                "UTF-8 most of them take more than one byte.",
            ),
            Wrong(
                _mean_of_ratios,
                "It averages the ratios of the texts, so that a two-word text weighs as much as "
                "a whole play. Add up all bytes, add up all tokens, divide once.",
            ),
            Wrong(
                _upside_down,
                "It is upside down: tokens per byte. Better compression must give a larger value.",
            ),
        ],
    ),
    Exercise(
        name="tokenizer.split_special",
        cases=_split_special_cases,
        reference=split_special,
        wrong=[
            Wrong(
                _unescaped,
                "The special tokens are used as regular expressions as they are. In one, `|` "
                "means or and `[PAD]` means a single letter: escape them with `re.escape`.",
            ),
            Wrong(
                _as_listed,
                "Where one special token is the beginning of another, the one listed first wins. "
                "A regular expression takes the first alternative that fits: sort by length.",
            ),
            Wrong(
                _loses_the_tokens,
                "The special tokens have gone. `re.split` drops what it splits at, unless the "
                "pattern stands in parentheses; and the text could not be put together again.",
            ),
            Wrong(
                _keeps_empty_pieces,
                "It returns empty pieces, at the edges and between two special tokens that "
                "follow each other. They hold no text: leave them out.",
            ),
        ],
        properties=[
            Property(
                "the pieces joined are the text",
                lambda pieces, text, special_tokens: "".join(pieces) == text,
            )
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
