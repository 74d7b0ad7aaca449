"""Chapter 05, positions: what the records of the seven schemes say, seed by seed.

On text a loss is in bits per byte; a character of this corpus is one byte. Each question is a
family of its own, and p-values are adjusted inside of it.
"""

import math
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

from llmtutor.evaluate.compare import Comparison, compare_family, compare_pairs
from llmtutor.experiments.curve import spread_windows
from llmtutor.experiments.positions import (
    ASKED,
    LONG,
    PIECE,
    PUZZLE_MARKS,
    SCHEMES,
    WINDOWS,
    puzzles,
)
from llmtutor.experiments.study import Record
from llmtutor.experiments.training import SEQ_LEN, tokens
from llmtutor.model.language_modelling import NGram

TEXT, PUZZLE = "positions", "places"
COUNTS = {"bigram": 2, "trigram": 3, "4-gram": 4}
"""Models that count, by their order: what a model of text has to beat."""
STRETCHES = {"1–64": (0, 64), "65–128": (64, 128), "129–256": (128, 256)}
"""Of a window of LONG characters, by place."""
NEAR, FAR = (SEQ_LEN // 2, SEQ_LEN), (3 * LONG // 4, LONG)
"""The second half of the trained length, and the last quarter of a long window."""
TASKS = ("copy", "reverse")

BySeed = dict[int, float]


def by_seed(record: Record, scheme: str, key: str) -> dict[int, Any]:
    """One number or list of each run of a scheme."""
    return {
        run["settings"]["seed"]: run["result"][key]
        for run in record.runs
        if run["settings"]["scheme"] == scheme
    }


def bits(record: Record) -> dict[str, BySeed]:
    """Bits per byte in windows of the trained length, by scheme and seed."""
    found = {scheme: by_seed(record, scheme, "valid_loss") for scheme in SCHEMES}
    return {
        scheme: {seed: loss / math.log(2) for seed, loss in losses.items()}
        for scheme, losses in found.items()
    }


def against(record: Record, baseline: str) -> dict[str, Comparison]:
    """Every other scheme minus ``baseline``, at the trained length."""
    losses = bits(record)
    return compare_family({s: x for s, x in losses.items() if s != baseline}, losses[baseline])


def stretch(record: Record, scheme: str, places: tuple[int, int]) -> BySeed:
    """Mean bits per byte between two places of a long window, by seed."""
    first, last = (place // PIECE for place in places)
    return {
        seed: float(np.mean(long[first:last])) / math.log(2)
        for seed, long in by_seed(record, scheme, "long").items()
    }


def farther(record: Record) -> dict[str, Comparison]:
    """FAR minus NEAR for each scheme: "better" if what lies beyond the trained length helps."""
    far = {scheme: stretch(record, scheme, FAR) for scheme in SCHEMES}
    near = {scheme: stretch(record, scheme, NEAR) for scheme in SCHEMES}
    return compare_pairs({scheme: (far[scheme], near[scheme]) for scheme in SCHEMES})


def by_place(record: Record) -> dict[str, list[float]]:
    """Mean bits per byte of each PIECE of a long window, over seeds."""
    found = {}
    for scheme in SCHEMES:
        pieces = np.array(list(by_seed(record, scheme, "long").values()), float)
        found[scheme] = (pieces.mean(0) / math.log(2)).tolist()
    return found


@cache
def counted(seq_len: int = SEQ_LEN) -> Mapping[str, float]:
    """Bits per byte of models that count, on the windows that the schemes are measured on.

    Like theirs, its context begins with the window.
    """
    train, valid, vocab_size = tokens()
    windows = [
        [*row.tolist(), int(target[-1])]
        for inputs, targets in spread_windows(valid, WINDOWS, seq_len)
        for row, target in zip(inputs, targets, strict=True)
    ]
    found = {}
    model = NGram(max(COUNTS.values()), vocab_size).fit(train)
    for name, order in COUNTS.items():
        model.order = order  # the counts of shorter n-grams are among its own
        losses = [model.loss(np.array(window)) for window in windows]
        found[name] = float(np.mean(losses)) / math.log(2)
    return found


def shares(record: Record, scheme: str, task: str) -> BySeed:
    """The share of right letters at the end, by seed."""
    return by_seed(record, scheme, task)


def by_step(record: Record) -> dict[str, list[float]]:
    """Mean held-out loss of the puzzle at each of PUZZLE_MARKS, in nats per letter."""
    found = {}
    for scheme in SCHEMES:
        marks = by_seed(record, scheme, "marks").values()
        losses = np.array([[of_run[str(step)] for step in PUZZLE_MARKS] for of_run in marks])
        found[scheme] = losses.mean(0).tolist()
    return found


@cache
def crossing_off(texts: int = 2000) -> tuple[float, float]:
    """The puzzle without any order: the share of right letters, and the loss in nats per letter.

    Who has read the letters, and crosses off those already said, guesses among what is left: the
    most frequent letter, with the probability that its count gives it.
    """
    _, answers = puzzles(texts, torch.Generator().manual_seed(0))
    right, loss = [], []
    for answer in answers.tolist():
        for said in range(ASKED):
            left = np.array(list(Counter(answer[said:]).values())) / (ASKED - said)
            right.append(left.max())
            loss.append(-float(left @ np.log(left)))
    return float(np.mean(right)), float(np.mean(loss))
