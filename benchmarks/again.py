"""Recorded runs of a study made again: does the code still give what is recorded?

    python benchmarks/again.py sizes                          # the two cheapest runs
    python benchmarks/again.py comparison variant=baseline --limit 1

With the settings and the seed of its record a run should come out as it did, up to rounding, which
differs between processors and versions and grows from step to step. How much may that be? Less than
another seed changes, which no study counts as a finding. What has been made is kept in the data
folder, so that a second call goes on; the records stay as they are.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from llmtutor.data.places import data_dir
from llmtutor.experiments.catalogue import find_study
from llmtutor.experiments.study import Record, Settings, Study, load_record, run_study

ALLOWED = 1.0
"""Standard deviations over seeds by which a final loss may differ from the recorded one."""


@dataclass(frozen=True)
class Again:
    """A run that was made again; final losses in nats a token, infinite where it diverged."""

    settings: Settings
    recorded: float
    now: float
    noise: float
    """Standard deviation of the recorded losses over seeds."""

    @property
    def deviations(self) -> float:
        """The difference in units of the noise, of which ALLOWED are no more than chance."""
        return (self.now - self.recorded) / self.noise


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
    noise = seed_noise(record)
    fit = [run for run in record.runs if run["result"]["valid_loss"] is not None]
    for name, value in only.items():
        fit = [run for run in fit if str(run["settings"].get(name)) == value]
    if not fit:
        raise ValueError(f"study {study.name!r} has no recorded run with a final loss and {only}")
    fit = sorted(fit, key=lambda run: run["cpu_seconds"])[:limit]
    todo = [run["settings"] for run in fit]
    for _ in run_study(replace(study, plan=lambda _: {}, runs=lambda _: todo), again_dir()):
        pass
    made = {str(run["settings"]): run for run in load_record(study.name, again_dir()).runs}
    for old in fit:
        now = made[str(old["settings"])]["result"]["valid_loss"]
        lost = math.inf if now is None else now
        yield Again(old["settings"], old["result"]["valid_loss"], lost, noise)


def seed_noise(record: Record) -> float:
    """Standard deviation of the final loss over seeds: the root of its mean variance.

    Variances are taken among the runs that differ in the seed alone.

    Raises:
        ValueError: no two seeds of one setting, or no final losses.
    """
    groups: dict[str, list[float]] = {}
    for run in record.runs:
        if (loss := run["result"].get("valid_loss")) is not None:
            groups.setdefault(str({**run["settings"], "seed": 0}), []).append(loss)
    several = [losses for losses in groups.values() if len(losses) > 1]
    squares = sum((len(losses) - 1) * statistics.variance(losses) for losses in several)
    if not squares:
        raise ValueError(f"study {record.study!r} has no two seeds of one setting to judge by")
    return math.sqrt(squares / sum(len(losses) - 1 for losses in several))


def main(name: str, only: list[str], limit: int) -> None:
    if wrong := [text for text in only if "=" not in text]:
        raise ValueError(f"expected settings as NAME=VALUE, got {wrong[0]!r}")
    some = list(make_again(find_study(name), limit, **dict(text.split("=", 1) for text in only)))
    print(f"{'RECORDED':>9} {'NOW':>9} {'DIFFERENCE':>11} {'SEEDS':>7} {'IN SEEDS':>9}")
    for one in some:
        print(
            f"{one.recorded:9.4f} {one.now:9.4f} {one.now - one.recorded:+11.4f} "
            f"{one.noise:7.4f} {one.deviations:+9.2f}  {one.settings}"
        )
    print(f"SEEDS: standard deviation over seeds; kept in {again_dir()}")
    if any(abs(one.deviations) > ALLOWED for one in some):
        sys.exit("a run came out otherwise than recorded, by more than seeds differ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", help="one of those that `llmtutor experiment list` shows")
    parser.add_argument("only", nargs="*", metavar="NAME=VALUE", help="settings of the runs")
    parser.add_argument("--limit", type=int, default=2, help="how many runs to make again")
    options = parser.parse_intermixed_args()
    try:
        main(options.study, options.only, options.limit)
    except ValueError as error:
        sys.exit(str(error))
