"""A workspace through updates and resets: nothing that a learner wrote is ever lost."""

import os
from pathlib import Path

import pytest

from llmtutor.tokenizer import files
from llmtutor.workspace import folder as module
from llmtutor.workspace.folder import BACKUPS, NOTE, Outcome, What, hand_out, reset
from llmtutor.workspace.notebooks import as_file

NAME = "04_attention.ipynb"
BESIDE, BESIDE_2 = "04_attention.new.ipynb", "04_attention.new-2.ipynb"


def chapter(text: str, *, run: bool = False) -> bytes:
    code = {"cell_type": "code", "id": "c0", "metadata": {}, "source": [text]}
    code |= {"execution_count": 1 if run else None, "outputs": []}
    return as_file({"cells": [code], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


V1, V2, V3, MINE = (chapter(text) for text in ("one", "two", "three", "mine"))


def given(folder: Path, content: bytes) -> Outcome:
    return hand_out(folder, {NAME: content})[NAME]


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the note."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    names.pop(NOTE, None)
    return names


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A workspace with version 1."""
    assert given(tmp_path / "a" / "b", V1) == Outcome(What.NEW)
    return tmp_path / "a" / "b"


def test_a_second_call_changes_nothing(place: Path) -> None:
    note = (place / NOTE).stat().st_mtime_ns
    assert given(place, V1) == Outcome(What.SAME)
    assert contents(place) == {NAME: V1} and (place / NOTE).stat().st_mtime_ns == note


def test_a_chapter_that_nobody_touched_is_replaced(place: Path) -> None:
    assert given(place, V2) == Outcome(What.UPDATED)
    assert given(place, V2) == Outcome(What.SAME)
    assert contents(place) == {NAME: V2}


def test_a_chapter_that_was_only_run_is_replaced_and_kept(place: Path) -> None:
    (place / NAME).write_bytes(chapter("one", run=True))
    what, backup = given(place, V2)
    assert what == What.RUN
    assert backup is not None and backup.startswith(f"{BACKUPS}/04_attention.2")
    assert contents(place) == {NAME: V2, backup: chapter("one", run=True)}


def test_a_changed_chapter_stays_and_the_new_version_comes_beside_it_once(place: Path) -> None:
    (place / NAME).write_bytes(MINE)
    assert given(place, V1) == Outcome(What.YOURS)
    assert given(place, V2) == Outcome(What.BESIDE, BESIDE)
    assert contents(place) == {NAME: MINE, BESIDE: V2}
    (place / BESIDE).unlink()  # read, and done with
    assert given(place, V2) == Outcome(What.YOURS)
    assert contents(place) == {NAME: MINE}


def test_a_newer_version_replaces_only_one_beside_that_nobody_touched(place: Path) -> None:
    (place / NAME).write_bytes(MINE)
    given(place, V2)
    assert given(place, V3) == Outcome(What.BESIDE, BESIDE)
    assert contents(place) == {NAME: MINE, BESIDE: V3}
    (place / BESIDE).write_bytes(chapter("three", run=True))
    assert given(place, V2) == Outcome(What.BESIDE, BESIDE_2)
    assert contents(place) == {NAME: MINE, BESIDE: chapter("three", run=True), BESIDE_2: V2}


def test_who_takes_the_new_version_over_gets_the_next_one(place: Path) -> None:
    (place / NAME).write_bytes(MINE)
    given(place, V2)
    os.replace(place / BESIDE, place / NAME)
    assert given(place, V2) == Outcome(What.SAME)
    assert given(place, V3) == Outcome(What.UPDATED)


def test_a_file_that_was_there_before_is_the_learners(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(MINE)
    (tmp_path / BESIDE).write_bytes(b"notes")
    assert given(tmp_path, V1) == Outcome(What.BESIDE, BESIDE_2)
    assert contents(tmp_path) == {NAME: MINE, BESIDE: b"notes", BESIDE_2: V1}


def test_a_chapter_that_was_deleted_comes_back(place: Path) -> None:
    (place / NAME).unlink()
    assert given(place, V2) == Outcome(What.NEW)


def test_a_damaged_copy_is_left_alone(place: Path) -> None:
    (place / NAME).write_bytes(b"half a note")
    assert given(place, V2) == Outcome(What.BESIDE, BESIDE)
    assert contents(place)[NAME] == b"half a note"


def test_a_lost_note_loses_nothing(place: Path) -> None:
    (place / NOTE).unlink()
    assert given(place, V1) == Outcome(What.SAME)
    (place / NOTE).unlink()
    assert given(place, V2) == Outcome(What.BESIDE, BESIDE)
    assert contents(place) == {NAME: V1, BESIDE: V2}


# Reset --------------------------------------------------------------------------------------------


def test_reset_keeps_each_copy_of_the_learners(place: Path) -> None:
    backups = []
    for text in ("first try", "second try"):
        (place / NAME).write_bytes(chapter(text))
        file, (what, backup) = reset(place, {NAME: V1}, "attention")
        assert (file, what) == (NAME, What.RESET) and backup is not None
        backups.append(backup)
    kept = dict(zip(backups, (chapter("first try"), chapter("second try")), strict=True))
    assert contents(place) == {NAME: V1, **kept}
    assert given(place, V2) == Outcome(What.UPDATED)


def test_reset_keeps_what_was_run_and_leaves_the_others_alone(place: Path) -> None:
    hand_out(place, {NAME: V1, "05_positions.ipynb": V1})
    (place / NAME).write_bytes(chapter("one", run=True))
    (place / "05_positions.ipynb").write_bytes(MINE)
    lessons = {NAME: V1, "05_positions.ipynb": V1}
    _, (what, _) = reset(place, lessons, "4")
    assert what == What.RESET and (place / "05_positions.ipynb").read_bytes() == MINE
    assert hand_out(place, lessons)["05_positions.ipynb"] == Outcome(What.YOURS)


def test_reset_of_a_fresh_copy_makes_no_backup(place: Path) -> None:
    assert reset(place, {NAME: V1}, "4") == (NAME, Outcome(What.SAME))
    (place / NAME).unlink()
    assert reset(place, {NAME: V1}, "4") == (NAME, Outcome(What.NEW))
    assert contents(place) == {NAME: V1}


def test_reset_needs_a_workspace(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no workspace yet; `llmtutor start .*` makes it one"):
        reset(tmp_path / "other", {NAME: V1}, "4")
    assert not (tmp_path / "other").exists()


# All or nothing -----------------------------------------------------------------------------------


def test_a_full_disk_leaves_everything_as_it_was(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_out(place, {NAME: V1, "05_positions.ipynb": V1})
    (place / NAME).write_bytes(MINE)
    before, note = contents(place), (place / NOTE).read_bytes()
    write, left = Path.write_bytes, iter([True, True])  # there is room for two files

    def write_bytes(self: Path, data: bytes) -> int:
        if not next(left, False):
            raise OSError(28, "No space left on device", str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match="No space left"):
        hand_out(place, {NAME: V2, "05_positions.ipynb": V2})
    assert contents(place) == before and (place / NOTE).read_bytes() == note


@pytest.mark.parametrize("landed", [1, 2, 3])
def test_a_call_that_is_killed_half_way_is_made_good_by_the_next(
    place: Path, monkeypatch: pytest.MonkeyPatch, landed: int
) -> None:
    lessons = {NAME: V2, "05_positions.ipynb": V2}
    hand_out(place, dict.fromkeys(lessons, V1))
    (place / NAME).write_bytes(chapter("one", run=True))
    replace, left = os.replace, iter([True] * landed)

    def some(source: Path, target: Path) -> None:
        if not next(left, False):
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", some)
        with pytest.raises(KeyboardInterrupt):
            hand_out(place, lessons)
    assert chapter("one", run=True) in contents(place).values()
    hand_out(place, lessons)
    after = contents(place)
    assert {name: after[name] for name in lessons} == lessons
    assert chapter("one", run=True) in after.values()
    assert set(hand_out(place, lessons).values()) == {Outcome(What.SAME)}


# What is refused ----------------------------------------------------------------------------------


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="is a file; name a folder"):
        given(tmp_path / "file", V1)
    with pytest.raises(PermissionError, match="no file can be written there; name another"):
        given(tmp_path / "file" / "below", V1)


def test_a_folder_that_cannot_be_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "can_write", lambda folder: False)
    for call in (lambda: given(place, V2), lambda: reset(place, {NAME: V2}, "4")):
        with pytest.raises(PermissionError, match="no file can be written there; name another"):
            call()
    assert contents(place) == {NAME: V1}


def test_the_books_own_chapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "shipped", lambda what: tmp_path)
    with pytest.raises(ValueError, match="the book's own chapters; name another folder"):
        given(tmp_path, V1)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("note", ["{", "{}", '{"files": {"a": {"copy": [1]}}}', '{"files": []}'])
def test_a_damaged_note_is_named_and_nothing_is_written(place: Path, note: str) -> None:
    (place / NOTE).write_text(note)
    with pytest.raises(ValueError, match=r"handed-out\.json: expected"):
        given(place, V2)
    assert contents(place) == {NAME: V1} and (place / NOTE).read_text() == note
