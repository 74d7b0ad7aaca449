"""Chapter 22, evaluation: a benchmark of our own: how does the line go on?

Lines of a text are cut in the middle; the true second half stands beside those of other lines. What
a model has to know for it is which words go together in texts like the ones it was trained on.
"""

import random
from collections.abc import Iterable

from llmtutor.evaluate.items import Item, choice

LEAST_WORDS = 7
"""Of a line that is cut."""


def cut_lines(work: str) -> list[tuple[str, str]]:
    """(line before and first half, second half) of the longer lines of a text."""
    found, before = [], ""
    for line in work.split("\n"):
        words = line.split()
        if len(words) >= LEAST_WORDS and before.strip() and words[0][0].isalpha():
            half = len(words) // 2
            context = before.strip() + "\n" + " ".join(words[:half])
            found.append((context, " ".join(words[half:])))
        before = line
    return found


def line_questions(works: Iterable[str], n: int, seed: int = 0) -> list[Item]:
    r"""``n`` questions with four answers each, from lines of all the works.

    A wrong answer is never the right one again, nor another line's that ends alike.

    >>> work = "\n".join(f"a b c {i} e f g {i}" for i in range(9))
    >>> (item,) = line_questions([work], 1)
    >>> len(item.answers), item.answers[item.gold].startswith("e f g")
    (4, True)

    Raises:
        ValueError: fewer lines than questions, fewer than four different endings.
    """
    rng = random.Random(seed)
    parts = [part for work in works for part in cut_lines(work)]
    if len(parts) < max(n, 4):
        raise ValueError(f"expected at least {max(n, 4)} lines to cut, got {len(parts)}")
    if (n_endings := len({end for _, end in parts})) < 4:
        raise ValueError(f"expected lines with at least 4 different ends, got {n_endings}")
    questions = []
    for context, end in rng.sample(parts, n):
        answers = [other for _, other in rng.sample(parts, 3)]
        while end in answers:
            answers = [other for _, other in rng.sample(parts, 3)]
        gold = rng.randrange(4)
        answers.insert(gold, end)
        questions.append(choice(context, answers, gold))
    return questions
