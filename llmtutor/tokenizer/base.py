"""Chapter 01, step 0: what every tokenizer of this book can do."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back, without loss: ``decode(encode(text)) == text``.

    Ids are the numbers ``0 … vocab_size - 1``, so they can index the rows of an embedding.
    """

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Tokens with a meaning of their own, such as ``<|endoftext|>``, and their ids."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text; `ValueError` for text that cannot be encoded."""

    def encode_iterable(self, chunks: Iterable[str]) -> Iterator[int]:
        """The ids of a text that arrives in chunks, one after another, in bounded memory."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; `ValueError` for an id outside the vocabulary."""

    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes that one id stands for."""

    def fingerprint(self) -> str:
        """64 hex digits, other ones for any other vocabulary, merges or special tokens."""

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files for `load_tokenizer`."""


def require_encodable(text: str) -> None:
    r"""Raise `ValueError` if a text has no UTF-8 form because it holds a lone surrogate.

    >>> require_encodable("a😀")
    >>> require_encodable("a\ud83d")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: expected Unicode text, found the lone surrogate U+D83D at character 1: ...
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"expected Unicode text, found the lone surrogate U+{ord(text[error.start]):04X} at "
            f'character {error.start}: read the file as UTF-8, or replace it with errors="replace"'
        ) from None


def unknown_id(id: int, vocab_size: int) -> ValueError:
    """The error for an id that no token has."""
    return ValueError(
        f"expected ids from 0 to {vocab_size - 1}, found {id}: "
        "was the text encoded with another tokenizer?"
    )
