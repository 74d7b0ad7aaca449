"""Exercises, every chapter: what kind of value is this, and how is it shown on one line?

torch is never imported here: no tensor exists before somebody has imported it.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import islice
from numbers import Number
from typing import Any

import numpy as np

MOST_ITEMS = 100_000  # read from an iterator, so that an endless one ends


def settle(value: Any) -> Any:
    """An iterator becomes the list of what it yields (at most ``MOST_ITEMS``)."""
    return list(islice(value, MOST_ITEMS)) if isinstance(value, Iterator) else value


def is_tensor(value: object) -> bool:
    """Whether the value is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_number(value: object) -> bool:
    """Whether the value is a Python or NumPy number; ``True`` and ``False`` are not."""
    return isinstance(value, Number | np.number) and not isinstance(value, bool | np.bool_)


def is_array(value: object) -> bool:
    """Whether the value is a NumPy array or a torch tensor."""
    return isinstance(value, np.ndarray) or is_tensor(value)


def as_numpy(value: Any) -> np.ndarray:
    """The values of an array or a tensor, on the CPU and without gradients."""
    if not is_tensor(value):
        return np.asarray(value)
    value = value.detach().cpu()
    if value.is_floating_point() and value.dtype.itemsize < 4:  # NumPy has no bfloat16
        value = value.float()
    return value.numpy()


def kind(value: object) -> str:
    """The word for the kind of a value; two values of different kinds are never the same.

    >>> kind({}), kind(3), kind(3.0), kind(True), kind(None)
    ('dict', 'number', 'number', 'bool', 'None')
    """
    if value is None:
        return "None"
    if isinstance(value, bool | np.bool_):
        return "bool"
    if is_number(value):
        return "number"
    if is_tensor(value):
        return "tensor"
    if isinstance(value, np.ndarray):
        return "NumPy array"
    for base, word in ((Mapping, "dict"), (Set, "set")):
        if isinstance(value, base):
            return word
    return next(
        (base.__name__ for base in (str, bytes, list, tuple) if isinstance(value, base)),
        type(value).__name__,
    )


def with_article(value: object) -> str:
    """The kind of a value in a sentence.

    >>> with_article([]), with_article(None)
    ('a list', 'None')
    """
    word = kind(value)
    if word == "None":
        return word
    return f"{'an' if word[0] in 'aeiouAEIOU' else 'a'} {word}"


def brief(value: Any, width: int = 66) -> str:
    """A ``repr`` on one line, the same in every run, shortened to about ``width`` characters.

    >>> brief(list(range(1000)), 32)
    '[0, 1, 2, 3, … (1,000 items)]'
    >>> brief({3, 1, 2})
    '{1, 2, 3}'
    """
    if is_array(value):
        return _brief_array(value)
    if isinstance(value, Mapping):
        pairs = (f"{brief(k, width)}: {brief(v, width)}" for k, v in value.items())
        return _brief_items(pairs, len(value), "{}", width)
    if isinstance(value, Set):
        members = sorted((brief(v, width) for v in value), key=lambda s: (len(s), s))
        return _brief_items(members, len(value), "{}", width) if members else "set()"
    if type(value) in (list, tuple):
        items = (brief(v, width) for v in value)
        if type(value) is tuple and len(value) == 1:
            return f"({next(items)},)"
        return _brief_items(items, len(value), "[]" if type(value) is list else "()", width)
    if isinstance(value, str | bytes):
        return _brief_text(value, width)
    if isinstance(value, float | np.floating):
        text = f"{float(value):.6g}"
        return f"{text}.0" if text.lstrip("-").isdigit() else text
    return _cut(_plain(value.item() if isinstance(value, np.generic) else value), width)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _plain(value: object) -> str:
    """The repr on one line, or only the type's name where it holds an address."""
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    if type(value).__repr__ is object.__repr__ or " at 0x" in (text := repr(value)):
        return f"<{type(value).__name__}>"
    return " ".join(text.split())


def _brief_text(text: str | bytes, width: int) -> str:
    if len(repr(text)) <= width:
        return repr(text)
    shown = text[: width - 26]
    while len(repr(shown)) > width - 24:  # escapes such as \n and \xc3 take more room
        shown = shown[:-1]
    return f"{shown!r}… ({len(text):,} {'bytes' if isinstance(text, bytes) else 'characters'})"


def _brief_items(items: Iterable[str], count: int, brackets: str, width: int) -> str:
    room = width - len(f"[, … ({count:,} items)]")
    shown: list[str] = []
    used = 0
    for item in items:
        used += len(item) + 2
        last = len(shown) == count - 1
        if shown and used > (width if last else room):
            return f"{brackets[0]}{', '.join(shown)}, … ({count:,} items){brackets[1]}"
        shown.append(item)
    return f"{brackets[0]}{', '.join(shown)}{brackets[1]}"


def _brief_array(value: Any) -> str:
    array = as_numpy(value)
    with np.printoptions(threshold=8, edgeitems=2, precision=4, suppress=True, linewidth=10_000):
        text = np.array2string(array, separator=", ")
    word = "tensor" if is_tensor(value) else "array"
    return f"{word}({' '.join(text.split()).replace('[ ', '[')}, shape {tuple(array.shape)})"
