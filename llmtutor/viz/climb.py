"""The model so far, chapter 09: what each rung of the staircase gains, and several that write."""

from matplotlib.figure import Figure

from llmtutor.experiments.climbing import PROMPT
from llmtutor.experiments.staircase import Step
from llmtutor.experiments.study import Record
from llmtutor.viz.plots import intervals
from llmtutor.viz.staircase import printable, staircase
from llmtutor.viz.table import Table


def gains(first: str, last: str, record: Record | None = None) -> Figure:
    """Bits per byte that each rung from ``first`` to ``last`` is below the one before it.

    Bars are 95 % intervals over pairs of a seed: blue above 0, orange below, grey if they hold it.

    Raises:
        ValueError: an unknown rung, one that is not recorded yet, or ``last`` before ``first``.
    """
    climb = list(staircase(last, record).shown)
    names = [step.rung for step in climb]
    if first not in names:
        staircase(first, record)  # says so if it is unknown, or not recorded
        raise ValueError(
            f"expected two rungs from the lower to the higher, got {first!r}, {last!r}"
        )
    climb = climb[names.index(first) :]
    return intervals(
        {s.rung: (s.gain_interval[0], s.gain, s.gain_interval[1]) for s in climb},
        x_label="bits per byte below the rung before",
        y_label="rung",
        title="What each rung gains",
        marked=[s.rung for s in climb if s.better or s.gain_interval[1] < 0],
    )


def samples(*rungs: str, length: int = 170, record: Record | None = None) -> Table:
    """What rungs write after the same prompt: ``length`` characters, ends of lines as slashes.

    Raises:
        ValueError: as ``staircase``.
    """
    chosen = [staircase(rung, record).shown[-1] for rung in rungs]
    rows = [(step.rung, f"{step.bits_per_byte:.2f}", in_one_line(step, length)) for step in chosen]
    return Table(("rung", "bits per byte", f"after “{PROMPT.strip()}”"), rows)


def in_one_line(step: Step, length: int) -> str:
    """Its sample, verses parted as in a quotation.

    >>> from types import SimpleNamespace
    >>> in_one_line(SimpleNamespace(sample="To be,\\n\\nor not"), 11)
    'To be, / or'
    """
    lines = printable(step.sample[:length]).split("\n")
    return " / ".join(line.strip() for line in lines if line.strip())
