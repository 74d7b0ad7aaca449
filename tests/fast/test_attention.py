"""Attention that stores its weights, against torch, and where ``fused_attention`` turns to it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmtutor.layers.attention import fused_attention
from llmtutor.fast.attention import (
    BLOCK,
    LONGEST,
    single_query_attention,
    stored_attention,
)

LENGTHS = (1, 2, 5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, LONGEST - 1, LONGEST)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def qkv(seq: int, n_heads: int = 2, n_kv_heads: int = 2, dtype=torch.float64) -> list[Tensor]:
    heads = (n_heads, n_kv_heads, n_kv_heads)
    return [draw(2, h, seq, 4, seed=i, dtype=dtype) for i, h in enumerate(heads)]


def gradients(y: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad((y * draw(*y.shape, seed=9).detach().to(y.dtype)).sum(), inputs)


@pytest.mark.parametrize("seq", LENGTHS)
def test_equals_torch(seq) -> None:
    inputs = qkv(seq)
    got = stored_attention(*inputs, scale=0.3)
    want = F.scaled_dot_product_attention(*inputs, is_causal=True, scale=0.3)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(got, inputs), gradients(want, inputs), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("seq", [4, LONGEST])
def test_the_past_does_not_see_the_future(seq) -> None:
    q, k, v = (x.detach() for x in qkv(seq))
    before = stored_attention(q, k, v, scale=0.5)
    for changed in (1, seq // 2, seq - 1):
        keys, values = k.clone(), v.clone()
        keys[..., changed, :], values[..., changed, :] = 1e4, -1e4
        after = stored_attention(q, keys, values, scale=0.5)
        assert torch.equal(after[..., :changed, :], before[..., :changed, :])
        assert not torch.equal(after[..., changed, :], before[..., changed, :])


def test_huge_scores_stay_finite() -> None:
    q = torch.full((3, 1), 1e6)
    q[2] = -1e6
    v = torch.tensor([[1.0], [3.0], [8.0]])
    torch.testing.assert_close(
        stored_attention(q, q, v, scale=1e20), torch.tensor([[1.0], [2.0], [8.0]])
    )


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("seq", [1, 2, 7, 100])
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


def test_huge_scores_of_a_single_query_stay_finite() -> None:
    k, v = torch.tensor([[1e6], [-1e6], [1e6]]), torch.tensor([[1.0], [8.0], [3.0]])
    got = single_query_attention(torch.tensor([[1e6]]), k, v, scale=1e20)
    torch.testing.assert_close(got, torch.tensor([[2.0]]))


class Recorder:
    """Compiles to the program as it is, and keeps the names of its operations."""

    def __init__(self) -> None:
        self.names = ""

    def __call__(self, program: torch.fx.GraphModule, _: list[Tensor]):
        self.names = " ".join(str(node.target) for node in program.graph.nodes)
        return program.forward

    def run(self, inputs: list[Tensor], **arguments) -> Tensor:
        torch.compiler.reset()
        run = torch.compile(fused_attention, backend=self, fullgraph=True)
        out: Tensor = run(*inputs, **arguments)
        return out

    @property
    def kernel(self) -> bool:
        return "scaled_dot_product_attention" in self.names


@pytest.mark.parametrize("seq", [2, BLOCK, LONGEST])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_a_compiled_short_sequence_stores_its_weights(seq, n_kv_heads) -> None:
    inputs, recorder = qkv(seq, 4, n_kv_heads, torch.float32), Recorder()
    got, want = recorder.run(inputs, causal=True), fused_attention(*inputs, causal=True)
    assert "softmax" in recorder.names
    assert not recorder.kernel
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        gradients(got, inputs), gradients(want, inputs), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_a_compiled_single_query_stores_its_weights(n_kv_heads, causal) -> None:
    _, k, v = qkv(2 * LONGEST, 4, n_kv_heads, torch.float32)
    inputs, recorder = [qkv(1, 4, dtype=torch.float32)[0], k, v], Recorder()
    got, want = recorder.run(inputs, causal=causal), fused_attention(*inputs, causal=causal)
    assert "exp" in recorder.names
    assert not recorder.kernel
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        gradients(got, inputs), gradients(want, inputs), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("seq", "dtype", "arguments"),
    [
        (LONGEST + 1, torch.float32, {"causal": True}),
        (8, torch.float64, {"causal": True}),
        (8, torch.bfloat16, {"causal": True}),
        (8, torch.float32, {}),
        (8, torch.float32, {"causal": True, "bias": torch.zeros(8, 8)}),
        (8, torch.float32, {"causal": True, "mask": torch.ones(8, 8, dtype=torch.bool)}),
        (1, torch.float64, {"causal": True}),
        (1, torch.bfloat16, {"causal": True}),
        (1, torch.float32, {"bias": torch.zeros(1, 1)}),
        (1, torch.float32, {"mask": torch.ones(1, 1, dtype=torch.bool)}),
    ],
)
def test_others_keep_the_kernel(seq, dtype, arguments) -> None:
    inputs, recorder = qkv(seq, dtype=dtype), Recorder()
    got = recorder.run(inputs, **arguments)
    assert recorder.kernel
    torch.testing.assert_close(got, fused_attention(*inputs, **arguments))
