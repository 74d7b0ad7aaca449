"""The paper's formula one entry at a time, `transformers`, and the rotation behind every shift."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtutor.layers.positions import SinusoidalPosition


def vectors(d_model, positions, base=10_000.0):
    return SinusoidalPosition(d_model, base).vectors(positions, torch.float64)


@pytest.mark.parametrize("d_model", [2, 6, 64])
@pytest.mark.parametrize("base", [10_000.0, 37.0])
def test_formula_one_entry_at_a_time(d_model, base):
    positions = torch.tensor([0, 1, 2, 50, 4097])
    got = vectors(d_model, positions, base)
    for row, p in enumerate(positions.tolist()):
        for i in range(d_model // 2):
            angle = p / base ** (2 * i / d_model)
            assert got[row, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-10)
            assert got[row, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-10)


def test_equals_transformers():
    """Marian keeps the same numbers, all sines first."""
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    theirs = MarianSinusoidalPositionalEmbedding(60, 16).create_weight()
    ours = vectors(16, torch.arange(60))
    torch.testing.assert_close(torch.cat((ours[:, 0::2], ours[:, 1::2]), -1).float(), theirs)


def test_by_hand():
    got = vectors(4, torch.tensor([0, 100]))
    want = [[0, 1, 0, 1], [math.sin(100), math.cos(100), math.sin(1), math.cos(1)]]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))


def shift_matrix(d_model: int, shift: int) -> torch.Tensor:
    """Blocks (cos, sin; −sin, cos) of the angle shift · ω_i: no position appears in it."""
    blocks = []
    for i in range(d_model // 2):
        angle = shift * 10_000.0 ** (-2 * i / d_model)
        c, s = math.cos(angle), math.sin(angle)
        blocks.append(torch.tensor([[c, s], [-s, c]], dtype=torch.float64))
    return torch.block_diag(*blocks)


@given(st.integers(1, 16).map(lambda n: 2 * n), st.integers(0, 2000), st.integers(-500, 500))
@settings(max_examples=25, deadline=None)
def test_a_shift_is_one_rotation_for_all_positions(d_model, start, shift):
    positions = torch.arange(start, start + 5) + max(0, -shift)
    matrix = shift_matrix(d_model, shift)
    eye = torch.eye(d_model, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, eye, rtol=0, atol=1e-12)
    moved = vectors(d_model, positions + shift)
    torch.testing.assert_close(vectors(d_model, positions) @ matrix.T, moved, rtol=0, atol=1e-10)


@given(st.integers(1, 32).map(lambda n: 2 * n), st.integers(0, 5000), st.integers(0, 5000))
@settings(max_examples=25, deadline=None)
def test_norms_are_equal_and_products_depend_on_the_distance(d_model, p, q):
    got = vectors(d_model, torch.tensor([p, q]))
    assert got.norm(dim=-1).tolist() == pytest.approx([math.sqrt(d_model / 2)] * 2)
    angles = (p - q) * 10_000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    assert (got[0] @ got[1]).item() == pytest.approx(angles.cos().sum().item(), abs=1e-9)


def test_is_added_and_passes_the_gradient_on():
    position = SinusoidalPosition(6)
    x = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    positions = torch.tensor([3, 0, 8, 8])
    torch.testing.assert_close(position.embed(x, positions) - x, vectors(6, positions).expand_as(x))
    assert torch.autograd.gradcheck(lambda x: position.embed(x, positions), x)


@pytest.mark.parametrize("d_model", [-2, 0, 1, 7])
def test_odd_width(d_model):
    with pytest.raises(ValueError, match=f"d_model, .* must be even, got {d_model}"):
        SinusoidalPosition(d_model)


def test_base():
    with pytest.raises(ValueError, match="base must be above 1, got 1"):
        SinusoidalPosition(4, base=1)
