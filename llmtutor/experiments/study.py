"""Chapter 12, scaling: studies that have a name, can be interrupted and keep what they measured.

A study is a list of runs. What each run returns is written into ``data/results/NAME.json`` the
moment it ends, so a study that was stopped, by whatever means, goes on where it stopped.
"""

import datetime
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmtutor import __version__
from llmtutor.data.places import data_dir
from llmtutor.tokenizer.files import read_json

Settings = dict[str, Any]
"""What tells one run from another; plain JSON values, a seed among them."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is to be found out, and the runs that do it.

    ``plan`` is called once, before the first run, and its answer is written down before that run
    starts: a prediction, a learning rate taken from another study. ``runs`` gets the plan as it
    was written then, and gives the settings of each run; ``run`` is called with one of them and
    returns what was measured. All of these are plain JSON values.
    """

    name: str
    """Also the name of the file, without ``.json``."""
    description: str
    """One line."""
    runs: Callable[[Mapping[str, Any]], Sequence[Settings]]
    run: Callable[..., Mapping[str, Any]]
    plan: Callable[[], Mapping[str, Any]] = dict


@dataclass(frozen=True)
class Record:
    """What is in a study's file."""

    study: str
    description: str
    plan: dict[str, Any]
    planned: str
    """When the plan was written, UTC."""
    environments: list[dict[str, Any]]
    """Machines and versions; each run names the one that made it by its place in this list."""
    runs: list[dict[str, Any]]
    """Each with ``settings``, ``result``, ``environment``, ``started``, ``finished``, ``seconds``
    (by the clock) and ``cpu_seconds``."""

    def results(self, **settings: Any) -> list[dict[str, Any]]:
        """Results of the runs that have these settings, whatever their others."""

        def fits(run: dict[str, Any]) -> bool:
            return all(run["settings"].get(name) == value for name, value in settings.items())

        return [run["result"] for run in self.runs if fits(run)]

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all runs together."""
        return sum(run["cpu_seconds"] for run in self.runs)


def results_dir() -> Path:
    """Where records are: ``data/results`` of the checkout, committed; else in the data folder."""
    committed = Path(__file__).resolve().parents[2] / "data" / "results"
    return committed if committed.is_dir() else data_dir() / "results"


def load_record(name: str, folder: Path | None = None) -> Record:
    """The record of a study.

    Raises:
        ValueError: nothing is recorded under this name, or the file is not a record.
    """
    path = _path(name, folder)
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
    study: Study, folder: Path | None = None, *, limit: int | None = None, processes: int = 1
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Make the runs that are not recorded yet, and yield each when it is safely on disk.

    Yields ``(how many are recorded now, how many there are, the run)``. A run that was under way
    when the study was stopped is made again from its beginning. Nothing happens unless the
    iterator is used. ``processes`` make runs side by side; this one alone writes. Do not call this
    for one study in two programs at the same time: they would make the same runs.

    Raises:
        ValueError: two runs have the same settings; the record has runs that the study does not
            (its settings were changed: delete the file, or give the study another name).
    """
    path = _path(study.name, folder)
    if path.is_file():
        record = load_record(study.name, folder)
    else:
        plan = json.loads(json.dumps(study.plan()))
        record = Record(study.name, study.description, plan, _now(), [], [])
        _write(path, record)
    todo = [json.loads(json.dumps(settings)) for settings in study.runs(record.plan)]
    if len({_key(settings) for settings in todo}) < len(todo):
        raise ValueError(f"study {study.name!r}: two runs have the same settings")
    done = {_key(run["settings"]) for run in record.runs}
    if strange := done - {_key(settings) for settings in todo}:
        raise ValueError(
            f"{path} holds a run that is not in the study: {min(strange)}; the settings were "
            "changed since: delete the file, or give the study another name"
        )
    left = [settings for settings in todo if _key(settings) not in done][:limit]
    here = environment()
    for run in _make(study.run, left, processes):
        if here not in record.environments:
            record.environments.append(here)
        run["environment"] = record.environments.index(here)
        record.runs.append(run)
        _write(path, record)
        yield len(record.runs), len(todo), run


def _make(
    run: Callable[..., Mapping[str, Any]], left: Sequence[Settings], processes: int
) -> Iterator[dict[str, Any]]:
    """Runs as they end: one after the other here, or side by side in processes of their own."""
    if processes == 1:
        yield from (_measured(run, settings) for settings in left)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        processes, context, torch.set_num_threads, (torch.get_num_threads(),)
    )
    try:
        for future in as_completed([pool.submit(_measured, run, settings) for settings in left]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _measured(run: Callable[..., Mapping[str, Any]], settings: Settings) -> dict[str, Any]:
    started, clock, cpu = _now(), time.perf_counter(), time.process_time()
    result = run(**settings)
    return {
        "settings": settings,
        "result": result,
        "started": started,
        "finished": _now(),
        "seconds": round(time.perf_counter() - clock, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def size(study: Study, folder: Path | None = None) -> tuple[int, int | None, float]:
    """Runs recorded, runs in all (None before there is a plan to tell) and processor seconds."""
    if not _path(study.name, folder).is_file():
        return 0, None, 0.0
    record = load_record(study.name, folder)
    return len(record.runs), len(study.runs(record.plan)), record.cpu_seconds


def environment() -> dict[str, Any]:
    """What a result may depend on: versions, processor, threads, and the day."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    versions = {"llmtutor": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return {
        "date": _now()[:10],
        "versions": {"python": platform.python_version(), **versions},
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }


def _path(name: str, folder: Path | None) -> Path:
    return (results_dir() if folder is None else folder) / f"{name}.json"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _write(path: Path, record: Record) -> None:
    """One line a run; the old file stays until the new one is on disk, whole."""
    head = {k: v for k, v in vars(record).items() if k != "runs"}
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
