"""The loss of a batch: plain nats, what layers add to it, and the same through a wrapper."""

import pytest
import torch
from torch import Tensor, nn

from llmtutor.layers.extras import Extras
from llmtutor.layers.ffn import MLP
from llmtutor.model.losses import batch_losses, summed_cross_entropy
from llmtutor.model.presets import build, preset

SIZES = {"vocab_size": 11, "max_seq_len": 6, "n_layers": 2, "d_model": 8, "n_heads": 2, "d_ff": 8}


class Reporting(MLP):
    """Adds 3 for each batch, and says how many tokens it saw."""

    def forward(self, x: Tensor) -> tuple[Tensor, Extras]:
        tokens = torch.tensor(float(x[..., 0].numel()))
        return super().forward(x), Extras({"three": tokens * 0 + 3}, {"tokens": tokens})


def batch() -> tuple[Tensor, Tensor]:
    ids = torch.randint(11, (2, 7), generator=torch.Generator().manual_seed(0))
    return ids[:, :-1], ids[:, 1:]


def test_nats_are_the_sum_of_the_surprises() -> None:
    logits = torch.tensor([[0.0, 0.0], [1.0, 3.0]])
    # log 2 for an even choice; log(1 + e²) for the less likely of two that differ by 2
    want = torch.tensor(2.0).log() + (1 + torch.tensor(2.0).exp()).log()
    torch.testing.assert_close(summed_cross_entropy(logits, torch.tensor([0, 0])), want)
    model = nn.Embedding(11, 11)
    inputs, targets = batch()
    losses = batch_losses(model, (inputs, targets))
    assert losses.total is losses.nats and losses.auxiliary == losses.statistics == {}
    want = nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    assert losses.nats.item() == pytest.approx(12 * want.item(), abs=1e-5)


def test_what_layers_add_stands_beside_the_plain_loss() -> None:
    torch.manual_seed(0)
    model = build(preset("llama-nano", **SIZES))
    plain = batch_losses(model, batch())
    assert plain.total is plain.nats and plain.auxiliary == {}
    model.blocks[1].ffn = Reporting(8, 8)
    losses = batch_losses(model, batch())
    assert losses.auxiliary == {"blocks.1.ffn.three": 3}
    assert losses.statistics == {"blocks.1.ffn.tokens": 12}
    # 3 for each of 12 tokens, as if every token's loss were 3 nats higher
    assert losses.total.item() == pytest.approx(losses.nats.item() + 36, abs=1e-4)


def test_bfloat16_logits_become_float32_before_the_loss() -> None:
    model = build(preset("llama-nano", **SIZES))
    seen = []

    def watching(logits: Tensor, targets: Tensor) -> Tensor:
        seen.append(logits.dtype)
        return summed_cross_entropy(logits, targets)

    losses = batch_losses(model, batch(), torch.bfloat16, watching)
    assert seen == [torch.float32] and losses.nats.dtype == torch.float32
    exact = batch_losses(model, batch())
    assert losses.nats.item() == pytest.approx(exact.nats.item(), rel=0.02)
