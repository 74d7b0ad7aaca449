"""Chapter 23, export: how GGUF stores the numbers of a tensor, whole, halved or in small blocks.

A *block* is 32 neighbours of a row that share one scale, kept in half precision. ``q8_0`` keeps
each number in 8 bits, ``q4_0`` in 4; with the scale that is 8.5 and 4.5 bits a weight. Both are
llama.cpp's, to the byte.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmtutor.checks import check_name

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

BLOCK = 32
"""Numbers that share a scale."""


class Kind(NamedTuple):
    """A way to store numbers."""

    code: int
    """Its number in the table of tensors."""
    file_type: int
    """The number of a file whose matrices are stored so (``general.file_type``)."""
    block: int
    """Numbers that go together."""
    size: int
    """Bytes that they take."""
    pack: Callable[[Floats], Bytes]
    """(blocks, block) numbers → (blocks, size) bytes."""
    unpack: Callable[[Bytes], Floats]
    """The way back."""

    def nbytes(self, n: int) -> int:
        """Bytes of ``n`` numbers."""
        return n // self.block * self.size


def pack_q8_0(x: Floats) -> Bytes:
    """A scale and 32 whole numbers from −127 to 127: ``x ≈ scale · n``, ``scale = max|x| / 127``.

    >>> block = np.zeros((1, 32), np.float32)
    >>> block[0, :3] = 1.27, -0.5, 0.004
    >>> pack_q8_0(block)[0, 2:5].view(np.int8)
    array([127, -50,   0], dtype=int8)
    """
    scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    numbers = _away_from_zero(x * _inverse(scale)).astype(np.int8)
    return np.concatenate([_half(scale), numbers.view(np.uint8)], axis=1)


def unpack_q8_0(blocks: Bytes) -> Floats:
    """Scale times number."""
    return _scale(blocks) * blocks[:, 2:].view(np.int8).astype(np.float32)


def pack_q4_0(x: Floats) -> Bytes:
    """A scale and 32 numbers from 0 to 15, two a byte: ``x ≈ scale · (n − 8)``.

    The number furthest from 0 becomes −8, whichever its sign, so the scale may be negative: of −8 …
    7 the side with more room is its own. The low half of byte i is number i, the high half i + 16.
    """
    furthest = np.take_along_axis(x, np.abs(x).argmax(axis=1, keepdims=True), axis=1)
    scale = furthest / np.float32(-8)
    numbers = np.trunc(x * _inverse(scale) + np.float32(8.5)).astype(np.uint8).clip(0, 15)
    low, high = numbers[:, : BLOCK // 2], numbers[:, BLOCK // 2 :]
    return np.concatenate([_half(scale), low | high << 4], axis=1)


def unpack_q4_0(blocks: Bytes) -> Floats:
    """Scale times (number − 8)."""
    halves = blocks[:, 2:]
    numbers = np.concatenate([halves & 15, halves >> 4], axis=1).astype(np.float32)
    return _scale(blocks) * (numbers - 8)


def _inverse(scale: Floats) -> Floats:
    """1 / scale, and 0 for a block of zeros."""
    return np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)


def _away_from_zero(x: Floats) -> Floats:
    """Rounded, halves away from 0 as in C (numpy rounds them to the even number)."""
    whole = np.floor(np.abs(x))
    return np.sign(x) * (whole + np.floor(2 * (np.abs(x) - whole)))


def _half(scale: Floats) -> Bytes:
    return scale.astype("<f2").view(np.uint8)


def _scale(blocks: Bytes) -> Floats:
    return blocks[:, :2].copy().view("<f2").astype(np.float32)


def _plain(dtype: str) -> tuple[Callable[[Floats], Bytes], Callable[[Bytes], Floats]]:
    """Numbers one by one, in a dtype of numpy."""

    return (
        lambda x: x.astype(dtype).view(np.uint8),
        lambda data: data.view(dtype).astype(np.float32),
    )


KINDS = {
    "f32": Kind(0, 0, 1, 4, *_plain("<f4")),
    "f16": Kind(1, 1, 1, 2, *_plain("<f2")),
    "q8_0": Kind(8, 7, BLOCK, 34, pack_q8_0, unpack_q8_0),
    "q4_0": Kind(2, 2, BLOCK, 18, pack_q4_0, unpack_q4_0),
}
"""By the name that people use."""
_CODES = "3 q4_1, 6 q5_0, 7 q5_1, 10 q2_k, 11 q3_k, 12 q4_k, 13 q5_k, 14 q6_k, 20 iq4_nl, 30 bf16"
OTHERS = {int(code): name for code, name in (pair.split() for pair in _CODES.split(", "))}
"""Names of some that we do not read."""


def pack(numbers: Floats, dtype: str) -> Bytes:
    """The bytes of a tensor (…, row), blocks along its rows.

    Raises:
        ValueError: an unknown ``dtype``, rows that blocks do not divide, numbers that are not
            finite or too large for it.
    """
    kind = KINDS[check_name("dtype", dtype, KINDS)]
    if numbers.shape[-1] % kind.block:
        raise ValueError(
            f"rows of {numbers.shape[-1]} numbers are no whole blocks of {kind.block}: {dtype} "
            "needs rows that it divides"
        )
    with np.errstate(all="ignore"):  # it is looked at afterwards
        data = kind.pack(numbers.astype(np.float32).reshape(-1, kind.block))
        fits = np.isfinite(kind.unpack(data)).all()
    if not fits:
        raise ValueError(f"numbers up to {np.abs(numbers).max():g} do not fit into {dtype}")
    return data.reshape(-1)


def unpack(data: Bytes, shape: tuple[int, ...], dtype: str) -> Floats:
    """The inverse of ``pack``, as far as ``dtype`` keeps the numbers."""
    kind = KINDS[dtype]
    return kind.unpack(data.reshape(-1, kind.size)).reshape(shape)
