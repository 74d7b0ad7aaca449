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

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor, nn

from llmtutor.checks import check_at_least
from llmtutor.evaluate.perplexity import mode

FIELDS = ("sentence_good", "sentence_bad")
PARADIGM = "UID"
PAD = 0  # any id: nobody looks at what stands behind the end


@dataclass(frozen=True)
class Pair:
    """A sentence, and the same with a fault."""

    good: str
    bad: str
    paradigm: str = ""
    """What the fault is about."""


@dataclass(frozen=True)
class PairScore:
    """In how many pairs the good sentence was found more likely; equally likely is not right."""

    right: int
    n: int

    @property
    def accuracy(self) -> float:
        """The part that is right."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, Wilson's: of the accuracy on all pairs of this kind, with this one model."""
        return wilson(self.right, self.n)


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
    sentences = [text for pair in chosen for text in (pair.good, pair.bad)]
    rows = [(*start, *encode(text)) for text in sentences]
    totals = log_likelihoods(model, rows, len(start), batch_size=batch_size)
    right: dict[str, list[bool]] = defaultdict(list)
    for pair, good, bad in zip(chosen, totals[::2], totals[1::2], strict=True):
        right[pair.paradigm].append(bool(good > bad))
    return {name: PairScore(sum(found), len(found)) for name, found in right.items()}


def total_score(scores: Iterable[PairScore]) -> PairScore:
    """All pairs together."""
    found = list(scores)
    return PairScore(sum(s.right for s in found), sum(s.n for s in found))


def log_likelihoods(
    model: nn.Module, rows: Sequence[Sequence[int]], n_given: int, *, batch_size: int = 64
) -> Float[Tensor, " rows"]:
    """Sum of log p over the tokens of each row, but for its first ``n_given``.

    Rows of like length share a batch. What fills a row up stands behind its end, where a causal
    model cannot have seen it. Sums are in float64.

    Raises:
        ValueError: ``n_given`` below 1, a row with nothing behind them, one that is too long.
    """
    check_at_least(1, n_given=n_given, batch_size=batch_size)
    longest = getattr(getattr(model, "config", None), "max_seq_len", math.inf)
    for row in rows:
        if not n_given < len(row) <= longest + 1:
            raise ValueError(
                f"expected rows of {n_given + 1} to {longest + 1} tokens, got one of {len(row)}"
            )
    device = next(model.parameters()).device
    totals = torch.zeros(len(rows), dtype=torch.float64)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    with torch.no_grad(), mode(model, training=False):
        for first in range(0, len(order), batch_size):
            places = order[first : first + batch_size]
            width = max(len(rows[i]) for i in places)
            ids = torch.full((len(places), width), PAD)
            real = torch.zeros(len(places), width - 1, dtype=torch.bool)
            for at, i in enumerate(places):
                ids[at, : len(rows[i])] = torch.tensor(rows[i])
                real[at, n_given - 1 : len(rows[i]) - 1] = True
            logs = model(ids[:, :-1].to(device)).double().log_softmax(-1).cpu()
            each = logs.gather(2, ids[:, 1:, None])[..., 0]
            totals[places] = each.where(real, 0.0).sum(1)
    return totals


def wilson(right: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Wilson's interval (1927) of a part of which ``right`` of ``n`` were seen.

    It stays within 0 and 1, and holds the truth about as often as it says for few tries too.

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]

    Raises:
        ValueError: ``n`` below 1, ``right`` outside of 0 … n, alpha outside (0, 1).
    """
    check_at_least(1, n=n)
    if not 0 <= right <= n or not 0 < alpha < 1:
        raise ValueError(
            f"expected 0 <= right <= n and an alpha between 0 and 1, got {right} of {n}, {alpha}"
        )
    z2 = float(stats.norm.isf(alpha / 2)) ** 2
    centre = (right + z2 / 2) / (n + z2)
    half = math.sqrt(z2) / (n + z2) * math.sqrt(right * (n - right) / n + z2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)
