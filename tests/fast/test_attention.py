"""Attention that stores its weights: against torch, against the formula, and where it is taken."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmtutor.fast import attention as fast
from llmtutor.fast.attention import (
    BLOCK,
    LONGEST,
    compiled_attention,
    materialised_attention,
    single_query_attention,
)
from llmtutor.layers.attention import attention, fused_attention

LENGTHS = (1, 2, 5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, LONGEST - 1, LONGEST)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def qkv(seq: int, n_heads: int = 2, n_kv_heads: int = 2, dtype=torch.float64) -> list[Tensor]:
    heads = (n_heads, n_kv_heads, n_kv_heads)
    return [draw(2, h, seq, 4, seed=i, dtype=dtype) for i, h in enumerate(heads)]


def gradients(y: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad((y * draw(*y.shape, seed=9).detach().to(y.dtype)).sum(), inputs)


# --- the two forms --------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", LENGTHS)
def test_equals_torch(seq) -> None:
    inputs = qkv(seq)
    got = materialised_attention(*inputs, scale=0.3)
    want = F.scaled_dot_product_attention(*inputs, is_causal=True, scale=0.3)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(got, inputs), gradients(want, inputs), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("seq", [4, LONGEST])
def test_the_past_does_not_see_the_future(seq) -> None:
    q, k, v = (x.detach() for x in qkv(seq))
    before = materialised_attention(q, k, v, scale=0.5)
    for changed in (1, seq // 2, seq - 1):
        keys, values = k.clone(), v.clone()
        keys[..., changed, :], values[..., changed, :] = 1e4, -1e4
        after = materialised_attention(q, keys, values, scale=0.5)
        assert torch.equal(after[..., :changed, :], before[..., :changed, :])
        assert not torch.equal(after[..., changed, :], before[..., changed, :])


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("seq", [1, 7, 100])
def test_a_single_query_equals_torch(seq, n_kv_heads) -> None:
    q, _, _ = qkv(1, 4)
    _, k, _ = qkv(seq, 4, n_kv_heads)
    v = draw(2, n_kv_heads, seq, 3, seed=5)  # of another width
    got = single_query_attention(q, k, v, scale=0.3)
    want = F.scaled_dot_product_attention(q, k, v, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(got, [q, k, v]), gradients(want, [q, k, v]), rtol=1e-11, atol=1e-11
    )


def test_a_single_query_by_hand() -> None:
    # Scores 0 and ln 3: the second key weighs three times the first.
    k = torch.tensor([[0.0, 5.0], [math.log(3.0), 0.0]])
    v = torch.tensor([[10.0, 0.0], [30.0, 4.0]])
    got = single_query_attention(torch.tensor([[2.0, 0.0]]), k, v, scale=0.5)
    torch.testing.assert_close(got, torch.tensor([[25.0, 3.0]]))


def test_huge_scores_stay_finite() -> None:
    q, v = torch.tensor([[1e6], [1e6], [-1e6]]), torch.tensor([[1.0], [3.0], [8.0]])
    got = materialised_attention(q, q, v, scale=1e20)
    torch.testing.assert_close(got, torch.tensor([[1.0], [2.0], [8.0]]))
    got = single_query_attention(q[:1], q[[0, 2, 0]], v[[0, 2, 1]], scale=1e20)
    torch.testing.assert_close(got, torch.tensor([[2.0]]))


# --- which of them is taken -----------------------------------------------------------------------

RULES = {
    "mask": lambda q, k: draw(2, 1, q, k, seed=5) > -0.5,
    "causal": lambda q, k: True,
    "bias": lambda q, k: draw(4, q, k, seed=6, dtype=torch.float32),
    "scale": lambda q, k: 1.3,
    "softcap": lambda q, k: 0.8,
    "sinks": lambda q, k: draw(4, seed=7, dtype=torch.float32),
}
COMBINATIONS = [names for n in range(7) for names in itertools.combinations(RULES, n)]


@pytest.fixture
def kernel(monkeypatch) -> list[dict]:
    """What was handed on to ``fused_attention``."""
    calls: list[dict] = []

    def recorded(*inputs: Tensor, **arguments) -> Tensor:
        calls.append(arguments)
        return fused_attention(*inputs, **arguments)

    monkeypatch.setattr(fast, "fused_attention", recorded)
    return calls


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("seq_q", "seq_k"), [(5, 5), (3, 5), (1, 5), (1, 1)])
def test_equals_attention_with_any_arguments_together(seq_q, seq_k, n_kv_heads, kernel) -> None:
    """On every road; a scale and the order of time alone do not need the kernel."""
    q, k = (
        draw(2, n, seq, 8, seed=n, dtype=torch.float32)
        for n, seq in ((4, seq_q), (n_kv_heads, seq_k))
    )
    v = draw(2, n_kv_heads, seq_k, 3, seed=3, dtype=torch.float32)
    for names in COMBINATIONS:
        rules = {name: RULES[name](seq_q, seq_k) for name in names}
        kernel.clear()
        got, want = compiled_attention(q, k, v, **rules), attention(q, k, v, **rules)
        torch.testing.assert_close(got, want, msg=lambda text: f"{names}: {text}")  # noqa: B023
        stored = {*names} <= {"causal", "scale"} and (
            seq_q == 1 or (seq_q == seq_k and "causal" in names)
        )
        assert len(kernel) == (not stored), names


@pytest.mark.parametrize("seq", [BLOCK + 1, LONGEST])
def test_values_and_gradients_of_long_sequences(seq, kernel) -> None:
    inputs = qkv(seq, 4, 2, torch.float32)
    got, want = (path(*inputs, causal=True) for path in (compiled_attention, attention))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        gradients(got, inputs), gradients(want, inputs), rtol=1e-4, atol=1e-4
    )
    assert not kernel


@pytest.mark.parametrize(
    ("seq", "dtype"),
    [(LONGEST + 1, torch.float32), (8, torch.float64), (8, torch.bfloat16), (1, torch.bfloat16)],
)
def test_what_is_long_or_not_of_float32_keeps_the_kernel(seq, dtype, kernel) -> None:
    inputs = qkv(seq, dtype=dtype)
    got = compiled_attention(*inputs, causal=True, scale=0.7)
    assert len(kernel) == 1
    assert torch.equal(got, fused_attention(*inputs, causal=True, scale=0.7))


def test_without_heads_and_with_one_batch_axis(kernel) -> None:
    for batch in ((), (3,)):
        q, k, v = (draw(*batch, 5, 4, seed=i, dtype=torch.float32) for i in range(3))
        got = compiled_attention(q, k, v, causal=True)
        torch.testing.assert_close(got, attention(q, k, v, causal=True))
        last = q[..., -1:, :]
        torch.testing.assert_close(compiled_attention(last, k, v), attention(last, k, v))
    assert not kernel


@pytest.mark.parametrize("seq_q", [1, 5])
def test_it_goes_into_one_graph(seq_q) -> None:
    torch.compiler.reset()
    run = torch.compile(compiled_attention, backend="eager", fullgraph=True)
    q, k, v = (x.detach() for x in qkv(5, 4, 2, torch.float32))
    q = q[:, :, -seq_q:]
    torch.testing.assert_close(run(q, k, v, causal=True), attention(q, k, v, causal=True))


@pytest.mark.parametrize("seq_q", [1, 5])
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("k", (4, 1, 5, 4), "heads of k divide those of q"),  # as many numbers, in other heads
        ("k", (2, 3, 5, 4), "heads of k divide those of q"),
        ("v", (2, 2, 6, 4), "v must be floating point with one row for each key"),
        ("mask", (6, 5), "mask must be boolean"),
        ("sinks", (2, 2), "sinks must be one number for each head"),
    ],
)
def test_refuses_what_attention_refuses(seq_q, name, shape, message) -> None:
    q, k, v = (x.detach() for x in qkv(5, 4, 2, torch.float32))
    arguments = {"q": q[:, :, -seq_q:], "k": k, "v": v, "causal": True, name: torch.zeros(shape)}
    if name == "k":
        arguments["v"] = arguments["k"]
    for path in (attention, compiled_attention):
        with pytest.raises(ValueError, match=message):
            path(**arguments)
