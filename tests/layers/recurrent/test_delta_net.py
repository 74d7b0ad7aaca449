"""DeltaNet as a layer: Qwen3-Next's, its fading, its past, hybrids with attention."""

import os

import pytest
import torch
from torch import Tensor

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

from llmtutor.evaluate.causality import assert_causal
from llmtutor.layers.attention import KVCache
from llmtutor.layers.recurrent.delta_net import DeltaNet, DeltaNetConfig, Fading
from llmtutor.layers.recurrent.state import StateCache
from llmtutor.model.accounting import cache_bytes
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import build


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def qwen3_next(d_model: int, n_heads: int, shared: int, head_dim: int, value_dim: int):
    """Their layer, and ours with its weights: theirs lie side by side for each head of keys."""
    config = Qwen3NextConfig(
        hidden_size=d_model,
        linear_num_key_heads=n_heads,
        linear_num_value_heads=n_heads * shared,
        linear_key_head_dim=head_dim,
        linear_value_head_dim=value_dim,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
    )
    theirs = Qwen3NextGatedDeltaNet(config, 0)
    for i, p in enumerate(theirs.parameters()):
        p.data = numbers(*p.shape, seed=i) * (0.5 if p.ndim > 1 else 1)
    options = {"n_value_heads": n_heads * shared, "head_dim": head_dim, "value_dim": value_dim}
    ours = DeltaNet(d_model, n_heads, **options)
    wide = theirs.in_proj_qkvz.weight.unflatten(0, (n_heads, -1))
    narrow = theirs.in_proj_ba.weight.unflatten(0, (n_heads, -1))
    values = shared * value_dim
    parts = zip(
        (ours.query, ours.key, ours.value, ours.gate, ours.write, ours.fading.decay),
        (*wide.split((head_dim, head_dim, values, values), 1), *narrow.chunk(2, 1)),
        strict=True,
    )
    for layer, weight in parts:
        layer.weight.data = weight.flatten(0, 1)
    ours.conv.weight.data = theirs.conv1d.weight
    ours.fading.log_rate.data, ours.fading.bias.data = theirs.A_log, theirs.dt_bias
    ours.norm.weight.data, ours.output.weight.data = theirs.norm.weight, theirs.out_proj.weight
    return theirs, ours


@pytest.mark.parametrize("sizes", [(16, 2, 2, 8, 4), (12, 3, 1, 4, 4)])
@torch.no_grad()
def test_it_is_the_layer_of_qwen3_next(sizes: tuple[int, ...]) -> None:
    theirs, ours = qwen3_next(*sizes)
    x = numbers(2, 70, sizes[0])  # longer than a chunk
    want = theirs(x)
    assert want.std() > 0.3
    # Theirs computes in float32 whatever it is given, and solves for 64 tokens at once: processors
    # differ by 2e-5 in what rounding leaves.
    torch.testing.assert_close(ours(x), want, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_it_goes_on_from_its_state_over_several_chunks() -> None:
    layer, x = DeltaNet(8, 2, chunk=4).double(), numbers(2, 23, 8).double()
    want = layer(x)
    cache = layer.make_cache(2, 23)
    pieces = [layer(part, cache=cache) for part in x.split([9, 1, 1, 12], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), want, rtol=0, atol=1e-12)


@torch.no_grad()
def test_padding_on_the_left_leaves_state_and_tail_as_they_are() -> None:
    layer, x = DeltaNet(8, 2), numbers(2, 9, 8)
    cache = layer.make_cache(2, 9, starts=torch.tensor([0, 5]))
    layer(x[:, :4], cache=cache)
    assert not cache["state"][1].any() and not cache["tail"][1].any()
    assert cache["state"][0].any() and cache["tail"][0].any()


def test_it_starts_to_fade_in_the_published_range() -> None:
    torch.manual_seed(0)
    kept = Fading(8, 1000)(torch.zeros(1, 1, 8)).exp()
    assert kept.min() > 0.2 and kept.max() < 1 and 0.7 < kept.median() < 0.98
    assert Fading(8, 2).bfloat16()(torch.zeros(1, 1, 8).bfloat16()).dtype == torch.float32


def hybrid(n_layers: int = 4) -> ModelConfig:
    """Three blocks with a state for each block of attention: a list."""
    sizes = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 24}
    attention = ModelConfig.uniform(vocab_size=19, max_seq_len=40, **sizes)
    blocks = 3 * attention.replace(mixer="delta-net").blocks + attention.blocks
    return attention.replace(blocks=blocks, n_layers=n_layers)


@torch.no_grad()
def test_a_hybrid_is_a_list_of_blocks() -> None:
    torch.manual_seed(0)
    config = hybrid(8)
    assert [b.mixer.kind for b in config.blocks] == 2 * (3 * ["delta-net"] + ["attention"])
    model, ids = build(config).double().eval(), torch.arange(30)[None] % 19
    assert_causal(model, 19, seq_len=12)
    cache = model.make_caches(1, 40)
    assert [type(c) for c in cache] == 2 * (3 * [StateCache] + [KVCache])
    pieces = [model(part, cache=cache) for part in ids.split([7, 1, 1, 21], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), rtol=0, atol=1e-12)
    # A quarter of the layers grows with the text.
    growth = cache_bytes(config, 1, 40) - cache_bytes(config, 1, 20)
    assert growth == 2 * 20 * 2 * 16 * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 0}, "n_heads must be at least 1, got 0"),
        ({"head_dim": 0}, "head_dim must be at least 1, got 0"),
        ({"value_dim": 0}, "value_dim must be at least 1, got 0"),
        ({"n_value_heads": 3}, "multiple of n_heads, got n_value_heads = 3, n_heads = 2"),
        ({"conv_width": 0}, "conv_width must be at least 1, got 0"),
        ({"eps": 0.0}, "eps must be above 0"),
        ({"fades": 1}, "fades must be bool, got 1"),
    ],
)
def test_what_has_no_state_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeltaNetConfig(**({"n_heads": 2} | options))


def test_inputs_that_do_not_fit_are_refused() -> None:
    layer = DeltaNet(8, 2)
    with pytest.raises(ValueError, match=r"x must be \(batch, seq, d_model\), got shape \(3, 8\)"):
        layer(torch.zeros(3, 8))
    with pytest.raises(ValueError, match="make_caches"):
        layer(torch.zeros(1, 3, 8), cache=DeltaNet(8, 4, conv_width=4).make_cache(1, 8))
    with pytest.raises(ValueError, match="d_model must be at least 1"):
        DeltaNet(0, 2, head_dim=2)
