"""The delta rule: by hand, against transformers, and its chunks against its tokens."""

import os

import pytest
import torch
from torch import Tensor

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
from transformers.models.qwen3_next import modeling_qwen3_next as theirs

from llmtutor.layers.recurrent.delta import (
    delta_rule_chunked,
    delta_rule_recurrent,
    solve_by_halves,
    unit_keys,
)
from llmtutor.layers.recurrent.linear_attention import linear_attention_recurrent

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def inputs(seq: int = 37, fades: bool = True) -> list[Tensor]:
    """Queries, unit keys, values, write strengths, logarithms of what is kept, and a state."""
    shape = (2, 3, seq)
    q, k = (unit_keys(numbers(*shape, 8, seed=i)) for i in (0, 1))
    keep = -numbers(*shape, seed=4).square() if fades else torch.zeros(shape).double()
    write = numbers(*shape, seed=3).sigmoid()
    v, state = numbers(*shape, 5, seed=2), numbers(2, 3, 8, 5, seed=5)
    return [q, k, v / 2, write, keep, state / 2]


def test_two_writes_under_one_key_by_hand() -> None:
    """Half of 4 is written, then half of the error 10 − 2: linear attention would hold 7."""
    k, v = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[4.0], [10.0]])
    out, state = delta_rule_recurrent(k, k, v, torch.tensor([0.5, 0.5]))
    assert out.flatten().tolist() == [2, 6] and state.flatten().tolist() == [6, 0]
    keep = torch.tensor([1.0, 0.5]).log()  # of the 2 a half fades first: then half of 10 − 1
    assert delta_rule_recurrent(k, k, v, torch.tensor([0.5, 0.5]), keep)[0][1] == 5.5


def test_it_overwrites_where_linear_attention_adds() -> None:
    keys, _ = torch.linalg.qr(numbers(8, 8))
    k, v = keys[[0, 1, 2, 0]], numbers(4, 3, seed=1)
    asked = keys[[0, 1, 2]]
    _, state = delta_rule_recurrent(k, k, v, torch.ones(4).double())
    torch.testing.assert_close(asked @ state, v[[3, 1, 2]], rtol=0, atol=1e-14)
    _, state = linear_attention_recurrent(k, k, v)
    torch.testing.assert_close(asked @ state, v[:3] + v[3] * torch.eye(3)[0][:, None].double())


def test_orthonormal_keys_are_read_back_exactly_and_no_more_than_there_are() -> None:
    """As many as components; one more key of length 1 disturbs what lies under the others."""
    keys, _ = torch.linalg.qr(numbers(8, 8))
    v = numbers(9, 3, seed=1)
    k = torch.cat((keys, unit_keys(numbers(1, 8, seed=2), eps=0.0)))
    for n, exact in ((8, True), (9, False)):
        _, state = delta_rule_recurrent(k[:n], k[:n], v[:n], torch.ones(n).double())
        error = (k[:n] @ state - v[:n]).abs().max()
        assert (error < 1e-14) == exact


def test_a_write_is_a_step_of_gradient_descent_on_what_the_key_returns() -> None:
    k, v, state = unit_keys(numbers(1, 8)), numbers(1, 5, seed=1), numbers(8, 5, seed=2)
    state.requires_grad_()
    loss = 0.5 * (k @ state - v).square().sum()
    (gradient,) = torch.autograd.grad(loss, state)
    _, after = delta_rule_recurrent(k, k, v, numbers(1).fill_(0.3), state=state)
    torch.testing.assert_close(after, state - 0.3 * gradient, rtol=0, atol=1e-14)


@pytest.mark.parametrize("fades", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_chunks_are_the_rule_token_by_token(dtype: torch.dtype, fades: bool) -> None:
    q, k, v, write, keep, state = (x.to(dtype) for x in inputs(fades=fades))
    keep = keep if fades else None
    for past in (None, state):
        want, last = delta_rule_recurrent(q, k, v, write, keep, past)
        for chunk in (1, 5, 16, 37, 64):
            got, end = delta_rule_chunked(q, k, v, write, keep, past, chunk=chunk)
            torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCE[dtype])
            torch.testing.assert_close(end, last, rtol=0, atol=2 * TOLERANCE[dtype])


def test_so_are_their_gradients() -> None:
    given = [x.requires_grad_() for x in inputs()]
    grads = []
    for form, options in ((delta_rule_recurrent, {}), (delta_rule_chunked, {"chunk": 8})):
        out, state = form(*given, **options)
        grads.append(torch.autograd.grad(out.square().sum() + state.sin().sum(), given))
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)


@pytest.mark.parametrize("form", [delta_rule_recurrent, delta_rule_chunked])
@pytest.mark.parametrize("name", ["chunk", "recurrent"])
def test_it_is_the_rule_of_transformers(form, name: str) -> None:
    """Theirs has (batch, seq, heads, …), scales the queries, and computes in float32."""
    *given, state = (x.float() for x in inputs())
    q, k, v, write, keep = (x.transpose(1, 2) for x in given)
    rule = getattr(theirs, f"torch_{name}_gated_delta_rule")
    want, last = rule(q, k, v, keep, write, initial_state=state, output_final_state=True)
    got, end = form(given[0] / 8**0.5, *given[1:], state)
    torch.testing.assert_close(got.transpose(1, 2), want, rtol=0, atol=2e-6)
    torch.testing.assert_close(end, last, rtol=0, atol=2e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_halves_solve_what_torch_solves(n: int) -> None:
    lower, right = numbers(2, n, n).tril(-1) / n, numbers(2, n, 3, seed=1)
    want = torch.linalg.solve_triangular(lower, right, upper=False, unitriangular=True)
    torch.testing.assert_close(solve_by_halves(lower, right), want, rtol=0, atol=1e-13)


def test_the_same_key_a_hundred_times_does_no_harm() -> None:
    """The worst case for the chunks: an inverse by powers would have numbers of 10¹⁸ in it."""
    k = torch.tensor([1.0, 0.0]).expand(100, 2)
    v = torch.arange(100.0)[:, None]
    out, _ = delta_rule_chunked(k, k, v, torch.ones(100))
    torch.testing.assert_close(out, v, rtol=0, atol=1e-4)


def test_a_zero_vector_has_no_direction_and_gives_no_nan() -> None:
    zero = torch.zeros(1, 4, requires_grad=True)
    unit_keys(zero).sum().backward()
    assert not unit_keys(zero).any() and zero.grad.isfinite().all()
