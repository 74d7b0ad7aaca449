"""Chapter 12, scaling: runs made one after the other or side by side, each in its turn.

Who makes a run holds its turn, a lock that ends with the process, until the run is written down. So
several programs work on one study, and none makes what another is making.
"""

import datetime
import hashlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import torch

from llmtutor.data.locks import if_free

Settings = dict[str, Any]
"""What tells one run from another; plain JSON values, a seed among them."""
Run = Callable[..., Mapping[str, Any]]
"""From the settings of one run to what was measured."""
Turn = Callable[[], AbstractContextManager[Settings | None]]
"""The next run, which is nobody else's inside of the block; None if there is none."""


def runs_made(
    run: Run, turn: Turn, limit: int | None = None, processes: int = 1
) -> Iterator[dict[str, Any]]:
    """Runs as they end, at most ``limit``; ``processes`` of them side by side.

    The turn of a run ends when the next one is asked for.
    """
    turns = iter(count() if limit is None else range(limit))
    if processes == 1:
        for _ in turns:
            with turn() as settings:
                if settings is None:
                    return
                yield measured(run, settings)
        return
    spawn, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    pool = ProcessPoolExecutor(processes, spawn, torch.set_num_threads, (threads,))
    at_work: dict[Future[dict[str, Any]], ExitStack] = {}
    try:
        while True:
            while len(at_work) < processes and next(turns, None) is not None:
                held = ExitStack()
                settings = held.enter_context(turn())
                if settings is None:
                    break
                at_work[pool.submit(measured, run, settings)] = held
            if not at_work:
                return
            for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                with at_work.pop(future):
                    yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        for held in at_work.values():
            held.close()


def measured(run: Run, settings: Settings) -> dict[str, Any]:
    """One run, and what it took."""
    started, clock, cpu = now(), time.perf_counter(), time.process_time()
    result = run(**settings)
    return {
        "settings": settings,
        "result": result,
        "started": started,
        "finished": now(),
        "seconds": round(time.perf_counter() - clock, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def lock_of(record: Path, run: str) -> Path:
    """What stands for one run of a record, for ``if_free``."""
    return record.with_name(f".{record.stem}.{hashlib.sha256(run.encode()).hexdigest()[:12]}")


def remove_left_locks(record: Path) -> None:
    """Those of the runs of a record whose process was killed."""
    for file in record.parent.glob(f".{record.stem}.*.lock"):
        with if_free(file.with_suffix("")):
            pass


def now() -> str:
    """The time, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
