"""Chapter 13, distributed: processes that wait for work, so that a notebook can talk to them.

Training starts its processes with torchrun; a reader wants to write a function in a cell and see
what two processes make of it.
"""

import importlib
import marshal
import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from contextlib import AbstractContextManager
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
import torch.distributed as dist

from llmtutor.train.distributed import World, disconnect

GRACE = 3.0  # seconds that the other ranks have to speak after one has failed


class RankError(RuntimeError):
    """A function failed on some rank, or the process of a rank died."""


class Ranks(AbstractContextManager["Ranks"]):
    """``world_size`` processes on this machine, joined by gloo, with one thread each.

    >>> with Ranks(2) as ranks:  # doctest: +SKIP
    ...     ranks.run(lambda world, x: x + world.rank, 10)
    [10, 11]

    The functions may be defined in a notebook: they are sent as code, with the functions, modules
    and values that they mention (but no decorated functions, and no classes). After an error all
    processes are ended, and the next call starts new ones.
    """

    def __init__(self, world_size: int, timeout: float = 180.0) -> None:
        if world_size < 1:
            raise ValueError(f"expected at least one process, got {world_size}")
        self.world_size = world_size
        self.timeout = timeout
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._pipes: list[Connection] = []

    def run(self, function: FunctionType, *args: Any) -> list[Any]:
        """``function(world, *args)`` on every rank, and what each of them returned, in order.

        Raises:
            RankError: a rank raised, died or did not answer in time; says what each of them said.
            ValueError: the function cannot be sent.
        """
        message = pickle.dumps((pack(function), args))
        if not self._processes:
            self._start()
        try:
            for pipe in self._pipes:
                pipe.send_bytes(message)
            outcomes = self._collect()
        except BaseException:
            self.close()
            raise
        if all(good for good, _ in outcomes.values()):
            return [outcomes[rank][1] for rank in range(self.world_size)]
        self.close()
        said = [f"rank {rank}: {value}" for rank, (good, value) in outcomes.items() if not good]
        raise RankError("\n".join(sorted(said)))

    def _collect(self) -> dict[int, tuple[bool, Any]]:
        """What each rank answered: (True, its result) or (False, what went wrong)."""
        outcomes: dict[int, tuple[bool, Any]] = {}
        end = time.monotonic() + self.timeout
        while len(outcomes) < self.world_size:
            silent = [p for rank, p in enumerate(self._pipes) if rank not in outcomes]
            ready = wait(silent, max(0.0, end - time.monotonic()))
            if not ready:
                late = dict.fromkeys(range(self.world_size), (False, "has not answered"))
                return late | outcomes
            for pipe in ready:
                rank = self._pipes.index(pipe)  # type: ignore[arg-type]
                try:
                    outcomes[rank] = pickle.loads(self._pipes[rank].recv_bytes())
                except (EOFError, ConnectionError):
                    self._processes[rank].join(GRACE)
                    code = self._processes[rank].exitcode
                    outcomes[rank] = False, f"the process has died (exit code {code})"
                if not outcomes[rank][0]:
                    end = min(end, time.monotonic() + GRACE)
        return outcomes

    def _start(self) -> None:
        """Spawn the processes; they meet in a file, so that no port need be free."""
        spawn = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-", ignore_cleanup_errors=True)
        for rank in range(self.world_size):
            ours, theirs = spawn.Pipe()
            world = World(rank, self.world_size)
            process = spawn.Process(
                target=_serve, args=(theirs, world, self._folder.name, self.timeout), daemon=True
            )
            process.start()
            theirs.close()  # so that the pipe ends when the process does
            self._processes.append(process)
            self._pipes.append(ours)

    def close(self) -> None:
        """End the processes, which have nothing to lose; none is left running."""
        for process in self._processes:
            process.kill()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join()
            pipe.close()
        if self._processes:
            self._folder.cleanup()
        self._processes, self._pipes = [], []

    def __exit__(self, *error: object) -> None:
        self.close()


def _serve(pipe: Connection, world: World, folder: str, timeout: float) -> None:
    """The life of one rank: join, then answer until the pipe ends."""
    torch.set_num_threads(1)
    log = os.open(Path(folder, f"stderr-{world.rank}"), os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 2)  # torch's own remarks about a broken connection belong to nobody's cell
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(str(Path(folder, "store")), world.world_size),
        rank=world.rank,
        world_size=world.world_size,
        timeout=timedelta(seconds=timeout),
    )
    while True:
        try:
            packed, args = pickle.loads(pipe.recv_bytes())
        except (EOFError, ConnectionError):
            return disconnect()
        try:
            answer = pickle.dumps((True, unpack(packed)(world, *args)))
        except Exception:
            answer = pickle.dumps((False, traceback.format_exc(limit=-3).strip()))
        pipe.send_bytes(answer)


Packed = tuple[str, dict[str, tuple[str, Any]]]


def pack(function: FunctionType) -> Packed:
    """A function and what it mentions of its own module, in a form that can be pickled.

    Spawned processes find a function by importing its module, and a notebook cannot be imported.
    """
    if not isinstance(function, FunctionType):
        raise ValueError(f"expected a function, got {type(function).__name__}")
    home = function.__globals__
    found: dict[str, tuple[str, Any]] = {}
    todo: list[tuple[str, Any]] = [(function.__name__, function)]
    while todo:
        name, item = todo.pop()
        if name in found:
            continue
        if isinstance(item, ModuleType):
            found[name] = "module", item.__name__
        elif isinstance(item, FunctionType) and item.__module__ == function.__module__:
            if item.__closure__ or item.__globals__ is not home:
                raise ValueError(
                    f"{name} cannot be sent to another process: it is decorated or defined inside "
                    "another function; define it at the top level"
                )
            found[name] = "code", (marshal.dumps(item.__code__), item.__defaults__)
            todo += [(used, home[used]) for used in _names(item.__code__) if used in home]
        else:
            found[name] = "value", item
    return function.__name__, found


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def unpack(packed: Packed) -> FunctionType:
    """The function that was packed, with globals of its own."""
    name, found = packed
    namespace: dict[str, Any] = {"__builtins__": __builtins__}
    for key, (kind, value) in found.items():
        if kind == "module":
            value = importlib.import_module(value)
        elif kind == "code":
            code, defaults = value
            value = FunctionType(marshal.loads(code), namespace, key, defaults)
        namespace[key] = value
    return namespace[name]
