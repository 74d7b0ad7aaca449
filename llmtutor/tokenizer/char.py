"""Chapter 01, step 1: one id for each character."""

import hashlib
import json
import operator
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from llmtutor.tokenizer.base import require_encodable, unknown_id
from llmtutor.tokenizer.files import read_json, write_files

CHARS_FILE = "chars.json"


class CharTokenizer:
    """The id of a character is its place in `chars`; there are no special tokens.

    >>> tokenizer = CharTokenizer.from_text("banana")
    >>> tokenizer.chars, tokenizer.encode("nab")
    ('abn', [2, 0, 1])
    """

    def __init__(self, chars: str) -> None:
        if not chars:
            raise ValueError("expected at least one character, found none: is the text empty?")
        require_encodable(chars)
        self.chars, self.vocab_size = chars, len(chars)
        self.special_tokens: Mapping[str, int] = {}
        self._ids = {char: id for id, char in enumerate(chars)}
        if len(self._ids) < len(chars):
            twice = next(char for char in chars if chars.count(char) > 1)
            raise ValueError(f"expected each character once, found {twice!r} twice")
        self._chars = dict(enumerate(chars))

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """All characters of a text, in order of their code points."""
        return cls("".join(sorted(set(text))))

    @classmethod
    def load(cls, folder: Path | str) -> "CharTokenizer":
        """Read what `save` wrote."""
        path = Path(folder) / CHARS_FILE
        chars = read_json(path).get("chars")
        if not isinstance(chars, str):
            raise ValueError(f'{path}: expected {{"chars": "…"}}')
        try:
            return cls(chars)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def encode(self, text: str) -> list[int]:
        """One id a character; `ValueError` names a character that is not in the vocabulary."""
        try:
            return list(map(self._ids.__getitem__, text))
        except KeyError as error:
            char = error.args[0]
            raise ValueError(
                f"expected only the {self.vocab_size} characters of the vocabulary, found {char!r} "
                f"(U+{ord(char):04X}) at character {text.index(char)}: build the tokenizer from "
                "text that holds it, or use a byte-level tokenizer"
            ) from None

    def encode_iterable(self, chunks: Iterable[str]) -> Iterator[int]:
        """The ids of the joined chunks, one chunk held at a time."""
        for chunk in chunks:
            yield from self.encode(chunk)

    def decode(self, ids: Iterable[int]) -> str:
        """The characters of the ids; `ValueError` for an unknown id."""
        try:
            return "".join(map(self._chars.__getitem__, map(operator.index, ids)))
        except KeyError as error:
            raise unknown_id(error.args[0], self.vocab_size) from None

    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes of a character."""
        return self.decode([id]).encode("utf-8")

    def fingerprint(self) -> str:
        """sha256 of the vocabulary."""
        return hashlib.sha256(json.dumps({"chars": self.chars}).encode()).hexdigest()

    def save(self, folder: Path | str) -> None:
        """Write ``chars.json``."""
        text = json.dumps({"chars": self.chars}, ensure_ascii=False) + "\n"
        write_files(Path(folder), {CHARS_FILE: text})
