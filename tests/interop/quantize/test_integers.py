"""Whole numbers with shared scales: torch's observers and fake quantisation, bounds, by hand."""

import doctest

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.ao.quantization import PerChannelMinMaxObserver

from llmtutor.interop.int8 import to_int8
from llmtutor.interop.quantize import Integers, format, groups, integers, nearest, packing
from llmtutor.interop.quantize.format import decoded
from llmtutor.interop.quantize.groups import from_groups, to_groups
from llmtutor.interop.quantize.packing import pack, packed_bytes, unpack


@pytest.mark.parametrize("module", [packing, groups, integers, format])
def test_examples(module) -> None:
    assert doctest.testmod(module).failed == 0


def matrix(rows: int = 6, columns: int = 70, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator)
    return values * torch.logspace(-3, 2, rows)[:, None]


@given(st.integers(1, 8), st.integers(0, 40), st.integers(0, 10**6))
def test_codes_come_back_and_no_bit_is_wasted(bits: int, n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**bits, (3, n), generator=generator).to(torch.uint8)
    stored = pack(codes, bits)
    assert torch.equal(unpack(stored, bits, n), codes)
    assert stored.shape[-1] == packed_bytes(n, bits) == (n * bits + 7) // 8


def test_by_hand() -> None:
    """Eight numbers: steps of 0.1 (symmetric) and 0.08 (asymmetric, 0 is code 5)."""
    row = torch.tensor([[0.13, -0.4, 0.33, 0.7, -0.07, 0.0, 0.26, -0.18]])
    even = nearest(row, Integers(4, share="row"))
    assert (even.codes.int() - 8).tolist() == [[1, -4, 3, 7, -1, 0, 3, -2]]
    torch.testing.assert_close(even.grid.stored()["scale"].view(1), torch.tensor([0.1]))
    shifted = nearest(row.clamp(max=0.8) + torch.tensor([[0, 0, 0, 0.1, 0, 0, 0, 0]]), ASYMMETRIC)
    assert shifted.grid.stored()["zero"].item() == 5
    assert shifted.codes.tolist() == [[7, 0, 9, 15, 4, 5, 8, 3]]


ASYMMETRIC = Integers(4, symmetric=False, share="row")


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_asymmetric_rows_are_those_of_torch(bits: int) -> None:
    x = matrix() + 1
    observer = PerChannelMinMaxObserver(
        ch_axis=0,
        dtype=torch.quint8,
        qscheme=torch.per_channel_affine,
        quant_min=0,
        quant_max=2**bits - 1,
        eps=1e-30,
    )
    observer(x)
    scale, zero = observer.calculate_qparams()
    expected = torch.fake_quantize_per_channel_affine(
        x, scale.float(), zero.to(torch.int32), 0, 0, 2**bits - 1
    )
    found = nearest(x, Integers(bits, symmetric=False, share="row"))
    assert torch.equal(found.grid.stored()["zero"].flatten(), zero.to(torch.uint8))
    torch.testing.assert_close(found.matrix(), expected)


def golden() -> torch.Tensor:
    """Numbers that any program can make again."""
    return torch.tensor([[((i * 7919) % 1009) / 1009 - 0.5 for i in range(64)]])


def test_asymmetric_groups_are_those_of_torchao() -> None:
    """Recorded with torchao 0.18.0: quantize_affine, uint4, groups of 32, scales in float16."""
    codes = bytes.fromhex(
        "000d0b090604020f0c0a080503010e0b090704020f0d0b080603010e0c0a0705"
        "020f0c0a080503010e0b09070402000d0a080603010e0c09070502000d0b0906"
    )
    found = nearest(golden(), Integers(4, symmetric=False, share=32))
    assert bytes(found.codes.flatten().tolist()) == codes
    assert found.grid.stored()["zero"].flatten().tolist() == [8, 7]


@pytest.mark.parametrize("share", ["tensor", "row", 32, 1000])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_no_entry_is_off_by_more_than_half_a_step(share, symmetric: bool, bits: int) -> None:
    x = matrix()
    x[2] = 0
    found = nearest(x, Integers(bits, symmetric, share))
    step = found.grid.stored()["scale"].float().expand(to_groups(x, share).shape)
    # A scale in float16 may fall short by one part in 2,048 at the end of the grid.
    slack = 0.501 + 2**bits / 2048
    assert bool(((found.matrix() - x).abs() <= slack * from_groups(step, *x.shape)).all())
    assert not found.matrix()[2].any()
    again = nearest(found.matrix(), Integers(8, share="row"))  # what comes back is a plain matrix
    assert again.codes.shape == x.shape


def test_rows_of_8_bits_are_those_of_the_shelf() -> None:
    numbers, scale = to_int8(matrix())
    found = nearest(matrix(), Integers(8))
    assert torch.equal(found.codes.int() - 128, numbers.int())
    assert torch.equal(found.grid.stored()["scale"].flatten(), scale)


def test_smaller_groups_and_more_bits_are_closer() -> None:
    x = matrix(32, 256)
    errors = [
        float((nearest(x, Integers(bits, share=share)).matrix() - x).square().sum())
        for bits, share in ((3, "row"), (4, "tensor"), (4, "row"), (4, 32), (8, "row"))
    ]
    assert errors[1] > errors[2] > errors[3] > errors[4] and errors[0] > errors[2]


def test_a_row_that_groups_do_not_divide() -> None:
    """The last group is shorter, and is rounded as if it stood alone."""
    x = matrix(3, 70)
    for symmetric in (True, False):
        found = nearest(x, Integers(4, symmetric, 32))
        alone = nearest(x[:, 64:], Integers(4, symmetric, 6))
        assert torch.equal(found.codes[:, 64:], alone.codes)
        assert torch.equal(decoded(found.codes, found.grid, 32)[:, 64:], alone.matrix())


def test_bad_values() -> None:
    for wrong, message in (
        ({"bits": 1}, "bits must be at least 2"),
        ({"bits": 9}, r"bits must lie in 1 … 8, got 9"),
        ({"share": "rows"}, "unknown share 'rows'; did you mean 'row'"),
        ({"share": 0}, "share must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Integers(**wrong)
    with pytest.raises(ValueError, match="too large for a scale in float16"):
        nearest(torch.tensor([[1e6, 1.0]]), Integers(4, share=2))
    with pytest.raises(ValueError, match="expected a matrix of finite numbers"):
        nearest(torch.tensor([[float("nan"), 1.0]]), Integers())
    with pytest.raises(ValueError, match=r"expected a matrix of floats, got torch\.int64"):
        nearest(torch.ones(2, 2, dtype=torch.int64), Integers())
    with pytest.raises(ValueError, match="expected codes below 8 for 3 bits, got 8"):
        pack(torch.tensor([8], dtype=torch.uint8), 3)
    with pytest.raises(ValueError, match="expected 2 bytes for 3 codes of 4 bits, got 1"):
        unpack(torch.tensor([8], dtype=torch.uint8), 4, 3)
