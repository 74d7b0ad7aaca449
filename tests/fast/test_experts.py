"""Each expert on every token: the same sums as for sorted tokens, in one graph."""

import pytest
import torch
from torch import Tensor

from llmtutor.fast.compiling import compiled_loss
from llmtutor.fast.experts import dense_experts, traceable
from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.moe import MoE, MoEConfig, RouterConfig
from llmtutor.layers.moe.dispatch import grouped
from llmtutor.layers.part import Site
from llmtutor.model.losses import batch_losses
from llmtutor.model.presets import build, preset

SMALL = {"vocab_size": 11, "max_seq_len": 8, "n_layers": 2, "d_model": 8, "n_heads": 2, "d_ff": 12}


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_dense_is_grouped_values_and_gradients() -> None:
    experts = MoEConfig(GatedMLPConfig(5), 4).build(Site(6, 8)).double().experts
    x, chosen = draw(30, 6), draw(30, 4, seed=1).topk(3).indices
    chosen[7, 2] = 4  # refused
    weights = draw(30, 3, seed=2).softmax(-1).masked_fill(chosen == 4, 0.0)
    inputs = [x.requires_grad_(), weights.requires_grad_(), *experts.parameters()]
    got, want = (f(experts, x, chosen, weights) for f in (dense_experts, grouped))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad((y * draw(30, 6, seed=3)).sum(), inputs) for y in (got, want)]
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "options",
    [
        {"n_experts": 4},
        {"n_experts": 3, "router": RouterConfig(1, normalise=False), "capacity_factor": 0.7},
    ],
)
def test_a_traceable_model_is_itself(options) -> None:
    models = []
    for form in (lambda model: model, traceable):
        torch.manual_seed(0)
        models.append(form(build(preset("llama-nano", **SMALL, ffn="moe", **options)).double()))
    plain, made = models
    assert all(block.ffn.dispatch is dense_experts for block in made.blocks)
    assert all(block.ffn.dispatch is grouped for block in plain.blocks)
    ids = torch.randint(11, (3, 8), generator=torch.Generator().manual_seed(1))
    (got, mine), (want, theirs) = (model(ids, with_extras=True) for model in (made, plain))
    torch.testing.assert_close(got, want)
    assert str(mine) == str(theirs)


def test_compiled_training_has_the_losses_and_statistics_of_the_plain_one() -> None:
    """Sorted tokens cut the program in two at each layer, and nothing else changes."""
    torch.manual_seed(0)
    model = build(preset("llama-nano", **SMALL, ffn="moe", n_experts=4))
    ids = torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(1))
    batch = ids[:, :-1], ids[:, 1:]
    want = batch_losses(model, batch)
    got = compiled_loss(model, torch.device("cpu"))(model, batch, torch.float32)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert isinstance(model.blocks[0].ffn, MoE)
