"""The model so far, every chapter from 03 on: how good each rung is, and what it writes."""

from dataclasses import dataclass
from html import escape

from llmtutor.checks import check_name
from llmtutor.experiments.climbing import PROMPT
from llmtutor.experiments.rungs import RUNGS
from llmtutor.experiments.staircase import Step, steps
from llmtutor.experiments.study import Record, load_record
from llmtutor.viz.html import TH
from llmtutor.viz.style import PALETTE

NAME = "font-weight:normal;width:50%;padding-bottom:0.4em;line-height:1.3"
MUTED = "color:var(--pst-color-text-muted)"  # of the book; JupyterLab keeps the plain colour


@dataclass(frozen=True)
class Staircase:
    """Rungs from the lowest to the one that is shown; a notebook shows it as HTML and as text."""

    shown: tuple[Step, ...]

    def _repr_html_(self) -> str:
        """A bar for each rung, what the last one writes, and folded what the others wrote."""
        *before, last = self.shown
        largest = max(step.bits_per_byte for step in self.shown)
        head = "".join(
            f'<th scope="col" style="{TH}">{column}</th>'
            for column in ("rung, and what is new on it", "bits per byte on held-out works")
        )
        body = "".join(
            _row(step, step.bits_per_byte / largest, step is last) for step in self.shown
        )
        others = "".join(f"<p><em>{escape(step.rung)}</em></p>{_sample(step)}" for step in before)
        fold = f"<details><summary>What the rungs before it write</summary>{others}</details>"
        return (
            '<table style="width:100%;border-collapse:collapse;margin-bottom:1em">'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>What <em>{escape(last.rung)}</em> writes after “{escape(PROMPT.strip())}”:</p>"
            f"{_sample(last)}{fold if before else ''}"
        )

    def __repr__(self) -> str:
        """The same in words."""
        *_, last = self.shown
        rungs = "\n".join(
            f"{step.rung} ({RUNGS[step.rung].new}): {number(step)}{remark(step)}"
            for step in self.shown
        )
        sample = printable(last.sample)
        return f"Bits per byte on held-out works, by rung:\n{rungs}\n{last.rung} writes:\n{sample}"


def staircase(upto: str | None = None, record: Record | None = None) -> Staircase:
    """The rungs up to ``upto`` (default: all that are recorded), from the record of the study.

    Raises:
        ValueError: an unknown rung, or one that is not recorded with all its seeds yet.
    """
    found = steps(load_record("staircase") if record is None else record)
    names = [step.rung for step in found]
    if upto is None:
        upto = names[-1]
    if check_name("rung", upto, RUNGS) not in names:
        raise ValueError(
            f"rung {upto!r} is not recorded with all its seeds; `llmtutor experiment run "
            f"staircase` makes the runs. There are {', '.join(names)}"
        )
    return Staircase(tuple(found[: names.index(upto) + 1]))


def number(step: Step) -> str:
    """Bits per byte, with half the width of the interval where there is one.

    >>> from types import SimpleNamespace
    >>> number(SimpleNamespace(bits_per_byte=2.0, interval=(1.98, 2.02)))
    '2.000 ± 0.020'
    """
    half = (step.interval[1] - step.interval[0]) / 2
    return f"{step.bits_per_byte:.3f}" + (f" ± {half:.3f}" if half else "")


def remark(step: Step) -> str:
    """Whether the rung is not better than the one before by more than chance."""
    if step.better or step.rung == next(iter(RUNGS)):
        return ""
    return (
        ", worse than the rung before"
        if step.gain_interval[1] < 0
        else ", not distinguishable from the rung before"
    )


def printable(text: str) -> str:
    """Characters that no screen shows, of which tokens by chance are full, as dots."""
    return "".join(c if c.isprintable() or c == "\n" else "·" for c in text).replace("\ufffd", "·")


def _row(step: Step, share: float, last: bool) -> str:
    color = PALETTE[1] if last else PALETTE[0]
    bar = f"height:0.9em;margin-top:0.4em;width:{100 * share:.2f}%;background:{color}"
    name = f"<strong>{escape(step.rung)}</strong>" if last else escape(step.rung)
    return (
        f'<tr style="vertical-align:top"><th scope="row" style="{TH};{NAME}">{name}<br>'
        f'<small style="{MUTED}">{escape(RUNGS[step.rung].new)}</small></th>'
        f'<td style="width:50%;text-align:left"><div style="{bar}"></div>'
        f"<small>{number(step)}{remark(step)}</small></td></tr>"
    )


def _sample(step: Step) -> str:
    return f'<pre style="white-space:pre-wrap">{escape(printable(step.sample))}</pre>'
