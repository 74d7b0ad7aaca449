"""Chapter 23, export: a GGUF file by its bytes: a header, facts by name, a table of tensors, data.

::

    GGUF | version 3 | how many tensors | how many facts
    fact:    its name | the type of its value | the value
    tensor:  its name | its shape, innermost first | how it is stored | where its data is
    padding to a multiple of 32, then the data of each tensor, padded alike

All numbers are little-endian; a text is its length in 8 bytes, and then UTF-8.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmtutor.interop.gguf.quants import KINDS, OTHERS, Bytes
from llmtutor.tokenizer.files import written_whole

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
ALIGNMENT_KEY = "general.alignment"
Value = bool | int | float | str | list[int] | list[float] | list[str]

# Types of values: their numbers in a file, and how `struct` calls them.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
UINT32, INT32, FLOAT32, BOOL, TEXT, LIST = 4, 5, 6, 7, 8, 9


class Stored(NamedTuple):
    """A tensor as it lies in a file."""

    shape: tuple[int, ...]
    """As torch has it: outermost first."""
    dtype: str
    """One of ``quants.KINDS``."""
    data: Bytes
    """Its bytes."""


class Container(NamedTuple):
    """What a file holds."""

    facts: dict[str, Value]
    """Values by name, such as ``general.architecture``."""
    tensors: dict[str, Stored]
    """By name."""


# Writing ------------------------------------------------------------------------------------------


def write_container(path: Path, facts: Mapping[str, Value], tensors: Mapping[str, Stored]) -> None:
    """Write a file, which is there whole or not at all.

    Numbers become what llama.cpp asks for: 32 bits, sizes without a sign, members of a list with
    one.

    Raises:
        OSError: it cannot be written.
    """
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(facts)))
        for name, value in facts.items():
            file.write(_text(name) + _typed(value))
        at = 0
        for name, stored in tensors.items():
            innermost_first = struct.pack(f"<{len(stored.shape)}Q", *reversed(stored.shape))
            file.write(_text(name) + struct.pack("<I", len(stored.shape)) + innermost_first)
            file.write(struct.pack("<IQ", KINDS[stored.dtype].code, at))
            at += _padded(stored.data.nbytes)
        file.write(bytes(_padded(file.tell()) - file.tell()))
        for stored in tensors.values():
            file.write(stored.data.tobytes())
            file.write(bytes(_padded(stored.data.nbytes) - stored.data.nbytes))


def _padded(size: int, alignment: int = ALIGNMENT) -> int:
    return -(-size // alignment) * alignment


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _typed(value: Value) -> bytes:
    """The number of a type and a value of it."""
    if isinstance(value, list):
        kind = _kind(value[0], INT32) if value else TEXT
        members = b"".join(_bytes(member, kind) for member in value)
        return struct.pack("<IIQ", LIST, kind, len(value)) + members
    kind = _kind(value, UINT32)
    return struct.pack("<I", kind) + _bytes(value, kind)


def _kind(value: Value, whole: int) -> int:
    if isinstance(value, str):
        return TEXT
    if isinstance(value, bool):
        return BOOL
    return whole if isinstance(value, int) else FLOAT32


def _bytes(value: Value, kind: int) -> bytes:
    if isinstance(value, str):
        return _text(value)
    return struct.pack("<?" if kind == BOOL else f"<{NUMBERS[kind]}", value)


# Reading ------------------------------------------------------------------------------------------


def read_container(path: Path) -> Container:
    """What a file holds; the data of tensors is looked at only when it is used.

    Raises:
        OSError: it cannot be read.
        ValueError: no GGUF file, another version, one that is cut short or damaged, numbers stored
            in a way that we do not read.
    """
    size = path.stat().st_size
    cursor = Cursor(path, np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8))
    n_tensors, n_facts = _read_header(cursor)
    facts: dict[str, Value] = {}
    for i in range(n_facts):
        name = cursor.text(f"fact {i + 1} of {n_facts}")
        facts[cursor.once(name, facts)] = cursor.value(name)
    rows: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for i in range(n_tensors):
        name = cursor.text(f"tensor {i + 1} of {n_tensors}")
        rows[cursor.once(name, rows)] = cursor.row(name)
    alignment = facts.get(ALIGNMENT_KEY, ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise cursor.error(f"{ALIGNMENT_KEY} is {alignment!r}; expected a power of two")
    start = _padded(cursor.at, alignment)
    tensors = {name: _stored(cursor, start, name, *row) for name, row in rows.items()}
    return Container(facts, tensors)


def _read_header(cursor: "Cursor") -> tuple[int, int]:
    magic = bytes(cursor.data[:4])
    if magic != MAGIC:
        raise cursor.error(f"it begins with {magic!r}, a GGUF file with {MAGIC!r}")
    cursor.at = 4
    version = cursor.number("I", "the version")
    if version not in (2, VERSION):  # which differ only in that 3 may be big-endian
        odd = " (big-endian)" if version == VERSION << 24 else ""
        raise cursor.error(f"version {version}{odd}; expected {VERSION}, little-endian")
    return int(cursor.number("Q", "the header")), int(cursor.number("Q", "the header"))


def _stored(
    cursor: "Cursor", start: int, name: str, shape: tuple[int, ...], code: int, offset: int
) -> Stored:
    dtype = next((dtype for dtype, kind in KINDS.items() if kind.code == code), None)
    if dtype is None:
        called = OTHERS.get(code, f"type {code}")
        raise cursor.error(f"{name} is stored as {called}; we read {', '.join(KINDS)}")
    kind = KINDS[dtype]
    if not shape or shape[-1] % kind.block:
        raise cursor.error(f"{name} has shape {shape}, whose rows are no blocks of {kind.block}")
    cursor.at = start + offset
    return Stored(shape, dtype, cursor.take(kind.nbytes(math.prod(shape)), f"the data of {name}"))


class Cursor:
    """A place in the bytes of a file, which moves on by what is read."""

    def __init__(self, path: Path, data: Bytes) -> None:
        self.path, self.data, self.at = path, data, 0

    def error(self, found: str) -> ValueError:
        """The error that names the file."""
        return ValueError(f"{self.path}: {found}")

    def once(self, name: str, names: Mapping[str, object]) -> str:
        """``name``, which must not be among ``names`` yet."""
        if name in names:
            raise self.error(f"{name!r} comes twice: it is damaged")
        return name

    def take(self, n: int, what: str) -> Bytes:
        """The next ``n`` bytes, which are ``what``."""
        end = self.at + n
        if end > len(self.data):
            raise self.error(
                f"{what} ends at byte {end:,}, the file at {len(self.data):,}: it is cut short or "
                "damaged; fetch it again"
            )
        taken, self.at = self.data[self.at : end], end
        return taken

    def number(self, code: str, what: str) -> float:
        """A number, by its code in ``struct``."""
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}"), what).tobytes())[0]

    def text(self, what: str) -> str:
        """A text."""
        data = self.take(int(self.number("Q", what)), what).tobytes()
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is no UTF-8 ({error}): it is damaged") from None

    def value(self, name: str) -> Value:
        """The value of a fact, after its type."""
        kind = int(self.number("I", name))
        if kind != LIST:
            return self._reader(kind, name)()
        kind, count = int(self.number("I", name)), int(self.number("Q", name))
        read = self._reader(kind, name)
        # One by one, so that a wrong count ends where the file does.
        return list(self._members(read, count))  # type: ignore[return-value]

    def _members(self, read: Callable[[], object], count: int) -> Iterator[object]:
        for _ in range(count):
            yield read()

    def _reader(self, kind: int, name: str) -> Callable[[], bool | float | str]:
        if kind == TEXT:
            return lambda: self.text(name)
        if kind == BOOL:
            return lambda: bool(self.number("B", name))
        if kind == FLOAT32:
            return lambda: in_32_bits(self.number("f", name))
        if kind in NUMBERS:
            return lambda: self.number(NUMBERS[kind], name)
        raise self.error(f"{name} has a value of type {kind}, expected one from 0 to 12: damaged?")

    def row(self, name: str) -> tuple[tuple[int, ...], int, int]:
        """Shape, way of storing and place of a tensor."""
        n_dims = int(self.number("I", name))
        if n_dims > 4:
            raise self.error(f"{name} has {n_dims} dimensions, expected up to 4: it is damaged")
        shape: Sequence[int] = [int(self.number("Q", name)) for _ in range(n_dims)]
        code, offset = int(self.number("I", name)), int(self.number("Q", name))
        return tuple(reversed(shape)), code, offset


def in_32_bits(x: float) -> float:
    """The shortest decimal of a number as a file keeps it: 1e-05, although it is 9.99999974e-06."""
    return float(str(np.float32(x)))
