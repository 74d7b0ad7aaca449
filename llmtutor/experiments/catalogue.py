"""Studies of every chapter, by name."""

from collections.abc import Mapping

from llmtutor.checks import check_name
from llmtutor.experiments.benchmarks import BENCHMARKS
from llmtutor.experiments.budgets import ISOFLOP, REPEATED
from llmtutor.experiments.choosing.cost import COST
from llmtutor.experiments.choosing.plan import CHOOSING
from llmtutor.experiments.copying import COPYING
from llmtutor.experiments.depth import DEPTH
from llmtutor.experiments.expert_balance import MOE_BALANCE
from llmtutor.experiments.feed_forward import FEED_FORWARD
from llmtutor.experiments.forensics.plan import FORENSICS
from llmtutor.experiments.latent_conversion import LATENT_CONVERSION
from llmtutor.experiments.multi_token import MULTI_TOKEN
from llmtutor.experiments.mup import MUP
from llmtutor.experiments.needle import NEEDLE
from llmtutor.experiments.positions import POSITIONS
from llmtutor.experiments.quantisation import QUANTISATION
from llmtutor.experiments.racing import RACING
from llmtutor.experiments.recall import RECALL
from llmtutor.experiments.sick_curves import SICK_CURVES
from llmtutor.experiments.sinks import SINKS
from llmtutor.experiments.staircase import STAIRCASE
from llmtutor.experiments.state_space import STATE_SPACE
from llmtutor.experiments.stories import STORIES
from llmtutor.experiments.studies import SCALING
from llmtutor.experiments.study import Study
from llmtutor.experiments.tokenizers_today import TOKENIZERS_TODAY
from llmtutor.experiments.uptraining import UPTRAINING
from llmtutor.experiments.windows import WINDOWS

CATALOGUE: Mapping[str, Study] = {
    study.name: study
    for study in (
        *SCALING.values(),
        UPTRAINING,
        LATENT_CONVERSION,
        STORIES,
        CHOOSING,
        COST,
        *STAIRCASE,
        *MULTI_TOKEN,
        MOE_BALANCE,
        *NEEDLE,
        *COPYING,
        *STATE_SPACE,
        RECALL,
        SINKS,
        WINDOWS,
        BENCHMARKS,
        QUANTISATION,
        FORENSICS,
        TOKENIZERS_TODAY,
        *FEED_FORWARD,
        *RACING,
        *ISOFLOP,
        *DEPTH,
        *POSITIONS,
        MUP,
        REPEATED,
        SICK_CURVES,
    )
}


def find_study(name: str) -> Study:
    """The study called ``name``; ``ValueError`` with the nearest name if there is none."""
    return CATALOGUE[check_name("study", name, CATALOGUE)]
