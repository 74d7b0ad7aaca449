"""Chapter 03, language modelling: what can be proved about a grammar without drawing from it.

``entropy``, ``n_derivations`` and ``total_prob`` add over *all* derivations by dynamic
programming; ``conflicts`` shows that a text tells its derivation, so that derivations and texts
are one to one and the three speak about texts.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

from llmtutor.data.tales.grammar import Grammar

T = TypeVar("T")
Memory = dict[str, str]
END = "\0"  # closes a beginning that is the whole text of a symbol


def entropy(grammar: Grammar) -> float:
    """Expected −log p of a derivation, in nats: exact up to rounding."""
    return _fold(grammar, 0.0, lambda parts: sum(p * (sub - math.log(p)) for p, sub in parts))


def n_derivations(grammar: Grammar) -> int:
    """Number of derivations, an exact integer of any size."""
    return _fold(grammar, 1, lambda parts: sum(sub for _, sub in parts))


def total_prob(grammar: Grammar) -> float:
    """Sum of the probabilities of all derivations: 1 up to rounding."""
    return _fold(grammar, 1.0, lambda parts: sum(p * sub for p, sub in parts))


def _fold(grammar: Grammar, leaf: T, combine: Callable[[list[tuple[float, T]]], T]) -> T:
    """Value of the tree of all choices: ``leaf`` where a text ends, ``combine`` at each choice.

    Two points of the tree have equal subtrees, worked out once, if the same symbols are still to
    be written, the same ones among those ahead are chosen already, and the choices on which
    weights ahead depend are the same. What the chosen templates *say* does not matter.
    """
    done: dict[tuple, T] = {}

    def value(to_come: tuple[str, ...], memory: Memory) -> T:
        to_come = tuple(symbol for symbol in to_come if symbol not in memory)
        if not to_come:
            return leaf
        ahead = _ahead(grammar, to_come)
        decisive = _decisive(grammar, frozenset(ahead - memory.keys()))
        known = frozenset((s, memory[s] if s in decisive else "") for s in ahead if s in memory)
        if (to_come, known) not in done:
            done[to_come, known] = combine(list(branches(to_come[0], to_come[1:], memory)))
        return done[to_come, known]

    def branches(symbol: str, rest: tuple[str, ...], memory: Memory) -> Iterator:
        for choice in grammar.table(symbol, memory).choices:
            inside = tuple(grammar.symbols(choice.template))
            yield choice.prob, value(inside + rest, {**memory, symbol: choice.template})

    return value((grammar.start,), {})


@cache
def _ahead(grammar: Grammar, to_come: tuple[str, ...]) -> frozenset[str]:
    """Symbols that may come up in writing ``to_come``, or may be asked for by those that do."""
    ahead: set[str] = set()
    todo = list(to_come)
    while todo:
        symbol = todo.pop()
        if symbol not in ahead:
            ahead.add(symbol)
            todo += [inner for t in grammar.templates(symbol) for inner in grammar.symbols(t)]
            todo += [parent] if (parent := grammar.rules[symbol].parent) else []
    return frozenset(ahead)


@cache
def _decisive(grammar: Grammar, open_symbols: frozenset[str]) -> frozenset[str]:
    """Symbols whose choice changes which choices follow, with what weights."""
    decisive = set()
    for symbol in open_symbols:
        rule = grammar.rules[symbol]
        # One template and nothing in it: its parent changes the wording, not the choices.
        settled = all(len(weights) == 1 for weights in rule.tables.values())
        bare = not any(grammar.symbols(template) for template in grammar.templates(symbol))
        parent = None if settled and bare else rule.parent
        while parent:
            decisive.add(parent)
            # A parent yet to be chosen hands the question on to its own parent.
            parent = grammar.rules[parent].parent if parent in open_symbols else None
    return frozenset(decisive)


def conflicts(grammar: Grammar) -> list[str]:
    """Pairs of templates that a reader could take for each other; none in a good grammar.

    Where two templates compete, write out all their possible beginnings: the leading symbols
    replaced by everything they could ever be, up to the next symbol. If no beginning of one is a
    prefix of a beginning of the other, then the text that follows fits one of them only. With no
    conflict anywhere, reading from left to right settles every choice where it is made: a text
    has one derivation, and no text is the beginning of another. The check forgets what was
    chosen before, so it may complain about a harmless pair, but misses none.
    """
    heads: dict[str, set[str]] = {}  # by symbol
    for symbol in grammar.in_order():
        heads[symbol] = set().union(
            *(_beginnings(grammar, heads, template) for template in grammar.templates(symbol))
        )
    found = []
    for symbol, rule in grammar.rules.items():
        for weights in rule.tables.values():
            starts = sorted(
                (start.rstrip(END), template)
                for template in weights
                for start in _beginnings(grammar, heads, template)
            )
            for i, (start, template) in enumerate(starts):
                # Sorting puts everything that begins with `start` right behind it.
                for longer, other in starts[i + 1 :]:
                    if not longer.startswith(start):
                        break
                    if other != template:
                        found.append(f"{symbol}: {start!r} begins {longer!r}")
    return found


def _beginnings(grammar: Grammar, heads: dict[str, set[str]], template: str) -> set[str]:
    """All texts with which ``template`` can begin; END closes those that are all of it."""
    found: set[str] = set()
    whole = {""}  # beginnings known up to the piece at hand
    for literal, symbol in grammar.pieces(template):
        whole = {start + literal for start in whole}
        if symbol is None:
            return found | {start + END for start in whole}
        found |= whole - {""}
        if "" not in whole:
            break
        found |= {head for head in heads[symbol] if not head.endswith(END)}
        whole = {head[:-1] for head in heads[symbol] if head.endswith(END)}
    return found
