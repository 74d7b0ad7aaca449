"""Whole models: shapes, wiring against a loop by hand, causality, first loss, bad input."""

import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmtutor.evaluate.causality import assert_causal
from llmtutor.layers.ffn import MLP, MLPConfig
from llmtutor.layers.part import Site
from llmtutor.layers.positions import (
    Alibi,
    LearnedPosition,
    Rope,
    ShawPosition,
    SinusoidalPosition,
    T5Bias,
)
from llmtutor.model.block import Block
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import PRESETS, build, preset
from llmtutor.model.transformer import Transformer

SMALL = {"vocab_size": 11, "max_seq_len": 12, "n_layers": 2, "d_model": 16, "n_heads": 4}


def small(**changes) -> ModelConfig:
    return ModelConfig.uniform(**{**SMALL, "d_ff": 24, **changes})


def ids(config: ModelConfig, *shape: int) -> Tensor:
    return torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(3))


def shake(model: nn.Module) -> None:
    """Gains, biases and small weights all matter then."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(
            parameter.shape, generator=generator, dtype=parameter.dtype
        )


# Each preset -------------------------------------------------------------------------------------


def shrunk(name: str) -> ModelConfig:
    """The nano presets as they are; the big ones with few layers and tokens."""
    return preset(name) if "nano" in name else preset(name, n_layers=1, vocab_size=5000)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_builds_the_same_again_and_starts_near_the_uniform_loss(name) -> None:
    config = shrunk(name)
    torch.manual_seed(1)
    model = build(config)
    tokens = ids(config, 2, 64)
    with torch.no_grad():
        logits = model(tokens)
        assert logits.shape == (2, 64, config.vocab_size)
        torch.manual_seed(1)
        assert torch.equal(build(config)(tokens), logits)
        targets = ids(config, 2, 65)[:, 1:]
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert abs(float(loss) - math.log(config.vocab_size)) < 0.35


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_causal(name) -> None:
    config = preset(name, n_layers=2, d_model=32, n_heads=4, d_ff=48, vocab_size=19)
    model = build(config)
    shake(model)
    assert_causal(model, config.vocab_size, seq_len=10)


def test_a_model_that_looks_ahead_is_caught() -> None:
    model = build(small())
    for block in model.blocks:
        block.mixer.causal = False
    with pytest.raises(AssertionError, match="position 0"):
        assert_causal(model, 11, seq_len=10)


# Places of parts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_every_norm_has_the_eps_of_the_configuration(norm) -> None:
    model = build(small(norm=norm, qk_norm=norm, eps=0.25))
    found = [module.eps for module in model.modules() if hasattr(module, "eps")]
    assert found == [0.25] * (2 * (2 + 2) + 1)  # two layers of two norms and two for q and k


def test_position_modules_are_where_they_belong() -> None:
    for name, kind, count in (
        ("learned", LearnedPosition, 1),
        ("sinusoidal", SinusoidalPosition, 1),
        ("alibi", Alibi, 2),
        ("rope", Rope, 2),
        ("t5", T5Bias, 1),  # one module shared by both layers
        ("shaw", ShawPosition, 2),
    ):
        model = build(small(position=name))
        assert sum(isinstance(module, kind) for module in model.modules()) == count
        assert isinstance(model.position, kind) == (name in ("learned", "sinusoidal"))


def test_layers_may_differ_and_each_gets_its_own_number() -> None:
    local, full = small(window=3, rope_base=100.0), small(norm_placement="sandwich")
    pattern = (*local.blocks, full.blocks[0])
    model = build(full.replace(blocks=pattern, n_layers=5))
    assert [block.mixer.window for block in model.blocks] == [3, 3, None, 3, 3]
    assert [block.mixer.position.base for block in model.blocks] == [100, 100, 1e4, 100, 100]
    seen = []

    @dataclass(frozen=True)
    class Watched(MLPConfig):
        def build(self, site: Site) -> MLP:
            seen.append((site.layer, site.n_layers))
            return super().build(site)

    config = small(ffn=Watched(8))
    seen.clear()
    build(config)
    assert seen == [(0, 2), (1, 2)]


# Wiring ------------------------------------------------------------------------------------------


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def test_block_by_hand() -> None:
    """Mixer ×2, feed-forward ×3, norms ×5 and ×7, x = 1."""
    parts = Times(2), Times(3), Times(5), Times(7)
    x = torch.ones(1, 1, 1)
    # pre: 1 + 2·5 = 11, 11 + 3·7·11 = 242; post: 5·(1 + 2) = 15, 7·(15 + 3·15) = 420
    assert Block(*parts, placement="pre")(x).item() == 242
    assert Block(*parts, placement="post")(x).item() == 420
    # res-post: 1 + 5·2 = 11, 11 + 7·3·11 = 242; sandwich, after ×11 and ×13:
    # 1 + 11·2·5 = 111, 111 + 13·3·7·111 = 30414
    assert Block(*parts, placement="res-post")(x).item() == 242
    after = Times(11), Times(13)
    assert Block(*parts, placement="sandwich", after=after)(x).item() == 30414
    with pytest.raises(ValueError, match="unknown placement 'prenorm'; did you mean"):
        Block(*parts, placement="prenorm")
    with pytest.raises(ValueError, match=r'placement "sandwich", which needs them: .* none'):
        Block(*parts, placement="sandwich")
    with pytest.raises(ValueError, match="got placement 'pre' and two"):
        Block(*parts, after=after)


def test_res_post_and_pre_differ_where_the_norm_is_no_factor() -> None:
    class Plus(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    parts = Times(2), Times(3), Plus(), Plus()
    x = torch.ones(1, 1, 1)
    # pre: 1 + 2·2 = 5, 5 + 3·6 = 23; res-post: 1 + (2 + 1) = 4, 4 + (12 + 1) = 17
    assert Block(*parts, placement="pre")(x).item() == 23
    assert Block(*parts, placement="res-post")(x).item() == 17


@torch.no_grad()
def test_scaled_embeddings_and_capped_logits() -> None:
    plain = build(small(position="none")).double()
    scaled = build(small(position="none", embedding_scale=4.0, logit_softcap=0.5)).double()
    scaled.load_state_dict(plain.state_dict())
    tokens = ids(plain.config, 2, 6)
    x = 4 * plain.embedding(tokens)
    for block in plain.blocks:
        x = block(x)
    want = 0.5 * torch.tanh(plain.head(plain.norm(x)) / 0.5)
    torch.testing.assert_close(scaled(tokens), want, rtol=1e-12, atol=1e-12)
    assert scaled(tokens).abs().max() < 0.5


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_model_equals_a_loop_with_layers_of_torch(placement) -> None:
    """Post-norm with LayerNorm, ReLU and biases is ``nn.TransformerEncoderLayer``, pre too."""
    config = small(
        position="none",
        norm="layernorm",
        ffn="relu",
        bias=True,
        norm_placement=placement,
        tie_weights=False,
    )
    model = build(config).double()
    shake(model)
    first = placement == "pre"
    tokens = ids(config, 3, 12)
    x = F.embedding(tokens, model.embedding.weight)
    mask = nn.Transformer.generate_square_subsequent_mask(12, dtype=torch.float64)
    for block in model.blocks:
        layer = nn.TransformerEncoderLayer(
            16, 4, 24, dropout=0.0, batch_first=True, norm_first=first, dtype=torch.float64
        )
        mixer, names = block.mixer, ("query", "key", "value")
        layer.load_state_dict(
            {
                **{
                    f"self_attn.in_proj_{kind}": torch.cat(
                        [getattr(getattr(mixer, name), kind) for name in names]
                    )
                    for kind in ("weight", "bias")
                },
                **{
                    f"{theirs}.{kind}": block.get_parameter(f"{ours}.{kind}")
                    for kind in ("weight", "bias")
                    for ours, theirs in (
                        ("mixer.output", "self_attn.out_proj"),
                        ("ffn.up", "linear1"),
                        ("ffn.down", "linear2"),
                        ("norm_1", "norm1"),
                        ("norm_2", "norm2"),
                    )
                },
            }
        )
        x = layer(x, src_mask=mask)
    if first:
        x = F.layer_norm(x, (16,), model.norm.weight, model.norm.bias, config.norm.eps)
    expected = x @ model.head.weight.T
    assert (model(tokens) - expected).abs().max() < 1e-10
    assert expected.std() > 0.1


def test_tied_weights_are_one_matrix_with_both_gradients() -> None:
    tied, untied = build(small()), build(small(tie_weights=False))
    untied.load_state_dict(tied.state_dict())
    tokens = ids(tied.config, 2, 12)
    for model in (tied, untied):
        model(tokens).square().sum().backward()
    both = untied.embedding.weight.grad + untied.head.weight.grad
    assert torch.allclose(tied.embedding.weight.grad, both, rtol=1e-5)
    assert tied.embedding.weight is tied.head.weight


# Bad input ---------------------------------------------------------------------------------------

BAD = {
    "one axis": (torch.zeros(5).long(), r"ids must be \(batch, seq\).*got shape \(5,\); add a ba"),
    "three axes": (torch.zeros(1, 2, 3).long(), r"ids must be \(batch, seq\).*\(1, 2, 3\)"),
    "no token": (torch.zeros(1, 0).long(), r"at least one token, got shape \(1, 0\)"),
    "floats": (torch.zeros(1, 3), "ids must be integers .*got torch.float32"),
    "booleans": (torch.zeros(1, 3).bool(), "ids must be integers .*got torch.bool"),
    "outside": (torch.tensor([[0, 11]]), r"ids must lie in 0 … 10 .*got 11"),
    "negative": (torch.tensor([[0, -1]]), r"ids must lie in 0 … 10 .*got -1"),
    "too long": (torch.zeros(1, 13).long(), "13 tokens is longer than max_seq_len = 12"),
}


@pytest.mark.parametrize("position", ["rope", "learned"])
@pytest.mark.parametrize("case", BAD)
def test_bad_ids_are_refused_by_name(case, position) -> None:
    tokens, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        Transformer(small(position=position))(tokens)


@torch.no_grad()
@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("logits_to_keep", [1, 5, 12])
def test_the_last_logits_are_those_of_all_of_them(logits_to_keep, placement) -> None:
    model = build(small(norm_placement=placement)).double()
    tokens = ids(model.config, 3, 12)
    want = model(tokens)[:, -logits_to_keep:]
    cache = model.make_caches(3)
    for got in (
        model(tokens, logits_to_keep=logits_to_keep),
        model(tokens, cache=cache, logits_to_keep=logits_to_keep),
    ):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert cache.length == 12  # the others are in the cache all the same


@pytest.mark.parametrize("logits_to_keep", [0, -1, 5])
def test_logits_of_positions_that_are_not_there_are_refused(logits_to_keep) -> None:
    model = build(small())
    with pytest.raises(
        ValueError, match=f"logits_to_keep must lie in 1 … seq = 4, got {logits_to_keep}"
    ):
        model(ids(model.config, 1, 4), logits_to_keep=logits_to_keep)


def test_the_longest_and_the_shortest_sequence_and_small_integers_are_fine() -> None:
    model = build(small())
    tokens = ids(model.config, 1, 12)
    assert model(tokens).shape == (1, 12, 11)
    assert torch.equal(model(tokens.to(torch.uint8)), model(tokens))
    assert torch.allclose(model(tokens[:, :1]), model(tokens)[:, :1], atol=1e-6)
