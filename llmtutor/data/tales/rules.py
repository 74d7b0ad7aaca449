"""Chapter 03, language modelling: ways to write down a rule of a probabilistic grammar.

A rule gives a symbol several templates with integer weights; ``{name}`` inside a template stands
for another symbol. See ``grammar`` for what a grammar does with its rules.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Weights = Mapping[str, int]


@dataclass(frozen=True)
class Rule:
    """How a symbol is written: weighted templates, for each template of the symbol ``parent``."""

    tables: Mapping[str, Weights]
    parent: str | None = None


def one_of(*templates: str) -> Rule:
    """Templates with equal weights."""
    return weighted(dict.fromkeys(templates, 1))


def weighted(weights: Weights) -> Rule:
    """Templates with weights of their own."""
    return Rule({"": weights})


def given(parent: str, tables: Mapping[str, Weights]) -> Rule:
    """Weights that depend on the template chosen for ``parent``."""
    return Rule(tables, parent)


def ranked(*templates: str) -> dict[str, int]:
    """Weights that fall with the rank, as those of words do in any language: 40, 30, 24, 20, …

    A bar parts templates that are written in one string.

    >>> ranked("one | two", "three")
    {'one': 40, 'two': 30, 'three': 24}
    """
    each = [template for several in templates for template in several.split(" | ")]
    return {template: 120 // (rank + 3) for rank, template in enumerate(each)}


def settled(parent: str, texts: Mapping[str, str]) -> Rule:
    """A symbol that its parent settles completely: no choice, nothing to predict."""
    return given(parent, {value: {text: 1} for value, text in texts.items()})


def definite(parent: str, things: Iterable[str]) -> Rule:
    """The parent with a definite article: "a jar of honey" → "the jar of honey"."""
    return settled(parent, {thing: "the " + thing.split(" ", 1)[1] for thing in things})


def mostly(common: Mapping[str, str], weight: int) -> dict[str, Weights]:
    """For each parent its own template with ``weight``, and everybody else's with 1."""
    return {
        parent: {text: weight if text == own else 1 for text in common.values()}
        for parent, own in common.items()
    }
