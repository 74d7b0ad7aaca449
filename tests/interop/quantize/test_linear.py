"""Layers with packed weights: what they compute, what they store, whole numbers multiplied."""

import doctest

import pytest
import torch
from torch import nn

from llmtutor.interop.quantize import NF4, Integers, linear, nearest
from llmtutor.interop.quantize.format import Format
from llmtutor.interop.quantize.linear import (
    Int8Linear,
    PackedWeight,
    QuantizedEmbedding,
    QuantizedLinear,
)

FORMATS: list[Format] = [
    Integers(8, share="tensor"),
    Integers(8),
    Integers(4, share=16),
    Integers(3, symmetric=False, share=16),
    NF4(16),
    NF4(16, double=True),
]


def packed(format: Format, rows: int = 6, columns: int = 40) -> tuple[PackedWeight, torch.Tensor]:
    torch.manual_seed(0)
    rounded = nearest(torch.randn(rows, columns), format)
    return PackedWeight(rounded, torch.float32), rounded.matrix()


def test_examples() -> None:
    assert doctest.testmod(linear).failed == 0


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_packed_layers_compute_with_what_was_rounded(format: Format) -> None:
    weight, matrix = packed(format)
    assert torch.equal(weight.matrix(), matrix)
    x, bias = torch.randn(2, 3, 40), torch.randn(6)
    assert torch.equal(QuantizedLinear(weight, bias)(x), nn.functional.linear(x, matrix, bias))
    ids = torch.tensor([[5, 0], [3, 5]])
    assert torch.equal(QuantizedEmbedding(weight)(ids), matrix[ids])
    assert torch.equal(QuantizedLinear(weight).weight, matrix)


def test_bytes_by_hand() -> None:
    """6 rows of 40: 20 bytes of codes and 3 groups each; float32, float16 and zeros of one byte."""
    found = [packed(format)[0].nbytes for format in FORMATS]
    # double: 18 codes of scales, a mean in float32, one scale of theirs in float16
    by_hand = [240 + 4, 240 + 24, 120 + 36, 90 + 36 + 18, 120 + 72, 120 + 18 + 4 + 2]
    assert found == by_hand


@pytest.mark.parametrize("share", ["tensor", "row"])
def test_whole_numbers_are_multiplied_as_torch_does(share: str) -> None:
    """torch's own int8 product on the same codes, and close to the exact layer."""
    torch.manual_seed(0)
    matrix, x = torch.randn(24, 64), torch.randn(2, 9, 64) * torch.logspace(-2, 2, 9)[:, None]
    x[0, 0] = 0
    layer = Int8Linear(PackedWeight(nearest(matrix, Integers(8, share=share)), torch.float32))
    y = layer(x)
    inputs, scale = x.flatten(0, 1), x.flatten(0, 1).abs().amax(1, keepdim=True) / 127
    scale[scale == 0] = 1
    codes = nearest(matrix, Integers(8, share=share))
    sums = torch._int_mm(
        (inputs / scale).round().to(torch.int8), (codes.codes.int() - 128).to(torch.int8).T
    )
    expected = sums * scale * codes.grid.stored()["scale"].flatten()
    torch.testing.assert_close(y.flatten(0, 1), expected)
    exact = x @ matrix.T
    assert bool(((y - exact).norm(dim=-1) <= 0.03 * exact.norm(dim=-1)).all())


def test_refused() -> None:
    weight, _ = packed(Integers(4, share=16))
    with pytest.raises(ValueError, match="expected Integers"):
        Int8Linear(weight)
    with pytest.raises(ValueError, match="d_in = 40"):
        QuantizedLinear(weight)(torch.zeros(1, 39))
    with pytest.raises(ValueError, match=r"ids must lie in 0 … 5"):
        QuantizedEmbedding(weight)(torch.tensor([6]))
