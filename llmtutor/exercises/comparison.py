"""Chapter 20, comparison: its exercises and the mistakes learners make there."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, pstdev, stdev

from llmtutor.exercises.core import Exercise, Property, Wrong

# Exercise 1: the difference and its standard error.

Losses = Mapping[int, float]


def _pairs() -> Iterator[tuple[Losses, Losses]]:
    yield {0: 3.40, 1: 3.50, 2: 3.42}, {0: 3.45, 1: 3.53, 2: 3.49}
    yield {2: 1.92, 0: 1.75, 1: 1.88}, {0: 1.7, 1: 1.8, 2: 1.9}
    yield {5: 2.5, 6: 2.9, 7: 2.1, 9: 2.0}, {5: 2.4, 6: 3.0, 7: 2.3, 9: 2.25}


def paired_difference(variant: Losses, baseline: Losses) -> tuple[float, float]:
    """Mean of variant − baseline over the seeds, and the standard error of that mean.

    >>> d, error = paired_difference({0: 2.0, 1: 2.1, 2: 1.9}, {0: 2.2, 1: 2.4, 2: 2.1})
    >>> round(d, 4), round(error, 4)  # differences −0.2, −0.3, −0.2
    (-0.2333, 0.0333)
    """
    differences = [variant[seed] - baseline[seed] for seed in variant]
    return mean(differences), stdev(differences) / math.sqrt(len(differences))


def _unpaired(variant: Losses, baseline: Losses) -> tuple[float, float]:
    a, b = list(variant.values()), list(baseline.values())
    spread = math.sqrt(stdev(a) ** 2 / len(a) + stdev(b) ** 2 / len(b))
    return mean(a) - mean(b), spread


def _in_order_of_appearance(variant: Losses, baseline: Losses) -> tuple[float, float]:
    differences = [a - b for a, b in zip(variant.values(), baseline.values(), strict=True)]
    return mean(differences), stdev(differences) / math.sqrt(len(differences))


def _deviation_only(variant: Losses, baseline: Losses) -> tuple[float, float]:
    differences = [variant[seed] - baseline[seed] for seed in variant]
    return mean(differences), stdev(differences)


def _divided_by_n(variant: Losses, baseline: Losses) -> tuple[float, float]:
    differences = [variant[seed] - baseline[seed] for seed in variant]
    return mean(differences), pstdev(differences) / math.sqrt(len(differences))


def _other_sign(variant: Losses, baseline: Losses) -> tuple[float, float]:
    difference, error = paired_difference(variant, baseline)
    return -difference, error


# Exercise 2: Holm's correction.


def _p_values() -> Iterator[tuple[list[float]]]:
    yield ([0.04, 0.01, 0.03],)
    yield ([0.001, 0.5, 0.02, 0.021],)
    yield ([0.9, 0.6, 0.7],)
    yield ([0.2],)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given.

    >>> [round(p, 3) for p in holm([0.04, 0.01, 0.03])]
    [0.06, 0.03, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _bonferroni(p_values: Sequence[float]) -> list[float]:
    return [min(1.0, len(p_values) * p) for p in p_values]


def _no_running_maximum(p_values: Sequence[float]) -> list[float]:
    adjusted = [0.0] * len(p_values)
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        adjusted[i] = min(1.0, (len(p_values) - rank) * p_values[i])
    return adjusted


def _left_sorted(p_values: Sequence[float]) -> list[float]:
    return holm(sorted(p_values))


def _above_one(p_values: Sequence[float]) -> list[float]:
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, (len(p_values) - rank) * p_values[i])
        adjusted[i] = largest
    return adjusted


def _largest_first(p_values: Sequence[float]) -> list[float]:
    adjusted = [0.0] * len(p_values)
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: -p_values[i])):
        adjusted[i] = min(1.0, (len(p_values) - rank) * p_values[i])
    return adjusted


# Exercise 3: the width that keeps the parameters equal.


def _shapes() -> Iterator[tuple[int, int, int, int]]:
    yield 64, 8, 2, 256
    yield 64, 8, 1, 256
    yield 512, 16, 4, 2048
    yield 64, 8, 8, 256


def matched_d_ff(d_model: int, n_heads: int, n_kv_heads: int, d_ff: int) -> int:
    """The d_ff that makes up for shared keys and values, to the nearest whole number.

    Two matrices in the feed-forward part, no biases. By hand for (64, 8, 2, 256): keys and values
    lose 2 · 64 · (64 − 16) = 6,144 weights, a channel of d_ff has 2 · 64 = 128, so 48 more.

    >>> matched_d_ff(64, 8, 2, 256)
    304
    """
    saved = 2 * d_model * (d_model - n_kv_heads * d_model // n_heads)
    return d_ff + round(saved / (2 * d_model))


def _keys_only(d_model: int, n_heads: int, n_kv_heads: int, d_ff: int) -> int:
    return d_ff + round((d_model - n_kv_heads * d_model // n_heads) / 2)


def _one_matrix(d_model: int, n_heads: int, n_kv_heads: int, d_ff: int) -> int:
    return d_ff + 2 * (d_model - n_kv_heads * d_model // n_heads)


def _narrower(d_model: int, n_heads: int, n_kv_heads: int, d_ff: int) -> int:
    return d_ff - (d_model - n_kv_heads * d_model // n_heads)


def _kept_part(d_model: int, n_heads: int, n_kv_heads: int, d_ff: int) -> int:
    return d_ff + n_kv_heads * d_model // n_heads


EXERCISES = [
    Exercise(
        name="comparison.paired_difference",
        cases=_pairs,
        reference=paired_difference,
        properties=[
            Property("the answer is a pair of numbers", lambda received, *_: len(received) == 2),
        ],
        wrong=[
            Wrong(
                _unpaired,
                "The two spreads are taken separately and added. What a seed gives to both sides "
                "cancels in its difference; take the spread of the differences.",
            ),
            Wrong(
                _in_order_of_appearance,
                "Runs are paired by their place in the dictionary. A pair has the same seed: look "
                "the seed up on both sides.",
            ),
            Wrong(
                _deviation_only,
                "This is how far one difference lies from their mean. The mean of n of them "
                "varies less: divide by √n.",
            ),
            Wrong(
                _divided_by_n,
                "The squares are divided by n. Their mean was taken from the same numbers, which "
                "costs one: divide by n − 1.",
            ),
            Wrong(
                _other_sign,
                "This is baseline − variant. A better variant has a lower loss and a negative "
                "difference.",
            ),
        ],
    ),
    Exercise(
        name="comparison.holm",
        cases=_p_values,
        reference=holm,
        properties=[
            Property(
                "there is one adjusted value for each p-value",
                lambda received, p_values: len(received) == len(p_values),
            ),
        ],
        wrong=[
            Wrong(
                _bonferroni,
                "Every p-value is multiplied by the number of tests (Bonferroni). Once the "
                "smallest is dealt with, one test less is left, and so on.",
            ),
            Wrong(
                _no_running_maximum,
                "A larger p-value may come out with a smaller adjusted one. None may fall below "
                "that of a test which was surer.",
            ),
            Wrong(
                _left_sorted,
                "The values come out sorted. The caller wants each in the place of its test.",
            ),
            Wrong(
                _above_one,
                "Some of these are above 1. A probability is not.",
            ),
            Wrong(
                _largest_first,
                "The largest p-value is multiplied by the number of tests. It is the smallest one "
                "that has all the others beside it.",
            ),
        ],
        mutation="The list that came in was changed; sort a copy.",
    ),
    Exercise(
        name="comparison.matched_d_ff",
        cases=_shapes,
        reference=matched_d_ff,
        wrong=[
            Wrong(
                _keys_only,
                "Only the keys' weights are given back. The values share heads as well and lose "
                "as many.",
            ),
            Wrong(
                _one_matrix,
                "A channel of d_ff is counted as d_model weights. It has a row in one matrix and "
                "a column in the other.",
            ),
            Wrong(
                _narrower,
                "The feed-forward part is made smaller. Attention has lost weights, so it has to "
                "grow.",
            ),
            Wrong(
                _kept_part,
                "This gives the weights of the heads that are left. What has to be made up for "
                "are those that are gone.",
            ),
        ],
    ),
]
