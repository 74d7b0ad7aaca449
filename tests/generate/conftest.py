"""Small models with opinions, what they say exactly, and Pearson's test for draws from it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer


def p_value(statistic: float, degrees: int) -> float:
    """How often chance alone gives this χ² or more: Q(k/2, χ²/2).

    Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.4.19.
    """
    half = torch.tensor([degrees / 2, statistic / 2], dtype=torch.float64)
    return torch.special.gammaincc(half[0], half[1]).item()


# From the printed table 26.8 of the same book, to its three decimals.
for printed, freedom, share in [(3.841, 1, 0.05), (18.307, 10, 0.05), (135.807, 100, 0.01)]:
    assert abs(p_value(printed, freedom) - share) < 2e-5, (printed, freedom, share)


@pytest.fixture
def assert_drawn_from() -> Callable[[Tensor, Tensor], None]:
    """Fails if the counts are unlikely under the probabilities, or impossible.

    Chance alone fails it for one seed in a thousand, and the seeds of the tests are fixed.
    """

    def check(counts: Tensor, probs: Tensor) -> None:
        assert counts[probs == 0].sum() == 0, "drawn although its probability is 0"
        counts, probs = counts[probs > 0].double(), probs[probs > 0].double()
        expected = counts.sum() * probs / probs.sum()
        assert expected.min() >= 5, "too few draws for the test to hold"
        statistic = ((counts - expected) ** 2 / expected).sum().item()
        assert p_value(statistic, len(counts) - 1) > 1e-3

    return check


@pytest.fixture
def make_model() -> Callable[..., Transformer]:
    """Makes models whose weights are large enough that one token is often much the likeliest."""

    def make(seed: int = 0, **changes) -> Transformer:
        shape = {"vocab_size": 20, "max_seq_len": 32, "n_layers": 2, "d_model": 16, "n_heads": 4}
        torch.manual_seed(seed)
        model = Transformer(
            ModelConfig.uniform(**{**shape, "d_ff": 32, "tie_weights": False, **changes})
        )
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim == 2:
                    p.mul_(20)
        return model.eval()

    return make


@pytest.fixture
def joint() -> Callable[..., Tensor]:
    """The probability of every continuation by two ids, (vocab · vocab,), without any draw."""

    def compute(model: Transformer, prompt: list[int], temperature: float = 1.0) -> Tensor:
        vocab = model.config.vocab_size
        texts = torch.tensor([[*prompt, first] for first in range(vocab)])
        with torch.inference_mode():
            probs = (model(texts).double() / temperature).softmax(-1)
        return (probs[0, -2][:, None] * probs[:, -1]).flatten()

    return compute
