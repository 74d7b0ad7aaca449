"""Frequencies by hand, and cosines and sines one at a time."""

import math

import pytest
import torch

from llmtutor.layers.positions.angles import cos_and_sin, geometric_frequencies

FREQUENCIES = geometric_frequencies(6, 100.0)


def test_frequencies_by_hand():
    want = torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    torch.testing.assert_close(geometric_frequencies(6, 1000.0), want, rtol=1e-15, atol=0)
    with torch.device("meta"):  # where no number is kept, but this is none of a parameter
        assert geometric_frequencies(6, 1000.0).tolist() == pytest.approx(want.tolist())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16])
def test_values_one_at_a_time(dtype):
    positions = torch.tensor([0, 1, 17, 4000, 3], dtype=dtype)
    cos, sin = cos_and_sin(positions, FREQUENCIES, torch.float64)
    assert cos.shape == sin.shape == (5, 3)
    for row, p in enumerate(positions.tolist()):
        for i in range(3):
            angle = p * 100.0 ** (-2 * i / 6)
            assert cos[row, i].item() == pytest.approx(math.cos(angle), abs=1e-11)
            assert sin[row, i].item() == pytest.approx(math.sin(angle), abs=1e-11)


def test_in_float32_they_are_those_of_float64_rounded():
    """At position 100,000 an angle made in float32 would be off by 0.004."""
    positions = torch.tensor([99_999, 100_000])
    exact, single = (
        cos_and_sin(positions, FREQUENCIES, dtype) for dtype in (torch.float64, torch.float32)
    )
    for wide, narrow in zip(exact, single, strict=True):
        assert narrow.dtype == torch.float32 and torch.equal(wide.float(), narrow)


def test_refuses():
    for dim in (-2, 0, 1, 7):
        with pytest.raises(ValueError, match=f"must be even, got {dim}"):
            geometric_frequencies(dim, 10_000)
    for base in (1.0, 0.0, -5.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"base must be .*, got {base}"):
            geometric_frequencies(4, base)
    for positions, message in [
        (torch.arange(3.0), "positions must be integers"),
        (torch.arange(3)[None], r"shape \(3,\).* got \(1, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            cos_and_sin(positions, FREQUENCIES, torch.float32)
