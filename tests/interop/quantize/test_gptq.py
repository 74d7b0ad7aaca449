"""GPTQ: exact OBQ on a small matrix, least squares, singular Hessians, a case by hand."""

import doctest

import pytest
import torch

from llmtutor.interop.quantize import Integers, gptq, nearest
from llmtutor.interop.quantize.gptq import gptq as run_gptq
from llmtutor.interop.quantize.gptq import hessian, output_error

ROW = Integers(4, share="row")


def problem(rows: int = 5, columns: int = 12, n: int = 200, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5
    inputs = torch.randn(n, columns, generator=generator) @ (mix + torch.eye(columns))
    return torch.randn(rows, columns, generator=generator), inputs


def obq(matrix: torch.Tensor, bend: torch.Tensor, format: Integers) -> torch.Tensor:
    """Optimal brain quantisation in the order of the columns, with a whole inverse at each step.

    The columns that are left minimise the error of the outputs given those that are fixed: after
    column i is fixed off by e they move by ``−e · [H⁻¹]_ij / [H⁻¹]_ii``, H that of the columns from
    i on.
    """
    left = matrix.double().clone()
    grid = format.fit(matrix[:, None].float())
    for i in range(matrix.shape[1]):
        inverse = torch.linalg.inv(bend[i:, i:])
        value = grid.values(grid.codes(left[:, None].float()))[:, 0, i].double()
        error = (left[:, i] - value) / inverse[0, 0]
        left[:, i:] -= error[:, None] * inverse[0]
        left[:, i] = value
    return left


def test_examples() -> None:
    assert doctest.testmod(gptq).failed == 0


@pytest.mark.parametrize("block", [1, 4, 128])
def test_equals_exact_obq(block: int) -> None:
    for seed in range(3):
        matrix, inputs = problem(seed=seed)
        bend = hessian(inputs)
        expected = obq(matrix, bend, ROW)
        found = run_gptq(matrix, bend, ROW, block=block, damping=0.0).matrix()
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
        plain = nearest(matrix, ROW).matrix()
        assert output_error(matrix, found, bend) < output_error(matrix, plain, bend)


def test_two_by_two_by_hand() -> None:
    """Inputs always equal: what one weight loses the other makes up for, up to its own step.

    Steps of 1. 0.4 → 0 is off by 0.4; with H = 2 [[1, c], [c, 1]] the second weight gains 0.4 c,
    here with c = 0.9: 1.2 + 0.36 = 1.56 → 2, where plain rounding gives 1.
    """
    bend = 2 * torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    row = torch.tensor([[0.4, 1.2, 7.0]])
    whole = torch.block_diag(bend, torch.eye(1))
    found = run_gptq(row, whole, ROW, damping=0.0).matrix()
    assert found.tolist() == [[0, 2, 7]] and nearest(row, ROW).matrix().tolist() == [[0, 1, 7]]
    # off by (0.4, −0.8) against (0.4, 0.2): e₁² + e₂² + 1.8 e₁ e₂
    assert output_error(row, found, whole) == pytest.approx(0.16 + 0.64 - 1.8 * 0.32)
    plain = output_error(row, nearest(row, ROW).matrix(), whole)
    assert plain == pytest.approx(0.16 + 0.04 + 1.8 * 0.08)


def test_what_is_left_is_the_least_squares_solution() -> None:
    """With a grid too fine to matter for all columns but the first."""
    matrix, inputs = problem()
    bend, x = hessian(inputs), inputs.double()
    first = (
        run_gptq(matrix, bend, Integers(3, share=1), block=1, damping=0.0).matrix()[:, :1].double()
    )
    rest = torch.linalg.lstsq(x[:, 1:], x @ matrix.double().T - x[:, :1] @ first.T).solution.T
    moved = matrix.double()[:, 1:] - (first - matrix[:, :1].double()) * (
        bend[0, 1:] @ torch.linalg.inv(bend[1:, 1:])
    )
    torch.testing.assert_close(moved, rest)


def test_groups_are_fitted_to_weights_that_are_moved_already() -> None:
    matrix, inputs = problem(rows=16, columns=64, n=400)
    bend, groups = hessian(inputs), Integers(3, share=16)
    found = run_gptq(matrix, bend, groups, block=32)
    assert output_error(matrix, found.matrix(), bend) < output_error(
        matrix, nearest(matrix, groups).matrix(), bend
    )
    scale, before = found.grid.stored()["scale"], groups.fit(matrix.view(16, 4, 16)).scale
    assert torch.equal(scale[:, 0], before[:, 0]) and not torch.equal(scale[:, 1:], before[:, 1:])
    same = run_gptq(matrix, bend, groups, block=64)
    torch.testing.assert_close(same.matrix(), found.matrix())
    ragged = run_gptq(matrix[:, :40], bend[:40, :40], groups, block=32).matrix()
    assert ragged.shape == (16, 40)
    with pytest.raises(ValueError, match="a block of 8 columns would cut groups of 16"):
        run_gptq(matrix, bend, groups, block=8)


def test_inputs_that_tell_nothing_apart_change_nothing() -> None:
    """A diagonal Hessian: no other column can make up for an error."""
    matrix, _ = problem()
    found = run_gptq(matrix, torch.diag(torch.arange(1.0, 13.0)), ROW)
    assert torch.equal(found.codes, nearest(matrix, ROW).codes)


def test_few_inputs_and_dead_columns() -> None:
    matrix, inputs = problem(n=6)
    inputs[:, 3] = 0
    bend = hessian(inputs)
    found = run_gptq(matrix, bend, ROW).matrix()
    assert not found[:, 3].any() and bool(torch.isfinite(found).all())
    assert output_error(matrix, found, bend) < output_error(
        matrix, nearest(matrix, ROW).matrix(), bend
    )
    for damping in (0.0, -0.01):
        with pytest.raises(ValueError, match="the Hessian is singular with a damping of"):
            run_gptq(matrix, hessian(inputs[:2]), ROW, damping=damping)
    with pytest.raises(ValueError, match="got none but zeros"):
        run_gptq(matrix, torch.zeros(12, 12), ROW)
    with pytest.raises(ValueError, match=r"finite Hessian of shape \(12, 12\), got \(2, 2\)"):
        run_gptq(matrix, torch.eye(2), ROW)
