"""Chapter 11, training: many steps, with everything around them that a real run needs.

``train(config)`` is the whole, from the settings to the last checkpoint; ``run`` is the loop. Its
learning rate and its batch are functions of the step, so all it carries from one step to the next
is in the model and the optimizer.
"""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llmtutor.data.batches import batch_at
from llmtutor.fast.memory import freed_memory_kept
from llmtutor.fast.threads import equal_parts, side_by_side, threads
from llmtutor.train.config import PRECISIONS, TrainConfig
from llmtutor.train.distributed import (
    World,
    any_rank,
    check_batch_size,
    connect,
    disconnect,
    guarded,
    local_batches,
    mean,
)
from llmtutor.train.log import Loggers, open_loggers
from llmtutor.train.state import (
    TrainState,
    checkpoints,
    last_config,
    load_checkpoint,
    load_latest,
    sweep,
)
from llmtutor.train.step import NonFiniteLoss, train_step
from llmtutor.train.training import Training, save_training, setup, validate

CHECKPOINTS = "checkpoints"


class Interrupted(Exception):  # noqa: N818 (nobody has erred)
    """The run was asked to stop; a checkpoint is saved, and the message says how to go on."""


def run(training: Training, log: Loggers) -> None:
    """The loop: from ``training.step`` to the last step, or until somebody wants it to stop.

    Raises:
        NonFiniteLoss: a loss or gradient that is no number; the state before it is saved.
        Interrupted: Ctrl-C or SIGTERM, after the step in which it came; the state is saved.
    """
    config, world = training.config, training.world
    cores = torch.get_num_threads()
    alone = world.world_size == 1 and world.device.type == "cpu"
    parts = equal_parts(config.batch_size // config.accumulate) if alone else 1
    with (
        stop_on_signal(patient=world.world_size > 1) as wanted,
        side_by_side(training.loss, parts) as loss,
    ):
        while training.step < config.steps:
            began = time.perf_counter()
            lr = set_learning_rate(training)
            batch = batch_at(
                training.text.train.ids,
                config.batch_size,
                config.seq_len,
                seed=config.seed,
                step=training.step,
            )
            try:
                metrics = train_step(
                    training.wrapped,
                    local_batches(batch, world, config.accumulate),
                    training.optimizer,
                    clip=config.clip,
                    precision=PRECISIONS[config.precision],
                    step=training.step + 1,
                    loss=loss,
                )
            except NonFiniteLoss as error:
                raise NonFiniteLoss(f"{error}. {_save_and_say(training)}") from None
            training.step += 1
            training.n_tokens += metrics.n_tokens * world.world_size
            training.valid_loss = None
            training.seconds += time.perf_counter() - began
            log.log(
                {
                    "step": training.step,
                    "loss": mean(metrics.loss, world),
                    "lr": lr,
                    "grad_norm": metrics.grad_norm,
                    "n_tokens": training.n_tokens,
                    "seconds": round(training.seconds, 4),
                }
            )
            last = training.step == config.steps
            save = last or training.step % config.save_every == 0
            if save or training.step % config.eval_every == 0:
                with threads(cores):
                    training.valid_loss = validate(training)
                log.log({"step": training.step, "valid_loss": training.valid_loss})
            if save:
                save_training(training)
            if any_rank(wanted.is_set(), world) and not last:
                raise Interrupted(f"stopped after step {training.step}. {_save_and_say(training)}")


def set_learning_rate(training: Training) -> float:
    """Set each group's learning rate for the next step; returns the one that the settings name."""
    factor = training.schedule(training.step)
    for group in training.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return training.config.lr * factor


def train(
    config: TrainConfig,
    *,
    resume: Path | None = None,
    fallback: bool = False,
    with_changes: bool = False,
    quiet: bool = False,
) -> Training:
    """Train as ``config`` says, writing into ``config.out``; returns the run at its end.

    ``resume`` is the folder of a run, whose last checkpoint is taken, or of one checkpoint. A
    damaged one is passed over only with ``fallback``. Settings that make it another run are
    refused unless ``with_changes``; the differences are told either way.

    Raises:
        ValueError: settings that cannot be, a folder that holds another run, a damaged checkpoint
            (``CheckpointError``), and ``NonFiniteLoss`` from the loop.
        Interrupted: Ctrl-C or SIGTERM.
        OSError: a full disk or a folder that cannot be written; another process of the job has
            died (``LostRankError``).
    """
    world = connect(config.device)
    try:
        check_batch_size(config.batch_size, world, config.accumulate)
        state = _load(config, world, resume, fallback, with_changes)
        training = setup(config, world, state)
        log = Loggers([])
        if world.is_main:
            out = Path(config.out)
            _make_room(out, training.step)
            training.text.tokenizer.save(out / "tokenizer")
            log = open_loggers(out, config.loggers, config.steps, training.step, quiet)
        try:
            with guarded(world), freed_memory_kept():
                run(training, log)
        finally:
            log.close()
        return training
    finally:
        disconnect()


def run_folder(path: Path) -> Path:
    """The folder of the run that ``path``, a run or one of its checkpoints, belongs to.

    >>> run_folder(Path("runs/a/checkpoints/step-00000100")).as_posix()
    'runs/a'
    """
    return path.parents[1] if path.parent.name == CHECKPOINTS else path


def read_state(path: Path, *, fallback: bool = False) -> TrainState:
    """The state to go on from: the last one of a run, or that of the checkpoint ``path`` is.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    if path.parent.name == CHECKPOINTS:
        return load_checkpoint(path)
    return load_latest(path / CHECKPOINTS, fallback=fallback, warn=_say)


def read_config(path: Path) -> TrainConfig:
    """The settings of the run (or checkpoint) at ``path``, by its last readable record."""
    one = path.parent.name == CHECKPOINTS
    paths = [path] if one else checkpoints(path / CHECKPOINTS)
    return TrainConfig.from_dict(last_config(paths, path))


def _load(
    config: TrainConfig, world: World, resume: Path | None, fallback: bool, with_changes: bool
) -> TrainState | None:
    """The state to resume, compared with the settings; None for a new run in an unused folder."""
    out = Path(config.out)
    goes_on = resume is not None and run_folder(resume).resolve() == out.resolve()
    if not goes_on and checkpoints(out / CHECKPOINTS):
        raise ValueError(
            f"{out} holds a run already: go on with `--resume {out}`, or take another --out"
        )
    if resume is None:
        return None
    state = read_state(resume, fallback=fallback)
    differences = TrainConfig.from_dict(state.config).differences(config)
    if differences:
        lines = "\n  ".join(["checkpoint → now", *differences])
        if not with_changes:
            raise ValueError(
                f"these settings make it another run than the one in {resume}:\n  {lines}\n"
                "leave them out, or resume with them on purpose: --with-changes"
            )
        if world.is_main:
            _say(f"going on with changed settings:\n  {lines}")
    return state


def _make_room(out: Path, step: int) -> None:
    """Clear what a killed process left, and set aside checkpoints beyond ``step``.

    These are damaged, or a future that the run now gives up.
    """
    folder = out / CHECKPOINTS
    sweep(folder)
    for path in checkpoints(folder):
        if int(path.name.removeprefix("step-")) > step:
            aside = path.with_name(f"{path.name}.abandoned")
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(path, aside)


def _save_and_say(training: Training) -> str:
    save_training(training)
    out = training.config.out
    return f"A checkpoint is saved; go on with: llmtutor train --resume {out}"


def _say(text: str) -> None:
    print(f"llmtutor: {text}", file=sys.stderr)


@contextmanager
def stop_on_signal(patient: bool = False) -> Iterator[threading.Event]:
    """An event that Ctrl-C (SIGINT) or SIGTERM sets, instead of ending the process at once.

    A second Ctrl-C ends it, unless ``patient``: torchrun passes on the signal that a terminal has
    sent already. Outside the main thread signals cannot be caught, and nothing changes.
    """
    wanted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wanted
        return

    def stop(number: int, frame: Any) -> None:
        if wanted.is_set() and not patient:
            raise KeyboardInterrupt
        wanted.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wanted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
