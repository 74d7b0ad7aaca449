"""Chapter 22, evaluation: JSON lines, and what is wrong with a line that is no question."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llmtutor.checks import nearest
from llmtutor.evaluate.items import Item
from llmtutor.tokenizer.files import utf8

Record = dict[str, Any]


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file (``.gz`` is unpacked) that are not empty, each behind its place.

    Raises:
        ValueError: it is not UTF-8, or holds no line.
        OSError: it cannot be read.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error}); fetch it again") from None
    lines = [(i, line) for i, line in enumerate(utf8(data, path).split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path}: expected a JSON object a line, found an empty file")
    for i, line in lines:
        yield f"{path}, line {i}", line


def read_items(path: Path, item: Callable[[str, Record], Item]) -> list[Item]:
    """A question from each line, by a function that is given its place and its object.

    Raises:
        ValueError: naming file and line, where one is no JSON object or no question.
        OSError: the file cannot be read.
    """
    items = []
    for where, line in read_lines(path):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: expected a JSON object, but {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{where}: expected a JSON object, got {line:.60}")
        try:
            items.append(item(where, record))
        except ValueError as error:
            message = str(error)
            raise ValueError(message if where in message else f"{where}: {message}") from None
    return items


def value(where: str, record: Record, key: str) -> Any:
    """What a key stands for.

    Raises:
        ValueError: it is missing; the nearest key that is there is named.
    """
    if key in record:
        return record[key]
    near = nearest(key, record, cutoff=0.5)
    hint = f"; is it {near!r} here?" if near else ""
    there = ", ".join(map(repr, record)) or "none"
    raise ValueError(f"{where}: expected the key {key!r}, found {there}{hint}")


def text(where: str, record: Record, key: str) -> str:
    """A text that is not empty."""
    found = value(where, record, key)
    if not isinstance(found, str) or not found:
        raise ValueError(f"{where}: expected a text as {key!r}, got {found!r:.60}")
    return found


def texts(where: str, record: Record, key: str) -> list[str]:
    """A list of at least two texts."""
    found = value(where, record, key)
    if (
        not isinstance(found, list)
        or len(found) < 2
        or not all(isinstance(one, str) and one for one in found)
    ):
        raise ValueError(f"{where}: expected at least two texts as {key!r}, got {found!r:.60}")
    return found


def place(where: str, record: Record, key: str, n: int) -> int:
    """The place of one of ``n`` answers, counted from 0; a number in a text is one too."""
    found = value(where, record, key)
    if isinstance(found, str) and found.isascii() and found.isdigit():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < n:
        raise ValueError(
            f"{where}: expected a place from 0 to {n - 1} as {key!r}, got {found!r:.60}"
        )
    return found
