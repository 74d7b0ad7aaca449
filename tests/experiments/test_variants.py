"""Variants: equal in size, different in one thing, and the planted ones do what they say."""

from dataclasses import fields

import pytest
import torch

from llmtutor.evaluate.causality import assert_causal
from llmtutor.experiments.variants import (
    BASELINE,
    SEQ_LEN,
    VARIANTS,
    build_variant,
    variant_config,
    zero_first_head,
)
from llmtutor.model.accounting import forward_flops
from llmtutor.model.transformer import Transformer

IDS = torch.randint(512, (2, SEQ_LEN), generator=torch.Generator().manual_seed(0))


def size(model: torch.nn.Module) -> int:
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


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_in_what_it_says_and_its_width_alone(name: str) -> None:
    config = variant_config(name)
    changed = {
        field.name
        for field in fields(config)
        if getattr(config, field.name) != getattr(BASELINE, field.name)
    }
    assert changed - {"d_ff"} == set(VARIANTS[name].changes)


def test_widths_by_hand() -> None:
    # Two blocks. MQA saves in each 2 · 64 · 56 weights and 2 · 56 biases: 7,280. A channel of d_ff
    # costs 64 + 1 + 64 = 129, so 7,280 / 129 = 56.4 channels more.
    assert variant_config("mqa").d_ff == 256 + 56
    # 64 learned positions of 64 channels, shared over two blocks: 4,096 / 258 = 15.9 less.
    assert variant_config("learned").d_ff == 256 - 16


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
            block.mixer.value.weight[: BASELINE.head_dim].normal_()  # the first head's values
    torch.testing.assert_close(model(IDS), before, rtol=0, atol=0)
    model(IDS).square().mean().backward()
    for block in model.blocks:
        grad = block.mixer.value.weight.grad
        assert (grad[: BASELINE.head_dim] == 0).all() and (grad[BASELINE.head_dim :] != 0).any()


def test_losing_a_head_is_the_same_as_zeros_in_the_output_layer() -> None:
    lost, by_hand = build_variant("baseline", 1), build_variant("baseline", 1)
    zero_first_head(lost)
    with torch.no_grad():
        for block in by_hand.blocks:
            block.mixer.output.weight[:, : BASELINE.head_dim] = 0
    torch.testing.assert_close(lost(IDS), by_hand(IDS))
    assert not torch.allclose(lost(IDS), build_variant("baseline", 1)(IDS))


@pytest.mark.parametrize("name", VARIANTS)
def test_no_variant_sees_the_future(name: str) -> None:
    assert_causal(build_variant(name, 0), 512, seq_len=8)


def test_an_unknown_variant_gets_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'swiglu'"):
        variant_config("swigul")
