"""Chapter 22, evaluation: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong

# Exercise 1: the log-likelihood of a continuation.


def _row_cases() -> Iterator[tuple[Tensor, list[int], int]]:
    for seed, length, n_given in ((0, 4, 2), (1, 6, 1), (2, 7, 5), (3, 5, 3)):
        rng = np.random.default_rng(seed)
        logits = torch.tensor(rng.normal(size=(length, 6)))
        yield logits, rng.integers(0, 6, length).tolist(), n_given


def continuation_sum(logits: Tensor, ids: list[int], n_given: int) -> float:
    """Sum of log p over ``ids[n_given:]``, from the logits (seq, vocab) of a model that read ids.

    >>> round(continuation_sum(torch.zeros(3, 4), [1, 2, 3], 1), 3)  # two tokens, each 1 of 4
    -2.773
    """
    logs = logits.log_softmax(-1)
    return sum(logs[t - 1, ids[t]].item() for t in range(n_given, len(ids)))


def _own_row(logits: Tensor, ids: list[int], n_given: int) -> float:
    logs = logits.log_softmax(-1)
    return sum(logs[t, ids[t]].item() for t in range(n_given, len(ids)))


def _first_left_out(logits: Tensor, ids: list[int], n_given: int) -> float:
    logs = logits.log_softmax(-1)
    return sum(logs[t - 1, ids[t]].item() for t in range(n_given + 1, len(ids)))


def _context_too(logits: Tensor, ids: list[int], n_given: int) -> float:
    logs = logits.log_softmax(-1)
    return sum(logs[t - 1, ids[t]].item() for t in range(1, len(ids)))


def _of_logits(logits: Tensor, ids: list[int], n_given: int) -> float:
    return sum(logits[t - 1, ids[t]].item() for t in range(n_given, len(ids)))


def _mean_of_them(logits: Tensor, ids: list[int], n_given: int) -> float:
    return continuation_sum(logits, ids, n_given) / (len(ids) - n_given)


def _of_probabilities(logits: Tensor, ids: list[int], n_given: int) -> float:
    return sum(logits.softmax(-1)[t - 1, ids[t]].item() for t in range(n_given, len(ids)))


# Exercise 2: the chosen answer, by characters.


def _answer_cases() -> Iterator[tuple[list[float], list[str]]]:
    yield [-4.0, -15.0, -11.0], ["no", "nevermore", "éééééé"]
    yield [-4.0, -15.0, -9.5], ["no", "nevermore", "éé éé"]
    yield [-2.0, -7.6, -3.0], ["a", "to be", "be"]
    yield [-3.0, -2.8, -9.0], ["be", "again and", "to go"]
    yield [-6.2, -8.0, -10.0], ["it", "a day", "in the sun"]
    yield [-20.0, -6.0, -12.0], ["on a wall here", "by me", "at the sea"]


def choose_by_characters(sums: list[float], answers: list[str]) -> int:
    """The place of the answer with the largest log-likelihood per character.

    >>> choose_by_characters([-2.0, -3.0], ["no", "never"])
    1
    """
    each = [total / len(answer) for total, answer in zip(sums, answers, strict=True)]
    return each.index(max(each))


def _as_a_whole(sums: list[float], answers: list[str]) -> int:
    return sums.index(max(sums))


def _by_bytes(sums: list[float], answers: list[str]) -> int:
    each = [s / len(a.encode("utf-8")) for s, a in zip(sums, answers, strict=True)]
    return each.index(max(each))


def _by_words(sums: list[float], answers: list[str]) -> int:
    each = [s / len(a.split()) for s, a in zip(sums, answers, strict=True)]
    return each.index(max(each))


def _times_length(sums: list[float], answers: list[str]) -> int:
    each = [s * len(a) for s, a in zip(sums, answers, strict=True)]
    return each.index(max(each))


def _the_smallest(sums: list[float], answers: list[str]) -> int:
    each = [s / len(a) for s, a in zip(sums, answers, strict=True)]
    return each.index(min(each))


# Exercise 3: how often does a guess do as well?


def _guess_cases() -> Iterator[tuple[int, int, float]]:
    yield from ((3, 4, 0.25), (29, 100, 0.25), (0, 5, 0.5), (38, 60, 0.5), (7, 7, 0.2))


def as_good_by_guessing(right: int, n: int, chance: float) -> float:
    """How often one who guesses has at least ``right`` of ``n`` questions right.

    >>> as_good_by_guessing(1, 2, 0.5)
    0.75
    """
    each = range(right, n + 1)
    return sum(math.comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in each)


def _more_than(right: int, n: int, chance: float) -> float:
    return float(stats.binom.sf(right, n, chance))


def _just_as_many(right: int, n: int, chance: float) -> float:
    return float(stats.binom.pmf(right, n, chance))


def _at_most(right: int, n: int, chance: float) -> float:
    return float(stats.binom.cdf(right, n, chance))


def _no_orders(right: int, n: int, chance: float) -> float:
    return sum(chance**k * (1 - chance) ** (n - k) for k in range(right, n + 1))


def _normal(right: int, n: int, chance: float) -> float:
    spread = math.sqrt(n * chance * (1 - chance))
    return float(stats.norm.sf((right - n * chance) / spread))


EXERCISES = [
    Exercise(
        name="evaluation.continuation_sum",
        cases=_row_cases,
        reference=continuation_sum,
        wrong=[
            Wrong(
                _own_row,
                "Row t holds the logits of the token after place t. The token at place t is "
                "predicted one row earlier.",
            ),
            Wrong(
                _first_left_out,
                "The first token of the continuation is missing. It is predicted by the last token "
                "of the context, so it can be scored.",
            ),
            Wrong(
                _context_too,
                "The context is scored as well. It is the same for all answers of most questions, "
                "but not where it holds the answer.",
            ),
            Wrong(
                _of_logits,
                "Logits are not log-probabilities: a constant added to a row changes the sum. Take "
                "the log-softmax of each row first.",
            ),
            Wrong(
                _mean_of_them,
                "This is the mean over tokens. The log-likelihood of the whole is their sum; a "
                "division by a length comes later, by a rule that has a name.",
            ),
            Wrong(
                _of_probabilities,
                "Probabilities of tokens were added up. Those of a whole text multiply, so it is "
                "their logarithms that are added.",
            ),
        ],
    ),
    Exercise(
        name="evaluation.choose_by_characters",
        cases=_answer_cases,
        reference=choose_by_characters,
        wrong=[
            Wrong(
                _as_a_whole,
                "No length was divided by: this is acc. A long answer has more tokens to be "
                "unlikely in.",
            ),
            Wrong(
                _by_bytes,
                "The sums were divided by bytes: this is acc_bytes. A letter with an accent is one "
                "character and two bytes.",
            ),
            Wrong(
                _by_words,
                "The sums were divided by words. acc_norm counts characters, spaces within the "
                "answer among them.",
            ),
            Wrong(
                _times_length,
                "The sums were multiplied by the lengths, which punishes long answers twice. "
                "Divide.",
            ),
            Wrong(
                _the_smallest,
                "The smallest was taken. Log-likelihoods are negative, and the one nearest to 0 is "
                "the largest.",
            ),
        ],
    ),
    Exercise(
        name="evaluation.as_good_by_guessing",
        cases=_guess_cases,
        reference=as_good_by_guessing,
        properties=[
            Property(
                "a probability lies between 0 and 1",
                lambda p, right, n, chance: -1e-9 <= p <= 1 + 1e-9,
            ),
        ],
        wrong=[
            Wrong(
                _more_than,
                "This is the probability of *more* right answers than were seen. As good or better "
                "includes as good.",
            ),
            Wrong(
                _just_as_many,
                "This is the probability of exactly so many. Any exact number is unlikely among "
                "many; add up all that are as good or better.",
            ),
            Wrong(
                _at_most,
                "This is the other side: at most so many right answers. Add from the number that "
                "was seen up to all.",
            ),
            Wrong(
                _no_orders,
                "Each term is the probability of one order of right and wrong answers. There are n "
                "over k of them.",
            ),
            Wrong(
                _normal,
                "The normal curve stands in for counts, and half a step is missing at the edge. "
                "The exact sum has few terms.",
            ),
        ],
    ),
]
