"""Chapter 20, comparison: what other learning projects say of these options, and what we find.

Three public repositories compare architectures for learners: LLM-Architecture (A), the LLM
Architectures Playground (D) and LLM-Explorations (E). Each sentence below is one of their results,
or what their choice of models supposes. It holds where our runs say the same, does not where they
say the opposite, and cannot be told where the seeds do not decide, or nothing was measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from llmtutor.experiments.choosing.cost import Ratio
from llmtutor.experiments.choosing.options import SIZES
from llmtutor.experiments.choosing.verdicts import Finding, Verdict, findings
from llmtutor.experiments.study import Record

Answer = Literal["holds", "does not hold", "cannot be told"]
AS_FAST = 1.05
"""Speeds within this factor of each other are called the same."""

KEEPS_UP: tuple[Verdict, ...] = ("better", "better, by little", "as good", "worse, by little")
"""Whatever rules out a gap that is large enough to choose by."""
FALLS_BEHIND: tuple[Verdict, ...] = ("worse", "worse, by little")

Losses = Mapping[str, Finding]
Costs = Mapping[str, Mapping[str, Ratio]]


@dataclass(frozen=True)
class Claim:
    """One sentence, and how our runs answer it."""

    system: Literal["A", "D", "E"]
    says: str
    judge: Callable[[Losses, Costs], tuple[Answer, str]]
    """The answer, and the figures that it rests on."""


@dataclass(frozen=True)
class Judged:
    """A claim with its answer at one size."""

    claim: Claim
    size: str
    answer: Answer
    why: str


def quality(option: str, *holds: Verdict) -> Callable[[Losses, Costs], tuple[Answer, str]]:
    """The claim holds for these verdicts on an option, and for the others does not."""

    def judge(losses: Losses, costs: Costs) -> tuple[Answer, str]:
        if option not in losses:
            return "cannot be told", f"{option}: not trained yet"
        found = losses[option]
        low, high = found.gap.interval
        why = f"{option}: {found.gap.difference:+.3f} bits per byte [{low:+.3f}, {high:+.3f}]"
        if found.verdict == "cannot be told":
            return "cannot be told", why
        return ("holds" if found.verdict in holds else "does not hold"), why

    return judge


def speed(option: str, least: float, most: float) -> Callable[[Losses, Costs], tuple[Answer, str]]:
    """The claim holds where training runs at ``least`` to ``most`` times the baseline's speed."""

    def judge(losses: Losses, costs: Costs) -> tuple[Answer, str]:
        if option not in costs:
            return "cannot be told", f"{option}: not timed yet"
        found = costs[option]["train_tokens_per_second"]
        low, high = found.interval
        why = f"{option}: {found.mean:.2f} times the training speed [{low:.2f}, {high:.2f}]"
        if least <= low and high <= most:
            return "holds", why
        return ("does not hold" if high < least or low > most else "cannot be told"), why

    return judge


def beyond(why: str) -> Callable[[Losses, Costs], tuple[Answer, str]]:
    """Nothing here can answer it."""
    return lambda losses, costs: ("cannot be told", why)


CLAIMS = (
    Claim(
        "A",
        "Grouped queries train as fast as multi-head attention (94.7 against 95.5 minutes)",
        speed("gqa-2", 1 / AS_FAST, AS_FAST),
    ),
    Claim(
        "A",
        "RoPE costs next to no training time (46.7 against 45.2 minutes)",
        speed("no position", 1 / AS_FAST, AS_FAST),
    ),
    Claim(
        "A",
        "Flash attention halves the training time (45.2 against 95.5 minutes)",
        beyond("every option here takes the fused kernel where it can"),
    ),
    Claim(
        "D",
        "RoPE, RMSNorm and SwiGLU together are better than GPT-2's parts at equal parameters",
        quality("gpt2", *FALLS_BEHIND),
    ),
    Claim(
        "D",
        "Two heads of keys and values are as good as all",
        quality("gqa-2", *KEEPS_UP),
    ),
    Claim(
        "D",
        "A model that compresses its past by Linformer's projections keeps up",
        quality("linformer in blocks", *KEEPS_UP),
    ),
    Claim(
        "D",
        "A model of diagonal state space layers keeps up with attention",
        quality("s4d", *KEEPS_UP),
    ),
    Claim(
        "E",
        "Differential attention is comparable to attention (loss 1.18, where attention has 1.02)",
        quality("differential", *KEEPS_UP),
    ),
)
"""By system, in its order."""


def judged(record: Record, costs: Costs) -> list[Judged]:
    """Every claim, at the largest size that can answer it; the smallest where none does."""
    by_size = {size: findings(record, size) for size in SIZES}
    found = []
    for claim in CLAIMS:
        answers = [
            Judged(claim, size, *claim.judge(losses, costs)) for size, losses in by_size.items()
        ]
        told = [one for one in answers if one.answer != "cannot be told"]
        found.append(told[-1] if told else answers[0])
    return found
