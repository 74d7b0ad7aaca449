"""A workspace: a folder of chapters that belong to a learner, and a note of what was handed out.

What is to be done is decided first, from what lies there, and then written, all of it or nothing.
The note says what each file was when it was handed out, which tells a file that was changed from
one that nobody touched.
"""

import datetime
import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from llmtutor import __version__
from llmtutor.checks import shell_line
from llmtutor.data.places import can_write
from llmtutor.data.shipped import shipped
from llmtutor.tokenizer.files import read_json, write_files
from llmtutor.workspace.lessons import find_lesson
from llmtutor.workspace.notebooks import Digests, digests

NOTE = ".llmtutor/handed-out.json"
BACKUPS = "backups"


class What(StrEnum):
    """What was done with a file, in the words that a learner is told."""

    NEW = "new"
    UPDATED = "brought up to date"
    RUN = "brought up to date, and as you had run it kept in backups"
    RESET = "a fresh copy, and yours kept in backups"
    BESIDE = "yours, left as it is, and the new version put beside it"
    YOURS = "yours, left as it is"
    SAME = "up to date"


class Outcome(NamedTuple):
    """What was done with a file, and the name of the other file that this made."""

    what: What
    other: str | None = None


class Given(NamedTuple):
    """What was handed out under a name, and what was later put beside it."""

    copy: Digests | None = None
    beside: Digests | None = None


class Plan(NamedTuple):
    """What is to happen to one file: the outcome, what is written, what is noted."""

    outcome: Outcome
    writes: dict[str, bytes]
    given: Given


def hand_out(folder: Path, lessons: Mapping[str, bytes]) -> dict[str, Outcome]:
    """Bring files into a folder, made if need be; what a learner changed there is left alone.

    Raises:
        NotADirectoryError: ``folder`` is a file.
        PermissionError: it cannot be written.
        ValueError: it is the folder of the book's own chapters, or its note is damaged.
    """
    _require_usable(folder)
    given = _read_note(folder)
    plans = {name: _plan(folder, name, new, given.get(name)) for name, new in lessons.items()}
    _carry_out(folder, plans, given)
    return {name: plan.outcome for name, plan in plans.items()}


def reset(folder: Path, lessons: Mapping[str, bytes], name: str) -> tuple[str, Outcome]:
    """Put a fresh copy of a chapter in place and the learner's into the backups.

    Returns the name of the file and what was done.

    Raises:
        ValueError: no such chapter; ``folder`` is no workspace, or its note is damaged.
        PermissionError: it cannot be written.
    """
    file = find_lesson(name, list(lessons))
    if not (folder / NOTE).is_file():
        made = shell_line("llmtutor", "start", folder)
        raise ValueError(f"{folder} is no workspace yet; `{made}` makes it one")
    _require_usable(folder)
    new, path = lessons[file], folder / file
    present = path.read_bytes() if path.exists() else None
    outcome, writes = Outcome(What.NEW if present is None else What.SAME), {file: new}
    if present is not None and present != new:
        backup = _backup(folder, file)
        outcome, writes = Outcome(What.RESET, backup), {file: new, backup: present}
    _carry_out(folder, {file: Plan(outcome, writes, Given(digests(new)))}, _read_note(folder))
    return file, outcome


def _plan(folder: Path, name: str, new: bytes, before: Given | None) -> Plan:
    """What to do with one file: nothing that a learner wrote is replaced."""
    before, path, now = before or Given(), folder / name, digests(new)
    if not path.exists():
        return Plan(Outcome(What.NEW), {name: new}, Given(now))
    present = path.read_bytes()
    here = digests(present)
    if here.cells == now.cells:
        return Plan(Outcome(What.SAME), {}, Given(now))
    if before.copy and here.file == before.copy.file:
        return Plan(Outcome(What.UPDATED), {name: new}, Given(now))
    if before.copy and here.cells == before.copy.cells:
        backup = _backup(folder, name)
        return Plan(Outcome(What.RUN, backup), {name: new, backup: present}, Given(now))
    if now.cells in {known.cells for known in before if known}:
        return Plan(Outcome(What.YOURS), {}, before)
    beside = _beside(folder, name, {now, before.beside})
    return Plan(Outcome(What.BESIDE, beside), {beside: new}, before._replace(beside=now))


def _beside(folder: Path, name: str, ours: set[Digests | None]) -> str:
    """A name for the new version: a free one, or that of an earlier one that nobody touched."""
    for other in _numbered(f"{Path(name).stem}.new"):
        if not (folder / other).exists() or digests((folder / other).read_bytes()) in ours:
            return other
    raise AssertionError("there is always a next number")


def _backup(folder: Path, name: str) -> str:
    """A free name in the backups, with the day."""
    names = _numbered(f"{BACKUPS}/{Path(name).stem}.{datetime.date.today().isoformat()}")
    return next(other for other in names if not (folder / other).exists())


def _numbered(stem: str) -> Iterator[str]:
    yield f"{stem}.ipynb"
    yield from (f"{stem}-{number}.ipynb" for number in count(2))


def _require_usable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; name a folder, which need not be there yet")
    if folder.resolve() == shipped("chapters").resolve():
        raise ValueError(f"{folder} holds the book's own chapters; name another folder")
    if not can_write(folder):
        raise PermissionError(f"{folder}: no file can be written there; name another folder")


def _carry_out(folder: Path, plans: Mapping[str, Plan], given: Mapping[str, Given]) -> None:
    """Write what is planned, all of it or nothing.

    Files land in the reverse of this order: a backup before what replaces the original, and the
    note last, because files that are newer than it are found to be so by the next call.
    """
    writes = {name: data for plan in plans.values() for name, data in plan.writes.items()}
    noted = {**given, **{name: plan.given for name, plan in plans.items()}}
    if writes or noted != given:
        note = {"version": __version__, "files": {n: g._asdict() for n, g in noted.items()}}
        write_files(folder, {NOTE: json.dumps(note, indent=1) + "\n", **writes})


def _read_note(folder: Path) -> dict[str, Given]:
    path = folder / NOTE
    if not path.is_file():
        return {}
    content: dict[str, Any] = read_json(path)
    try:
        return {
            name: Given(*(digest and Digests(*digest) for digest in (row["copy"], row["beside"])))
            for name, row in content["files"].items()
        }
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected the note of what was handed out, but {error!r}; delete it, and "
            "every chapter that differs from the book's counts as yours"
        ) from None
