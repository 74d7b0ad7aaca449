"""The page for teachers is read from the chapters, and so is the drawing of their order."""

import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def extension() -> types.ModuleType:
    path = ROOT / "book" / "_ext" / "teaching.py"
    spec = importlib.util.spec_from_file_location("teaching", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["teaching"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_what_is_needed_is_read_with_ranges_and_without_the_chapter_itself(extension) -> None:
    box = "**You need** attention (chapter 04), 05 to 07, {doc}`01_tokenizer`; 12 lines.\n:::\n08"
    assert extension.needed(box, 7) == {1, 4, 5, 6, 12}  # its own number left out
    assert extension.needed("nothing", 7) == set()


def test_essential_arcs_by_hand(extension) -> None:
    needs = {1: set(), 2: {1}, 3: {1, 2}, 4: {3, 1}, 5: {2, 9}}
    assert extension.essential(needs) == {1: set(), 2: {1}, 3: {2}, 4: {3}, 5: {2, 9}}


def test_no_chapter_needs_one_that_is_read_later(extension) -> None:
    known = extension.chapters()
    place = {chapter.number: i for i, chapter in enumerate(known)}
    assert len(place) == len(known) >= 25
    for chapter in known:
        assert all(place[other] < place[chapter.number] for other in chapter.needs), chapter.page
        assert chapter.needs or chapter.number == 1


def test_a_chapter_that_needs_a_later_one_is_named(extension) -> None:
    one = extension.Chapter(1, "book/chapters/01_a", "A", set(), [])
    two = extension.Chapter(2, "book/chapters/02_b", "B", {1}, [])
    assert extension.in_order((one, two)) == (one, two)
    with pytest.raises(ValueError, match='02_b: "You need" names chapter 01, which is read later'):
        extension.in_order((two, one))


def test_every_chapter_is_in_the_plan_and_has_its_exercises(extension) -> None:
    page = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
    for chapter in extension.chapters():
        named = f"<{chapter.page.removeprefix('book/')}>" in page
        assert named or 15 < chapter.number < 19  # "15 to 19"
        assert chapter.minutes > 0 and len(chapter.exercises) >= 3
    asked = set(re.findall(r"{exercises} ?([★☆]*)", page))
    found = {e.difficulty for chapter in extension.chapters() for e in chapter.exercises}
    assert {one or extension.OPEN_KIND for one in asked} == found


def test_the_drawing_says_every_arc(extension) -> None:
    drawing = extension.dependence()
    needs = extension.essential({c.number: c.needs for c in extension.chapters()})
    assert drawing.svg().count('class="lt-head') == sum(map(len, needs.values()))
    assert re.search(r"; 6 [^;]+: needs 5;", drawing.description)
