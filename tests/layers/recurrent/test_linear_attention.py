"""Linear attention: three forms of one function, its features and normalisers, its refusals."""

import os

import pytest
import torch
from torch import Tensor

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
from transformers.models.qwen3_next.modeling_qwen3_next import torch_recurrent_gated_delta_rule

from llmtutor.layers.recurrent.linear_attention import (
    FEATURES,
    LinearAttention,
    LinearAttentionConfig,
    elu_plus_one,
    linear_attention_chunked,
    linear_attention_parallel,
    linear_attention_recurrent,
)

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def qkv(seq: int = 21, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shapes = ((2, 3, seq, 4), (2, 3, seq, 4), (2, 3, seq, 5))
    return [numbers(*s, seed=i, dtype=dtype) / 2 for i, s in enumerate(shapes)]


def by_definition(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Σ_{i ≤ t} (q_t · k_i) v_i, in two loops."""
    out = torch.zeros_like(v)
    for t in range(q.shape[-2]):
        for i in range(t + 1):
            out[..., t, :] += (q[..., t, :] * k[..., i, :]).sum(-1, keepdim=True) * v[..., i, :]
    return out


def test_two_tokens_by_hand() -> None:
    """Keys (1, 0) and (1, 1) with values 2 and 3; the queries are the keys."""
    k, v = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0], [3.0]])
    out, state = linear_attention_recurrent(k, k, v)
    assert out.flatten().tolist() == [2, 8] and state.flatten().tolist() == [5, 3]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_token_by_token_at_once_and_in_chunks_are_the_same(dtype: torch.dtype) -> None:
    q, k, v = qkv(dtype=dtype)
    want = by_definition(q, k, v)
    out, state = linear_attention_recurrent(q, k, v)
    found = [out, linear_attention_parallel(q, k, v)]
    for chunk in (1, 4, 7, 21, 64):
        chunked, last = linear_attention_chunked(q, k, v, chunk=chunk)
        found.append(chunked)
        torch.testing.assert_close(last, state, rtol=0, atol=4 * TOLERANCE[dtype])
    for got in found:
        torch.testing.assert_close(got, want, rtol=0, atol=4 * TOLERANCE[dtype])


def test_so_are_their_gradients_and_a_state_goes_on() -> None:
    inputs = [x.requires_grad_() for x in (*qkv(), numbers(2, 3, 4, 5, seed=9))]
    grads = []
    for form in (linear_attention_recurrent, linear_attention_chunked):
        options = {} if form is linear_attention_recurrent else {"chunk": 8}
        out, state = form(*inputs, **options)
        loss = out.square().sum() + state.sin().sum()
        grads.append(torch.autograd.grad(loss, inputs))
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)


def test_with_orthonormal_keys_it_is_the_delta_rule_of_transformers() -> None:
    """Where no key meets another there is nothing to correct; and each value is read back."""
    keys, _ = torch.linalg.qr(numbers(1, 1, 6, 6))
    v = numbers(1, 1, 6, 3, seed=1)
    ours, _ = linear_attention_recurrent(keys, keys, v)
    torch.testing.assert_close(ours, v, rtol=0, atol=1e-14)
    q, k, v = (x.transpose(1, 2) for x in (6**0.5 * keys, keys, v))
    theirs, _ = torch_recurrent_gated_delta_rule(q, k, v, 0 * v[..., 0], 1 + 0 * v[..., 0])
    torch.testing.assert_close(ours.transpose(1, 2), theirs, rtol=0, atol=1e-6)


def test_the_layer_takes_a_mean_weighted_by_products_of_features() -> None:
    """From its own projections, with the weights written out: positive, and of sum 1."""
    layer = LinearAttention(8, 2).double()
    x = numbers(1, 7, 8)
    q, k, v = (
        project(x).view(1, 7, 2, 4).transpose(1, 2)
        for project in (layer.query, layer.key, layer.value)
    )
    weights = (elu_plus_one(q) @ elu_plus_one(k).mT).tril()
    assert (weights.tril() >= 0).all()
    want = (weights / weights.sum(-1, keepdim=True)) @ v
    want = layer.output(want.transpose(1, 2).reshape(1, 7, 8))
    torch.testing.assert_close(layer(x), want, rtol=0, atol=1e-5)  # 1e-6 is added to the sum


@torch.no_grad()
def test_without_a_sum_it_has_an_rms_norm() -> None:
    torch.manual_seed(0)
    layer = LinearAttention(8, 2, features="silu", normalise="output").double()
    layer.output.weight.copy_(torch.eye(8))
    out = layer(30 * numbers(1, 7, 8)).view(1, 7, 2, 4)
    torch.testing.assert_close(out.square().mean(-1), 0 * out[..., 0] + 1, rtol=0, atol=1e-2)


@pytest.mark.parametrize("features", FEATURES)
@torch.no_grad()
def test_its_past_has_one_size_for_any_length(features: str) -> None:
    normalise = "weights" if features in ("elu", "relu") else "output"
    layer = LinearAttention(8, 2, features=features, normalise=normalise, conv_width=3)
    sizes = {layer.make_cache(2, n).nbytes for n in (1, 100, 10_000)}
    columns = 5 if normalise == "weights" else 4
    assert sizes == {2 * 4 * (2 * 4 * columns + 2 * 24)}
    half = LinearAttention(8, 2).bfloat16().make_cache(1, 4)
    assert half["state"].dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 0}, "n_heads must be at least 1, got 0"),
        ({"head_dim": 0}, "head_dim must be at least 1, got 0"),
        ({"conv_width": 0}, "conv_width must be at least 1, got 0"),
        ({"features": "rleu"}, "unknown features 'rleu'; did you mean 'relu'"),
        ({"features": "silu"}, "weights can be below 0.*normalise='output'"),
        ({"normalise": "sum"}, "normalise must be one of 'weights', 'output', got 'sum'"),
    ],
)
def test_what_has_no_state_or_no_sum_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearAttentionConfig(**({"n_heads": 2} | options))


def test_inputs_that_do_not_fit_are_refused() -> None:
    layer = LinearAttention(8, 2)
    with pytest.raises(ValueError, match=r"x must be \(batch, seq, d_model\), got shape \(3, 8\)"):
        layer(torch.zeros(3, 8))
    with pytest.raises(ValueError, match="n_heads must divide d_model"):
        LinearAttention(8, 3)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        layer.make_cache(0, 4)
