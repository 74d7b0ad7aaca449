"""Chapter 13, distributed: its exercises and the mistakes learners make there."""

from collections.abc import Iterator, Sequence

import numpy as np

from llmtutor.exercises.core import Exercise, Wrong

# Exercise 1: which part travels in a hop of the ring.


def _hop_cases() -> Iterator[tuple[int, int, int]]:
    yield 1, 0, 4
    yield 0, 1, 4
    yield 2, 2, 4
    yield 0, 0, 2
    yield 1, 3, 5


def hop(rank: int, step: int, world_size: int) -> tuple[int, int]:
    """The parts that ``rank`` (sends to the right, receives from the left) in a reduce-scatter.

    >>> hop(1, 0, 4), hop(0, 1, 4)
    ((1, 0), (3, 2))
    """
    return (rank - step) % world_size, (rank - step - 1) % world_size


def _hop_backwards(rank: int, step: int, world_size: int) -> tuple[int, int]:
    return (rank + step) % world_size, (rank + step + 1) % world_size


def _hop_swapped(rank: int, step: int, world_size: int) -> tuple[int, int]:
    sends, receives = hop(rank, step, world_size)
    return receives, sends


def _hop_always_own(rank: int, step: int, world_size: int) -> tuple[int, int]:
    return rank, (rank - 1) % world_size


def _hop_negative(rank: int, step: int, world_size: int) -> tuple[int, int]:
    return rank - step, rank - step - 1


# Exercise 2: gradients of unequal parts.


def _part_cases() -> Iterator[tuple[np.ndarray, list[int]]]:
    yield np.array([[2.0], [5.0]]), [2, 1]
    yield np.array([[1.0, 0.0], [0.0, 1.0]]), [30, 10]
    yield np.array([[4.0, -1.0], [2.0, 3.0], [0.0, 1.0]]), [5, 0, 15]
    yield np.array([[3.0, 6.0], [5.0, 2.0]]), [8, 8]


def combine(gradients: np.ndarray, n_tokens: Sequence[int]) -> np.ndarray:
    """The gradient of the mean over all tokens, from those of the means over parts (parts, n).

    >>> combine(np.array([[2.0], [5.0]]), [2, 1]).tolist()
    [3.0]
    """
    weights = np.asarray(n_tokens) / sum(n_tokens)
    return weights @ gradients


def _mean_of_means(gradients: np.ndarray, n_tokens: Sequence[int]) -> np.ndarray:
    return gradients.mean(0)


def _sum(gradients: np.ndarray, n_tokens: Sequence[int]) -> np.ndarray:
    return gradients.sum(0)


def _weighted_sum(gradients: np.ndarray, n_tokens: Sequence[int]) -> np.ndarray:
    return np.asarray(n_tokens) @ gradients


def _weighted_and_averaged(gradients: np.ndarray, n_tokens: Sequence[int]) -> np.ndarray:
    return combine(gradients, n_tokens) / len(gradients)


# Exercise 3: how long an all-reduce takes.


def _time_cases() -> Iterator[tuple[float, int, float, float]]:
    yield 8e9, 8, 1e9, 0.0
    yield 8e9, 8, 1e9, 0.5
    yield 14e9, 1024, 50e9, 5e-6
    yield 1e6, 2, 1e9, 1e-3


def ring_seconds(n_bytes: float, n_gpus: int, bandwidth: float, latency: float) -> float:
    """Seconds of a ring all-reduce; ``bandwidth`` in bytes per second, ``latency`` per message.

    >>> ring_seconds(8e9, 8, 1e9, 0.5)
    21.0
    """
    messages = 2 * (n_gpus - 1)
    return messages * (latency + n_bytes / n_gpus / bandwidth)


def _half_way(n_bytes: float, n_gpus: int, bandwidth: float, latency: float) -> float:
    return ring_seconds(n_bytes, n_gpus, bandwidth, latency) / 2


def _whole_vector(n_bytes: float, n_gpus: int, bandwidth: float, latency: float) -> float:
    return 2 * (n_gpus - 1) * (latency + n_bytes / bandwidth)


def _one_latency(n_bytes: float, n_gpus: int, bandwidth: float, latency: float) -> float:
    return latency + 2 * (n_gpus - 1) / n_gpus * n_bytes / bandwidth


def _n_hops(n_bytes: float, n_gpus: int, bandwidth: float, latency: float) -> float:
    return 2 * n_gpus * (latency + n_bytes / n_gpus / bandwidth)


EXERCISES = [
    Exercise(
        name="distributed.hop",
        cases=_hop_cases,
        reference=hop,
        wrong=[
            Wrong(
                _hop_backwards,
                "Your parts run towards the left. Data travels to the right neighbour, so what "
                "you add now you received from the left: the numbers fall, one a step.",
            ),
            Wrong(
                _hop_swapped,
                "Sent and received are exchanged. A rank begins by sending the part with its own "
                "number, and receives the one below.",
            ),
            Wrong(
                _hop_always_own,
                "You send the same part in every step. From the second step on a rank must pass "
                "on the part that it has just added to; its own has left.",
            ),
            Wrong(
                _hop_negative,
                "The numbers fall below zero: a ring has no end, so take them modulo the number "
                "of ranks.",
            ),
        ],
    ),
    Exercise(
        name="distributed.combine",
        cases=_part_cases,
        reference=combine,
        wrong=[
            Wrong(
                _mean_of_means,
                "This is the mean of the means, which gives each part the same say. A token in a "
                "short part then counts more than one in a long part.",
            ),
            Wrong(
                _sum,
                "This is the sum of the means. It grows with the number of parts, as if the "
                "learning rate did.",
            ),
            Wrong(
                _weighted_sum,
                "You have weighted by the tokens and not divided by their total: this is the "
                "gradient of the summed loss.",
            ),
            Wrong(
                _weighted_and_averaged,
                "The weights add up to one already; then you divided by the number of parts as "
                "well. This happens when DDP averages after the loss was divided by all tokens.",
            ),
        ],
    ),
    Exercise(
        name="distributed.ring_seconds",
        cases=_time_cases,
        reference=ring_seconds,
        wrong=[
            Wrong(
                _half_way,
                "This is half of an all-reduce. After the reduce-scatter each rank has one "
                "finished part; the all-gather that follows takes as long again.",
            ),
            Wrong(
                _whole_vector,
                "You send the whole vector in each message. A message holds one part, one "
                "n_gpus-th of it; that is the point of the ring.",
            ),
            Wrong(
                _one_latency,
                "The bytes are right, but the latency is paid once a message, and the messages "
                "of a ring wait for one another.",
            ),
            Wrong(
                _n_hops,
                "One hop too many in each half: a part that has visited n_gpus − 1 neighbours "
                "has been everywhere.",
            ),
        ],
    ),
]
