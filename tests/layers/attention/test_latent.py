"""Latent attention: two paths that agree, the library's, a case by hand, and what is kept."""

import pytest
import torch
from torch import Tensor, nn
from transformers import DeepseekV2Config, DeepseekV3Config
from transformers.models.deepseek_v2.modeling_deepseek_v2 import (
    DeepseekV2Attention,
    DeepseekV2RotaryEmbedding,
)
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
)

from llmtutor.layers.attention import (
    Attention,
    LatentAttention,
    LatentAttentionConfig,
    LatentCache,
    attention,
)
from llmtutor.layers.part import Load, Site
from llmtutor.layers.positions import AlibiConfig, Rope

D, HEADS, SEQ = 24, 4, 9
SIZES = {"kv_rank": 7, "nope_dim": 5, "rope_dim": 4, "v_dim": 3}
LAYERS = {
    "plain queries": {"position": Rope(4), **SIZES},
    "compressed queries, neighbours": {
        "position": Rope(4, pairing="interleaved"),
        "q_rank": 8,
        "scale": 0.7,
        **SIZES,
    },
    "no position, no norm": {"latent_norm": None, "kv_rank": 20},
    "a shared key that does not turn": SIZES,
}


def made(case: str, dtype: torch.dtype = torch.float64) -> LatentAttention:
    torch.manual_seed(0)
    layer = LatentAttention(D, HEADS, **LAYERS[case]).to(dtype)
    return shaken(layer)


def shaken(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for p in layer.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
    return layer.requires_grad_(False)


def text(batch: int = 2, seq: int = SEQ, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, seq, D, generator=generator, dtype=torch.float64).to(dtype)


def error(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


# Properties ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("case", LAYERS)
def test_the_absorbed_path_is_the_decompressed_one(case, dtype, most) -> None:
    layer, x = made(case, dtype), text(dtype=dtype)
    positions = torch.arange(SEQ)
    q, rows = layer.queries(x, positions), layer.compress(x, positions)
    whole = layer.decompressed(q, rows)
    assert whole.std() > 0.1
    size = float(whole.abs().max())
    assert error(layer.absorbed(q, rows), whole) <= most * max(1.0, size)
    last = layer.absorbed(q[:, :, -1:], rows)
    assert error(last, whole[:, :, -1:]) <= most * max(1.0, size)


@pytest.mark.parametrize("case", LAYERS)
def test_which_path_is_taken(case, monkeypatch) -> None:
    """A whole text is decompressed, also into an empty cache; whatever follows is absorbed."""
    layer, x, taken = made(case), text(), []
    for name in ("decompressed", "absorbed"):
        path = getattr(layer, name)
        monkeypatch.setattr(layer, name, lambda *a, n=name, f=path: taken.append(n) or f(*a))
    want = layer(x)
    cache = layer.make_cache(2, SEQ)
    parts = [layer(x[:, a:b], cache=cache) for a, b in ((0, 4), (4, 5), (5, SEQ))]
    assert error(torch.cat(parts, dim=1), want) <= 1e-12
    assert taken == ["decompressed", "decompressed", "absorbed", "absorbed"]


def test_the_cache_holds_the_normalised_latent_and_the_turned_key() -> None:
    layer, x = made("plain queries"), text()
    cache = layer.make_cache(2, SEQ)
    layer(x[:, :3], cache=cache)
    layer(x[:, 3:], cache=cache)
    latent = layer.latent_norm(layer.latent(x))
    key = layer.position.rotate(layer.rope_key(x), torch.arange(SEQ))
    assert error(cache.rows, torch.cat((latent, key), dim=-1)) <= 1e-14
    assert cache.nbytes == 2 * SEQ * (7 + 4) * 8


def test_a_latent_as_wide_as_the_stream_is_multi_head_attention() -> None:
    """With W_DKV the identity and no position, the two projections up are those of each head."""
    torch.manual_seed(0)
    heads = Attention(D, HEADS).double().requires_grad_(False)
    layer = LatentAttention(D, HEADS, kv_rank=D, latent_norm=None).double().requires_grad_(False)
    layer.latent.weight.copy_(torch.eye(D))
    for ours, theirs in (("query", "query"), ("key_up", "key"), ("value_up", "value")):
        getattr(layer, ours).weight.copy_(getattr(heads, theirs).weight)
    layer.output.weight.copy_(heads.output.weight)
    assert error(layer(text()), heads(text())) <= 1e-12


def test_a_score_depends_on_distances_alone() -> None:
    layer, x = made("plain queries"), text()
    outputs = []
    for shift in (0, 1000):
        positions = torch.arange(SEQ) + shift
        outputs.append(
            layer.decompressed(layer.queries(x, positions), layer.compress(x, positions))
        )
    assert error(*outputs) <= 1e-10


# By hand ------------------------------------------------------------------------------------------


def test_two_tokens_by_hand() -> None:
    """Width 2, one head, latent of one number, nothing turns: q · k = 2 x₀ · 3 c, v = 5 c."""
    layer = LatentAttention(2, 1, kv_rank=1, nope_dim=1, v_dim=1, latent_norm=None, scale=1.0)
    weights = {"query": [[2.0, 0.0]], "latent": [[0.0, 1.0]], "key_up": [[3.0]]}
    for name, weight in {**weights, "value_up": [[5.0]], "output": [[1.0], [0.0]]}.items():
        getattr(layer, name).weight.data = torch.tensor(weight)
    x = torch.tensor([[[1.0, 0.0], [0.5, 0.2]]])
    # Latents 0 and 0.2, keys 0 and 0.6, values 0 and 1; the second query is 1.
    weight = torch.tensor(0.6).exp() / (1 + torch.tensor(0.6).exp())
    expected = torch.tensor([[[0.0, 0.0], [float(weight), 0.0]]])
    torch.testing.assert_close(layer(x).detach(), expected)
    cache = layer.make_cache(1, 2)
    steps = [layer(x[:, i : i + 1], cache=cache) for i in range(2)]
    torch.testing.assert_close(torch.cat(steps, dim=1).detach(), expected)
    assert cache.rows.flatten().tolist() == pytest.approx([0.0, 0.2])


def test_numbers_for_each_token_that_deepseek_published() -> None:
    """DeepSeek-V2, table 1 and section 2.1.2: 512 + 64 against 2 · 128 · 128, as 2.25 groups."""
    config = LatentAttentionConfig(128, 512, 1536, nope_dim=128, rope_dim=64, v_dim=128)
    numbers = config.costs(Site(5120, 4096), Load(1, 1, itemsize=1)).cache_bytes
    assert numbers == 576 == 2.25 * (2 * 128)
    assert 2 * 128 * 128 / numbers == pytest.approx(56.9, abs=0.05)


# The library --------------------------------------------------------------------------------------

THEIRS = {
    "deepseek_v2": (DeepseekV2Config, DeepseekV2Attention, DeepseekV2RotaryEmbedding),
    "deepseek_v3": (DeepseekV3Config, DeepseekV3Attention, DeepseekV3RotaryEmbedding),
}


def names(q_rank: int | None) -> dict[str, str]:
    low = {"query_down": "q_a_proj", "query_norm": "q_a_layernorm", "query": "q_b_proj"}
    queries = low if q_rank else {"query": "q_proj"}
    return queries | {"latent_norm": "kv_a_layernorm", "output": "o_proj"}


@pytest.mark.parametrize("q_rank", [None, 8])
@pytest.mark.parametrize(("version", "interleaved"), [("v2", True), ("v3", True), ("v3", False)])
@torch.no_grad()
def test_the_layer_of_transformers(version, interleaved, q_rank) -> None:
    make_config, make_layer, make_rope = THEIRS[f"deepseek_{version}"]
    config = make_config(
        hidden_size=D,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        q_lora_rank=q_rank,
        kv_lora_rank=8,  # even, as V2's complex numbers want it
        qk_nope_head_dim=6,
        qk_rope_head_dim=4,
        v_head_dim=3,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        **({} if interleaved else {"rope_interleave": False}),
    )
    config._attn_implementation = "eager"
    theirs = shaken(make_layer(config, 0))
    pairing = "interleaved" if interleaved else "half"
    rope = Rope(4, base=100.0, pairing=pairing)
    even = {**SIZES, "kv_rank": 8, "nope_dim": 6}
    ours = LatentAttention(D, HEADS, position=rope, q_rank=q_rank, **even)
    for mine, other in names(q_rank).items():
        getattr(ours, mine).weight.copy_(getattr(theirs, other).weight)
    down, key = theirs.kv_a_proj_with_mqa.weight.split((8, 4))
    up = theirs.kv_b_proj.weight.unflatten(0, (HEADS, -1))
    ours.latent.weight.copy_(down)
    ours.rope_key.weight.copy_(key)
    ours.key_up.weight.copy_(up[:, :6].flatten(0, 1))
    ours.value_up.weight.copy_(up[:, 6:].flatten(0, 1))

    x = text(dtype=torch.float32)
    future = torch.full((SEQ, SEQ), -torch.inf).triu(1)
    angles = make_rope(config)(x, torch.arange(SEQ)[None])
    expected = theirs(x, position_embeddings=angles, attention_mask=future)[0]
    assert expected.std() > 0.3
    assert error(ours(x), expected) <= 2e-6
    cache = ours.make_cache(2, SEQ)
    pieces = [ours(part, cache=cache) for part in x.split([4, 1, 3, 1], dim=1)]
    assert error(torch.cat(pieces, dim=1), expected) <= 2e-6


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_rank": 25}, "kv_rank must be at most d_model = 24"),
        ({"q_rank": 25}, "q_rank must be at most d_model = 24"),
        ({"nope_dim": 2, "v_dim": 1, "kv_rank": 13}, "and 12, the components of all heads' keys"),
        ({"rope_dim": 3}, "rope_dim must be even"),
        ({"rope_dim": -2}, "rope_dim must be at least 0"),
        ({"kv_rank": 0}, "kv_rank must be at least 1"),
        ({"v_dim": 0}, "v_dim must be at least 1"),
        ({"scale": 0.0}, "scale must be above 0"),
        ({"n_heads": 5}, "n_heads must divide d_model unless nope_dim is given"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        LatentAttention(D, **{"n_heads": HEADS, **options})


def test_positions_that_do_not_turn_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="must be 'rope' or 'none', got 'alibi'"):
        LatentAttentionConfig(4, position=AlibiConfig())
    with pytest.raises(ValueError, match="rope_dim = 0 leaves RoPE nothing to turn"):
        LatentAttentionConfig(4, rope_dim=0)


def test_inputs_that_do_not_fit_are_refused() -> None:
    layer = made("plain queries")
    with pytest.raises(ValueError, match=r"x must be \(batch, seq, d_model\), got shape"):
        layer(text()[0])
    other = LatentCache(2, SEQ, kv_rank=6, rope_dim=4)
    with pytest.raises(ValueError, match=r"kv_rank \+ rope_dim = 6 \+ 4\).*make_caches"):
        layer(text(), cache=other)
    assert other.length == 0
    with pytest.raises(ValueError, match="over its max_len = 3"):
        layer(text(), cache=layer.make_cache(2, 3))
    with pytest.raises(ValueError, match="kv_rank must be at least 1"):
        LatentCache(1, 2, kv_rank=0, rope_dim=2)


def test_another_attend_gives_the_same() -> None:
    layer, x = made("compressed queries, neighbours"), text()
    want = layer(x)
    layer.attend = attention
    assert error(layer(x), want) <= 1e-12
