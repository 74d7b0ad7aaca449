"""Sphinx extension of this book: what a teacher wants to know of the chapters, read from them.

```{dependence}
```

draws the chapters in the order in which they are read, each with arcs from those that it needs.

```{exercises} ★☆☆
```

lists every exercise of that difficulty with its chapter and its minutes; without an argument, the
open ones.
"""

import json
import math
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from llmtutor.viz.diagrams.shapes import SMALL, Drawing, Shape, box, line, over, text

BOOK = Path(__file__).resolve().parents[1]
NEEDS = re.compile(r"\*\*You need\*\*(.*?)\n:::", re.S)
NUMBER = re.compile(r"\b(\d\d)(?=_|\b)")
RANGE = re.compile(r"\b(\d\d) to (\d\d)\b")
EXERCISE = re.compile(r"^### Exercise (\d+): (.+) \(difficulty ([★☆]{3}), (\d+) minutes\)$", re.M)
OPEN = re.compile(r"^### Open exercise: (.+) \((\w+), (\d+) minutes\)$", re.M)
OPEN_KIND = "open"
ROW, ARCS = 27.0, 128.0
"""Height of a chapter's row, and the width that is left for arcs."""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a chapter."""

    title: str
    difficulty: str
    """Three stars, or OPEN_KIND."""
    kind: str
    """Of an open one: prediction, experiment, derivation or project."""
    minutes: int


@dataclass(frozen=True)
class Chapter:
    """A chapter as a teacher sees it."""

    number: int
    page: str
    title: str
    needs: set[int]
    exercises: list[Exercise] = field(default_factory=list)

    @property
    def minutes(self) -> int:
        """Of all checked exercises."""
        return sum(e.minutes for e in self.exercises if e.difficulty != OPEN_KIND)


@cache
def chapters() -> tuple[Chapter, ...]:
    """All chapters in the order in which they are read."""
    contents = (BOOK.parent / "_toc.yml").read_text(encoding="utf-8")
    pages = re.findall(r"file: (book/chapters/\S+)", contents)
    return in_order(tuple(read(page) for page in pages))


def in_order(known: tuple[Chapter, ...]) -> tuple[Chapter, ...]:
    """The same chapters, each of which needs none that comes later.

    Raises:
        ValueError: one does.
    """
    before: set[int] = set()
    for chapter in known:
        if later := chapter.needs - before:
            raise ValueError(
                f'{chapter.page}: "You need" names chapter {min(later):02}, which is read later '
                "or not at all; name what comes before"
            )
        before.add(chapter.number)
    return known


def read(page: str) -> Chapter:
    """A chapter from its notebook."""
    notebook = json.loads((BOOK.parent / f"{page}.ipynb").read_text(encoding="utf-8"))
    words = "\n\n".join(
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"
    )
    number = int(re.match(r"\d\d", page.rpartition("/")[2]).group())  # type: ignore[union-attr]
    checked = [Exercise(t, stars, "", int(m)) for _, t, stars, m in EXERCISE.findall(words)]
    free = [Exercise(t, OPEN_KIND, kind, int(m)) for t, kind, m in OPEN.findall(words)]
    title = words.removeprefix("# ").split("\n", 1)[0]
    return Chapter(number, page, title, needed(words, number), checked + free)


def needed(words: str, number: int) -> set[int]:
    """Numbers of the chapters that stand under "You need".

    >>> needed("**You need** the parts of chapters 05 to 07, and chapter 03.\\n:::", 9)
    {3, 5, 6, 7}
    """
    found = NEEDS.search(words)
    said = found[1] if found else ""
    numbers = {int(n) for n in NUMBER.findall(said)}
    for first, last in RANGE.findall(said):
        numbers |= set(range(int(first), int(last) + 1))
    return numbers - {number}


def essential(needs: dict[int, set[int]]) -> dict[int, set[int]]:
    """Without those that another needed chapter needs in turn.

    >>> essential({1: set(), 2: {1}, 3: {1, 2}})
    {1: set(), 2: {1}, 3: {2}}
    """

    def behind(number: int) -> set[int]:
        own = needs.get(number, set())
        return own.union(*(behind(other) for other in own))

    return {
        number: {a for a in own if not any(a in behind(b) for b in own - {a})}
        for number, own in needs.items()
    }


def dependence() -> Drawing:
    """The chapters from top to bottom, with arcs on their left."""
    known = chapters()
    rows = {chapter.number: i for i, chapter in enumerate(known)}
    needs = essential({chapter.number: chapter.needs for chapter in known})
    placed: list[tuple[Shape, float, float]] = []
    said = []
    longest = max(rows[n] - rows[a] for n, own in needs.items() for a in own)
    for chapter in known:
        y = ROW * rows[chapter.number]
        words = f"{chapter.number} {chapter.title.partition(':')[0]}"
        shape = box(text(words, SMALL), "token", height=21, pad=5)
        placed.append((shape, ARCS, y))
        for other in sorted(needs[chapter.number]):
            span = rows[chapter.number] - rows[other]
            depth = 12 + (ARCS - 16) * (span / longest) ** 0.6
            placed.append((_arc(span * ROW - 8, depth), ARCS, ROW * rows[other] + 14))
        first = ", ".join(map(str, sorted(needs[chapter.number])))
        said.append(f"{chapter.number} {chapter.title}: {'needs ' + first if first else 'a start'}")
    width = max(x + shape.width for shape, x, _ in placed)
    whole = over(width, ROW * len(known), *placed)
    return Drawing(whole, "Which chapter needs which", "; ".join(said) + ".")


def _arc(height: float, depth: float) -> Shape:
    """From (0, 0) down to (0, height), bent to the left, with a head at its end."""
    turns = [math.pi * i / 24 for i in range(25)]
    points = [(-depth * math.sin(a), height * (1 - math.cos(a)) / 2) for a in turns]
    return Shape(0, height, line(points, head=True, width=1.2))


class Dependence(SphinxDirective):
    """Renders the drawing."""

    def run(self) -> list[nodes.Node]:
        """One SVG."""
        for chapter in chapters():
            self.env.note_dependency(str(BOOK.parent / f"{chapter.page}.ipynb"))
        return [nodes.raw("", f"<figure>{dependence().svg()}</figure>", format="html")]


class Exercises(SphinxDirective):
    """Renders the exercises of one difficulty."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A list with a point for each chapter."""
        wanted = self.arguments[0] if self.arguments else OPEN_KIND
        listed = nodes.bullet_list()
        for chapter in chapters():
            found = [e for e in chapter.exercises if e.difficulty == wanted]
            if not found:
                continue
            titles = "; ".join(
                f"{e.title} ({e.kind + ', ' if e.kind else ''}{e.minutes} min)" for e in found
            )
            words = f"{chapter.number:02d} {chapter.title.partition(':')[0]}: {titles}"
            listed += nodes.list_item("", nodes.paragraph(words, words))
        if not len(listed):
            raise self.error(f"no exercise of the difficulty {wanted!r}")
        return [listed]


def setup(app: Sphinx) -> dict[str, object]:
    """Called by Sphinx."""
    app.add_directive("dependence", Dependence)
    app.add_directive("exercises", Exercises)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
