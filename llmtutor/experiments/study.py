"""Chapter 12, scaling: studies that have a name, can be interrupted and keep what they measured.

What a run returns is written into ``data/results/NAME.json`` the moment it ends, so a study that
was stopped, by whatever means, goes on where it stopped, and several programs can work on it. It
can grow: runs are told by their settings, and what is recorded stays recorded. An installed package
brings its records along and writes what it adds into the user's data folder.
"""

import inspect
import json
import os
import platform
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmtutor import __version__
from llmtutor.data.locks import alone, if_free
from llmtutor.data.places import data_dir
from llmtutor.data.shipped import checkout, shipped
from llmtutor.experiments.making import Settings, lock_of, now, remove_left_locks, runs_made
from llmtutor.tokenizer.files import read_json

UNPLANNED = "not planned yet"
"""Stands in the settings of a run for a value that the plan does not have so far."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is to be found out, and the runs that do it; all values are plain ones of JSON."""

    name: str
    """Also the name of the file, without ``.json``."""
    description: str
    runs: Callable[[Mapping[str, Any]], Sequence[Settings]]
    """From the plan as it is written (a missing entry reads as UNPLANNED) to all settings."""
    run: Callable[..., Mapping[str, Any]]
    """From the settings of one run to what was measured."""
    plan: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda written: {}
    """From what is written down, nothing at first, to the entries that are missing: a prediction, a
    learning rate from another study. They are on disk before a run starts, and never changed."""


@dataclass(frozen=True)
class Record:
    """What is in a study's file."""

    study: str
    description: str
    plan: dict[str, Any]
    planned: str
    """When the plan was first written, UTC."""
    environments: list[dict[str, Any]]
    """Machines and versions; each run names the one that made it by its place in this list."""
    runs: list[dict[str, Any]]
    """Each with ``settings``, ``result``, ``environment``, ``started``, ``finished``, ``seconds``
    (by the clock) and ``cpu_seconds``."""
    added: list[dict[str, Any]] = field(default_factory=list)
    """What came to the plan later: ``planned``, when, and ``plan``, the new entries alone."""

    def results(self, **settings: Any) -> list[dict[str, Any]]:
        """Results of the runs that have these settings, whatever their others."""
        return [
            run["result"]
            for run in self.runs
            if all(run["settings"].get(name) == value for name, value in settings.items())
        ]

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all runs together."""
        return sum(run["cpu_seconds"] for run in self.runs)


def results_dir() -> Path:
    """Where the records of the book are: ``data/results`` of the checkout, or in the package."""
    return shipped("results")


def own_results_dir() -> Path:
    """Where records are written: the same folder of a checkout, else one in the data folder."""
    return results_dir() if checkout() else data_dir() / "results"


def record_path(name: str, folder: Path | None = None) -> Path:
    """The file of a record, the user's own where it holds more; it need not be there.

    Raises:
        ValueError: there are two, and one is no JSON object.
    """
    own = _path(name, folder)
    paths = [own] if folder else [results_dir() / own.name, own]
    present = [path for path in dict.fromkeys(paths) if path.is_file()]
    return max(present, key=_extent) if len(present) > 1 else (present or [own])[0]


def _extent(path: Path) -> tuple[int, int]:
    """How much a record holds: runs, then additions to its plan."""
    content: dict[str, Any] = read_json(path)
    return len(content.get("runs", [])), len(content.get("added", []))


def load_record(name: str, folder: Path | None = None) -> Record:
    """The record of a study.

    Raises:
        ValueError: nothing is recorded under this name, or the file is not a record.
    """
    path = record_path(name, folder)
    if not path.is_file():
        raise ValueError(f"{path} is not there; `llmtutor experiment run {name}` makes it")
    content = read_json(path)
    try:
        record = Record(**content)  # type: ignore[arg-type]
        for run in record.runs:
            run["settings"], run["result"], record.environments[run["environment"]]
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{path}: expected the record of a study, but {error}") from None
    if record.study != name:
        raise ValueError(f"{path}: expected the study {name!r}, found {record.study!r}")
    return record


def run_study(
    study: Study,
    folder: Path | None = None,
    *,
    limit: int | None = None,
    processes: int = 1,
    device: str = "cpu",
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Make the runs that are not recorded yet, and yield each when it is safely on disk.

    Yields ``(how many are recorded now, how many there are, the run)``. Nothing happens unless the
    iterator is used. A run that was stopped is made again from its beginning. ``processes`` make
    runs side by side, and so may several programs: a run that one of them is making, the others
    leave to it. The plan is looked at again before each run, so that what has been found by then
    may decide what comes next. Recorded runs that the study does not have any more stay, and are
    not counted.

    Raises:
        ValueError: two runs have the same settings; a plan that changes what is written or lacks
            what a run needs; a ``device`` other than the CPU for runs that take none.
    """
    if device != "cpu" and "device" not in inspect.signature(study.run).parameters:
        raise ValueError(f"study {study.name!r} is made on the CPU alone: leave out the device")
    run = study.run if device == "cpu" else partial(study.run, device=device)
    here = environment(device)
    remove_left_locks(_path(study.name, folder))
    for made in runs_made(run, lambda: _turn(study, folder), limit, processes):
        yield *_recorded(study, folder, made, here), made


def _runs(study: Study, record: Record) -> tuple[list[Settings], list[Settings]]:
    """The settings of all runs, and of those that are not recorded."""
    plan = json.loads(
        json.dumps(record.plan), object_hook=lambda written: defaultdict(lambda: UNPLANNED, written)
    )
    todo = [json.loads(json.dumps(settings)) for settings in study.runs(plan)]
    if len({_key(settings) for settings in todo}) < len(todo):
        raise ValueError(f"study {study.name!r}: two runs have the same settings")
    done = {_key(run["settings"]) for run in record.runs}
    return todo, [settings for settings in todo if _key(settings) not in done]


def _planned(study: Study, folder: Path | None) -> Record:
    """The record of a study; what its plan lacked is made, and on disk."""
    path = _path(study.name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        record = Record(study.name, study.description, {}, now(), [], [])
        if begun := record_path(study.name, folder).is_file():
            record = load_record(study.name, folder)
        entries = json.loads(json.dumps(study.plan(record.plan)))
        plan = _grown(record.plan, entries)
        if plan != record.plan or not begun:
            if begun:
                record.added.append({"planned": now(), "plan": entries})
            record = replace(record, plan=plan)
            _write(path, record)
    return record


def _recorded(
    study: Study, folder: Path | None, made: dict[str, Any], here: dict[str, Any]
) -> tuple[int, int]:
    """Put a run into the record as it is now; how many are there, and how many there are to be."""
    path = _path(study.name, folder)
    with alone(path):
        record = load_record(study.name, folder)
        if here not in record.environments:
            record.environments.append(here)
        made["environment"] = record.environments.index(here)
        record.runs.append(made)
        _write(path, record)
    todo, left = _runs(study, record)
    return len(todo) - len(left), len(todo)


@contextmanager
def _turn(study: Study, folder: Path | None) -> Iterator[Settings | None]:
    """The next run that is neither recorded nor being made; nobody else makes it meanwhile."""
    _, left = _runs(study, _planned(study, folder))
    if lacking := next((settings for settings in left if UNPLANNED in settings.values()), None):
        raise ValueError(f"study {study.name!r}: the plan lacks what this run needs: {lacking}")
    path = _path(study.name, folder)
    for settings in left:
        with if_free(lock_of(path, _key(settings))) as free:
            if free and settings in _runs(study, load_record(study.name, folder))[1]:
                yield settings
                return
    yield None


def _grown(written: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """What was written and the new entries, some of them inside of others."""
    grown = dict(written)
    for name, value in entries.items():
        inside = isinstance(value, Mapping) and isinstance(grown.get(name), Mapping)
        if name in grown and not inside:
            raise ValueError(f"the plan has an entry {name!r} already, and what is written stays")
        grown[name] = _grown(grown[name], value) if inside else value
    return grown


def size(study: Study, folder: Path | None = None) -> tuple[int, int | None, float]:
    """Runs recorded, runs in all (None before there is a plan to tell) and processor seconds."""
    if not record_path(study.name, folder).is_file():
        return 0, None, 0.0
    record = load_record(study.name, folder)
    todo, left = _runs(study, record)
    return len(todo) - len(left), len(todo), record.cpu_seconds


def environment(device: str = "cpu") -> dict[str, Any]:
    """What a result may depend on: versions, device, processor, threads, and the day."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    versions = {"llmtutor": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return {
        "date": now()[:10],
        "versions": {"python": platform.python_version(), **versions},
        "device": torch.cuda.get_device_name(device) if "cuda" in device else device,
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }


def _path(name: str, folder: Path | None) -> Path:
    """The file to write."""
    return (own_results_dir() if folder is None else folder) / f"{name}.json"


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _write(path: Path, record: Record) -> None:
    """One line a run; the old file stays until the new one is on disk, whole."""
    head = {k: v for k, v in vars(record).items() if k != "runs" and (v or k != "added")}
    lines = [f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)},\n" for k, v in head.items()]
    runs = ",\n".join(json.dumps(run, allow_nan=False) for run in record.runs)
    text = "{\n" + "".join(lines) + '"runs": [\n' + runs + "\n]\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")  # one name: what a kill left is overwritten
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
