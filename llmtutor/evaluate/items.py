"""Chapter 22, evaluation: a question of a benchmark, whatever benchmark it is from.

All of them come down to one thing: texts of which one should be more likely than the others. What
differs is where the answers stand: behind one context (HellaSwag, ARC), in the context, so that the
same words behind it tell them apart (WinoGrande), or alone (BLiMP).
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random

GAP = " "
"""Stands between a context and an answer, and belongs to what is scored."""

BETWEEN = "\n\n"
"""Stands between examples."""


@dataclass(frozen=True)
class Item:
    """A question: texts in two parts, of which the second is scored; one of them is right."""

    contexts: tuple[str, ...]
    """What is given, for each answer."""
    answers: tuple[str, ...]
    """What is scored behind it, without the space between."""
    gold: int
    """Place of the right one."""
    group: str = ""
    """The part of the benchmark that it is of, where there are several."""

    def __post_init__(self) -> None:
        """Refuse what is no question: answers missing, or an empty one, or no right one."""
        if not self.answers or len(self.contexts) != len(self.answers) or not all(self.answers):
            raise ValueError(
                f"expected a context for each answer and no empty answer, got "
                f"{len(self.contexts)} contexts for the answers {list(self.answers)}"
            )
        if not 0 <= self.gold < len(self.answers):
            raise ValueError(
                f"expected the right answer's place from 0 to {len(self.answers) - 1}, got "
                f"{self.gold}"
            )

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Context and continuation of each answer, as they are scored."""
        return [(c, GAP + a) for c, a in zip(self.contexts, self.answers, strict=True)]

    @property
    def solved(self) -> str:
        """The text with the right answer in it."""
        context, continuation = self.requests[self.gold]
        return context + continuation if context else continuation.removeprefix(GAP)

    @property
    def chance(self) -> float:
        """Of a right answer for those who guess."""
        return 1 / len(self.answers)


def choice(context: str, answers: Sequence[str], gold: int, group: str = "") -> Item:
    """A question with several answers behind one context.

    >>> choice("Two and two are", ["four", "five"], 0).requests
    [('Two and two are', ' four'), ('Two and two are', ' five')]
    """
    return Item((context,) * len(answers), tuple(answers), gold, group)


def first_of_each(items: Iterable[Item], n: int) -> list[Item]:
    """The first ``n`` of each group, in the order that they have."""
    seen: Counter[str] = Counter()
    chosen = []
    for item in items:
        seen[item.group] += 1
        if seen[item.group] <= n:
            chosen.append(item)
    return chosen


def with_examples(items: Sequence[Item], n: int, seed: int = 0) -> list[Item]:
    """The items with ``n`` other ones before each, solved: *few-shot*.

    Examples are drawn for each item anew and are never the item itself; an empty line stands
    between them.

    Raises:
        ValueError: there are no ``n`` others, an item without a context.
    """
    if n == 0:
        return list(items)
    if not 0 < n < len(items):
        raise ValueError(f"expected 0 to {len(items) - 1} examples of {len(items)} items, got {n}")
    if not all(all(item.contexts) for item in items):
        raise ValueError("examples stand before a context, and some items have none")
    draw = Random(seed)
    shown = []
    for i, item in enumerate(items):
        others = [j + (j >= i) for j in draw.sample(range(len(items) - 1), n)]
        before = "".join(items[j].solved + BETWEEN for j in others)
        shown.append(replace(item, contexts=tuple(before + one for one in item.contexts)))
    return shown


def fingerprint(items: Sequence[Item]) -> str:
    """16 hex digits, other ones for any other items: scores on the same ones are pairs."""
    texts = "\0".join("\1".join((*i.contexts, *i.answers, str(i.gold))) for i in items)
    return hashlib.sha256(texts.encode("utf-8")).hexdigest()[:16]
