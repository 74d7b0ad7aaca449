"""Chapter 11, training: checkpoints that are whole or not there, and that resume exactly.

A checkpoint is a folder of three files: ``model.safetensors``, ``optimizer.safetensors`` (with the
states of the random generators) and ``state.json``, which holds all the rest and the sha256 of
everything. It is written under another name, forced to the disk and renamed when complete. Nothing
is ever unpickled: a checkpoint from a stranger can be wrong, but it cannot run code.
"""

import hashlib
import json
import math
import os
import random
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from llmtutor.train.trees import put_tensors, take_tensors, unique

NAME = re.compile(r"step-(\d{8,})")
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
FORMAT = 2
T = TypeVar("T")


class CheckpointError(ValueError):
    """A checkpoint is damaged or is none; the message names the file."""


@dataclass
class TrainState:
    """All that a run is at the end of a step; what is not here does not survive a stop."""

    step: int
    """Steps done, which is also the position in the data (see ``batch_at``)."""
    config: dict[str, Any]
    """The ``TrainConfig`` as plain values."""
    tokenizer: str
    """Its fingerprint."""
    text: str
    """The text's fingerprint."""
    model: dict[str, Tensor]
    """Its state dict; names that share a tensor are stored once."""
    optimizer: dict[str, Any]
    """Its state dict."""
    random: dict[str, Any] = field(default_factory=dict)
    """States of the generators, as ``random_state`` gives them."""
    valid_loss: float | None = None
    """After this step, if it was taken."""
    n_tokens: int = 0
    seconds: float = 0.0


def seed_everything(seed: int) -> None:
    """Start Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's global generators."""
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    keys = numpy_state["state"].pop("key")
    return {
        "python": random.getstate(),
        "numpy": numpy_state | {"key": torch.from_numpy(keys.astype(np.int64))},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of ``random_state``; generators of GPUs that are not there are left out."""
    random.setstate(state["python"])
    numpy_state = {name: value for name, value in state["numpy"].items() if name != "key"}
    key = state["numpy"]["key"].numpy().astype(np.uint32)
    np.random.set_state(numpy_state | {"state": numpy_state["state"] | {"key": key}})
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def save_checkpoint(folder: Path, state: TrainState, *, keep: int = 2) -> Path:
    """Write ``folder/step-NNNNNNNN``, then remove all but the ``keep`` last and the best.

    The best is the one with the lowest validation loss among those that have one.

    Raises:
        OSError: the folder cannot be written or the disk is full; nothing half-written is left.
        ValueError: a number that is none, which JSON cannot hold.
    """
    model, aliases = unique(state.model)
    tensors: dict[str, Tensor] = {}
    rest = {"optimizer": state.optimizer, "random": state.random}
    skeleton = take_tensors(rest, tensors, "")
    contents = {MODEL: save(model), OPTIMIZER: save(tensors)}
    record = {name: getattr(state, name) for name in SCALARS} | {
        "format": FORMAT,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
        "aliases": aliases,
        "skeleton": skeleton,
    }
    record["seal"] = _seal(record)
    contents[STATE] = (json.dumps(record, allow_nan=False) + "\n").encode("utf-8")
    path = folder / f"step-{state.step:08d}"
    _write_folder(path, contents)
    _prune(folder, keep)
    return path


def load_checkpoint(path: Path) -> TrainState:
    """The state in a checkpoint folder, every byte of it verified first.

    Raises:
        CheckpointError: a file is missing, cut short or changed, or the folder is no checkpoint.
    """
    record = _read_record(path)
    files: dict[str, dict[str, Tensor]] = {}
    for name in (MODEL, OPTIMIZER):
        try:
            data = (path / name).read_bytes()
        except FileNotFoundError:
            raise _damaged(path / name, "it is missing") from None
        if hashlib.sha256(data).hexdigest() != record["sha256"].get(name):
            raise _damaged(path / name, f"its {len(data):,} bytes have another sha256")
        try:
            files[name] = load(data)
        except SafetensorError as error:
            raise _damaged(path / name, str(error)) from None
    try:
        model = files[MODEL]
        model |= {alias: model[name] for alias, name in record["aliases"].items()}
        rest = put_tensors(record["skeleton"], files[OPTIMIZER])
        return TrainState(model=model, **{name: record[name] for name in SCALARS}, **rest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path / STATE, f"it does not fit the tensors ({error!r})") from None


def step_of(path: Path) -> int:
    """The number of steps in a checkpoint's name."""
    return int(path.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted((p for p in folder.glob("*") if NAME.fullmatch(p.name)), key=step_of)


def load_latest(
    folder: Path, *, fallback: bool = False, warn: Callable[[str], None] = print
) -> TrainState:
    """The last checkpoint in a folder; with ``fallback`` the last one that is not damaged.

    Each one that is passed over is told to ``warn``.

    Raises:
        CheckpointError: there is none, or the last (with ``fallback``: each one) is damaged.
    """
    paths = checkpoints(folder)
    return _last_of(paths if fallback else paths[-1:], folder, load_checkpoint, warn)


def last_config(paths: list[Path], where: Path) -> dict[str, Any]:
    """The settings in the last of these checkpoints, found in ``where``, that can be read.

    Raises:
        CheckpointError: none of them is readable, or there is none.
    """
    config: dict[str, Any] = _last_of(paths, where, _read_record, lambda text: None)["config"]
    return config


def _last_of(
    paths: list[Path], where: Path, read: Callable[[Path], T], warn: Callable[[str], None]
) -> T:
    error = None
    for path in reversed(paths):
        if error:
            warn(f"passed over: {error}")
        try:
            return read(path)
        except CheckpointError as damage:
            error = damage
    raise error or CheckpointError(f"{where}: expected a checkpoint (step-…), found none")


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written or half-deleted."""
    for path in folder.glob(".*.partial"):
        shutil.rmtree(path, ignore_errors=True)


# Files --------------------------------------------------------------------------------------------

SCALARS = tuple(
    name for name in TrainState.__dataclass_fields__ if name not in ("model", "optimizer", "random")
)


def _write_folder(path: Path, contents: dict[str, bytes]) -> None:
    """All files or none: a hidden folder, each file on the disk, one rename."""
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        for name, data in contents.items():
            with (partial / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync_folder(partial)
        _remove(path)  # it is there if the run went back to an older checkpoint
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = f"cannot save the checkpoint: {error.strerror}; earlier ones are untouched"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # it is not there if all went well


def _sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system can (Windows cannot)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    """Delete a checkpoint so that at no time half of one stands under its name."""
    if path.exists():
        partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
        os.replace(path, partial)
        shutil.rmtree(partial, ignore_errors=True)  # what is left is swept at the next start


def _prune(folder: Path, keep: int) -> None:
    """Remove checkpoints; one that cannot be removed costs space, not the run."""
    paths = checkpoints(folder)
    losses = {}
    for path in paths:
        with suppress(CheckpointError, OSError):
            losses[path] = _read_record(path)["valid_loss"]
    known = [path for path, loss in losses.items() if loss is not None and math.isfinite(loss)]
    best = min(known, key=lambda path: losses[path], default=None)
    for path in set(paths[:-keep]) - {best}:
        with suppress(OSError):
            _remove(path)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads((path / STATE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise _damaged(path / STATE, "it is missing") from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path / STATE, f"it is not JSON ({error})") from None
    if not isinstance(record, dict) or record.get("seal") != _seal(record):
        raise _damaged(path / STATE, "its content does not match its own sha256")
    if record["format"] != FORMAT:
        raise CheckpointError(
            f"{path / STATE}: expected format {FORMAT}, found {record['format']}; it was written "
            "by another version of llmtutor"
        )
    return record


def _seal(record: dict[str, Any]) -> str:
    """sha256 of a record without its seal."""
    content = {name: value for name, value in record.items() if name != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


def _damaged(path: Path, how: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: the checkpoint is damaged: {how}; resume from an older one (--fallback does)"
    )
