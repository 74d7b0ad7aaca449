"""Chapter 20, comparison: which of two sentences does a model find more likely?

A minimal pair is a sentence and the same one with a fault in it: "Todd can't yawn." and "Todd can't
walk through." A model that knows the rule gives the first the higher probability; no training for
the task, no prompt, and a guess is right in half of the pairs. BLiMP (Warstadt et al. 2020) has 67
paradigms of a thousand pairs each.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from llmtutor.evaluate.certainty import Share
from llmtutor.evaluate.scoring import fit, sums

FIELDS = ("sentence_good", "sentence_bad")
PARADIGM = "UID"


@dataclass(frozen=True)
class Pair:
    """A sentence, and the same with a fault."""

    good: str
    bad: str
    paradigm: str = ""
    """What the fault is about."""


@dataclass(frozen=True)
class PairScore(Share):
    """In how many pairs the good sentence was found more likely; equally likely is not right."""


def read_pairs(path: Path) -> list[Pair]:
    """Pairs as BLiMP has them: a JSON object a line, with ``sentence_good`` and ``sentence_bad``.

    ``UID`` names the paradigm; it, and everything else, may be left out.

    Raises:
        ValueError: naming the file and the line that is no pair; no line at all.
        OSError: the file cannot be read.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [parse_pair(line, f"{path}, line {i}") for i, line in enumerate(lines, 1) if line]
    if not pairs:
        raise ValueError(f"{path}: expected a JSON object a line with {' and '.join(FIELDS)}")
    return pairs


def parse_pair(line: str, where: str) -> Pair:
    """One line of such a file; ``where`` names its place in messages (``ValueError``)."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: expected a JSON object, but {error}") from None
    known = values if isinstance(values, dict) else {}
    good, bad = (known.get(name) for name in FIELDS)
    if not (isinstance(good, str) and isinstance(bad, str) and good and bad):
        raise ValueError(
            f"{where}: expected an object with the texts {' and '.join(FIELDS)}, got {line:.80}"
        )
    return Pair(good, bad, str(known.get(PARADIGM, "")))


def score_pairs(
    model: nn.Module,
    encode: Callable[[str], Sequence[int]],
    pairs: Iterable[Pair],
    *,
    start: Sequence[int],
    batch_size: int = 64,
) -> dict[str, PairScore]:
    """How often the good sentence is more likely as a whole, by paradigm.

    ``encode`` is a tokenizer's. A sentence stands behind the tokens of ``start``, which the model
    has seen before the first sentence of a text; all of its own tokens count, and no length is
    corrected for, as in BLiMP. ``total_score`` adds the paradigms up.

    Raises:
        ValueError: no pairs, an empty ``start``, a sentence that is longer than the model reads.
    """
    chosen = list(pairs)
    if not chosen or not len(start):
        raise ValueError(
            f"expected pairs and a start of at least one token, got {len(chosen)} pairs and a "
            f"start of {len(start)} tokens"
        )
    longest = getattr(getattr(model, "config", None), "max_seq_len", math.inf)
    sentences = [text for pair in chosen for text in (pair.good, pair.bad)]
    rows = [fit((start, encode(text)), longest, "refuse", where=repr(text)) for text in sentences]
    totals, _ = sums(model, rows, batch_size=batch_size)
    right: dict[str, list[bool]] = defaultdict(list)
    for pair, good, bad in zip(chosen, totals[::2], totals[1::2], strict=True):
        right[pair.paradigm].append(bool(good > bad))
    return {name: PairScore(sum(found), len(found)) for name, found in right.items()}


def total_score(scores: Iterable[PairScore]) -> PairScore:
    """All pairs together."""
    found = list(scores)
    return PairScore(sum(s.right for s in found), sum(s.n for s in found))
