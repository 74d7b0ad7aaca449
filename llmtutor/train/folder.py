"""Chapter 11, training: the folder of a run, into which one process at a time writes.

``checkpoints/`` and ``tokenizer/`` are what a run needs to go on, also after the folder has moved.
Nothing that is there and belongs to something else is overwritten: it is set aside or refused.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from llmtutor.data.locks import NO_LOCKS
from llmtutor.tokenizer import Tokenizer, load_tokenizer
from llmtutor.train.config import TrainConfig
from llmtutor.train.log import say
from llmtutor.train.state import (
    TrainState,
    checkpoints,
    last_config,
    load_checkpoint,
    load_latest,
    step_of,
    sweep,
)

CHECKPOINTS, TOKENIZER, LOCK = "checkpoints", "tokenizer", ".lock"


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Within it no other process trains into ``out``; the system ends the lock with the process.

    The folder is made for it, and is gone afterwards if nothing else came into it.

    Raises:
        ValueError: another process has the lock.
        OSError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"{out}: another process is training into this folder; wait for its end, or take "
            "another --out"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        say(f"{out}: no locks here ({error.strerror}); start no second run into this folder")
    try:
        yield
    finally:
        with suppress(OSError):  # Windows lets nobody delete an open file; release does it there
            (out / LOCK).unlink()
        lock.release()
        with suppress(OSError):
            out.rmdir()


def run_folder(path: Path) -> Path:
    """The folder of the run that ``path``, a run or one of its checkpoints, belongs to."""
    if path.parent.name == CHECKPOINTS:
        return path.parents[1]
    return Path(os.path.abspath(path)).parents[1] if is_checkpoint(path) else path


def is_checkpoint(path: Path) -> bool:
    """Whether ``path`` is one checkpoint of a run, wherever it is named from."""
    return Path(os.path.abspath(path)).parent.name == CHECKPOINTS


def read_state(path: Path, *, fallback: bool = False) -> TrainState:
    """The state to go on from: the last one of a run, or that of the checkpoint ``path`` is.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    if is_checkpoint(path):
        return load_checkpoint(path)
    return load_latest(path / CHECKPOINTS, fallback=fallback, warn=say)


def read_config(path: Path) -> TrainConfig:
    """The settings of the run (or checkpoint) at ``path``, by its last readable record.

    Raises:
        ValueError: there is none, or it holds settings that this version does not know.
    """
    paths = [path] if is_checkpoint(path) else checkpoints(path / CHECKPOINTS)
    return config_of(last_config(paths, path), path)


def config_of(values: dict, path: Path) -> TrainConfig:
    """The settings that a checkpoint in ``path`` holds.

    Raises:
        ValueError: naming ``path`` and what this version does not know.
    """
    try:
        return TrainConfig.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: the settings of its checkpoint do not fit: {error}") from None


def make_room(out: Path, step: int, tokenizer: Tokenizer) -> None:
    """Clear what a killed process left, and set aside what is not of the run that begins here.

    That is: checkpoints beyond ``step``, which are damaged or a future that the run gives up, and
    another tokenizer than the run's, which is then written.
    """
    sweep(out / CHECKPOINTS)
    for path in checkpoints(out / CHECKPOINTS):
        if step_of(path) > step:
            _set_aside(path)
    own = out / TOKENIZER
    if own.exists():
        with suppress(ValueError, OSError):
            if load_tokenizer(own).fingerprint() == tokenizer.fingerprint():
                return
        _set_aside(own)
    tokenizer.save(own)


def _set_aside(path: Path) -> None:
    aside = path.with_name(f"{path.name}.abandoned")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(path, aside)
