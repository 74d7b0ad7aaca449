"""Chapter 03, language modelling: a grammar that knows the probability of every text it writes.

A rule gives a symbol several templates with integer weights; ``{name}`` inside a template stands
for another symbol. The first time a symbol comes up, one of its templates is chosen; from then on
the choice is *remembered* for the rest of the text, so that names, things and places return. A
rule may be *given* an earlier symbol: its weights then depend on what was chosen there.

    {"who":  one_of("Ann", "Bob"),
     "like": given("who", {"Ann": {"tea": 3, "milk": 1}, "Bob": {"tea": 1, "milk": 3}}),
     "text": one_of("{who} drinks {like}. Good {like}, {who}!")}

The probability of a text is the product of its choices' probabilities, provided that the text
tells which choices were made; ``conflicts`` proves that it does and ``parses`` finds them.
"""

import math
import random
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate
from typing import Any, NamedTuple

from llmtutor.data.tales.rules import Rule, Weights

Pieces = tuple[tuple[str, str | None], ...]
Stack = tuple[tuple[str, str | None], Any] | None


class Choice(NamedTuple):
    """One template chosen for one symbol, and how probable that was at this point."""

    symbol: str
    template: str
    prob: float


class Tale(NamedTuple):
    """A text with the choices that made it, in the order in which they were made."""

    text: str
    choices: tuple[Choice, ...]

    @property
    def log_prob(self) -> float:
        """log p of the text in nats: the sum over its choices."""
        return total_log_prob(self.choices)


def total_log_prob(choices: Iterable[Choice]) -> float:
    """Sum of log p over choices, in nats, rounded once."""
    return math.fsum(math.log(choice.prob) for choice in choices)


class Table:
    """The choice between templates at one point, ready to draw from."""

    def __init__(self, symbol: str, weights: Weights) -> None:
        if not weights or any(not isinstance(w, int) or w < 1 for w in weights.values()):
            raise ValueError(f"weights of {symbol!r} must be integers of at least 1: {weights}")
        self.bounds = list(accumulate(weights.values()))
        total = self.bounds[-1]
        self.choices = [Choice(symbol, text, w / total) for text, w in weights.items()]

    def draw(self, rng: random.Random) -> Choice:
        """One choice; ``int(u · total)`` falls into each span of ``bounds`` as its weight says."""
        return self.choices[bisect_right(self.bounds, int(rng.random() * self.bounds[-1]))]


class Grammar:
    """Rules by symbol; texts start from the symbol ``start``.

    Raises:
        ValueError: a symbol without a rule, a symbol that contains itself, weights that are not
            positive integers, or tables that miss a template of their parent.
    """

    def __init__(self, rules: Mapping[str, Rule], start: str) -> None:
        self.rules, self.start = dict(rules), start
        self._pieces: dict[str, Pieces] = {f"{{{start}}}": _split(f"{{{start}}}")}
        self._tables: dict[str, dict[str, Table]] = {}
        for symbol, rule in self.rules.items():
            self._tables[symbol] = {
                value: Table(symbol, weights) for value, weights in rule.tables.items()
            }
            for weights in rule.tables.values():
                self._pieces.update((template, _split(template)) for template in weights)
        self._check_symbols()

    def templates(self, symbol: str) -> set[str]:
        """All templates that ``symbol`` can have, whatever its parent."""
        return {template for weights in self.rules[symbol].tables.values() for template in weights}

    def pieces(self, template: str) -> Pieces:
        """``template`` cut into literals, each with the symbol after it (None at the end)."""
        return self._pieces[template]

    def symbols(self, template: str) -> list[str]:
        """Symbols in ``template``, in order."""
        return [symbol for _, symbol in self._pieces[template] if symbol]

    def tales(self, seed: int) -> Iterator[Tale]:
        """Endless tales; ``random.Random(seed).random()`` is the only source of chance.

        Python promises that sequence for every version and platform, and nothing else here
        depends on either.
        """
        rng = random.Random(seed)
        while True:
            text: list[str] = []
            choices: list[Choice] = []
            self._write(f"{{{self.start}}}", {}, rng, text, choices)
            yield Tale("".join(text), tuple(choices))

    def _write(
        self,
        template: str,
        memory: dict[str, str],
        rng: random.Random,
        text: list[str],
        choices: list[Choice],
    ) -> None:
        for literal, symbol in self._pieces[template]:
            text.append(literal)
            if symbol is None:
                continue
            chosen = memory.get(symbol)
            if chosen is None:
                table = self.table(symbol, memory)
                if len(table.choices) == 1:
                    chosen = table.choices[0].template
                else:
                    choice = table.draw(rng)
                    choices.append(choice)
                    chosen = choice.template
                memory[symbol] = chosen
            self._write(chosen, memory, rng, text, choices)

    def parse(self, text: str) -> tuple[Choice, ...]:
        """The choices that write ``text``.

        Raises:
            ValueError: ``text`` is not in the language, or in more than one way.
        """
        found, reached = self._parse(text)
        if len(found) != 1:
            problem = f"has {len(found)} readings" if found else "is not in the language"
            raise ValueError(
                f"the text {problem}: followed as far as character {reached} of {len(text)}, "
                f"then came {text[reached : reached + 40]!r}"
            )
        return found[0]

    def parses(self, text: str) -> list[tuple[Choice, ...]]:
        """Every way in which the grammar can write ``text``: none, one, or several if ambiguous.

        All templates are tried at every choice; nothing is assumed about the grammar.
        """
        return self._parse(text)[0]

    def _parse(self, text: str) -> tuple[list[tuple[Choice, ...]], int]:
        """All readings, and how far the one that came furthest understood the text."""
        found, reached = [], 0
        todo: list[tuple[int, Stack, dict[str, str], tuple[Choice, ...]]]
        todo = [(0, _push(self._pieces[f"{{{self.start}}}"], None), {}, ())]
        while todo:
            at, rest, memory, choices = todo.pop()
            while rest is not None:
                (literal, symbol), rest = rest
                if not text.startswith(literal, at):
                    break
                at += len(literal)
                reached = max(reached, at)
                if symbol is None:
                    continue
                if symbol in memory:
                    rest = _push(self._pieces[memory[symbol]], rest)
                    continue
                options = self.table(symbol, memory).choices
                for choice in options:
                    pieces = self._pieces[choice.template]
                    if text.startswith(pieces[0][0], at):  # saves time, decides nothing
                        made = (*choices, choice) if len(options) > 1 else choices
                        known = {**memory, symbol: choice.template}
                        todo.append((at, _push(pieces, rest), known, made))
                break
            else:
                if at == len(text):
                    found.append(choices)
        return found, reached

    def table(self, symbol: str, memory: Mapping[str, str]) -> Table:
        """The choice that ``symbol`` has after the choices in ``memory``."""
        parent = self.rules[symbol].parent
        if parent is None:
            return self._tables[symbol][""]
        if parent not in memory:
            raise ValueError(f"{symbol!r} is given {parent!r}, which must come before it")
        return self._tables[symbol][memory[parent]]

    def _check_symbols(self) -> None:
        for symbol, rule in self.rules.items():
            inside = {s for template in self.templates(symbol) for s in self.symbols(template)}
            for other in sorted({*inside, rule.parent or symbol, self.start}):
                if other not in self.rules:
                    raise ValueError(f"rule {symbol!r} needs a rule for {other!r}: none is there")
            if rule.parent and set(rule.tables) != self.templates(rule.parent):
                odd = set(rule.tables) ^ self.templates(rule.parent)
                raise ValueError(f"tables of {symbol!r} do not fit {rule.parent!r}: {sorted(odd)}")
        self.in_order()

    def in_order(self) -> list[str]:
        """Symbols, each after all that its templates contain; ``ValueError`` if circular."""
        inside = {s: {t for w in self.templates(s) for t in self.symbols(w)} for s in self.rules}
        try:
            return list(TopologicalSorter(inside).static_order())
        except CycleError as error:
            raise ValueError(f"a symbol contains itself: {' in '.join(error.args[1])}") from None


def _split(template: str) -> Pieces:
    """Literals, each with the symbol after it.

    >>> _split("a {b} c")
    (('a ', 'b'), (' c', None))
    """
    parts = re.split(r"\{(\w+)\}", template)
    return tuple(zip(parts[::2], [*parts[1::2], None], strict=True))


def _push(pieces: Pieces, rest: Stack) -> Stack:
    """``pieces`` before ``rest``, as nested pairs: cheap to share between parses."""
    for piece in reversed(pieces):
        rest = (piece, rest)
    return rest
