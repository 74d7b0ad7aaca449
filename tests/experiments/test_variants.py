"""Variants: equal in size, different in one thing, and the planted ones do what they say."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import pytest
import torch
from torch import nn

from llmtutor.evaluate.causality import assert_causal
from llmtutor.experiments import variants
from llmtutor.experiments.variants import (
    BASELINE,
    SEQ_LEN,
    VARIANTS,
    Variant,
    build_variant,
    variant_config,
    zero_first_head,
)
from llmtutor.layers.ffn import FeedForwardConfig
from llmtutor.layers.part import Costs, Load, Site
from llmtutor.model.accounting import forward_flops
from llmtutor.model.transformer import Transformer

HEAD_DIM = BASELINE.blocks[0].mixer.width(BASELINE.d_model)
IDS = torch.randint(512, (2, SEQ_LEN), generator=torch.Generator().manual_seed(0))


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_has_the_size_of_the_baseline(name: str) -> None:
    """Counted in the built model, not by the accounting that chose d_ff."""
    variant, config = VARIANTS[name], variant_config(name)
    if variant.match == "parameters":
        assert size(build_variant(name, 0)) == pytest.approx(size(Transformer(BASELINE)), rel=2e-3)
    else:
        flops = forward_flops(config, 1, SEQ_LEN), forward_flops(BASELINE, 1, SEQ_LEN)
        assert flops[0] == pytest.approx(flops[1], rel=2e-3)


def flat(value: object, name: str = "") -> dict[str, object]:
    """The plain values of a configuration, each with the path to it."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, part in parts for k, v in flat(part, f"{name}.{key}").items()}
    return {name: value}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_in_what_it_says_and_its_width_alone(name: str) -> None:
    """The changes undone, with the width, the baseline is there again, to the last value."""
    config = variant_config(name)
    old = {
        "d_ff": 256,
        "n_kv_heads": None,
        "position": "sinusoidal",
        "ffn": "relu",
        "norm": "layernorm",
        "norm_placement": "pre",
        "bias": True,
    }
    assert config.replace(**{n: old[n] for n in ("d_ff", *VARIANTS[name].changes)}) == BASELINE
    assert (flat(config.to_dict()) != flat(BASELINE.to_dict())) == (
        bool(VARIANTS[name].changes) or d_ff(name) != 256
    )


def d_ff(name: str) -> int:
    (width,) = {block.ffn.d_ff for block in variant_config(name).blocks}
    return width


def test_widths_by_hand() -> None:
    # Two blocks. MQA saves in each 2 · 64 · 56 weights and 2 · 56 biases: 7,280. A channel of d_ff
    # costs 64 + 1 + 64 = 129, so 7,280 / 129 = 56.4 channels more.
    assert d_ff("mqa") == 256 + 56
    # 64 learned positions of 64 channels, shared over two blocks: 4,096 / 258 = 15.9 less.
    assert d_ff("learned") == 256 - 16


@dataclass(frozen=True)
class Silent(FeedForwardConfig):
    """A part without a width to change."""

    kind: ClassVar[str] = "silent"

    def build(self, site: Site) -> nn.Module:
        return nn.Identity()

    def costs(self, site: Site, load: Load) -> Costs:
        return Costs()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ffn": Silent()}, "its silent has no d_ff"),
        ({"n_layers": 6}, "no d_ff gives it the 165,632 parameters .* with d_ff = 1"),
        ({"ffn": "silent"}, "unknown .* 'silent'"),
        ({"n_head": 4}, "did you mean 'n_heads'"),
    ],
)
def test_a_variant_that_cannot_have_the_size_is_refused(
    changes: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = MappingProxyType({**VARIANTS, "new": Variant("feed-forward", changes)})
    monkeypatch.setattr(variants, "VARIANTS", new)
    with pytest.raises(ValueError, match=message):
        variant_config("new")


def test_variants_with_one_seed_start_from_the_same_weights_unless_they_say_so() -> None:
    baseline, again = (
        build_variant(name, 3).state_dict() for name in ("baseline", "baseline again")
    )
    same = build_variant("head lost", 3).state_dict()
    assert all(torch.equal(baseline[key], same[key]) for key in baseline)
    assert not torch.equal(baseline["embedding.weight"], again["embedding.weight"])


def test_a_missing_head_gives_nothing_and_learns_nothing() -> None:
    model = build_variant("head missing", 0)
    before = model(IDS)
    with torch.no_grad():
        for block in model.blocks:
            block.mixer.value.weight[:HEAD_DIM].normal_()  # the first head's values
    torch.testing.assert_close(model(IDS), before, rtol=0, atol=0)
    model(IDS).square().mean().backward()
    for block in model.blocks:
        grad = block.mixer.value.weight.grad
        assert (grad[:HEAD_DIM] == 0).all() and (grad[HEAD_DIM:] != 0).any()


def test_losing_a_head_is_the_same_as_zeros_in_the_output_layer() -> None:
    lost, by_hand = build_variant("baseline", 1), build_variant("baseline", 1)
    zero_first_head(lost)
    with torch.no_grad():
        for block in by_hand.blocks:
            block.mixer.output.weight[:, :HEAD_DIM] = 0
    torch.testing.assert_close(lost(IDS), by_hand(IDS))
    assert not torch.allclose(lost(IDS), build_variant("baseline", 1)(IDS))


@pytest.mark.parametrize("name", VARIANTS)
def test_no_variant_sees_the_future(name: str) -> None:
    assert_causal(build_variant(name, 0), 512, seq_len=8)


def test_an_unknown_variant_gets_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'swiglu'"):
        variant_config("swigul")
