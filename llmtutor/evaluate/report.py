"""Chapter 22, evaluation: what an examination found, with how sure one can be of it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmtutor.evaluate.calibration import Bin, expected_calibration_error
from llmtutor.evaluate.certainty import Verdict, against_chance, chance_p, resampled_ratio, wilson
from llmtutor.evaluate.contamination import Contamination
from llmtutor.evaluate.metrics import Rolled, rolling_metrics

BITS = "bits_per_byte"


@dataclass(frozen=True)
class Accuracy:
    """The marks of one metric, question by question."""

    marks: tuple[bool, ...]
    chances: tuple[float, ...] | None
    """Of being right by guessing; None where nobody is."""

    @property
    def right(self) -> int:
        """Questions that are right."""
        return sum(self.marks)

    @property
    def value(self) -> float:
        """The part that is right."""
        return self.right / len(self.marks)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, Wilson's."""
        return wilson(self.right, len(self.marks))

    @property
    def chance(self) -> float | None:
        """The part that would be right by guessing."""
        return None if self.chances is None else sum(self.chances) / len(self.chances)

    @property
    def verdict(self) -> Verdict | None:
        """Against one who guesses."""
        return None if self.chances is None else against_chance(self.right, self.chances)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        known: dict[str, Any] = {
            "value": self.value,
            "right": self.right,
            "n": len(self.marks),
            "interval": list(self.interval),
        }
        if self.chances is None:
            return known
        p_value = chance_p(self.right, self.chances)
        return known | {"chance": self.chance, "p_value": p_value, "verdict": self.verdict}


@dataclass(frozen=True)
class TaskReport:
    """A model on the questions of a benchmark."""

    task: str
    items: str
    """Fingerprint of the questions."""
    metrics: dict[str, Accuracy]
    groups: tuple[str, ...]
    """The part of the benchmark that each question is of."""
    n_cut: int
    """Questions whose context was longer than the model reads, and lost its beginning."""
    n_tied: int
    """Questions with several answers that are the likeliest."""
    bins: tuple[Bin, ...] = ()
    """Reliability of the chosen answers, where there are several."""
    perplexity: float | None = None
    """Of the right answers, where each question has one alone."""
    overlap: Contamination | None = None
    """Which questions a corpus has too; None if nobody looked."""

    def by_group(self, metric: str) -> dict[str, Accuracy]:
        """The marks of each part."""
        whole = self.metrics[metric]
        places: dict[str, list[int]] = defaultdict(list)
        for i, group in enumerate(self.groups):
            places[group].append(i)
        return {group: _at(whole, some) for group, some in places.items()}

    def clean(self, metric: str) -> Accuracy | None:
        """The marks on questions that the corpus does not have; None without any, or a corpus."""
        if self.overlap is None or not self.overlap.clean:
            return None
        return _at(self.metrics[metric], self.overlap.clean)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; marks are strings of 0 and 1."""
        known: dict[str, Any] = {
            "items": self.items,
            "n": len(self.groups),
            "n_cut": self.n_cut,
            "n_tied": self.n_tied,
            "metrics": {name: one.to_dict() for name, one in self.metrics.items()},
            "marks": {
                name: "".join(str(int(m)) for m in one.marks) for name, one in self.metrics.items()
            },
        }
        first = next(iter(self.metrics))
        if any(self.groups):
            known["groups"] = {g: one.to_dict() for g, one in self.by_group(first).items()}
        if self.perplexity is not None:
            known["perplexity"] = self.perplexity
        if self.bins:
            known["calibration_error"] = expected_calibration_error(self.bins)
            known["reliability"] = [
                {"confidence": b.confidence, "right": b.right, "n": b.n} for b in self.bins
            ]
        if self.overlap is not None:
            known["in_corpus"] = {str(i): words for i, words in self.overlap.found.items()}
            known["n_too_short"] = len(self.overlap.too_short)
            if clean := self.clean(first):
                known["clean"] = clean.to_dict()
        return known


def _at(whole: Accuracy, places: Sequence[int]) -> Accuracy:
    """The marks at some places."""
    chances = None if whole.chances is None else tuple(whole.chances[i] for i in places)
    return Accuracy(tuple(whole.marks[i] for i in places), chances)


@dataclass(frozen=True)
class RollingReport:
    """A model on whole texts."""

    task: str
    rolled: tuple[Rolled, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """Word and byte perplexity, bits per byte."""
        return rolling_metrics(self.rolled)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % of the bits per byte, by resampling texts; None for one text."""
        if len(self.rolled) < 2:
            return None
        nats, n_bytes = np.array([(one.nats, one.n_bytes) for one in self.rolled]).T
        low, high = resampled_ratio(nats / np.log(2), n_bytes)
        return low, high

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        totals = np.array(self.rolled).sum(0)
        names = ("n_tokens", "n_words", "n_bytes")
        return {
            "n": len(self.rolled),
            **{name: int(total) for name, total in zip(names, totals[1:], strict=True)},
            "metrics": self.metrics,
            "interval": None if self.interval is None else list(self.interval),
        }
