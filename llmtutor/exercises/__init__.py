"""Exercises of every chapter: ``check("tokenizer.count_pairs", my_function)`` judges an answer.

Each chapter's exercises are a module of this package that defines ``EXERCISES``; it is imported when
one of its exercises is asked for.
"""

import difflib
import importlib
import pkgutil
from typing import Any

from llmtutor.exercises.core import Exercise, Property, Verdict, Wrong, examine

__all__ = ["Exercise", "Property", "Verdict", "Wrong", "chapters", "check", "exercises", "find"]

FRAMEWORK = {"compare", "core", "run", "values"}


def check(name: str, answer: Any) -> Verdict:
    """Judge ``answer`` (a function of yours), print what was found, and return it."""
    verdict = examine(find(name), answer)
    print(verdict.message)
    return verdict


def find(name: str) -> Exercise:
    """The exercise of this name; ``ValueError`` with the nearest name where there is none."""
    prefix = name.partition(".")[0]
    if prefix in chapters():
        for exercise in exercises(prefix):
            if exercise.name == name:
                return exercise
    known = [exercise.name for chapter in chapters() for exercise in exercises(chapter)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"
    raise ValueError(f"no exercise is called {name!r}; {hint}")


def chapters() -> list[str]:
    """The chapters that have a module of exercises."""
    names = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(names - FRAMEWORK)


def exercises(chapter: str) -> list[Exercise]:
    """The exercises of one chapter, in its order."""
    return list(importlib.import_module(f"{__name__}.{chapter}").EXERCISES)
