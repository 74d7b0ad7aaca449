"""Studies of every chapter, by name."""

from collections.abc import Mapping

from llmtutor.checks import check_name
from llmtutor.experiments.comparison import COMPARISON
from llmtutor.experiments.sinks import SINKS
from llmtutor.experiments.staircase import STAIRCASE
from llmtutor.experiments.stories import STORIES
from llmtutor.experiments.studies import SCALING
from llmtutor.experiments.study import Study
from llmtutor.experiments.uptraining import UPTRAINING
from llmtutor.experiments.windows import WINDOWS

CATALOGUE: Mapping[str, Study] = {
    study.name: study
    for study in (
        *(*SCALING.values(), UPTRAINING, STORIES, SINKS, WINDOWS),
        *(*COMPARISON, *STAIRCASE),
    )
}


def find_study(name: str) -> Study:
    """The study called ``name``; ``ValueError`` with the nearest name if there is none."""
    return CATALOGUE[check_name("study", name, CATALOGUE)]
