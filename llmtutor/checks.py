"""Used in every chapter: what is refused, in words that say what was expected and what to do.

The one place for names that nobody knows ("did you mean"), numbers out of their range and values of
another type. Each check returns the value that it lets pass.
"""

import math
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin


def nearest(name: object, known: Iterable[str], cutoff: float = 0.0) -> str | None:
    """The known name that is most like ``name``; None if none reaches the ``cutoff`` (0 … 1)."""
    found = get_close_matches(str(name).lower(), list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def shell_line(*words: object) -> str:
    """A command to be copied into a shell: words that a shell would take apart are quoted.

    >>> shell_line("llmtutor", "train", "--resume", "my runs/a")
    "llmtutor train --resume 'my runs/a'"
    """
    return shlex.join(map(str, words))


def check_name(what: str, name: object, known: Iterable[str]) -> str:
    """``name`` if it is among ``known``, else ``ValueError`` with the nearest known one."""
    known = list(known)
    if isinstance(name, str) and name in known:
        return name
    near = nearest(name, known)
    hint = f"did you mean {near!r}? There are {', '.join(known)}" if near else "there is none"
    raise ValueError(f"unknown {what} {name!r}; {hint}")


def check_at_least(least: int, **sizes: int | None) -> None:
    """Raise ``ValueError`` naming the first of ``sizes`` that lies below ``least``; None passes."""
    for name, size in sizes.items():
        if size is not None and size < least:
            raise ValueError(f"{name} must be at least {least}, got {size}")


def check_integer(name: str, value: Any, least: int | None = None) -> int:
    """``value`` as an ``int``, which a numpy integer becomes; True, 2.0 and "2" are none.

    Raises:
        ValueError: another type, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_number(name: str, value: Any, *, above: float | None = None) -> float:
    """``value`` if it is a finite number, above ``above`` if that is given.

    Raises:
        ValueError: another type, not finite, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    if above is not None and not float(value) > above:
        raise ValueError(f"{name} must be above {above:g}, got {value}")
    return value  # type: ignore[return-value]


def check_types(record: Any, hints: dict[str, Any]) -> None:
    """Raise ``ValueError`` naming the first field of ``record`` whose value has another type.

    ``hints`` are the fields' types, as ``typing.get_type_hints`` gives them: classes, containers,
    ``Literal``, None, unions of these. A whole number may stand for a float; a bool for neither.
    """
    for name, hint in hints.items():
        value = getattr(record, name)
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if not any(_has_type(value, option) for option in options):
            raise ValueError(f"{name} must be {' or '.join(map(_words, options))}, got {value!r}")


def _has_type(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    kind = get_origin(hint) or hint
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _words(hint: Any) -> str:
    """For a message: "int", "nothing", "one of 'pre', 'post'"."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    kind = get_origin(hint) or hint
    return "nothing" if kind is NoneType else kind.__name__
