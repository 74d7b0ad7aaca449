"""Chapter 02, step 3: from files to documents, a piece at a time.

Every reader yields documents without holding the file in memory, and refuses what is not text:
an empty file, zero bytes, and bytes that are not UTF-8 are errors that say where.
"""

import codecs
import gzip
import zlib
from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, cast

from llmtutor.data.places import CHUNK

END_OF_TEXT = "<|endoftext|>"

_MARKS = {  # what a text file may begin with; the mark of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_pieces(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file (`.gz` is unpacked on the way) in pieces of about 1 MiB.

    Raises `ValueError` for a folder, an empty file and one that is not UTF-8 text.
    """
    if path.is_dir():
        raise ValueError(f"{path}: expected a text file, found a folder; name a file in it")
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    open_file = gzip.open if path.suffix == ".gz" else open
    with open_file(path, "rb") as file:
        while chunk := _read(cast(IO[bytes], file), path):
            if not done and (name := _mark(chunk)):
                raise ValueError(
                    f"{path}: expected UTF-8 text, found {name}; convert the file first, with "
                    f"`iconv -f {name} -t UTF-8` or by saving it as UTF-8 in an editor"
                )
            done += len(chunk)
            if (zero := chunk.find(b"\0")) >= 0:
                raise ValueError(
                    f"{path}: expected text, found a zero byte at {done - len(chunk) + zero:,}: "
                    "this is a binary file, or text to be converted to UTF-8 first"
                )
            yield _decode(decoder, chunk, path, done, final=False)
        yield _decode(decoder, b"", path, done, final=True)
    if not done:
        raise ValueError(f"{path}: expected text, found an empty file")


def _mark(beginning: bytes) -> str | None:
    return next((name for mark, name in _MARKS.items() if beginning.startswith(mark)), None)


def _read(file: IO[bytes], path: Path) -> bytes:
    try:
        return file.read(CHUNK)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error}); fetch it again") from error


def _decode(
    decoder: codecs.IncrementalDecoder, chunk: bytes, path: Path, done: int, *, final: bool
) -> str:
    kept = len(decoder.getstate()[0])  # the beginning of a character cut by the last chunk
    try:
        return decoder.decode(chunk, final)
    except UnicodeDecodeError as error:
        position = done - len(chunk) - kept + error.start
        raise ValueError(
            f"{path}: expected UTF-8 text, found byte 0x{error.object[error.start]:02x} at "
            f"{position:,}; convert the file to UTF-8 first"
        ) from error


def read_separated(path: Path) -> Iterator[str]:
    """The documents between `<|endoftext|>`, without blank lines around them and empty ones."""
    return map("".join, separated_pieces(path))


def separated_pieces(path: Path) -> Iterator[Iterator[str]]:
    """The same documents, each in pieces of about 1 MiB that are read when they are asked for."""
    for _, numbered in groupby(_numbered_pieces(path), key=itemgetter(0)):
        pieces = _without_blank_lines(piece for _, piece in numbered)
        if (first := next(pieces, None)) is not None:
            yield chain([first], pieces)


def _numbered_pieces(path: Path) -> Iterator[tuple[int, str]]:
    """What is between separators, in pieces, each with the number of its document."""
    number = 0
    tail = ""  # the last characters, where a separator may begin
    for piece in read_pieces(path):
        *whole, last = (tail + piece).split(END_OF_TEXT)
        for text in whole:
            yield number, text
            number += 1
        cut = max(0, len(last) - len(END_OF_TEXT) + 1)
        yield number, last[:cut]
        tail = last[cut:]
    yield number, tail


def _without_blank_lines(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces of a document without line ends at its beginning and its end; none is empty."""
    begun, blank = False, ""  # line ends that are inside if more comes
    for piece in pieces:
        text = blank + (piece if begun else piece.lstrip("\r\n"))
        kept = text.rstrip("\r\n")
        blank = text[len(kept) :]
        if kept:
            begun = True
            yield kept


def read_parquet(path: Path) -> Iterator[str]:
    """One document a row of a Parquet file: its column `text`, some rows at a time.

    Needs the optional package `pyarrow`; without it raises `ValueError` with the way out.
    """
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise ValueError(
            f"{path} is a Parquet file, and reading it needs pyarrow: "
            "install it with `python -m pip install pyarrow`"
        ) from error
    try:
        file = parquet.ParquetFile(path)
    except ValueError as error:  # pyarrow's own errors are of this kind
        raise ValueError(f"{path}: not a Parquet file ({error}); fetch it again") from error
    with file:
        if "text" not in (names := file.schema_arrow.names):
            raise ValueError(f"{path}: expected a column 'text', found {', '.join(names)}")
        for batch in file.iter_batches(batch_size=1024, columns=["text"]):
            yield from batch.column(0).to_pylist()
