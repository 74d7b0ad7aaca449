"""Experts on two processes: outputs and gradients of one process that has all of them."""

import pytest
import torch

from llmtutor.layers.moe.parallel import share_experts
from llmtutor.model.presets import build, preset
from llmtutor.train.ranks import RankError, Ranks

SIZES = {"vocab_size": 31, "max_seq_len": 12, "n_layers": 2, "d_model": 16, "n_heads": 2}
CASES = {
    "top-2": {"n_experts": 4},
    "dropped": {"n_experts": 4, "top_k": 1, "normalise": False, "capacity_factor": 0.6},
    "shared": {"n_experts": 6, "top_k": 3, "score": "sigmoid"},
}


def make(options):
    torch.manual_seed(0)
    options = {**options, "balance_loss": 0.0}
    return build(preset("llama-nano", **SIZES, d_ff=24, ffn="moe", **options)).double()


def texts():
    return torch.randint(31, (4, 12), generator=torch.Generator().manual_seed(1))


def loss(logits):
    weights = torch.randn(31, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return (logits.sigmoid() @ weights).sum()


def on_ranks(world, options):
    """Every second text; logits, and gradients by the name that they have in the whole model."""
    model = share_experts(make(options))
    logits = model(texts()[world.rank :: 2])
    loss(logits).backward()
    grads = {}
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            before, _, rest = name.partition(".experts.")
            i, _, rest = rest.partition(".")
            i = int(i) + world.rank * len(model.blocks[0].ffn.experts)
            name = f"{before}.experts.{i}.{rest}"
        grads[name] = parameter.grad
    return logits.detach(), grads


@pytest.fixture(scope="module")
def ranks():
    with Ranks(2, timeout=60) as ranks:
        yield ranks


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(ranks, case) -> None:
    whole = make(CASES[case])
    want = whole(texts())
    loss(want).backward()
    (even, first), (odd, second) = ranks.run(on_ranks, CASES[case])
    torch.testing.assert_close(even, want[::2].detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(odd, want[1::2].detach(), rtol=1e-10, atol=1e-12)
    for name, parameter in whole.named_parameters():
        found = [grads[name] for grads in (first, second) if name in grads]
        assert len(found) == (1 if ".experts." in name else 2)
        torch.testing.assert_close(sum(found), parameter.grad, rtol=1e-9, atol=1e-11)


def test_experts_that_cannot_be_shared_are_refused(ranks) -> None:
    with pytest.raises(RankError, match="3 experts cannot be shared equally by 2 processes"):
        ranks.run(on_ranks, {"n_experts": 3})
