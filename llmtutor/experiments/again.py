"""Chapter 12, scaling: recorded runs made again, and whether they still say the same.

With the settings and the seed of its record a run should come out as it did, up to rounding, which
differs between processors and versions and grows from step to step. How much may that be? Less than
another seed changes, which no study counts as a finding.
"""

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llmtutor.data.places import data_dir
from llmtutor.experiments.study import Record, Settings, Study, load_record, run_study

ALLOWED = 1.0
"""Standard deviations over seeds by which a final loss may differ from the recorded one."""
FEW = 5
"""With fewer seeds than these, the noise is that of all settings of the study together."""


@dataclass(frozen=True)
class Again:
    """A run that was made again; final losses in nats a token."""

    settings: Settings
    recorded: float
    now: float
    noise: float
    """Standard deviation of the recorded loss over seeds."""

    @property
    def deviations(self) -> float:
        """The difference in units of the noise."""
        return (self.now - self.recorded) / self.noise

    @property
    def agrees(self) -> bool:
        """Whether the difference is no more than ALLOWED."""
        return abs(self.deviations) <= ALLOWED


def again_dir() -> Path:
    """Where runs made again are kept: in the data folder, not committed."""
    return data_dir() / "again"


def make_again(study: Study, limit: int = 2, **only: str) -> Iterator[Again]:
    """The ``limit`` cheapest recorded runs that have the settings ``only``, made again.

    Each is kept in ``again_dir()``: who stops and calls again goes on. Delete the file to make
    them anew.

    Raises:
        ValueError: no such run; no two seeds of one setting to judge by.
    """
    record = load_record(study.name)
    fit = [run for run in record.runs if run["result"].get("valid_loss") is not None]
    for name, value in only.items():
        fit = [run for run in fit if str(run["settings"].get(name)) == value]
    if not fit:
        raise ValueError(f"study {study.name!r} has no recorded run with a final loss and {only}")
    chosen = sorted(fit, key=lambda run: run["cpu_seconds"])[:limit]
    todo = [run["settings"] for run in chosen]
    noise = [seed_noise(record, settings) for settings in todo]
    for _ in run_study(replace(study, plan=lambda _: {}, runs=lambda _: todo), again_dir()):
        pass
    made = {str(run["settings"]): run for run in load_record(study.name, again_dir()).runs}
    for run, settings, deviation in zip(chosen, todo, noise, strict=True):
        now = made[str(settings)]["result"]["valid_loss"]
        old = run["result"]["valid_loss"]
        yield Again(settings, old, math.inf if now is None else now, deviation)


def seed_noise(record: Record, settings: Mapping[str, object]) -> float:
    """Standard deviation of the final loss over the seeds of these settings.

    With few seeds it is the root of the mean variance over all settings of the study.

    Raises:
        ValueError: no settings with two seeds.
    """
    groups: dict[str, list[float]] = {}
    for run in record.runs:
        if (loss := run["result"].get("valid_loss")) is not None:
            groups.setdefault(_but_seed(run["settings"]), []).append(loss)
    own = groups.get(_but_seed(settings), [])
    some = [own] if len(own) >= FEW else [losses for losses in groups.values() if len(losses) > 1]
    freedom = sum(len(losses) - 1 for losses in some)
    squares = sum((len(losses) - 1) * statistics.variance(losses) for losses in some)
    if not squares:
        raise ValueError(f"study {record.study!r} has no two seeds of one setting to judge by")
    return math.sqrt(squares / freedom)


def _but_seed(settings: Mapping[str, object]) -> str:
    return str({**settings, "seed": None})
