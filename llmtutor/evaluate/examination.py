"""Chapter 22, evaluation: a model on a benchmark, from its questions to a report."""

from collections.abc import Callable, Iterable, Sequence

from llmtutor.checks import check_at_least
from llmtutor.evaluate.calibration import reliability
from llmtutor.evaluate.contamination import find_overlap
from llmtutor.evaluate.items import Item, fingerprint
from llmtutor.evaluate.metrics import (
    ALL_ANSWERS,
    METRICS,
    Rolled,
    answer_perplexity,
    confidence,
    sizes,
    tied,
)
from llmtutor.evaluate.report import Accuracy, RollingReport, TaskReport
from llmtutor.evaluate.scoring import Score, Subject, TooLong, rolling, score

Advance = Callable[[int], object]


def examine(
    subject: Subject,
    items: Sequence[Item],
    *,
    name: str = "items",
    metrics: Sequence[str] = ALL_ANSWERS,
    guessed: bool = True,
    too_long: TooLong = "refuse",
    batch_size: int = 32,
    corpus: Iterable[str] | None = None,
    advance: Advance | None = None,
) -> TaskReport:
    """The marks of a model on questions; with the documents of a ``corpus``, which it has too.

    Raises:
        ValueError: no questions; as ``scoring.score``, with the name of the benchmark.
    """
    if not items:
        raise ValueError(f"{name}: expected at least one question, got none")
    found = score_items(
        subject, items, name=name, too_long=too_long, batch_size=batch_size, advance=advance
    )
    chances = tuple(item.chance for item in items) if guessed else None
    several = [i for i, item in enumerate(items) if len(item.answers) > 1]
    acc = METRICS["acc"]
    bins = (
        reliability(
            [confidence(found[i]) for i in several], [acc(items[i], found[i]) for i in several]
        )
        if several
        else []
    )
    overlap = None
    if corpus is not None:
        overlap = find_overlap([item.solved for item in items], corpus)
    return TaskReport(
        task=name,
        items=fingerprint(items),
        metrics={
            metric: Accuracy(
                tuple(METRICS[metric](i, s) for i, s in zip(items, found, strict=True)), chances
            )
            for metric in metrics
        },
        groups=tuple(item.group for item in items),
        n_cut=sum(any(one.n_cut for one in scores) for scores in found),
        n_tied=sum(tied(item, scores) for item, scores in zip(items, found, strict=True)),
        bins=tuple(bins),
        perplexity=None if several else answer_perplexity(items, found),
        overlap=overlap,
    )


def score_items(
    subject: Subject,
    items: Sequence[Item],
    *,
    name: str = "items",
    too_long: TooLong = "refuse",
    batch_size: int = 32,
    advance: Advance | None = None,
) -> list[list[Score]]:
    """The scores of each item's answers, in their order.

    Raises:
        ValueError: as ``scoring.score``.
    """
    requests = [request for item in items for request in item.requests]
    try:
        found = iter(
            score(subject, requests, too_long=too_long, batch_size=batch_size, advance=advance)
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return [[next(found) for _ in item.answers] for item in items]


def examine_texts(
    subject: Subject,
    texts: Sequence[str],
    *,
    name: str = "texts",
    context: int | None = None,
    stride: int | None = None,
    batch_size: int = 32,
    advance: Advance | None = None,
) -> RollingReport:
    """Whole texts, each measured for itself, as ``scoring.rolling``.

    Raises:
        ValueError: no texts; as ``scoring.rolling``, with the place of the text.
    """
    check_at_least(1, batch_size=batch_size)
    if not texts:
        raise ValueError(f"{name}: expected at least one text, got none")
    rolled = []
    for i, text in enumerate(texts):
        try:
            loss = rolling(subject, text, context=context, stride=stride, batch_size=batch_size)
        except ValueError as error:
            raise ValueError(f"{name}, text {i}: {error}") from None
        rolled.append(Rolled(loss.total_nats, loss.n_tokens, *sizes(text)))
        if advance is not None:
            advance(1)
    return RollingReport(name, tuple(rolled))
