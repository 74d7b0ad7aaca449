"""Options: equal in size, different in what they say alone, and each can be trained."""

import math
from dataclasses import replace as with_fields
from types import MappingProxyType

import pytest
import torch
from torch import nn

from llmtutor.evaluate.causality import assert_causal
from llmtutor.experiments.choosing import options as module
from llmtutor.experiments.choosing.options import (
    LOCAL_OF,
    OPTIONS,
    SIZES,
    Option,
    Size,
    build_option,
    option_config,
    option_steps,
)
from llmtutor.model.accounting import forward_flops, parameters
from llmtutor.model.losses import batch_losses

SMALL = SIZES["small"]
IDS = torch.randint(512, (2, 96), generator=torch.Generator().manual_seed(0))
each_option = pytest.mark.parametrize("name", OPTIONS)


def size_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@each_option
@pytest.mark.parametrize("size", ["small", "large"])
def test_an_option_has_the_size_of_the_baseline(name: str, size: str) -> None:
    """Counted in the built model, not by the accounting that chose the width."""
    wanted = size_of(build_option("baseline", SIZES[size], 0)) * OPTIONS[name].larger
    found = size_of(build_option(name, SIZES[size], 0))
    if OPTIONS[name].match == "active":
        assert found > wanted
        found = parameters(option_config(name, SIZES[size])).active
    one_wider = 12e-3 if "moe" in name else 4e-3  # eight experts grow together
    assert found == pytest.approx(wanted, rel=one_wider)


@each_option
def test_an_option_is_causal_and_learns(name: str) -> None:
    model = build_option(name, SMALL, 0)
    assert_causal(model, SMALL.vocab_size, seq_len=24)
    loss = batch_losses(model, (IDS[:, :-1], IDS[:, 1:]))
    loss.total.backward()
    assert math.isfinite(loss.nats.item())
    grads = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in grads)


@each_option
def test_an_option_differs_in_what_it_says(name: str) -> None:
    option, base = OPTIONS[name], SMALL.baseline
    config = option_config(name, SMALL)
    plain = not option.changes and option.local is None and option.larger == 1
    assert (config == base) == plain
    blocks = zip(config.blocks, base.blocks, strict=True)
    kept = [i for i, (ours, theirs) in enumerate(blocks) if ours.mixer == theirs.mixer]
    if option.local is not None:
        assert kept == [LOCAL_OF - 1]
    changed = {"attention", "position", "state"} & {option.group}
    assert not (changed and option.local is None and kept and config.position == base.position)


def test_windows_lie_in_three_blocks_of_four() -> None:
    deep = with_fields(SMALL, n_layers=8)
    mixers = [block.mixer for block in option_config("window 3 : 1, sinks", deep).blocks]
    assert [mixer.window for mixer in mixers] == 2 * [64, 64, 64, None]
    assert [mixer.sinks for mixer in mixers] == 2 * [True, True, True, False]


def test_sizes_are_those_that_are_said() -> None:
    counted = {name: parameters(size.baseline).total for name, size in SIZES.items()}
    assert counted == {"small": 135_600, "middle": 234_048, "large": 351_440}
    for name, size in SIZES.items():
        n_tokens = size.steps * size.batch_size * size.seq_len
        assert n_tokens == pytest.approx(10 * counted[name], rel=2e-3)


def test_a_quarter_more_compute_is_that_much_by_the_accounting() -> None:
    """A little more than its root in parameters and steps: attention does not grow with d_ff."""
    flops = {
        name: option_steps(name, SMALL) * forward_flops(option_config(name, SMALL), 1, 256)
        for name in ("baseline", "a quarter more")
    }
    assert option_steps("baseline", SMALL) == SMALL.steps
    assert 1.24 < flops["a quarter more"] / flops["baseline"] < 1.26


@pytest.mark.parametrize("name", ["sinusoidal", "2017"])
def test_waves_do_not_drown_the_embedding(name: str) -> None:
    """Vaswani et al. (2017, section 3.4) multiply it by √d_model."""
    assert option_config(name, SMALL).embedding_scale == pytest.approx(48**0.5)
    model = build_option(name, SMALL, 0)
    scaled = model.embedding.weight.std() * model.config.embedding_scale
    assert 0.3 < scaled < 1  # the waves have a deviation of 0.7


def test_the_twin_is_the_same_model_from_other_weights() -> None:
    one, twin = (build_option(name, SMALL, 3) for name in ("baseline", "baseline again"))
    assert one.config == twin.config
    assert not torch.equal(one.embedding.weight, twin.embedding.weight)
    again = build_option("baseline again", SMALL, 3)
    assert torch.equal(again.embedding.weight, twin.embedding.weight)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (Option("stack", "", {"n_layers": 12}), "no d_ff gives it the 135,600 total parameters"),
        (Option("stack", "", {"n_head": 4}), "did you mean 'n_heads'"),
    ],
)
def test_an_option_that_cannot_have_the_size_is_refused(
    monkeypatch: pytest.MonkeyPatch, option: Option, message: str
) -> None:
    monkeypatch.setattr(module, "OPTIONS", MappingProxyType({**OPTIONS, "new": option}))
    with pytest.raises(ValueError, match=message):
        option_config("new", SMALL)
    with pytest.raises(ValueError, match="did you mean 'gqa-2'"):
        option_config("gqa2", SMALL)


def test_changes_may_depend_on_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    option = Option("attention", "", lambda d_model: {"head_dim": d_model // 8})
    monkeypatch.setattr(module, "OPTIONS", MappingProxyType({**OPTIONS, "new": option}))
    for d_model in (32, 64):
        assert option_config("new", Size(d_model)).blocks[0].mixer.head_dim == d_model // 8
