"""Chapter 22, evaluation: from log-likelihoods to marks, by rules that are not the same everywhere.

A longer answer has more tokens to be unlikely in. ``acc`` does not care; ``acc_norm`` divides by
the characters of the answer, ``acc_bytes`` by its bytes. No rule is right, and they disagree.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from llmtutor.evaluate.items import Item
from llmtutor.evaluate.perplexity import perplexity
from llmtutor.evaluate.scoring import Score, log_likelihoods


def first_best(values: Sequence[float]) -> int:
    """The place of the largest value, the first of equal ones, as NumPy's ``argmax`` has it.

    With the right answer always in the first place, as BLiMP's files have it, this rule gives full
    marks to a model that finds both sentences equally likely: look at ``tied``.
    """
    return max(range(len(values)), key=values.__getitem__)


def tied(item: Item, scores: Sequence[Score]) -> bool:
    """Whether another answer is as likely as the likeliest."""
    values = log_likelihoods(scores)
    return len(item.answers) > 1 and values.count(max(values)) > 1


def acc(item: Item, scores: Sequence[Score]) -> bool:
    """Whether the right answer is the most likely one as a whole."""
    return first_best(log_likelihoods(scores)) == item.gold


def acc_norm(item: Item, scores: Sequence[Score]) -> bool:
    """Whether it is, per character of the answer (the space before it is none of them)."""
    pairs = zip(scores, item.answers, strict=True)
    return first_best([one.log_likelihood / len(text) for one, text in pairs]) == item.gold


def acc_bytes(item: Item, scores: Sequence[Score]) -> bool:
    """Whether it is, per byte in UTF-8."""
    pairs = zip(scores, item.answers, strict=True)
    each = [one.log_likelihood / len(text.encode("utf-8")) for one, text in pairs]
    return first_best(each) == item.gold


def exact_match(item: Item, scores: Sequence[Score]) -> bool:
    """Whether the model, always taking the likeliest token, would write the right answer."""
    return scores[item.gold].greedy


Metric = Callable[[Item, Sequence[Score]], bool]
METRICS: dict[str, Metric] = {
    "acc": acc,
    "acc_norm": acc_norm,
    "acc_bytes": acc_bytes,
    "exact_match": exact_match,
}
"""By the name that lm-evaluation-harness gives them (which calls LAMBADA's exact match ``acc``)."""
ALL_ANSWERS = ("acc", "acc_norm", "acc_bytes")
"""Of answers that differ: where only the contexts do, their lengths say nothing."""


def confidence(scores: Sequence[Score]) -> float:
    """The probability of the chosen answer if it must be one of them: softmax of the sums."""
    values = log_likelihoods(scores)
    top = max(values)
    return 1 / sum(math.exp(value - top) for value in values)


def answer_perplexity(items: Sequence[Item], scores: Sequence[Sequence[Score]]) -> float:
    """Of the right answers, each weighing the same: exp of minus the mean log-likelihood."""
    golds = [found[item.gold].log_likelihood for item, found in zip(items, scores, strict=True)]
    return perplexity(-sum(golds) / len(golds))


class Rolled(NamedTuple):
    """A text measured whole."""

    nats: float
    """Sum of −log p over its tokens."""
    n_tokens: int
    n_words: int
    """Pieces between white space, as lm-evaluation-harness counts them."""
    n_bytes: int


def sizes(text: str) -> tuple[int, int]:
    """Words and bytes of a text.

    >>> sizes("To be, or naïve ")  # the empty piece behind the last space counts too
    (5, 17)
    """
    return len(re.split(r"\s+", text)), len(text.encode("utf-8"))


def rolling_metrics(rolled: Iterable[Rolled]) -> dict[str, float]:
    """Word and byte perplexity and bits per byte of all texts together.

    The perplexity of a word is not that of a token: it counts the tokens' nats against words, and
    so does not depend on the tokenizer. ``byte_perplexity`` is 2 to the power of bits per byte.

    Raises:
        ValueError: no texts.
    """
    found = list(rolled)
    if not found:
        raise ValueError("expected at least one text, got none")
    nats = sum(one.nats for one in found)
    n_bytes = sum(one.n_bytes for one in found)
    return {
        "word_perplexity": perplexity(nats / sum(one.n_words for one in found)),
        "byte_perplexity": perplexity(nats / n_bytes),
        "bits_per_byte": nats / n_bytes / math.log(2),
    }
