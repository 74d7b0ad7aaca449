"""Chapter 01, tokenizers: the ``tokenizer.json`` that comes with a published model.

The Rust library ``tokenizers`` reads it and does the work, whatever is in it; here it becomes a
``Tokenizer`` of this book.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
import torch

from llmtutor.data.readers import END_OF_TEXT
from llmtutor.interop.hf.folder import CONFIG, load_hf, read_config, save_hf
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import BPETokenizer, Tokenizer
from llmtutor.tokenizer.base import require_encodable, unknown_id
from llmtutor.tokenizer.fast import from_tokenizers, to_tokenizers
from llmtutor.tokenizer.files import is_printable, read_json, read_text, unprintable, write_files

TOKENIZER, GENERATION = "tokenizer.json", "generation_config.json"
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class HFTokenizer:
    """A tokenizer of the Rust library, as it stands in a ``tokenizer.json``.

    ``encode`` gives the text alone; ``prompt`` adds what the file puts around a text, such as a
    token for its beginning, without which some models have never seen one. Whether ``decode`` gives
    the same text again is up to the file: some change it first (NFC, for instance).

    Raises:
        ValueError: a file whose tokens we cannot turn into bytes one by one.
    """

    def __init__(self, rust: tokenizers.Tokenizer) -> None:
        self._rust = rust
        self._state: dict[str, Any] = json.loads(rust.to_str())
        self._ids = rust.get_vocab(with_added_tokens=True)
        self._pieces = {id: piece for piece, id in self._ids.items()}
        self._added = {token["id"]: token["content"] for token in self._state["added_tokens"]}
        self._bytes = _piece_to_bytes(self._state["decoder"])

    @classmethod
    def load(cls, path: Path | str) -> "HFTokenizer":
        """The tokenizer in a ``tokenizer.json``, or in a folder that holds one.

        Raises:
            FileNotFoundError: there is none.
            ValueError: a file that the library does not read, by its name.
        """
        path = Path(path)
        path = path / TOKENIZER if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(
                f"no {TOKENIZER} in {path.parent}: the tokenizer of a model of the hub comes in "
                "that file (tokenizer.model alone is another format)"
            )
        text = read_text(path)
        try:
            return cls(tokenizers.Tokenizer.from_str(text))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"{path}: {error}") from None

    @property
    def vocab_size(self) -> int:
        """The largest id and 1; there may be holes."""
        return max(self._pieces, default=-1) + 1

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Tokens that the file calls special."""
        added = self._state["added_tokens"]
        return {token["content"]: token["id"] for token in added if token["special"]}

    def encode(self, text: str) -> list[int]:
        """The ids of a text; `ValueError` for a lone surrogate."""
        require_encodable(text)
        return list(self._rust.encode(text, add_special_tokens=False).ids)

    def encode_iterable(self, chunks: Iterable[str]) -> Iterator[int]:
        """The ids of a text in chunks, read whole: where it may be cut is up to the file."""
        yield from self.encode("".join(chunks))

    def prompt(self, text: str) -> list[int]:
        """The ids of a text with what the file puts around it."""
        require_encodable(text)
        return list(self._rust.encode(text, add_special_tokens=True).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special tokens included; `ValueError` for an unknown id."""
        ids = list(ids)
        for id in ids:
            self._piece(id)
        return str(self._rust.decode(ids, skip_special_tokens=False))

    def token_bytes(self, id: int) -> bytes:
        """The bytes that an id adds to a text."""
        piece = self._piece(id)
        return piece.encode("utf-8") if id in self._added else self._bytes(piece)

    def _piece(self, id: int) -> str:
        if id in self._pieces:
            return self._pieces[id]
        if 0 <= id < self.vocab_size:
            return ""  # a hole in the numbering
        raise unknown_id(id, self.vocab_size)

    def as_bpe(self) -> BPETokenizer:
        """The same as a tokenizer of this book.

        Raises:
            ValueError: ``BPETokenizer`` has no counterpart of what the file asks for.
        """
        return from_tokenizers(self._rust)

    def fingerprint(self) -> str:
        """Of the whole file, in the library's own form."""
        return hashlib.sha256(self._rust.to_str().encode("utf-8")).hexdigest()

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``."""
        write_files(folder, {TOKENIZER: self._rust.to_str(pretty=True)})


def _piece_to_bytes(decoder: dict[str, Any] | None) -> Callable[[str], bytes]:
    """How a piece becomes bytes, from the steps that turn pieces into text."""
    steps = [] if decoder is None else decoder.get("decoders", [decoder])
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return lambda piece: b"".join(
            unprintable(c) if is_printable(c) else c.encode("utf-8") for c in piece
        )
    replaced: list[tuple[str, str]] = []
    for step in steps:
        if step["type"] == "Replace" and "String" in step["pattern"]:
            replaced.append((step["pattern"]["String"], step["content"]))
        elif step["type"] == "Metaspace":
            replaced.append((step["replacement"], " "))
        elif step["type"] not in ("ByteFallback", "Fuse", "Strip"):
            raise ValueError(
                f"its decoder is {', '.join(kinds)}; expected ByteLevel, or steps of Replace, "
                "Metaspace, ByteFallback, Fuse and Strip"
            )

    def to_bytes(piece: str) -> bytes:
        if "ByteFallback" in kinds and (byte := BYTE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        for old, new in replaced:
            piece = piece.replace(old, new)
        return piece.encode("utf-8")

    return to_bytes


class Published(NamedTuple):
    """A model with what is needed to let it write."""

    model: Transformer
    """In evaluation mode."""
    tokenizer: HFTokenizer
    """Its own."""
    stop: frozenset[int]
    """Ids that end a text."""


def load_hf_with_tokenizer(folder: str | Path, dtype: torch.dtype | None = None) -> Published:
    """Model, tokenizer and stop tokens of a folder as it comes from the hub.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: as ``load_hf`` and ``HFTokenizer``; a tokenizer of more ids than the model has;
            a stop token that is none.
    """
    folder = Path(folder)
    n_ids = read_config(folder).vocab_size
    tokenizer = HFTokenizer.load(folder)
    if tokenizer.vocab_size > n_ids:
        raise ValueError(
            f"{folder / TOKENIZER} has ids up to {tokenizer.vocab_size - 1}, the model's are 0 … "
            f"{n_ids - 1}: are they of the same model?"
        )
    stop = stop_ids(folder, n_ids)  # all that is quickly refused before the weights are read
    return Published(load_hf(folder, dtype).eval(), tokenizer, stop)


def save_hf_with_tokenizer(model: Transformer, tokenizer: Tokenizer, folder: str | Path) -> None:
    """``save_hf``, and beside it the tokenizer and the token that ends a text, if it has one.

    Byte pairs become a ``tokenizer.json``. That library has no form of the other tokenizers: they
    are written as files of their own.

    Raises:
        ValueError, OSError: as ``save_hf``.
    """
    folder = Path(folder)
    save_hf(model, folder)
    save_tokenizer(tokenizer, folder)
    if (end := tokenizer.special_tokens.get(END_OF_TEXT)) is not None:
        write_files(folder, {GENERATION: json.dumps({"eos_token_id": end}, indent=2) + "\n"})


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """As ``tokenizer.json`` if these are byte pairs, else as files of its own."""
    if isinstance(tokenizer, BPETokenizer):
        tokenizer = HFTokenizer(to_tokenizers(tokenizer))
    tokenizer.save(folder)


def stop_ids(folder: Path, vocab_size: int) -> frozenset[int]:
    """``eos_token_id`` of ``generation_config.json``, else that of ``config.json``.

    Raises:
        ValueError: it is no id, nor a list of them.
    """
    for name in (GENERATION, CONFIG):
        path = folder / name
        value = read_json(path).get("eos_token_id") if path.is_file() else None
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        for id in ids:
            if isinstance(id, bool) or not isinstance(id, int) or not 0 <= id < vocab_size:
                raise ValueError(
                    f"{path} has eos_token_id = {value!r}; expected ids from 0 to {vocab_size - 1}"
                )
        return frozenset(ids)
    return frozenset()
