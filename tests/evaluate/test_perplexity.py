"""A loss that weighs tokens, not batches; its three units by hand and against torch."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmtutor.evaluate.perplexity import LossReport, bits_per_byte, evaluate_loss, perplexity


def uneven_batches(vocab_size: int = 5) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 6), (4, 6), (1, 2)]  # the last one is short
    return [
        tuple(torch.randint(vocab_size, shape, generator=generator) for _ in range(2))
        for shape in shapes
    ]


def test_short_last_batch_does_not_weigh_more():
    table = torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batches = uneven_batches()
    report = evaluate_loss(lambda ids: table[ids], batches)
    inputs, targets = (torch.cat([part[i].flatten() for part in batches]) for i in (0, 1))
    want = F.cross_entropy(table[inputs], targets).item()
    assert report.n_tokens == 50
    assert report.nats_per_token == pytest.approx(want, abs=1e-12)
    means = [F.cross_entropy(table[x].flatten(0, 1), y.flatten()).item() for x, y in batches]
    assert abs(sum(means) / 3 - want) > 0.05  # the usual mistake is visibly wrong here


def test_by_hand():
    # Probabilities of the targets 1/2, 1/4 in one batch, 1/8 alone in the next.
    logits = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.125, 0.875]]).double().log()
    zero = torch.zeros(1, 1).long()
    batches = [(torch.tensor([[0, 1]]), torch.zeros(1, 2).long()), (zero + 2, zero)]
    report = evaluate_loss(lambda ids: logits[ids], batches)
    assert report.nats_per_token == pytest.approx(2 * math.log(2), abs=1e-12)  # (1+2+3)/3 bits
    assert report.total_nats == pytest.approx(6 * math.log(2), abs=1e-12)
    assert perplexity(report.nats_per_token) == pytest.approx(4, abs=1e-12)
    assert report.bits_per_byte(12) == pytest.approx(0.5, abs=1e-12)


def test_uniform_model_has_the_vocabulary_as_perplexity():
    report = evaluate_loss(lambda ids: torch.zeros(*ids.shape, 50), uneven_batches())
    assert perplexity(report.nats_per_token) == pytest.approx(50, rel=1e-6)


def test_order_and_size_of_batches_do_not_matter():
    table = torch.randn(5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batches = uneven_batches()
    rows = [(x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(len(x))]
    a = evaluate_loss(lambda ids: table[ids], batches)
    b = evaluate_loss(lambda ids: table[ids], rows[::-1])
    assert a.n_tokens == b.n_tokens
    assert a.nats_per_token == pytest.approx(b.nats_per_token, abs=1e-12)


def test_tokenizer_cancels_out_of_bits_per_byte():
    assert LossReport(3.0, 1000).bits_per_byte(4000) == pytest.approx(
        LossReport(1.0, 3000).bits_per_byte(4000)
    )


class Wary(nn.Module):
    """Remembers the mode and the gradient switch it was called with."""

    def __init__(self, fail: bool = False) -> None:
        super().__init__()
        self.rows = nn.Embedding(5, 5)
        self.fail = fail
        self.seen: tuple[bool, bool] | None = None

    def forward(self, ids):
        self.seen = (self.training, torch.is_grad_enabled())
        if self.fail:
            raise RuntimeError("broken model")
        return self.rows(ids)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fail", [True, False])
def test_module_is_evaluated_without_gradient_and_gets_its_mode_back(training, fail):
    model = Wary(fail).train(training)
    if fail:
        with pytest.raises(RuntimeError, match="broken"):
            evaluate_loss(model, uneven_batches())
    else:
        evaluate_loss(model, uneven_batches())
    assert model.seen == (False, False)
    assert model.training is training
    assert torch.is_grad_enabled()


def test_long_sums_keep_their_precision():
    logits = torch.tensor([0.0, 0.3])
    each = F.cross_entropy(logits, torch.tensor(0)).item()  # the same float32 every time
    ids = torch.zeros(1, 1_000_003).long()
    report = evaluate_loss(lambda ids: logits.expand(*ids.shape, 2), [(ids, ids)])
    # Summing in float32 would be off by about 1e-8.
    assert report.nats_per_token == pytest.approx(each, rel=1e-12)


def test_refusals():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate_loss(lambda ids: torch.zeros(*ids.shape, 5), [])
    with pytest.raises(ValueError, match="shape of logits"):
        evaluate_loss(lambda ids: torch.zeros(3, 5), uneven_batches())
    with pytest.raises(ValueError, match="at least 1"):
        bits_per_byte(1.0, 0)


def test_extremes_of_perplexity():
    assert perplexity(0.0) == 1.0
    assert perplexity(1e6) == math.inf
    assert perplexity(math.inf) == math.inf
