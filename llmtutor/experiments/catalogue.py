"""Studies of every chapter, by name."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from llmtutor.experiments.comparison import COMPARISON
from llmtutor.experiments.stories import STORIES
from llmtutor.experiments.studies import SCALING
from llmtutor.experiments.study import Study
from llmtutor.experiments.uptraining import UPTRAINING

CATALOGUE: Mapping[str, Study] = MappingProxyType(
    {study.name: study for study in (*SCALING.values(), UPTRAINING, STORIES, *COMPARISON)}
)


def find_study(name: str) -> Study:
    """The study called ``name``; ``ValueError`` with the nearest name if there is none."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = difflib.get_close_matches(name, CATALOGUE, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"there is no study {name!r}; did you mean {near!r}? There are {', '.join(CATALOGUE)}"
    )
