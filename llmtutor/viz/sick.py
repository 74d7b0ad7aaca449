"""Curves that are ill, chapter 11: a gallery without names, and what its runs are worth."""

import math
from collections.abc import Mapping
from statistics import mean
from typing import Any

from llmtutor.experiments import sick_curves as sick
from llmtutor.experiments.study import Record
from llmtutor.viz.diagrams.shapes import Drawing
from llmtutor.viz.diagrams.training import Panel, draw_gallery
from llmtutor.viz.table import Table


def gallery(letters: Mapping[str, str], record: Record) -> Drawing:
    """The first seed of each illness under its letter, the healthy run in grey."""

    def panel(name: str, label: str) -> Panel:
        (run,) = record.results(illness=name, seed=0)
        curve, marks = run["curve"], run["marks"]
        training = list(zip(curve["step"], curve["loss"], strict=True))
        return Panel(label, training, list(zip(marks["step"], marks["loss"], strict=True)))

    panels = [panel(name, letter) for name, letter in letters.items()]
    return draw_gallery(panels, panel(sick.HEALTHY, sick.HEALTHY))


def ends(letters: Mapping[str, str], record: Record) -> Table:
    """The end of each run, mean over seeds: as reported, in truth, and the norm of the gradient."""
    found = sick.verdicts(record)
    rows = [_row("healthy", record.results(illness=sick.HEALTHY), "")]
    for name, letter in letters.items():
        low, high = found[name].t_interval
        around = f"{low:+.2f} to {high:+.2f}"
        rows.append(_row(letter, record.results(illness=name), around))
    head = ("run", "reported", "in truth", "minus healthy, 95 %", "gradient norm")
    return Table(head, rows, "Bits per byte at the end of each run, mean of three seeds")


def _row(label: str, results: list[dict[str, Any]], around: str) -> tuple[str, ...]:
    reported = mean(result["marks"]["loss"][-1] for result in results) / math.log(2)
    truth = mean(result["bits_per_byte"] for result in results)
    norm = mean(result["grad_norm"][-1] for result in results)
    return label, f"{reported:.2f}", f"{truth:.2f}", around, f"{norm:.1f}"
