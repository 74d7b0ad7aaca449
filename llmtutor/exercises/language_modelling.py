"""Chapter 03, language modelling: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Wrong
from llmtutor.layers.basic import softmax

# Exercise 1: the smoothed bigram table.


def _table_cases() -> Iterator[tuple[list[int], int, float]]:
    yield [0, 1, 0, 2, 0, 1], 3, 1.0
    yield [0, 1, 2, 0, 1, 1, 0, 3], 4, 0.5
    yield [2, 2, 2, 1], 4, 0.1
    yield [1, 0], 2, 3.0


def _pair_counts(ids: Sequence[int], vocab_size: int) -> np.ndarray:
    counts = np.zeros((vocab_size, vocab_size))
    np.add.at(counts, (list(ids[:-1]), list(ids[1:])), 1)
    return counts


def bigram_probs(ids: Sequence[int], vocab_size: int, k: float) -> np.ndarray:
    """Table (vocab, vocab): entry [a, b] is q(b | a) with ``k`` added to every count.

    >>> bigram_probs([0, 1, 0, 0], vocab_size=2, k=1.0)
    array([[0.5       , 0.5       ],
           [0.66666667, 0.33333333]])
    """
    smoothed = _pair_counts(ids, vocab_size) + k
    return smoothed / smoothed.sum(axis=1, keepdims=True)


def _joint(ids: Sequence[int], vocab_size: int, k: float) -> np.ndarray:
    smoothed = _pair_counts(ids, vocab_size) + k
    return smoothed / smoothed.sum()


def _columns(ids: Sequence[int], vocab_size: int, k: float) -> np.ndarray:
    smoothed = _pair_counts(ids, vocab_size) + k
    return smoothed / smoothed.sum(axis=0, keepdims=True)


def _one_k_a_row(ids: Sequence[int], vocab_size: int, k: float) -> np.ndarray:
    counts = _pair_counts(ids, vocab_size)
    return (counts + k) / (counts.sum(axis=1, keepdims=True) + k)


def _closed_ring(ids: Sequence[int], vocab_size: int, k: float) -> np.ndarray:
    return bigram_probs([*ids, ids[0]], vocab_size, k)


# Exercise 2: bits per byte from a loss per token.


def _byte_cases() -> Iterator[tuple[float, int, str]]:
    yield 2.0, 11, "abracadabra"
    yield math.log(2), 4, "naïve café"
    yield 1.5, 3, "日本語"


def bits_per_byte(nats_per_token: float, n_tokens: int, text: str) -> float:
    """Bits per UTF-8 byte of ``text``, whose ``n_tokens`` tokens cost ``nats_per_token`` each.

    >>> bits_per_byte(math.log(2), 8, "abcd")  # 8 tokens of 1 bit, 4 bytes
    2.0
    """
    return nats_per_token * n_tokens / math.log(2) / len(text.encode("utf-8"))


def _per_character(nats_per_token: float, n_tokens: int, text: str) -> float:
    return nats_per_token * n_tokens / math.log(2) / len(text)


def _nats_per_byte(nats_per_token: float, n_tokens: int, text: str) -> float:
    return nats_per_token * n_tokens / len(text.encode("utf-8"))


def _bits_per_token(nats_per_token: float, n_tokens: int, text: str) -> float:
    return nats_per_token / math.log(2)


def _times_log_two(nats_per_token: float, n_tokens: int, text: str) -> float:
    return nats_per_token * n_tokens * math.log(2) / len(text.encode("utf-8"))


# Exercise 3: the gradient that trains every language model.


def _gradient_cases() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.zeros(2, 4), torch.tensor([0, 3])
    draws = np.random.default_rng(0)
    yield torch.tensor(draws.normal(size=(3, 5))), torch.tensor([4, 0, 2])
    yield torch.tensor(draws.normal(size=(4, 2))), torch.tensor([1, 1, 0, 1])
    yield torch.tensor([[1000.0, 999.0, 0.0], [0.0, 1.0, 2.0]]), torch.tensor([1, 2])


def logits_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """Gradient (n, vocab) of the mean cross-entropy with respect to ``logits`` (n, vocab).

    >>> logits_gradient(torch.zeros(1, 2), torch.tensor([0]))
    tensor([[-0.5000,  0.5000]])
    """
    gradient = softmax(logits, dim=-1)
    gradient[torch.arange(len(targets)), targets] -= 1
    return gradient / len(targets)


def _uphill(logits: Tensor, targets: Tensor) -> Tensor:
    return -logits_gradient(logits, targets)


def _summed(logits: Tensor, targets: Tensor) -> Tensor:
    return logits_gradient(logits, targets) * len(targets)


def _probabilities_only(logits: Tensor, targets: Tensor) -> Tensor:
    return softmax(logits, dim=-1) / len(targets)


def _across_the_batch(logits: Tensor, targets: Tensor) -> Tensor:
    gradient = softmax(logits, dim=0)
    gradient[torch.arange(len(targets)), targets] -= 1
    return gradient / len(targets)


def _overflowing(logits: Tensor, targets: Tensor) -> Tensor:
    gradient = logits.exp() / logits.exp().sum(dim=-1, keepdim=True)
    gradient[torch.arange(len(targets)), targets] -= 1
    return gradient / len(targets)


EXERCISES = [
    Exercise(
        name="language_modelling.bigram_probs",
        cases=_table_cases,
        reference=bigram_probs,
        wrong=[
            Wrong(
                _joint,
                "This is the probability of the pair, q(a, b): the whole table sums to 1. A model "
                "needs q(b | a), so every row must sum to 1 by itself.",
            ),
            Wrong(
                _columns,
                "The columns sum to 1, which answers 'which token came before b?'. The row is the "
                "token you know, so divide each row by the sum of that row.",
            ),
            Wrong(
                _one_k_a_row,
                "k was added to every count but only once to the row's total. A row has "
                "vocab_size counts, so its total grows by k times vocab_size.",
            ),
            Wrong(
                _closed_ring,
                "One pair too many: the last token is followed by nothing, and the text does not "
                "begin again (np.roll joins its end to its start).",
            ),
        ],
    ),
    Exercise(
        name="language_modelling.bits_per_byte",
        cases=_byte_cases,
        reference=bits_per_byte,
        wrong=[
            Wrong(
                _per_character,
                "This divides by characters. They are bytes only in plain ASCII: 'ï' takes two in "
                "UTF-8 and '日' three. Count len(text.encode('utf-8')).",
            ),
            Wrong(
                _nats_per_byte,
                "These are nats per byte. One bit is ln 2 nats, so divide by math.log(2).",
            ),
            Wrong(
                _bits_per_token,
                "These are bits per token, which depend on the tokenizer. Multiply by the number "
                "of tokens for the cost of the whole text, then divide by its bytes.",
            ),
            Wrong(
                _times_log_two,
                "Multiplied by ln 2 where dividing was needed. A bit is the smaller unit, so the "
                "number of bits is the larger number.",
            ),
        ],
    ),
    Exercise(
        name="language_modelling.logits_gradient",
        cases=_gradient_cases,
        reference=logits_gradient,
        wrong=[
            Wrong(
                _uphill,
                "The sign is turned round: this is y − p, the direction in which the loss falls. "
                "The gradient points uphill, and the optimizer is what subtracts it.",
            ),
            Wrong(
                _summed,
                "This is the gradient of the summed loss. A mean over n targets divides each row "
                "by n, or the step would grow with the batch.",
            ),
            Wrong(
                _probabilities_only,
                "The 1 at the target is not subtracted. These are the probabilities, and every "
                "logit would be pushed down, also the right one.",
            ),
            Wrong(
                _across_the_batch,
                "The softmax runs over the batch (dim=0), so tokens of different positions share "
                "one distribution. The vocabulary is the last dimension.",
            ),
            Wrong(
                _overflowing,
                "Right on small logits, nan on large ones: exp(1000) is infinite. Subtract each "
                "row's maximum first, or use softmax from llmtutor.layers.basic.",
            ),
        ],
    ),
]
