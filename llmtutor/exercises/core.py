"""Exercises, every chapter: run a learner's answer on cases, and name the misconception.

An `Exercise` holds a reference solution and the solutions people write instead, each with the
misconception behind it. `examine` runs the answer on every case; where it fails, an answer that
behaves like one of the known wrong solutions is told so in words. Endless loops are not stopped:
interrupt the kernel.
"""

import inspect
import linecache
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmtutor.exercises.compare import difference, same
from llmtutor.exercises.run import Outcome, run
from llmtutor.exercises.values import brief, with_article

WIDTH = 88
PRINTED = "It prints its result and returns nothing: end the function with `return`, not `print`."


@dataclass(frozen=True)
class Wrong:
    """A solution that people write, and the misconception behind it, in one or two sentences."""

    solution: Callable[..., Any]
    misconception: str


@dataclass(frozen=True)
class Property:
    """What must hold for every right answer: ``holds(received, *inputs)``, said in a sentence."""

    statement: str
    holds: Callable[..., bool]


@dataclass(frozen=True)
class Exercise:
    """One exercise: where it is tried, what is right, and what people get wrong."""

    name: str
    """``"module.function"``, for instance ``"tokenizer.count_pairs"``."""
    cases: Callable[[], Iterable[tuple]]
    """Makes the inputs, one tuple of arguments a case: the same ones on every call."""
    reference: Callable[..., Any]
    """A right solution. Its signature is the one that the learner has to meet."""
    wrong: Sequence[Wrong]
    """At least three known wrong solutions; some case must tell each from all the others."""
    same: Callable[[Any, Any], bool] = same
    """``same(expected, received)``; the default allows for rounding."""
    properties: Sequence[Property] = ()
    """Checked on every case, before the value is compared."""
    mutation: str = ""
    """What to tell a learner whose function changes its input; empty where that is allowed."""


@dataclass(frozen=True)
class Verdict:
    """What the checker found; silent as the last value of a notebook cell."""

    name: str
    outcome: Literal["accepted", "rejected", "not attempted"]
    message: str
    misconception: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the answer is right."""
        return self.outcome == "accepted"

    def _ipython_display_(self) -> None:
        """Show nothing: `check` has printed the message already."""


def examine(exercise: Exercise, answer: Any) -> Verdict:
    """Judge an answer: a function, or a plain value where the cases have no arguments."""
    if answer is None or answer is ...:
        return _not_attempted(exercise)
    cases = list(exercise.cases())
    if not cases:
        raise ValueError(f"{exercise.name} has no cases: nothing would be checked")
    if not callable(answer):
        if any(cases):
            return _rejected(exercise, _not_a_function(exercise, answer))
        value, answer = answer, lambda: value
    expected = run(exercise.reference, exercise.cases())
    received = run(answer, exercise.cases())
    wanted = [r for r, e in zip(received, expected, strict=True) if e.value is not None]
    if wanted and all(r.unfilled for r in wanted):
        if any(r.printed for r in wanted):
            return _rejected(exercise, [], PRINTED)
        return _not_attempted(exercise)
    faults = [_fault(exercise, e, r) for e, r in zip(expected, received, strict=True)]
    first = next((i for i, fault in enumerate(faults) if fault), None)
    if first is None:
        return _accepted(exercise, len(cases))
    misconception = _known_mistake(exercise, received)
    if not misconception and faults[first] == exercise.mutation:
        misconception = exercise.mutation
    lines = _report(exercise, expected[first], received[first], faults[first])
    return _rejected(exercise, lines, misconception)


def _fault(exercise: Exercise, expected: Outcome, received: Outcome) -> str:
    """What is wrong with one outcome; empty where nothing is."""
    if received.error:
        return received.error
    for prop in exercise.properties:
        if not _holds(prop, received):
            return f"This must hold: {prop.statement}"
    if not _equal(exercise.same, expected.value, received.value):
        return difference(expected.value, received.value) or "The two differ."
    if exercise.mutation and received.changed:
        return exercise.mutation
    return ""


def _holds(prop: Property, outcome: Outcome) -> bool:
    try:
        return bool(prop.holds(outcome.value, *outcome.inputs))
    except Exception:  # a value so wrong that the property cannot be computed
        return False


def _equal(equal: Callable[[Any, Any], bool], expected: Any, received: Any) -> bool:
    try:
        return bool(equal(expected, received))
    except Exception:  # an own `same` need not expect every type
        return False


def _known_mistake(exercise: Exercise, received: list[Outcome]) -> str:
    """The misconception whose solution does on every case what the answer does."""
    candidates = [(w, run(w.solution, exercise.cases())) for w in exercise.wrong]
    for equal in (same, exercise.same):  # an exact match first: an own `same` may be lenient
        for wrong, outcomes in candidates:
            pairs = zip(outcomes, received, strict=True)
            if all(_alike(exercise, equal, *pair) for pair in pairs):
                return wrong.misconception
    return ""


def _alike(
    exercise: Exercise, equal: Callable[[Any, Any], bool], one: Outcome, other: Outcome
) -> bool:
    if one.error_type or other.error_type:
        return one.error_type == other.error_type
    if exercise.mutation and one.changed != other.changed:
        return False
    return _equal(equal, one.value, other.value)


def _report(exercise: Exercise, expected: Outcome, received: Outcome, fault: str) -> list[str]:
    """The failing case: input, expected, received and where they differ."""
    rows = [("", f"{name} = {value}") for name, value in _arguments(exercise, received)]
    if rows:
        rows[0] = ("input:", rows[0][1])
    rows.append(("expected:", expected.shown))
    if received.error:
        rows.append(("failed:", fault))
        if line := _line_of(received):
            rows.append(("in:", line))
    else:
        rows.append(("received:", received.shown))
        plain = f"expected {expected.shown}, received {received.shown}"
        if fault not in (plain, exercise.mutation):  # both are said elsewhere already
            rows.append(("because:", fault))
    if received.printed:
        rows.append(("printed:", brief(received.printed, 60)))
    return [line for label, text in rows for line in _row(label, text)]


def _arguments(exercise: Exercise, outcome: Outcome) -> list[tuple[str, str]]:
    names = list(inspect.signature(exercise.reference).parameters)
    names += [f"argument {i + 1}" for i in range(len(names), len(outcome.shown_inputs))]
    return list(zip(names, outcome.shown_inputs, strict=False))


def _line_of(outcome: Outcome) -> str:
    return linecache.getline(*outcome.line).strip() if outcome.line else ""


def _row(label: str, text: str) -> list[str]:
    indent = " " * 13
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {label:<11}", subsequent_indent=indent)


def _not_a_function(exercise: Exercise, answer: Any) -> list[str]:
    text = f"expected a function, received {with_article(answer)}: {brief(answer, 40)}"
    hint = f'Hand over the function itself, without calling it: check("{exercise.name}", …).'
    return [f"  {text}", f"  {hint}"]


def _not_attempted(exercise: Exercise) -> Verdict:
    return Verdict(exercise.name, "not attempted", f"{exercise.name}: not attempted yet")


def _accepted(exercise: Exercise, n_cases: int) -> Verdict:
    counts = f"{n_cases} case{'s' if n_cases != 1 else ''}"
    return Verdict(exercise.name, "accepted", f"{exercise.name}: accepted ({counts})")


def _rejected(exercise: Exercise, lines: list[str], misconception: str = "") -> Verdict:
    lines = [f"{exercise.name}: not right yet", *lines]
    if misconception:
        lines += textwrap.wrap(f"  {misconception}", WIDTH, subsequent_indent="  ")
    return Verdict(exercise.name, "rejected", "\n".join(lines), misconception)
