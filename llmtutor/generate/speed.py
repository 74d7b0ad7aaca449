"""Chapter 21, generation: how long a reader waits, and how many tokens a machine writes.

The two pull apart: a larger batch writes more tokens a second in all, and lets each of its readers
wait longer for the first.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from llmtutor.generate.generate import generate
from llmtutor.generate.reader import Model, Prompts
from llmtutor.generate.sampling import Sampler


@dataclass(frozen=True)
class Speed:
    """Of one call of ``generate``."""

    first: float
    """Seconds until every row had its first token: the prompts are read."""
    per_second: float
    """Tokens of all rows for each second, from the first call to the last token."""
    per_row: float
    """Tokens a second that one reader sees after the first."""


def measure(
    model: Model,
    prompts: Prompts,
    *,
    max_new_tokens: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """How fast ``model`` goes on from ``prompts``, greedily; every row writes all its tokens.

    The first call of a process is slower than those that follow: measure twice.

    Raises:
        ValueError: fewer than two new tokens, and what ``generate`` refuses.
    """
    if max_new_tokens < 2:
        raise ValueError(f"max_new_tokens must be at least 2 to be timed, got {max_new_tokens}")
    stamps: list[float] = []
    start = clock()
    rows = generate(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        sampler=Sampler(greedy=True),
        on_token=lambda _, __: stamps.append(clock()),
    )
    first, last = stamps[len(rows) - 1], stamps[-1]
    return Speed(
        first=first - start,
        per_second=len(stamps) / (last - start),
        per_row=(max_new_tokens - 1) / (last - first),
    )
