"""NF4: the levels of the paper, codes of bitsandbytes, scales in few bits too."""

import doctest

import pytest
import torch

from llmtutor.interop.quantize import NF4, Integers, nearest, nf4
from llmtutor.interop.quantize.linear import PackedWeight
from llmtutor.interop.quantize.nf4 import LEVELS

PAPER = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
    *(0.7229568362236023, 1.0),
]
"""Dettmers et al. 2023, appendix E; bitsandbytes has the same."""


def test_examples() -> None:
    assert doctest.testmod(nf4).failed == 0


def test_levels_are_those_of_the_paper() -> None:
    torch.testing.assert_close(LEVELS, torch.tensor(PAPER), atol=3e-7, rtol=0)


def test_codes_are_those_of_bitsandbytes() -> None:
    """Recorded with bitsandbytes 0.50.2: quantize_4bit, nf4, blocks of 64."""
    recorded = bytes.fromhex(
        "0ec8521fda7410ec9531fdb7420eda631feb8521fda7310ec9521fdb7420ec96"
        "31feb8520fda6310ec9521fdb7420ec9631feb8420fda6310ec9521fdb7410ec"
    )
    x = torch.tensor([[((i * 7919) % 1009) / 1009 - 0.5 for i in range(128)]])
    found = nearest(x, NF4())
    codes = [half for byte in recorded for half in (byte >> 4, byte & 15)]
    assert found.codes.flatten().tolist() == codes
    absmax = [0.5, 0.49207136034965515]
    torch.testing.assert_close(found.grid.stored()["scale"].flatten(), torch.tensor(absmax))


def test_normal_weights_use_each_level_about_as_often() -> None:
    x = torch.randn(512, 64, generator=torch.Generator().manual_seed(0))
    share = nearest(x, NF4()).codes.flatten().bincount(minlength=16) / x.numel()
    plain = nearest(x, Integers(4, share=64)).codes.flatten().bincount(minlength=16) / x.numel()
    assert share.max() < 0.11 < 0.14 < plain.max()
    error = (nearest(x, NF4()).matrix() - x).square().mean()
    assert error < (nearest(x, Integers(4, share=64)).matrix() - x).square().mean()


def test_scales_in_eight_bits() -> None:
    """4 + 32/64 bits a weight become 4 + 8/64 and a little; little changes."""
    x = torch.randn(64, 640, generator=torch.Generator().manual_seed(0)) / 50
    x[3] = 0
    once, twice = nearest(x, NF4()), nearest(x, NF4(double=True))
    bits = [8 * PackedWeight(one, torch.float32).nbytes / x.numel() for one in (once, twice)]
    assert bits[0] == 4.5 and 4.125 < bits[1] < 4.14
    errors = [(one.matrix() - x).square().mean() for one in (once, twice)]
    assert errors[0] <= errors[1] < 1.02 * errors[0]
    assert not twice.matrix()[3].any()
    grid = NF4(double=True).restored(twice.grid.stored(), len(x))
    assert torch.equal(grid.scale, twice.grid.scale)


def test_bad_group() -> None:
    with pytest.raises(ValueError, match="share must be at least 1, got 0"):
        NF4(group=0)
