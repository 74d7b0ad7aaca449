"""Chapter 24, forensics: arithmetic on a claim. Tokens, seconds and bytes have to fit each other.

Numbers on a page come from different places: a counter, a clock, a file. They are worth most where
two of them say the same thing in different units.
"""

import math
import re
from dataclasses import dataclass

from scipy import stats

from llmtutor.checks import check_at_least, check_number

UNFINISHED = re.compile(
    r"^(?:<{7}|={7}|>{7})(?: .*)?$|\b(?:TBD|TODO|FIXME|XXX|your-username)\b", re.MULTILINE
)
"""What an author meant to come back to: conflict markers, and words that stand for a number."""


@dataclass(frozen=True)
class Reading:
    """What a training run has read, and how fast."""

    steps: int
    batch_size: int
    seq_len: int
    seconds: float

    def __post_init__(self) -> None:
        check_at_least(1, steps=self.steps, batch_size=self.batch_size, seq_len=self.seq_len)
        check_number("seconds", self.seconds, above=0)

    @property
    def tokens(self) -> int:
        """Tokens of all batches.

        >>> Reading(10_000, 128, 256, seconds=660).tokens
        327680000
        """
        return self.steps * self.batch_size * self.seq_len

    @property
    def tokens_per_second(self) -> float:
        """By the clock that is reported."""
        return self.tokens / self.seconds


def tokens_by_bytes(other_tokens: float, other_bytes: int, n_bytes: int) -> float:
    """Tokens in a file of ``n_bytes``, if it is like another one of which both are known.

    >>> tokens_by_bytes(66e6, 100, 4_000)
    2640000000.0

    Raises:
        ValueError: bytes below 1.
    """
    check_at_least(1, other_bytes=other_bytes, n_bytes=n_bytes)
    return other_tokens * n_bytes / other_bytes


def training_flops(n_params: float, tokens: float) -> float:
    """``6 · parameters · tokens``: two a parameter forward, four backward (chapter 12).

    >>> f"{training_flops(124e6, 1e9):.2e}"
    '7.44e+17'
    """
    return 6 * n_params * tokens


def largest_spread(difference: float, n_runs: int = 1, *, alpha: float = 0.05) -> float:
    """The largest standard deviation of one run at which ``difference`` of two means of ``n_runs``
    each would be told, if the deviation were known.

    ``|difference| / (z √(2 / n))`` with z = 1.96 for alpha = 0.05.

    >>> round(largest_spread(0.77), 2)
    0.28

    Raises:
        ValueError: fewer than one run, alpha outside (0, 1).
    """
    check_at_least(1, n_runs=n_runs)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
    return abs(difference) / (float(stats.norm.isf(alpha / 2)) * math.sqrt(2 / n_runs))


def unfinished(text: str) -> list[tuple[int, str]]:
    """Lines of a text, with their numbers from 1, that hold a mark of something unfinished.

    >>> unfinished("| model | speed |\\n| ours | TBD |")
    [(2, '| ours | TBD |')]
    """
    return [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if UNFINISHED.search(line)
    ]
