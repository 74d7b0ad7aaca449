"""One step: accumulation is the large batch, and a number that is none is traced to its layer."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llmtutor.model.losses import batch_losses
from llmtutor.model.presets import build, preset
from llmtutor.optim import AdamW
from llmtutor.train.diagnose import first_non_finite
from llmtutor.train.step import NonFiniteLoss, train_step

SMALL = {"vocab_size": 11, "max_seq_len": 8, "n_layers": 2, "d_model": 8, "n_heads": 2, "d_ff": 16}


def model(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return build(preset("llama-nano", **SMALL)).to(dtype)


def batch(rows: int, seq: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(11, (rows, seq + 1), generator=generator)
    return ids[:, :-1], ids[:, 1:]


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.5)


def gap(one: nn.Module, two: nn.Module) -> float:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_accumulation_is_the_large_batch(parts: int) -> None:
    whole, split = model(), model()
    inputs, targets = batch(6)
    one = train_step(whole, [(inputs, targets)], sgd(whole))
    micro = list(zip(inputs.chunk(parts), targets.chunk(parts), strict=True))
    two = train_step(split, micro, sgd(split))
    assert gap(whole, split) < 1e-12 and gap(whole, model()) > 1e-3
    assert two.loss == pytest.approx(one.loss, abs=1e-12)
    assert two.grad_norm == pytest.approx(one.grad_norm, abs=1e-12)
    assert one.n_tokens == two.n_tokens == 48


def test_a_token_weighs_the_same_in_a_short_micro_batch() -> None:
    """The mean of means would give the 2 tokens as much weight as the 48."""
    net = model()
    long, short = batch(6), batch(1, seq=2, seed=1)
    with torch.no_grad():
        losses = [batch_losses(net, b).nats.item() for b in (long, short)]
    loss = train_step(net, [long, short], sgd(net)).loss
    assert loss == pytest.approx(sum(losses) / 50, abs=1e-12)
    assert abs(loss - (losses[0] / 48 + losses[1] / 2) / 2) > 1e-3


def test_a_step_is_the_one_written_with_torch_alone() -> None:
    ours, theirs = model(), model()
    rule = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    mine = AdamW(list(ours.parameters()), 1e-2, weight_decay=0.1)
    for step in range(5):
        inputs, targets = batch(4, seed=step)
        rule.zero_grad()
        loss = F.cross_entropy(theirs(inputs).transpose(1, 2), targets)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        rule.step()
        metrics = train_step(ours, [(inputs, targets)], mine, clip=0.5)
        assert metrics.loss == pytest.approx(loss.item(), abs=1e-10)
        assert metrics.grad_norm == pytest.approx(norm.item(), abs=1e-9)
    assert gap(ours, theirs) < 1e-7


def test_clipping_shortens_the_step_and_reports_the_norm_before() -> None:
    free, held = model(), model()
    a = train_step(free, [batch(4)], sgd(free))
    b = train_step(held, [batch(4)], sgd(held), clip=a.grad_norm / 4)
    assert a.grad_norm == b.grad_norm
    start = model()
    assert gap(start, held) == pytest.approx(gap(start, free) / 4, rel=1e-4)


def test_bfloat16_is_near_and_leaves_weights_and_gradients_float32() -> None:
    exact, rough = model(torch.float32), model(torch.float32)
    one = train_step(exact, [batch(4)], sgd(exact))
    two = train_step(rough, [batch(4)], sgd(rough), precision=torch.bfloat16)
    assert one.loss != two.loss
    assert two.loss == pytest.approx(one.loss, rel=0.02)
    assert all(p.dtype == torch.float32 for p in rough.parameters())
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in rough.parameters())
    assert 0 < gap(exact, rough) < 0.05


def test_old_gradients_do_not_leak_into_a_step() -> None:
    net, fresh = model(), model()
    for p in net.parameters():
        p.grad = torch.full_like(p, 7.0)
    train_step(net, [batch(2)], sgd(net))
    train_step(fresh, [batch(2)], sgd(fresh))
    assert gap(net, fresh) == 0


def test_no_batch_is_refused() -> None:
    net = model()
    with pytest.raises(ValueError, match="at least one batch"):
        train_step(net, [], sgd(net))


# Numbers that are none ----------------------------------------------------------------------------


class Divide(nn.Module):
    """Its output is infinite for one input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 0


class Root(nn.Module):
    """0 for every input, with an infinite slope: a gradient no forward pass can show."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (x - x.detach()).abs().sqrt()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Divide(), "first output that is not finite is that of layer blocks.1.ffn.1"),
        (Root(), "first gradient that is not finite is that of the output of layer blocks.1.ffn.0"),
    ],
)
def test_the_layer_at_fault_is_named(part: nn.Module, message: str) -> None:
    net = model()
    net.blocks[1].ffn = nn.Sequential(net.blocks[1].ffn, part)
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(NonFiniteLoss, match="step 7: the loss is .*" + message):
        train_step(net, [batch(2), batch(2, seed=1)], sgd(net), clip=1.0, step=7)
    pairs = zip(before, net.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs), "weights must be as before"


def test_weights_that_are_nan_are_named() -> None:
    net = model()
    with torch.no_grad():
        net.blocks[0].mixer.value.weight[0, 0] = math.nan
    with pytest.raises(NonFiniteLoss, match=r"weights blocks\.0\.mixer\.value\.weight were not"):
        train_step(net, [batch(2)], sgd(net))


def test_a_loss_that_overflows_by_itself_is_named() -> None:
    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([0.0, 3e38]))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.bias.expand(*ids.shape, 2)

    net = Logits()
    zeros = torch.zeros(4, 3, dtype=torch.int64)
    with pytest.raises(NonFiniteLoss, match="all layers are finite, the loss itself is not"):
        train_step(net, [(zeros, zeros)], sgd(net))


def test_the_gradient_of_a_weight_alone_is_named() -> None:
    """The outputs' gradients are finite and the weight's is not: 3e38 · 3e38."""

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(0.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gain * 3e38 * x

    net = nn.Sequential(nn.Embedding(2, 2), Scale())
    with torch.no_grad():
        net[0].weight.fill_(3e38)
    where = first_non_finite(net, lambda m, b: m(b).sum(), [torch.zeros(2, dtype=torch.int64)])
    assert where == "the first gradient that is not finite is that of the weights 1.gain"


def test_nothing_wrong_here_points_to_another_process() -> None:
    where = first_non_finite(model(), lambda m, b: batch_losses(m, b).total, [batch(2)])
    assert where == "no layer of this process shows it, so another one's does"


def test_looking_for_the_layer_leaves_gradients_and_hooks_alone() -> None:
    net = model()
    first_non_finite(net, lambda m, b: batch_losses(m, b).total, [batch(2)])
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())
