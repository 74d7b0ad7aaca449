"""Both versions against the formula in other orders, against plain attention, and by hand."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DiffLlamaConfig
from transformers.models.diffllama.modeling_diffllama import DiffLlamaAttention

from llmtutor.layers.attention import Attention, attention, causal_mask
from llmtutor.layers.attention.differential import (
    DifferentialAttention,
    DifferentialConfig,
    differential_attention,
    lambda_init,
)
from llmtutor.layers.attention.differential_v2 import DifferentialAttentionV2
from llmtutor.layers.basic import Linear
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer

EXACT = {"rtol": 1e-12, "atol": 1e-12}
D, HEADS, SEQ = 16, 4, 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def layer(version: type = DifferentialAttention, **options: Any) -> Any:
    """Every parameter random, also those that start at 1."""
    made = version(D, HEADS, **options).double()
    for i, parameter in enumerate(made.parameters()):
        parameter.data = 0.5 * draw(*parameter.shape, seed=20 + i)
    return made


X = draw(2, SEQ, D)

# --- the first version ----------------------------------------------------------------------------


@pytest.mark.parametrize(("kv", "depth"), [(4, 0), (2, 3)])
def test_equals_diffllama(kv, depth) -> None:
    ours = layer(n_kv_heads=kv, layer=depth, gain=False)
    sizes = {"hidden_size": D, "num_attention_heads": HEADS, "num_key_value_heads": kv}
    config = DiffLlamaConfig(**sizes, attn_implementation="eager")
    theirs = DiffLlamaAttention(config, layer_idx=depth).double()
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    for name, parameter in ours.named_parameters():
        module, _, kind = name.rpartition(".")
        theirs.get_parameter(f"{names[module]}.{kind}" if module else name).data = parameter.data
    angles = torch.ones(1, SEQ, D // HEADS).double(), torch.zeros(1, SEQ, D // HEADS).double()
    mask = torch.zeros(SEQ, SEQ).double().masked_fill(~causal_mask(SEQ), -math.inf)
    want = theirs(X, angles, mask[None, None])[0]
    # Their λ and softmax are computed in float32.
    torch.testing.assert_close(ours(X), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kv", [4, 2])
def test_equals_the_code_of_the_paper_whose_maps_pair_with_their_neighbours(kv) -> None:
    """Heads 2i and 2i + 1 there are i and i + n/2 here: rows of the projections change places."""
    ours = layer(n_kv_heads=kv, layer=2)
    width, half = D // HEADS, kv // 2

    def project(name: str, heads: int) -> Tensor:
        weight = getattr(ours, name).weight.unflatten(0, (2, heads // 2, width))
        rows = weight.transpose(0, 1).reshape(heads * width, D)  # neighbours
        return X @ rows.T

    q = project("query", HEADS).view(2, SEQ, HEADS // 2, 2, width)
    k = project("key", kv).view(2, SEQ, half, 2, width)
    v = project("value", kv).view(2, SEQ, half, 2 * width)
    k, v = (x.repeat_interleave(HEADS // kv, dim=2) for x in (k, v))
    scores = torch.einsum("bqhmd,bkhmd->bmhqk", q, k) / math.sqrt(width)
    maps = scores.masked_fill(~causal_mask(SEQ), -math.inf).softmax(-1)
    lam = (
        (ours.lambda_q1 @ ours.lambda_k1).exp()
        - (ours.lambda_q2 @ ours.lambda_k2).exp()
        + (0.8 - 0.6 * math.exp(-0.6))
    )
    heads = torch.einsum("bhqk,bkhd->bqhd", maps[:, 0] - lam * maps[:, 1], v)
    normed = F.rms_norm(heads, (2 * width,), ours.head_norm, 1e-5) * (1 - lambda_init(2))
    want = F.linear(normed.flatten(2), ours.output.weight)
    torch.testing.assert_close(ours(X), want, **EXACT)
    torch.testing.assert_close(ours.weights(X), maps[:, 0] - lam * maps[:, 1], **EXACT)


def test_without_lambda_it_is_plain_attention_with_wide_values() -> None:
    q, k, v = draw(3, SEQ, 4, seed=1), draw(3, SEQ, 4, seed=2), draw(3, SEQ, 8, seed=3)
    other = draw(3, SEQ, 4, seed=4)
    got = differential_attention((q, other), (k, other), v, 0.0, causal=True)
    torch.testing.assert_close(got, attention(q, k, v, causal=True), **EXACT)


def test_what_both_maps_see_cancels() -> None:
    """Two equal maps leave 1 − λ of one, which a norm of the head cannot tell from all of it."""
    q, k, v = draw(3, SEQ, 4, seed=1), draw(3, SEQ, 4, seed=2), draw(3, SEQ, 8, seed=3)
    plain = attention(q, k, v, causal=True)
    for lam in (0.2, 0.8, 1.0):
        got = differential_attention((q, q), (k, k), v, lam, causal=True)
        torch.testing.assert_close(got, (1 - lam) * plain, **EXACT)
    # What is added to all values alike comes through once, less λ times.
    other = draw(3, SEQ, 4, seed=4)
    before, after = (
        differential_attention((q, other), (k, q), values, 0.7, causal=True)
        for values in (v, v + 10)
    )
    torch.testing.assert_close(after - before, torch.full_like(v, 10 * (1 - 0.7)), **EXACT)


def test_by_hand() -> None:
    """One query, three keys: maps (1/2, 1/4, 1/4) and (1/4, 1/4, 1/2), λ = 1/2, values 8, 4, 0."""
    q, log = torch.ones(1, 1), math.log(2)
    first, second = torch.tensor([[log], [0.0], [0.0]]), torch.tensor([[0.0], [0.0], [log]])
    v = torch.tensor([[8.0], [4.0], [0.0]])
    got = differential_attention((q, q), (first, second), v, 0.5)
    # (3/8, 1/8, 0) · (8, 4, 0): the third key has weight 1/4 − 1/4.
    torch.testing.assert_close(got, torch.tensor([[3.5]]))


def test_lambda_starts_where_the_depth_of_the_layer_says() -> None:
    config = ModelConfig.uniform(11, 8, n_layers=4, d_model=64, n_heads=2, d_ff=8)
    torch.manual_seed(0)
    model = Transformer(config.replace(mixer="differential"))
    want = [0.2, 0.3555, 0.4707, 0.5561]  # 0.8 − 0.6 · (1, 0.7408, 0.5488, 0.4066)
    for block, value in zip(model.blocks, want, strict=True):
        assert block.mixer.lambda_init == pytest.approx(value, abs=1e-4)
        vectors = torch.stack([p for n, p in block.mixer.named_parameters() if "lambda" in n])
        assert vectors.shape == (4, 32) and 0.08 < float(vectors.detach().std()) < 0.12
        assert float(block.mixer.lam()) == pytest.approx(value, abs=0.3)
    with pytest.raises(ValueError, match="layer"):
        lambda_init(-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 3}, "n_heads must be even, got 3"),
        ({"n_heads": 4, "n_kv_heads": 1}, "n_kv_heads must be even, got 1"),
        ({"n_heads": 4, "eps": 0.0}, "eps must be"),
    ],
)
def test_what_makes_no_pairs_is_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        DifferentialConfig(**options)


# --- the second version ---------------------------------------------------------------------------


@pytest.mark.parametrize("kv", [4, 2, 1])
def test_v2_equals_its_formula_through_torch(kv) -> None:
    ours = layer(DifferentialAttentionV2, n_kv_heads=kv)

    def split(name: str) -> Tensor:
        return getattr(ours, name)(X).unflatten(-1, (-1, D // HEADS)).transpose(1, 2)

    q, k, v = split("query"), split("key"), split("value")
    assert (q.shape[1], k.shape[1], v.shape[1]) == (2 * HEADS, kv, kv)
    heads = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    lam = torch.sigmoid(X @ ours.lambda_projection.weight.T).transpose(1, 2)[..., None]
    mixed = heads[:, 0::2] - lam * heads[:, 1::2]
    want = F.linear(mixed.transpose(1, 2).flatten(2), ours.output.weight)
    torch.testing.assert_close(ours(X), want, **EXACT)
    values = v.repeat_interleave(HEADS // kv, dim=1)
    torch.testing.assert_close(ours.weights(X) @ values, mixed, **EXACT)


def test_v2_with_lambda_shut_is_plain_attention_of_every_other_query_head() -> None:
    ours, plain = layer(DifferentialAttentionV2), Attention(D, HEADS).double()
    ours.lambda_projection = Linear(D, HEADS, bias=True).double()
    ours.lambda_projection.weight.data.zero_()
    ours.lambda_projection.bias.data.fill_(-1e3)
    queries = ours.query.weight.unflatten(0, (HEADS, 2, -1))[:, 0].flatten(0, 1)
    rest = {f"{name}.weight": getattr(ours, name).weight for name in ("key", "value", "output")}
    plain.load_state_dict({"query.weight": queries, **rest})
    torch.testing.assert_close(ours(X), plain(X), **EXACT)
