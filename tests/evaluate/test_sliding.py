"""Every token scored once, with the past that was promised."""

import math

import pytest
import torch
from torch import Tensor, nn

from llmtutor.evaluate.perplexity import evaluate_loss
from llmtutor.evaluate.sliding import sliding_loss
from llmtutor.layers.basic import log_softmax
from llmtutor.model.mlp import WindowMLP

VOCAB = 50


class Spy(nn.Module):
    """Gives the token that stands n places before the probability exp(n): the loss shows it all."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0

    def forward(self, ids: Tensor) -> Tensor:
        self.longest = max(self.longest, ids.shape[1])
        return torch.arange(1.0, ids.shape[1] + 1)[None, :, None] * nn.functional.one_hot(
            ids + 1, VOCAB
        )


@pytest.mark.parametrize(("length", "context", "stride"), [(40, 8, 4), (39, 8, 3), (9, 8, 8)])
def test_each_token_is_scored_once_with_the_past_that_was_promised(
    length: int, context: int, stride: int
) -> None:
    """The next id is always one more, so a target's loss tells how many tokens were before it."""
    spy = Spy()
    report = sliding_loss(spy, torch.arange(length), context, stride=stride, batch_size=3)
    pasts = [math.log(math.exp(n) + VOCAB - 1) - n for n in range(1, context + 1)]
    assert report.n_tokens == length - 1 and spy.longest == context
    # by hand: the first window counts whole, then groups of `stride`, the last one shorter
    expected = pasts[: min(context, length - 1)]
    while len(expected) < length - 1:
        n = min(stride, length - 1 - len(expected))
        expected += pasts[context - n :]
    assert report.total_nats == pytest.approx(sum(expected), rel=1e-6)


def test_a_model_of_three_tokens_gets_the_loss_of_one_long_window() -> None:
    torch.manual_seed(0)
    model, ids = WindowMLP(VOCAB, 3, 4, 8), torch.randint(VOCAB, (60,))
    whole = evaluate_loss(model, [(ids[None, :-1], ids[None, 1:])])
    assert sliding_loss(model, ids, 8, batch_size=2).total_nats == pytest.approx(whole.total_nats)
    by_hand = -log_softmax(model(ids[None, :-1]))[0, range(59), ids[1:]].sum().item()
    assert whole.total_nats == pytest.approx(by_hand, rel=1e-5)


def test_a_text_shorter_than_the_context_is_one_window() -> None:
    assert sliding_loss(Spy(), torch.arange(5), 8).n_tokens == 4


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="at least two ids"):
        sliding_loss(Spy(), torch.arange(1), 8)
    with pytest.raises(ValueError, match="stride of 9 beyond the context of 8"):
        sliding_loss(Spy(), torch.arange(20), 8, stride=9)
