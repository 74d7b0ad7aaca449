"""Every exercise of every chapter: the reference passes, a wrong solution is told why it fails."""

import inspect
import re
from pathlib import Path

import pytest

from llmtutor.exercises import chapters, check, examine, exercises
from llmtutor.exercises.compare import same
from llmtutor.exercises.core import WIDTH, Exercise

BOOK = Path(__file__).parents[2] / "book" / "chapters"
ALL = [exercise for chapter in chapters() for exercise in exercises(chapter)]
WRONG = [(exercise, wrong) for exercise in ALL for wrong in exercise.wrong]
PUBLISHED = sorted(path.stem.partition("_")[2] for path in BOOK.glob("[0-9][0-9]_*.ipynb"))

each = pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.name)


@pytest.mark.parametrize("chapter", PUBLISHED)
def test_a_published_chapter_has_three_exercises_and_asks_for_each(chapter: str) -> None:
    assert chapter in chapters(), f"no llmtutor/exercises/{chapter}.py"
    (notebook,) = BOOK.glob(f"[0-9][0-9]_{chapter}.ipynb")
    text = notebook.read_text(encoding="utf-8")
    names = [exercise.name for exercise in exercises(chapter)]
    assert len(names) >= 3
    assert [name for name in names if name not in text] == []


@pytest.mark.parametrize("chapter", chapters())
def test_names_begin_with_their_chapter_and_are_distinct(chapter: str) -> None:
    names = [exercise.name for exercise in exercises(chapter)]
    assert all(re.fullmatch(rf"{chapter}\.[a-z][a-z0-9_]*", name) for name in names)
    assert len(set(names)) == len(names) > 0


@each
def test_the_reference_is_accepted(exercise: Exercise, capsys: pytest.CaptureFixture) -> None:
    verdict = check(exercise.name, exercise.reference)
    assert verdict.accepted, verdict.message
    assert capsys.readouterr().out == verdict.message + "\n"


@each
def test_there_are_three_wrong_solutions_each_with_its_own_misconception(
    exercise: Exercise,
) -> None:
    texts = [wrong.misconception for wrong in exercise.wrong]
    assert len(set(texts)) == len(texts) >= 3
    assert all(len(text) >= 20 and text.strip() == text for text in texts)


@pytest.mark.parametrize(
    ("exercise", "wrong"), WRONG, ids=lambda v: getattr(v, "name", None) or v.solution.__name__
)
def test_a_wrong_solution_is_told_its_own_misconception(exercise: Exercise, wrong) -> None:
    verdict = examine(exercise, wrong.solution)
    assert verdict.outcome == "rejected"
    assert verdict.misconception == wrong.misconception
    assert wrong.misconception in " ".join(verdict.message.split())
    assert max(map(len, verdict.message.splitlines())) <= WIDTH
    assert examine(exercise, wrong.solution).message == verdict.message


@each
def test_an_unfilled_stub_is_not_attempted(exercise: Exercise) -> None:
    names = ", ".join(inspect.signature(exercise.reference).parameters)
    bodies = ("...", "return ...", "pass", "raise NotImplementedError", "return None")
    for body in bodies:
        scope: dict = {}
        exec(f"def stub({names}):\n    {body}", scope)
        verdict = examine(exercise, scope["stub"])
        assert verdict.message == f"{exercise.name}: not attempted yet", body
    for answer in (None, ...):
        assert examine(exercise, answer).outcome == "not attempted"


@each
def test_cases_are_the_same_every_time(exercise: Exercise) -> None:
    first, second = list(exercise.cases()), list(exercise.cases())
    assert len(first) >= 2
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


@each
def test_the_reference_leaves_its_input_alone_where_the_learner_has_to(exercise: Exercise) -> None:
    if exercise.mutation:
        assert examine(exercise, exercise.reference).accepted
        assert exercise.mutation not in [wrong.misconception for wrong in exercise.wrong]
