"""Exercises, every chapter: call a function on every case and keep what it did, errors included."""

import copy
import inspect
import io
import random
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmtutor.exercises.compare import same
from llmtutor.exercises.values import brief, settle

LONGEST_ERROR = 240


@dataclass(frozen=True)
class Outcome:
    """What one call did; texts are taken before a later call can change the values."""

    inputs: tuple
    shown_inputs: list[str]
    value: Any
    changed: bool = False
    printed: str = ""
    error: str = ""
    error_type: str = ""
    line: tuple[str, int] | None = None

    @property
    def shown(self) -> str:
        """The returned value on one line."""
        return brief(self.value)

    @property
    def unfilled(self) -> bool:
        """Whether this is what a stub does: nothing, ``...`` or ``NotImplementedError``."""
        if self.error:  # `... + 1` in a text with blanks is a TypeError that names the ellipsis
            return self.error_type == "NotImplementedError" or "ellipsis" in self.error.lower()
        return _blank(self.value)


def run(function: Callable[..., Any], cases: Iterable[tuple]) -> list[Outcome]:
    """Call the function on its own copy of every case, always with the same random numbers."""
    with _quiet_and_repeatable() as output:
        return [_call(function, case, output) for case in cases]


def _call(function: Callable[..., Any], case: tuple, output: io.StringIO) -> Outcome:
    inputs, own = _copy(case), _copy(case)
    shown = [brief(value) for value in inputs]
    if misfit := _misfit(function, own):
        return Outcome(inputs, shown, None, error=misfit, error_type="call")
    _seed()
    output.seek(0)
    output.truncate()
    try:
        value = _copied(settle(function(*own)))  # or a later call could still change it
    except (Exception, SystemExit) as error:
        name, place = type(error).__name__, _place(error, function)
        return Outcome(inputs, shown, None, False, output.getvalue(), _said(error), name, place)
    return Outcome(inputs, shown, value, _changed(inputs, own), output.getvalue())


def _said(error: BaseException) -> str:
    """Kind and message of an error on one line, the same in every run."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    text = re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", text)
    return text if len(text) <= LONGEST_ERROR else text[: LONGEST_ERROR - 1] + "…"


def _place(error: BaseException, function: Callable[..., Any]) -> tuple[str, int] | None:
    """File and line of the learner's own code where the error came up, not those of a library."""
    own = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__)[1:] if f.filename == own]
    return (frames[-1].filename, frames[-1].lineno or 0) if frames else None


def _copy(case: tuple) -> tuple:
    """A deep copy of each argument; what cannot be copied (a generator) is handed on as it is."""
    if not isinstance(case, tuple):
        raise ValueError(f"expected a tuple of arguments as a case, received {brief(case, 40)}")
    return tuple(_copied(value) for value in case)


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # a generator, a tensor with a history, a class with its own idea of copying
        return value


def _changed(inputs: tuple, own: tuple) -> bool:
    """Whether the call changed an argument; an iterator that was read does not count."""
    pairs = zip(inputs, own, strict=True)
    return any(not isinstance(a, Iterator) and not same(a, b) for a, b in pairs)


def _misfit(function: Callable[..., Any], case: tuple) -> str:
    """Why the function cannot take this many arguments; empty where it can or nobody knows."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    try:
        signature.bind(*case)
    except TypeError:
        count = f"{len(case)} argument{'s' if len(case) != 1 else ''}"
        return f"it is called with {count} and takes ({', '.join(signature.parameters)})"
    return ""


def _blank(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return all(item is ... for item in value)
    return value is None or value is ... or value is NotImplemented


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)  # unlike torch.manual_seed, records no stack


@contextmanager
def _quiet_and_repeatable() -> Iterator[io.StringIO]:
    """Catch what is printed, hide warnings, and leave the global random states as they were."""
    states = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    torch_state = torch.get_rng_state() if torch else None
    output = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(output), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield output
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if torch and torch_state is not None:
            torch.set_rng_state(torch_state)
