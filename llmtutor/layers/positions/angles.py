"""Chapter 05, positions: cosines and sines of position × frequency, computed once and kept.

Sinusoidal positions and RoPE share the same clock hands: hand ``i`` turns by ``ω_i`` radians per
token, fast for small ``i`` and slow for large.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.layers.positions.base import check_positions

SHORTEST_TABLE = 128


def geometric_frequencies(dim: int, base: float) -> Float[Tensor, " pairs"]:
    """Radians per token of each of the dim / 2 hands, ``ω_i = base^(−2i / dim)``, in float64.

    >>> geometric_frequencies(4, 10_000)
    tensor([1.0000, 0.0100], dtype=torch.float64)

    Raises:
        ValueError: ``dim`` below 2 or odd; ``base`` not finite or not above 1.
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"components turn in pairs: expected an even number of them, got {dim}")
    if not (math.isfinite(base) and base > 1):
        raise ValueError(f"base must be a finite number above 1, got {base}")
    steps = torch.arange(0, dim, 2, dtype=torch.float64, device="cpu")  # also in a meta context
    return base ** (-steps / dim)


Layout = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


def cos_and_sin(cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
    """The plain layout of a table: both as they are."""
    return cos, sin


class AngleTable:
    """``cos`` and ``sin`` of every position up to the longest one seen, times ``scale``.

    ``layout`` brings the two into the form in which they are used, once for the whole table; it
    must treat each position by itself.

    The table is no buffer of a module on purpose. ``model.to(torch.bfloat16)`` rounds every
    floating-point buffer and ``.double()`` only pads the digits it finds: a buffer would come out
    of either with wrong angles, and one made on the meta device with none. This table stays
    out of state dicts, is computed in float64, kept in the dtype and on the device last asked
    for, and made again only when those change or a longer sequence arrives.
    """

    def __init__(
        self,
        frequencies: Float[Tensor, " pairs"],
        scale: float = 1.0,
        layout: Layout = cos_and_sin,
    ) -> None:
        self.frequencies = frequencies
        self.scale, self.layout = scale, layout
        self._tables: tuple[Tensor, ...] = ()
        self._dtype: torch.dtype | None = None

    def __call__(
        self, positions: Int[Tensor, " seq"], seq: int, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """``(cos, sin)`` at these ``seq`` positions, in ``dtype``, on the device of ``positions``.

        Both are (seq, pairs), or what the ``layout`` makes of them.

        Raises:
            ValueError: positions of another shape, negative or not integers.
        """
        length = check_positions(positions, seq) + 1
        if torch.compiler.is_compiling():  # a compiled graph computes them, and keeps no table
            return self._angles(positions, dtype)
        tables = self._tables
        if self._dtype != dtype or len(tables[0]) < length or tables[0].device != positions.device:
            tables = self._tables = self._build(length, dtype, positions.device)
            self._dtype = dtype
        index = positions.long()
        return tuple(table[index] for table in tables)

    def _build(self, length: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
        """Rows for the next power of two, so that a text growing by one token is served too."""
        rows = max(SHORTEST_TABLE, 1 << (length - 1).bit_length())
        tables = self._angles(torch.arange(rows, device=device), dtype)
        # Inside a transform such as jacrev new tensors come wrapped; a wrapper kept would be met
        # again after the transform is over.
        return tuple(torch.func.debug_unwrap(table) for table in tables)

    def _angles(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        # Not every device has float64: the angles are computed where the frequencies are.
        steps = positions.to(self.frequencies.device, torch.float64)
        angles = steps[:, None] * self.frequencies
        cos, sin = self.scale * angles.cos(), self.scale * angles.sin()
        if torch.compiler.is_compiling():
            # Changes no digit. But torch.compile keeps what a matrix product gives, and would
            # otherwise compute a cosine of its own for every component of every head.
            same = torch.eye(len(self.frequencies), dtype=torch.float64, device=cos.device)
            cos, sin = cos @ same, sin @ same
        return self.layout(cos.to(positions.device, dtype), sin.to(positions.device, dtype))
