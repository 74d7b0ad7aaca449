"""Weights before the first step: deviations by layer, cuts, ties, and what they do to logits."""

import math

import pytest
import torch
from torch import nn

from llmtutor.layers.basic import Linear
from llmtutor.model.config import ModelConfig
from llmtutor.model.init import INITS
from llmtutor.model.presets import build, preset
from llmtutor.model.transformer import Transformer

# Deviation of a standard normal cut at ±3.
DENSITY_AT_3 = math.exp(-4.5) / math.sqrt(math.tau)
CUT = math.sqrt(1 - 2 * 3 * DENSITY_AT_3 / math.erf(3 / math.sqrt(2)))


def model(init: str, **changes) -> Transformer:
    torch.manual_seed(0)
    return build(preset("llama-nano", init=init, d_ff=256, **changes))


def same_std(weight: torch.Tensor, std: float) -> bool:
    """Within five standard errors, std / √(2n); the mean too, std / √n."""
    n = weight.numel()
    right_mean = abs(weight.mean().item()) < 5 * std / math.sqrt(n)
    return right_mean and abs(weight.std().item() / std - 1) < 5 / math.sqrt(2 * n)


def linears(model: Transformer) -> dict[str, Linear]:
    return {
        name: layer for name, layer in model.blocks.named_modules() if isinstance(layer, Linear)
    }


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("parts", ["swiglu", "gelu"])
def test_gpt2_scales_what_writes_into_the_stream(tie, parts) -> None:
    built = model("gpt2", tie_weights=tie, ffn=parts)
    layers = linears(built)
    writers = {n for n in layers if n.endswith(("mixer.output", "ffn.down"))}
    assert len(writers) == 2 * built.config.n_layers
    for name, layer in layers.items():
        assert same_std(layer.weight, 0.02 / math.sqrt(8) if name in writers else 0.02), name
    assert same_std(built.embedding.weight, 0.02)
    assert same_std(built.head.weight, 0.02)


def test_gpt2_leaves_biases_at_0_and_gains_at_1() -> None:
    built = build(preset("gpt2-nano"))
    for name, parameter in built.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
    assert same_std(built.position.weight, 0.02)


@pytest.mark.parametrize(
    ("init", "tie", "embedding", "head"),
    [
        ("glorot", False, 1.0, math.sqrt(2 / (128 + 1024))),
        ("glorot", True, math.sqrt(2 / (128 + 1024)), math.sqrt(2 / (128 + 1024))),
        ("glorot-embedding", True, 1.0, 1.0),
    ],
)
def test_glorot_and_the_three_ways_of_the_output_matrix(init, tie, embedding, head) -> None:
    built = model(init, tie_weights=tie)
    assert (built.embedding.weight is built.head.weight) == tie
    for name, layer in linears(built).items():
        d_out, d_in = layer.weight.shape
        std = math.sqrt(2 / (d_in + d_out))
        assert same_std(layer.weight, std * CUT), name
        assert layer.weight.abs().max() <= 3 * std, name
    for weight, std in ((built.embedding.weight, embedding), (built.head.weight, head)):
        assert same_std(weight, std * CUT)
        assert 2.9 * std < weight.abs().max() <= 3 * std


def logits_std(built: Transformer) -> float:
    ids = torch.randint(1024, (2, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return float(built(ids).std())


def test_a_tied_embedding_of_deviation_1_makes_the_first_logits_wild() -> None:
    """√d_model = 11.3 for an embedding of deviation 1, against about √(2 d/(V + d)) = 0.47."""
    assert 8 < logits_std(model("glorot-embedding", tie_weights=True)) < 15
    assert 0.3 < logits_std(model("glorot", tie_weights=True)) < 0.7


def test_the_stream_grows_with_depth_unless_writers_are_scaled() -> None:
    """Ratio of what 24 layers add to what 2 add: near 1 when scaled, near √12 when not."""

    def added(n_layers: int, scaled: bool) -> float:
        torch.manual_seed(0)
        config = preset("llama-nano", n_layers=n_layers, position="none", init="gpt2")
        built = build(config)
        if not scaled:
            for name, layer in linears(built).items():
                if name.endswith(("mixer.output", "ffn.down")):
                    nn.init.normal_(layer.weight, std=0.02)
        x = torch.randn(2, 16, 128, generator=torch.Generator().manual_seed(1))
        y = x
        with torch.no_grad():
            for block in built.blocks:
                y = block(y)
        return float((y - x).std())

    assert added(24, scaled=True) / added(2, scaled=True) < 1.3
    assert added(24, scaled=False) / added(2, scaled=False) > 2.8


@pytest.mark.parametrize("init", INITS)
def test_a_seed_decides_all(init) -> None:
    first, again = (model(init).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    torch.manual_seed(1)
    other = Transformer(ModelConfig.from_dict(model(init).config.to_dict()))
    torch.manual_seed(1)
    other = build(preset("llama-nano", init=init, d_ff=256))
    assert not torch.equal(other.embedding.weight, first["embedding.weight"])
