"""What layers are told after a step: their own load of the whole step, summed over processes."""

import pytest
import torch

from llmtutor.model.losses import batch_losses
from llmtutor.model.presets import build, preset
from llmtutor.train.distributed import local_batches, unwrap, wrap
from llmtutor.train.hooks import after_step
from llmtutor.train.ranks import Ranks
from llmtutor.train.step import train_step

SIZES = {"vocab_size": 31, "max_seq_len": 8, "n_layers": 2, "d_model": 8, "n_heads": 2, "d_ff": 8}
RATE = 0.01


def make():
    torch.manual_seed(0)
    options = {"ffn": "moe", "n_experts": 4, "bias_rate": RATE}
    return build(preset("llama-nano", **SIZES, **options)).double()


def batch(rows=6):
    ids = torch.randint(31, (rows, 9), generator=torch.Generator().manual_seed(1))
    return ids[:, :-1], ids[:, 1:]


def by_hand(model, inputs):
    """Tokens counted one by one, before the step."""
    counts = []

    def count(module, args, routing) -> None:
        counts.append(routing.experts.flatten().bincount(minlength=4).double())

    for block in model.blocks:
        block.ffn.router.register_forward_hook(count)
    model(inputs)
    for block in model.blocks:
        block.ffn.router._forward_hooks.clear()
    return [RATE * (count.mean() - count).sign() for count in counts]


def corrections(model):
    return [block.ffn.router.correction.clone() for block in model.blocks]


@pytest.mark.parametrize("parts", [1, 3])
def test_the_bias_follows_the_load_of_all_micro_batches(parts) -> None:
    model, (inputs, targets) = make(), batch()
    want = by_hand(model, inputs)
    assert all(bias.abs().max() > 0 for bias in want)
    micro = list(zip(inputs.chunk(parts), targets.chunk(parts), strict=True))
    train_step(model, micro, torch.optim.SGD(model.parameters(), lr=0.1))
    torch.testing.assert_close(corrections(model), want)


def test_reading_moves_nothing() -> None:
    model = make()
    batch_losses(model, batch())
    assert not any(bias.any() for bias in corrections(model))


def step_on_ranks(world, strategy):
    model = make()
    wrapped = wrap(model, world, strategy)
    train_step(
        wrapped, local_batches(batch(), world), torch.optim.SGD(wrapped.parameters(), lr=0.1)
    )
    return corrections(unwrap(wrapped))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_count_together(strategy) -> None:
    model, (inputs, _) = make(), batch()
    want = by_hand(model, inputs)
    with Ranks(2, timeout=60) as ranks:
        for found in ranks.run(step_on_ranks, strategy):
            torch.testing.assert_close(found, want)


def test_each_layer_gets_its_own_statistics() -> None:
    told = {}

    class Layer(torch.nn.Module):
        def after_step(self, statistics) -> None:
            told[self] = {name: x.tolist() for name, x in statistics.items()}

    model = torch.nn.Sequential(Layer(), torch.nn.Linear(1, 1), Layer())
    after_step(model, {"0.load": [1.0, 2.0], "0.a.b": 3.0, "2.load": 4.0, "20.load": 5.0})
    assert told == {model[0]: {"load": [1.0, 2.0], "a.b": 3.0}, model[2]: {"load": 4.0}}
