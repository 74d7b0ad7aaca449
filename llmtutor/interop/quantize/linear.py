"""Chapter 23, export: layers that hold packed weights.

A weight is unpacked when it is needed and forgotten again: what is small is what is *stored*. That
is what most formats for weights do. ``Int8Linear`` rounds its inputs as well, and multiplies
whole numbers.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.interop.quantize.format import Format, Rounded, decoded
from llmtutor.interop.quantize.groups import to_groups
from llmtutor.interop.quantize.integers import Integers
from llmtutor.interop.quantize.packing import pack, unpack
from llmtutor.layers.basic import Layer, check_ids, check_width


class PackedWeight(nn.Module):
    """A matrix in few bits: packed codes and what its grid keeps; several layers may share it.

    >>> from llmtutor.interop.quantize.format import nearest
    >>> int4 = Integers(bits=4, share=32)
    >>> packed = PackedWeight(nearest(torch.randn(8, 64), int4), torch.float32)
    >>> packed.matrix().shape, packed.nbytes  # 8 · 64 / 2 bytes, and 8 · 2 scales of 2 bytes
    (torch.Size([8, 64]), 288)
    """

    def __init__(self, rounded: Rounded, dtype: torch.dtype) -> None:
        super().__init__()
        self.format: Format = rounded.format
        self.shape, self.dtype = tuple(rounded.codes.shape), dtype
        self.register_buffer("packed", pack(rounded.codes, self.format.bits))
        self.kept = tuple(stored := rounded.grid.stored())
        for name, value in stored.items():
            self.register_buffer(name, value)

    def matrix(self, rows: Tensor | None = None) -> Float[Tensor, "rows columns"]:
        """The weights, or some rows of them."""
        grid = self.format.restored({n: self.get_buffer(n) for n in self.kept}, self.shape[0])
        packed = self.get_buffer("packed")
        if rows is not None:
            packed, grid = packed[rows], grid.rows(rows)
        codes = unpack(packed, self.format.bits, self.shape[1])
        return decoded(codes, grid, self.format.share).to(self.dtype)

    @property
    def nbytes(self) -> int:
        """Of codes, scales and zeros."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def extra_repr(self) -> str:
        """Shape and format."""
        return f"{self.shape}, {self.format}"


class QuantizedLinear(Layer):
    """``x Ŵᵀ (+ b)`` with Ŵ unpacked on the way: (…, d_in) → (…, d_out).

    Raises:
        ValueError: an input whose last dimension is not ``d_in``.
    """

    def __init__(self, packed: PackedWeight, bias: Tensor | None = None) -> None:
        super().__init__()
        self.packed = packed
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def weight(self) -> Float[Tensor, "d_out d_in"]:
        """Ŵ, made anew."""
        return self.packed.matrix()

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Map (…, d_in) to (…, d_out)."""
        check_width(x, "d_in", self.packed.shape[1])
        return F.linear(x, self.weight, self.bias)


class Int8Linear(QuantizedLinear):
    """``QuantizedLinear`` that rounds each input to int8 too, by its own largest entry.

    With ``x ≈ a · m`` and row r of the weights ``≈ s_r · n_r`` the product is
    ``a · s_r · (m · n_r)``: a sum of products of whole numbers, which processors have fast
    instructions for (Dettmers et al. 2022, section 2.1). It is taken in float64 here, which holds
    every such sum exactly; what is measured is what rounding costs, not the speed that int8 gains.

    Raises:
        ValueError: weights in another format than symmetric int8 with a scale a row or matrix.
    """

    def __init__(self, packed: PackedWeight, bias: Tensor | None = None) -> None:
        super().__init__(packed, bias)
        wanted = [Integers(8, share="row"), Integers(8, share="tensor")]
        if packed.format not in wanted:
            raise ValueError(f"expected {wanted[0]} or one for the tensor, got {packed.format}")

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Map (…, d_in) to (…, d_out)."""
        check_width(x, "d_in", self.packed.shape[1])
        grid = Integers(8).fit(x.float())
        inputs = grid.codes(x.float()).double() - grid.zero
        codes = unpack(self.packed.get_buffer("packed"), 8, self.packed.shape[1])
        sums = inputs @ (codes.double() - 128).T
        y = (sums * grid.scale * self.packed.get_buffer("scale").flatten()).to(x.dtype)
        return y if self.bias is None else y + self.bias


class QuantizedEmbedding(Layer):
    """Rows of a packed table: only those that are asked for are unpacked.

    Raises:
        ValueError: ids that are not integers or lie outside the vocabulary.
    """

    def __init__(self, packed: PackedWeight) -> None:
        super().__init__()
        self.packed = packed

    @property
    def weight(self) -> Float[Tensor, "vocab d_model"]:
        """The table, made anew."""
        return self.packed.matrix()

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch d_model"]:
        """Look up (…) → (…, d_model)."""
        check_ids(ids, self.packed.shape[0])
        return self.packed.matrix(ids.flatten().long()).view(*ids.shape, -1)


def empty(format: Format, rows: int, columns: int, dtype: torch.dtype) -> PackedWeight:
    """Zeros in this format: the room for what a file holds."""
    zeros = torch.zeros(rows, columns)
    grid = format.fit(to_groups(zeros, format.share))
    return PackedWeight(Rounded(zeros.to(torch.uint8), grid, format), dtype)
