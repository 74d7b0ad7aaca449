"""One way to a curve: the step and schedule of the package, losses as they are, an honest end."""

import doctest
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llmtutor.data.batches import batch_at
from llmtutor.experiments import curve as module
from llmtutor.experiments.curve import spread_windows, train_curve
from llmtutor.layers.extras import Extras
from llmtutor.model.config import ModelConfig
from llmtutor.model.losses import Batch, Losses, batch_losses
from llmtutor.model.presets import build
from llmtutor.optim import make_optimizer
from llmtutor.optim.schedules import warmup_cosine
from llmtutor.train.step import train_step

CONFIG = ModelConfig.uniform(
    vocab_size=11, max_seq_len=8, n_layers=1, d_model=8, n_heads=2, d_ff=16, init="glorot"
)
IDS = np.random.default_rng(0).integers(11, size=500)


def batches(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    return (batch_at(IDS, 4, 8, seed=0, step=step) for step in range(steps))


def model() -> nn.Module:
    torch.manual_seed(0)
    return build(CONFIG)


def test_examples() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_it_is_the_step_of_the_package_repeated(name: str) -> None:
    ours, by_hand = model(), model()
    options = {"optimizer": name, "schedule": warmup_cosine(6, 2), "clip": 0.5}
    decay = {"weight_decay": 0.3}
    curve = train_curve(ours, batches(6), steps=6, lr=0.01, **options, settings=decay)
    optimizer = make_optimizer(by_hand, name, 0.01, **decay)
    seen = []
    for step, batch in enumerate(batches(6)):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * warmup_cosine(6, 2)(step)
        seen.append(train_step(by_hand, [batch], optimizer, clip=0.5))
    assert curve.losses == [metrics.loss for metrics in seen]
    assert curve.grad_norms == [metrics.grad_norm for metrics in seen]
    assert all(map(torch.equal, ours.parameters(), by_hand.parameters()))


def test_the_held_out_loss_is_taken_at_the_marks_and_no_batch_is_drawn_too_much() -> None:
    source = batches(10)
    held_out = list(batches(2))
    curve = train_curve(
        model(),
        source,
        steps=5,
        lr=0.0,
        schedule=lambda step: 1.0,
        held_out=lambda: held_out,
        marks=(0, 3, 5, 9),
    )
    assert list(curve.marks) == [0, 3, 5]
    assert len(set(curve.marks.values())) == 1  # with a rate of 0 nothing moves
    assert torch.equal(next(source)[0], batch_at(IDS, 4, 8, seed=0, step=5)[0])


def test_terms_of_the_layers_are_in_the_gradient_and_not_in_the_curve() -> None:
    class Balanced(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> tuple[Tensor, Extras]:
            y = self.inner(x)
            return y, Extras({"balance": 5 + y.square().mean()})

    plain, balanced = model(), model()
    balanced.blocks[0].ffn = Balanced(balanced.blocks[0].ffn)
    curves = [
        train_curve(net, batches(1), steps=1, lr=0.01, schedule=lambda step: 1.0)
        for net in (plain, balanced)
    ]
    assert curves[0].losses == curves[1].losses
    assert curves[0].grad_norms != curves[1].grad_norms


def test_a_step_can_lower_another_loss_and_the_plain_one_is_recorded() -> None:
    def doubled(net: nn.Module, batch: Batch, precision: torch.dtype) -> Losses:
        found = batch_losses(net, batch, precision)
        return found._replace(total=2 * found.total)

    curves = [
        train_curve(
            model(), batches(1), steps=1, lr=0.01, schedule=lambda step: 1.0, clip=None, loss=loss
        )
        for loss in (batch_losses, doubled)
    ]
    assert curves[0].losses == curves[1].losses
    assert curves[1].grad_norms == pytest.approx([2 * curves[0].grad_norms[0]])


def test_a_run_that_diverges_ends_there_and_keeps_what_it_saw() -> None:
    net = model()
    curve = train_curve(net, batches(50), steps=50, lr=1e30, schedule=lambda step: 1.0)
    assert curve.diverged and 0 < len(curve.losses) == len(curve.grad_norms) < 50
    assert np.isfinite(curve.losses).all()


def test_too_few_batches_are_told() -> None:
    with pytest.raises(ValueError, match="each of 5 steps, got 3"):
        train_curve(model(), batches(3), steps=5, lr=0.01, schedule=lambda step: 1.0)


def test_windows_lie_at_even_distances_and_targets_are_one_ahead() -> None:
    parts = list(spread_windows(np.arange(1000, dtype=np.uint16), 64, 16))
    inputs, targets = (torch.cat(part) for part in zip(*parts, strict=True))
    assert inputs.shape == targets.shape == (64, 16) and len(parts) == 2
    assert (targets == inputs + 1).all()
    starts = inputs[:, 0]
    assert starts[0] == 0 and starts[-1] == 1000 - 16 - 1
    assert set(starts.diff().tolist()) <= {15, 16}
