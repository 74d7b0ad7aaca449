"""Blocks of numbers: llama.cpp's to the byte, and what they lose."""

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize

from llmtutor.interop.gguf.quants import KINDS, pack, unpack

DRAW = np.random.default_rng(0)
ODD = {
    "normal": DRAW.normal(size=(7, 96)),
    "of all sizes": np.exp(DRAW.normal(0, 8, (6, 64))).clip(1e-9, 6e4)
    * DRAW.choice([-1, 1], (6, 64)),
    "halves": np.stack(
        [np.append(np.arange(-15, 16) / 2, 127), np.append(np.arange(-15, 16) / 2, 8)]
    ),
    "zeros, and minus zero": np.stack([np.zeros(32), -np.zeros(32)]),
    "one number": np.eye(32) * DRAW.normal(size=(32, 1)),
    "no larger than a half holds": np.full((1, 32), 1e-12),
    "three axes": DRAW.normal(size=(2, 3, 32)),
}


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("case", ODD)
def test_bytes_are_those_of_the_gguf_package(case: str, dtype: str) -> None:
    numbers = ODD[case].astype(np.float32)
    theirs = gguf.GGMLQuantizationType[dtype.upper()]
    with np.errstate(over="ignore"):
        want = quantize(numbers, theirs)
    got = pack(numbers, dtype)
    assert got.tobytes() == want.tobytes()
    assert KINDS[dtype].code == theirs and len(got) == KINDS[dtype].nbytes(numbers.size)
    again = unpack(got, numbers.shape, dtype)
    np.testing.assert_array_equal(again, dequantize(want, theirs).reshape(numbers.shape))


@pytest.mark.parametrize(("dtype", "levels"), [("q8_0", 127), ("q4_0", 8)])
def test_nothing_is_off_by_more_than_half_a_step(dtype: str, levels: int) -> None:
    """Of Q4_0, but for the end that has one step less; and as much as the scale's 11 bits lose."""
    numbers = DRAW.normal(size=(50, 32)).astype(np.float32)
    error = np.abs(unpack(pack(numbers, dtype), numbers.shape, dtype) - numbers)
    step = np.abs(numbers).max(axis=1, keepdims=True) / levels
    allowed = step * (1 if dtype == "q4_0" else 0.5) + np.abs(numbers) * 2**-10
    assert (error <= allowed).all()
    assert error.max() > 0.4 * step.min()


def test_a_block_by_hand() -> None:
    numbers = np.zeros((1, 32), np.float32)
    numbers[0, [0, 1, 16, 17]] = 4.0, -3.5, -1.0, 0.25
    data = pack(numbers, "q4_0")
    # The furthest is 4.0, so the scale is 4 / −8 = −0.5, of which 4, −3.5, −1 are −8, 7 and 2.
    assert data[:2].view(np.float16)[0] == -0.5
    assert data[2] == (10 << 4 | 0) and data[3] == (8 << 4 | 15)
    assert set(data[4:]) == {8 << 4 | 8}
    back = unpack(data, (1, 32), "q4_0")[0]
    assert back[[0, 1, 16, 17]].tolist() == [4.0, -3.5, -1.0, 0.0]  # 0.25 is half a step from 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows of 172 numbers are no whole blocks of 32: q8_0"):
        pack(np.ones((2, 172), np.float32), "q8_0")
    with pytest.raises(ValueError, match=r"unknown dtype 'q8_1'; did you mean 'q8_0'\?"):
        pack(np.ones((2, 32), np.float32), "q8_1")
    for dtype, number in (("f16", 7e4), ("q4_0", 1e6), ("q8_0", np.inf), ("f32", np.nan)):
        with pytest.raises(ValueError, match=f"do not fit into {dtype}"):
            pack(np.full((1, 32), number, np.float32), dtype)
