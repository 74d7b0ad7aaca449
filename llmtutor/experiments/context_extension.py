"""Chapter 06, rope: what the study ``context-extension`` found, read from its record.

A model was trained in windows of SEQ_LEN characters and reads windows of LONG, by each of the
scalings: ``before`` any further training, ``after`` a little of it. Beside them stands a model that
saw long windows from its first step. All of a seed are pairs.
"""

import math
from typing import Literal

from llmtutor.evaluate.compare import Comparison, compare_family
from llmtutor.experiments.positions import LONG, PIECE, SCALINGS
from llmtutor.experiments.study import Record
from llmtutor.experiments.training import SEQ_LEN

STUDY = "context-extension"
PLAIN = "no scaling"
FROM_START = "long from the start"
When = Literal["before", "after"]
Part = Literal["short", "beyond"]
"""Windows of SEQ_LEN characters; what lies beyond SEQ_LEN in windows of LONG."""
PLACES = [piece + PIECE // 2 for piece in range(0, LONG, PIECE)]
"""The middle of each piece of a long window."""


def pieces(result: dict, name: str, when: When, window: Literal["short", "long"]) -> list[float]:
    """Losses of one run in nats, a mean for each PIECE neighbouring positions."""
    found = result[name] if name == FROM_START else result[name][when]
    return list(found[window])


def curve(record: Record, name: str, when: When) -> list[float]:
    """Mean over the seeds of the losses along a long window, in nats."""
    runs = [pieces(run["result"], name, when, "long") for run in record.runs]
    return [sum(some) / len(runs) for some in zip(*runs, strict=True)]


def losses(record: Record, name: str, when: When, part: Part) -> dict[int, float]:
    """Bits per byte by seed; a character of this corpus is one byte."""
    found = {}
    for run in record.runs:
        window: Literal["short", "long"] = "short" if part == "short" else "long"
        some = pieces(run["result"], name, when, window)
        some = some if part == "short" else some[SEQ_LEN // PIECE :]
        found[run["settings"]["seed"]] = sum(some) / len(some) / math.log(2)
    return found


def gaps(record: Record, when: When, part: Part) -> dict[str, Comparison]:
    """Each scaling against none, at the same time of training and in the same windows."""
    baseline = losses(record, PLAIN, when, part)
    names = [name for name in SCALINGS if name != PLAIN]
    return compare_family({n: losses(record, n, when, part) for n in names}, baseline)


def prices(record: Record) -> dict[str, Comparison]:
    """What short text costs after the training: each against the model before it."""
    baseline = losses(record, PLAIN, "before", "short")
    return compare_family({n: losses(record, n, "after", "short") for n in SCALINGS}, baseline)


def behind(record: Record, part: Part) -> dict[str, Comparison]:
    """Each scaling after its training against the model that saw long windows from the start."""
    baseline = losses(record, FROM_START, "after", part)
    return compare_family({n: losses(record, n, "after", part) for n in SCALINGS}, baseline)
