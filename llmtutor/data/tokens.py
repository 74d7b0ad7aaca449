"""Chapter 02, step 6: a tokenised corpus as one file that is read without loading it.

The file is a header of 1,024 bytes (a magic line, then JSON, padded with spaces) and then the token
ids, little-endian, 2 bytes each if the vocabulary has at most 65,536 entries and else 4.
`head -n 2 FILE` shows the header.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import get_type_hints

import numpy as np

from llmtutor.checks import check_at_least, check_name, check_types
from llmtutor.tokenizer import Tokenizer
from llmtutor.tokenizer.files import written_whole

MAGIC = b"llmtutor tokens 1\n"
HEADER_BYTES = 1024
BUFFER_IDS = 1 << 18  # ids in memory at a time
PIECE_CHARS = 1 << 18  # longer documents are tokenised in pieces


@dataclass(frozen=True)
class TokenHeader:
    """What the ids mean and where they come from."""

    tokenizer: str
    """`fingerprint()` of the tokenizer."""
    corpus_sha256: str
    """sha256 of the documents' UTF-8 bytes, each followed by a byte 0xFF."""
    dtype: str
    """`<u2` or `<u4`."""
    count: int
    """Number of ids."""
    vocab_size: int
    n_documents: int
    separator: str | None
    """The special token that follows each document, if any."""


@dataclass(frozen=True)
class TokenFile:
    """Token ids mapped from a file: `ids[i:j]` reads just that stretch."""

    path: Path
    header: TokenHeader
    ids: np.memmap

    def __len__(self) -> int:
        return self.header.count


def dtype_of_ids(vocab_size: int) -> np.dtype:
    """The smallest of two unsigned integers, 2 and 4 bytes wide, that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def prepare(
    documents: Iterable[str | Iterable[str]],
    tokenizer: Tokenizer,
    path: Path | str,
    *,
    separator: str | None = None,
) -> TokenFile:
    """Tokenise documents into a file at `path`, in memory that does not grow with the corpus.

    A document is a text, or its pieces one after the other. Each document is tokenised by itself;
    `separator`, a special token of the tokenizer, follows each one. The file appears whole or not
    at all.

    Raises `ValueError` for an unknown separator or if there is no token, `OSError` if the disk is
    full or the folder cannot be written.
    """
    path = Path(path)
    if separator is not None:
        check_name("special token of the tokenizer", separator, tokenizer.special_tokens)
    dtype = dtype_of_ids(tokenizer.vocab_size)
    stream = _DocumentStream(documents, tokenizer, separator)
    with written_whole(path) as temporary, temporary.open("wb", buffering=0) as out:
        _write(out, b" " * HEADER_BYTES, path)
        count = 0
        for ids in _checked_chunks(stream, tokenizer.vocab_size):
            _write(out, ids.astype(dtype).tobytes(), path)
            count += len(ids)
        header = TokenHeader(
            tokenizer=tokenizer.fingerprint(),
            corpus_sha256=stream.sha256.hexdigest(),
            dtype=dtype.str,
            count=count,
            vocab_size=tokenizer.vocab_size,
            n_documents=stream.n_documents,
            separator=separator,
        )
        out.seek(0)
        _write(out, _header_bytes(header), path)
    return open_tokens(path, tokenizer)


def open_tokens(path: Path | str, tokenizer: Tokenizer | None = None) -> TokenFile:
    """Map a file that `prepare` wrote; nothing but the header is read.

    Raises `ValueError` if it is not such a file, is cut short, or was made with another tokenizer
    than the one given.
    """
    path = Path(path)
    with path.open("rb") as file:
        header = _parse_header(file.read(HEADER_BYTES), path)
    expected = HEADER_BYTES + header.count * np.dtype(header.dtype).itemsize
    if path.stat().st_size != expected:
        raise ValueError(
            f"{path}: expected {expected:,} bytes for {header.count:,} tokens, found "
            f"{path.stat().st_size:,}; prepare it again"
        )
    if tokenizer is not None and header.tokenizer != tokenizer.fingerprint():
        raise ValueError(
            f"{path}: made with tokenizer {header.tokenizer[:12]}… (vocabulary "
            f"{header.vocab_size:,}), but opened with {tokenizer.fingerprint()[:12]}… (vocabulary "
            f"{tokenizer.vocab_size:,}); prepare it again with this tokenizer"
        )
    ids = np.memmap(path, header.dtype, mode="r", offset=HEADER_BYTES, shape=(header.count,))
    return TokenFile(path, header, ids)


class _DocumentStream:
    """Token ids of documents; what it has read so far is in `sha256` and `n_documents`."""

    def __init__(
        self,
        documents: Iterable[str | Iterable[str]],
        tokenizer: Tokenizer,
        separator: str | None,
    ):
        self.documents = documents
        self.tokenizer = tokenizer
        self.end = [] if separator is None else [tokenizer.special_tokens[separator]]
        self.sha256 = hashlib.sha256()
        self.n_documents = 0

    def __iter__(self) -> Iterator[int]:
        for document in self.documents:
            self.n_documents += 1
            if isinstance(document, str) and len(document) <= PIECE_CHARS:
                yield from self.tokenizer.encode("".join(self._seen([document])))
            else:
                pieces = [document] if isinstance(document, str) else document
                yield from self.tokenizer.encode_iterable(self._seen(pieces))
            self.sha256.update(b"\xff")  # never a byte of UTF-8, so boundaries count
            yield from self.end

    def _seen(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces, none longer than `PIECE_CHARS`, while they are hashed."""
        for text in pieces:
            for start in range(0, len(text), PIECE_CHARS):
                piece = text[start : start + PIECE_CHARS]
                # A lone surrogate is left to the tokenizer, which says where it is.
                self.sha256.update(piece.encode("utf-8", "surrogatepass"))
                yield piece


def _checked_chunks(ids: Iterable[int], vocab_size: int) -> Iterator[np.ndarray]:
    """Ids in arrays of at most `BUFFER_IDS`; `ValueError` for an id outside the vocabulary."""
    iterator = iter(ids)
    empty = True
    while len(chunk := np.fromiter(islice(iterator, BUFFER_IDS), dtype=np.int64)):
        if chunk.min() < 0 or chunk.max() >= vocab_size:
            raise ValueError(
                f"expected ids below vocab_size {vocab_size:,}, but the tokenizer gave ids from "
                f"{chunk.min():,} to {chunk.max():,}"
            )
        empty = False
        yield chunk
    if empty:
        raise ValueError("expected at least one token, found none: the corpus is empty")


def _write(out: FileIO, data: bytes, path: Path) -> None:
    """Write all of `data`; without a buffer, so that a full disk is noticed here and not later."""
    view = memoryview(data)
    try:
        while view:
            view = view[out.write(view) :]
    except OSError as error:
        reason = f"cannot write the tokens: {error.strerror}; nothing is left behind"
        raise OSError(error.errno, reason, str(path)) from error


def _header_bytes(header: TokenHeader) -> bytes:
    text = MAGIC + json.dumps(asdict(header)).encode("utf-8")
    if len(text) >= HEADER_BYTES:
        raise ValueError(f"the separator {header.separator!r} is too long for the header")
    return text.ljust(HEADER_BYTES - 1) + b"\n"


def _parse_header(data: bytes, path: Path) -> TokenHeader:
    if not data.startswith(MAGIC):
        raise ValueError(
            f"{path}: expected a token file made by `llmtutor data prepare`, found something else"
        )
    try:
        header = TokenHeader(**json.loads(data.removeprefix(MAGIC)))
        check_types(header, get_type_hints(TokenHeader))
        check_at_least(1, count=header.count, vocab_size=header.vocab_size)
        check_name("dtype", header.dtype, ("<u2", "<u4"))
        return header
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: the header is damaged ({error}); prepare it again") from error
