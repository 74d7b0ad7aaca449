"""Chapter 22, evaluation: how likely a model finds a continuation, given what stands before it.

This is all that a benchmark asks of a model. Which tokens are the continuation's is a rule of its
own, and here it is lm-evaluation-harness's, so that numbers are the same as everybody's.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from llmtutor.checks import check_at_least
from llmtutor.evaluate.perplexity import LossReport, mode
from llmtutor.evaluate.sliding import sliding_loss

PAD = 0  # any id: nobody looks at what stands behind the end
TooLong = Literal["refuse", "cut"]
"""What to do with an item that is longer than the model reads: say so, or drop its beginning."""
Row = tuple[Sequence[int], Sequence[int]]
"""Ids that are given, at least one, and ids that are scored."""


@dataclass(frozen=True)
class Subject:
    """A model that is examined, and how it takes in text."""

    model: nn.Module
    """From ids (batch, seq) to logits (batch, seq, vocab)."""
    encode: Callable[[str], Sequence[int]]
    """The ids of a text alone."""
    start: int
    """The id that stands before a text: of its beginning, or of the end of the one before."""
    begins: bool = False
    """Whether it also stands before a context, because the model has never read without it."""

    @property
    def longest(self) -> float:
        """The most ids that the model reads, infinity if it does not say."""
        longest = getattr(getattr(self.model, "config", None), "max_seq_len", None)
        return math.inf if longest is None else longest


class Score(NamedTuple):
    """What a model says of a continuation."""

    log_likelihood: float
    """Sum of log p over its tokens, in nats."""
    greedy: bool
    """Whether each of its tokens is the most likely one."""
    n_tokens: int
    """Tokens that were scored."""
    n_cut: int
    """Tokens of the context that the model had no room for."""


def in_tokens(subject: Subject, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The ids that are given and the ids that are scored.

    Spaces at the end of the context go over to the continuation, since tokens begin with a space.
    Both are encoded as one text and cut where the context alone would end, so that a word is cut
    into tokens as in running text. Without a context the model is given its start.

    >>> in_tokens(Subject(nn.Identity(), lambda text: list(text.encode()), start=0), "a ", "b")
    ([97], [32, 98])

    Raises:
        ValueError: nothing is left to score.
    """
    start = [subject.start]
    if context:
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation
        before = start if subject.begins or not stripped else []
        given = [*before, *(subject.encode(stripped) if stripped else [])]
        scored = [*before, *subject.encode(stripped + continuation)][len(given) :]
    else:
        given, scored = start, list(subject.encode(continuation))
        if scored[:1] == start:  # the text brings it along
            given, scored = scored[:1], scored[1:]
    if not scored:
        raise ValueError(
            f"nothing to score: {continuation!r} adds no token to the context {context[-40:]!r}"
        )
    return given, scored


def score(
    subject: Subject,
    requests: Sequence[tuple[str, str]],
    *,
    too_long: TooLong = "refuse",
    batch_size: int = 32,
    advance: Callable[[int], object] | None = None,
) -> list[Score]:
    """The score of each (context, continuation); ``advance`` hears how many are done.

    Raises:
        ValueError: a request that is longer than the model reads, unless its context is to be
            ``"cut"``, by its place, counted from 0; one whose continuation alone is;
            log-likelihoods that are not numbers.
    """
    cut = [in_tokens(subject, *request) for request in requests]
    rows = [fit(row, subject.longest, too_long, where=f"item {i}") for i, row in enumerate(cut)]
    totals, greedy = sums(subject.model, rows, batch_size=batch_size, advance=advance)
    return [
        Score(total, best, len(row[1]), len(before[0]) - len(row[0]))
        for total, best, row, before in zip(
            totals.tolist(), greedy.tolist(), rows, cut, strict=True
        )
    ]


def fit(row: Row, longest: float, too_long: TooLong, *, where: str) -> Row:
    """The row as the model can read it: its last token is predicted, so it need not be read.

    Raises:
        ValueError: it is too long and must not be cut, or there is nothing left to condition on.
    """
    given, scored = row
    excess = len(given) + len(scored) - 1 - longest
    if excess <= 0:
        return row
    if len(scored) > longest:
        raise ValueError(
            f"{where}: its answer has {len(scored)} tokens, the model reads {longest:.0f}: this "
            "model cannot be asked that"
        )
    if too_long == "refuse":
        raise ValueError(
            f"{where}: context and answer have {len(given) + len(scored)} tokens, the model reads "
            f"{longest:.0f}; drop the beginning of such contexts (too_long 'cut', as "
            "lm-evaluation-harness does), or leave the task out"
        )
    return given[int(excess) :], scored


def sums(
    model: nn.Module,
    rows: Sequence[Row],
    *,
    batch_size: int = 32,
    advance: Callable[[int], object] | None = None,
) -> tuple[Float[Tensor, " rows"], Bool[Tensor, " rows"]]:
    """Sum of log p over the scored ids of each row, and whether each of them is the likeliest.

    Rows of like length share a batch. What fills a row up stands behind its end, where a causal
    model cannot have seen it. Sums are in float64.

    Raises:
        ValueError: a row with nothing given or nothing scored, a sum that is not a number.
    """
    check_at_least(1, batch_size=batch_size)
    for given, scored in rows:
        if not len(given) or not len(scored):
            got = f"{len(given)} and {len(scored)}"
            raise ValueError(f"expected at least one id given and one to score, got {got}")
    totals = torch.zeros(len(rows), dtype=torch.float64)
    greedy = torch.zeros(len(rows), dtype=torch.bool)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]) - len(rows[i][1]))
    with torch.no_grad(), mode(model, training=False):
        for first in range(0, len(order), batch_size):
            places = order[first : first + batch_size]
            totals[places], greedy[places] = _sums_of_batch(model, [rows[i] for i in places])
            if advance is not None:
                advance(len(places))
    if totals.isnan().any():
        raise ValueError("some log-likelihoods are not numbers: the model's logits are not finite")
    return totals, greedy


def _sums_of_batch(model: nn.Module, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """The same for rows that go through the model together."""
    ids, real = _batch(rows)
    device = next((p.device for p in model.parameters()), ids.device)
    logits = model(ids[:, :-1].to(device)).cpu()[real]  # of what is scored alone
    targets = ids[:, 1:][real]
    logs = logits.double().log_softmax(-1)
    chosen = logs.gather(1, targets[:, None])[:, 0]
    missed = (logs.argmax(1) != targets).double()
    of_row = real.nonzero()[:, 0]
    zeros = torch.zeros(len(rows), dtype=torch.float64)
    return zeros.index_add(0, of_row, chosen), zeros.index_add(0, of_row, missed) == 0


def _batch(rows: Sequence[Row]) -> tuple[Int64[Tensor, "rows seq"], Bool[Tensor, "rows next"]]:
    """Ids in a rectangle, and which of all but the first are scored."""
    width = max(len(given) + len(scored) for given, scored in rows)
    ids = torch.full((len(rows), width), PAD)
    real = torch.zeros(len(rows), width - 1, dtype=torch.bool)
    for i, (given, scored) in enumerate(rows):
        end = len(given) + len(scored)
        ids[i, :end] = torch.tensor([*given, *scored])
        real[i, len(given) - 1 : end - 1] = True
    return ids, real


def rolling(
    subject: Subject,
    text: str,
    *,
    context: int | None = None,
    stride: int | None = None,
    batch_size: int = 32,
) -> LossReport:
    """The loss on every token of a text, however long, behind the subject's start.

    As lm-evaluation-harness does it, windows of ``context`` inputs (default: all that the model
    reads) follow each other without overlap, and only the last one is moved back until it is full.
    A ``stride`` below the context gives each token a longer past, and costs as many times more.

    Raises:
        ValueError: an empty text, a context beyond what the model reads, or as ``sliding_loss``.
    """
    device = next((p.device for p in subject.model.parameters()), torch.device("cpu"))
    ids = torch.tensor([subject.start, *subject.encode(text)], device=device)
    if len(ids) < 2:
        raise ValueError("expected a text of at least one token, got an empty one")
    if context is None:
        context = int(min(subject.longest, len(ids) - 1))
    if context > subject.longest:
        raise ValueError(
            f"the model reads {subject.longest:.0f} tokens, got a context of {context}"
        )
    stride = context if stride is None else stride
    return sliding_loss(subject.model, ids, context, stride=stride, batch_size=batch_size)


def log_likelihoods(scores: Iterable[Score]) -> list[float]:
    """The log-likelihoods alone."""
    return [one.log_likelihood for one in scores]
