"""Chapter 11, training: many steps, with everything around them that a real run needs.

``train`` is the whole, ``run`` the loop. Its learning rate and its batch are functions of the step,
so all it carries from one step to the next is in the model and the optimizer.
"""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from llmtutor.checks import shell_line
from llmtutor.data.batches import batch_at
from llmtutor.fast.memory import freed_memory_kept
from llmtutor.train.config import PRECISIONS, TrainConfig
from llmtutor.train.distributed import (
    World,
    check_batch_size,
    connect,
    disconnect,
    guarded,
    local_batches,
    mean,
)
from llmtutor.train.folder import (
    CHECKPOINTS,
    TOKENIZER,
    config_of,
    locked,
    make_room,
    read_state,
    run_folder,
)
from llmtutor.train.log import Loggers, open_loggers, say
from llmtutor.train.state import checkpoints
from llmtutor.train.step import NonFiniteLoss, set_learning_rate, train_step
from llmtutor.train.training import Training, save_training, setup, text_fingerprint, validate


class Interrupted(Exception):  # noqa: N818 (nobody has erred)
    """The run was asked to stop; a checkpoint is saved, and the message says how to go on."""


def run(training: Training, log: Loggers) -> None:
    """The loop: from ``training.step`` to the last step, or until somebody wants it to stop.

    Raises:
        NonFiniteLoss: a loss or gradient that is no number; the state before it is saved, unless
            its validation loss is none either.
        Interrupted: Ctrl-C or SIGTERM, after the step in which it came; the state is saved.
        ValueError: the memory of the GPU is too small.
    """
    config, world, ids = training.config, training.world, training.text.train.ids
    with stop_on_signal(patient=world.world_size > 1) as wanted:
        while (step := training.step) < config.steps:
            began = time.perf_counter()
            factor = training.schedule(step)
            set_learning_rate(training.optimizer, factor)
            batch = batch_at(ids, config.batch_size, config.seq_len, seed=config.seed, step=step)
            try:
                metrics = train_step(
                    training.wrapped,
                    local_batches(batch, world, config.accumulate),
                    training.optimizer,
                    clip=config.clip,
                    precision=PRECISIONS[config.precision],
                    step=step + 1,
                    loss=training.loss,
                )
            except NonFiniteLoss as error:
                validate_or_stop(training, str(error))
                raise NonFiniteLoss(f"{error}. {_save_and_say(training)}") from None
            except torch.OutOfMemoryError as error:
                raise ValueError(
                    f"step {step + 1} needs more memory than there is ({error}); take a "
                    "larger accumulate, a smaller batch_size or a smaller model"
                ) from None
            training.step += 1
            training.n_tokens += metrics.n_tokens * world.world_size
            training.valid_loss = None
            training.seconds += time.perf_counter() - began
            extras = {
                f"{kind}.{name}": mean(value, world)
                for kind in ("auxiliary", "statistics")
                for name, value in getattr(metrics, kind).items()
            }
            log.log(
                {
                    "step": training.step,
                    "loss": mean(metrics.loss, world),
                    "lr": config.lr * factor,
                    "grad_norm": metrics.grad_norm,
                    "n_tokens": training.n_tokens,
                    "seconds": round(training.seconds, 4),
                    **extras,
                }
            )
            last = training.step == config.steps
            save = last or training.step % config.save_every == 0
            if save or training.step % config.eval_every == 0:
                why = f"step {training.step}: the weights are out of range"
                log.log({"step": training.step, "valid_loss": validate_or_stop(training, why)})
            if save:
                save_training(training)
            if mean(float(wanted.is_set()), world) > 0 and not last:  # all ranks at the same step
                raise Interrupted(f"stopped after step {training.step}. {_save_and_say(training)}")


def go_on(out: str | Path) -> str:
    """The command that resumes the run in ``out``."""
    return shell_line("llmtutor", "train", "--resume", out)


def validate_or_stop(training: Training, why: str) -> float:
    """Take the validation loss, without which no state is saved as a good one.

    Raises:
        NonFiniteLoss: it is no number; says ``why`` and from where to go on.
    """
    loss = validate(training)
    if not math.isfinite(loss):
        out = training.config.out
        way = "start again with a lower learning rate"
        if checkpoints(Path(out) / CHECKPOINTS):
            way = f"go on with: {go_on(out)} --with-changes --lr LOWER"
        raise NonFiniteLoss(
            f"{why}. The validation loss is {loss:g}, so this state is not saved; {way}"
        )
    training.valid_loss = loss
    return loss


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
        ValueError: settings that cannot be, a folder that holds another run or is being written, a
            damaged checkpoint (``CheckpointError``), and ``NonFiniteLoss`` from the loop.
        Interrupted: Ctrl-C or SIGTERM.
        OSError: a full disk or a folder that cannot be written; another process of the job has
            died (``LostRankError``).
    """
    config, out = config.located(), Path(config.out)
    world = connect(config.device)
    try:
        check_batch_size(config.batch_size, world, config.accumulate)
        with locked(out) if world.is_main else nullcontext():
            training = _set_up(config, world, resume, fallback, with_changes)
            log = Loggers([])
            if world.is_main:
                log = open_loggers(out, config.loggers, config.steps, training.step, quiet)
            kept = freed_memory_kept() if "keep-memory" in config.fast else nullcontext()
            try:
                if world.is_main:
                    make_room(out, training.step, training.text.tokenizer)
                with guarded(world), kept:
                    run(training, log)
            finally:
                log.close()
        return training
    finally:
        disconnect()


def _set_up(
    config: TrainConfig, world: World, resume: Path | None, fallback: bool, with_changes: bool
) -> Training:
    """A new run in an unused folder, or the one to resume if it has the same settings and text."""
    out = Path(config.out)
    goes_on = resume is not None and run_folder(resume).resolve() == out.resolve()
    if not goes_on and checkpoints(out / CHECKPOINTS):
        raise ValueError(
            f"{out} holds a run already: go on with `{go_on(out)}`, or take another --out"
        )
    if resume is None:
        return setup(config, world)

    def compare(differences: list[str]) -> None:
        lines = "\n  ".join(["checkpoint → now", *differences])
        if differences and not with_changes:
            raise ValueError(
                f"this makes it another run than the one in {resume}:\n  {lines}\n"
                "undo it, or resume with it on purpose: --with-changes"
            )
        if differences and world.is_main:
            say(f"going on with changes:\n  {lines}")

    state = read_state(resume, fallback=fallback)
    before = config_of(state.config, resume).located()
    kept = run_folder(resume) / TOKENIZER
    tokenizer = kept if before.tokenizer == config.tokenizer and kept.is_dir() else None
    # The text itself is compared below, wherever it lies.
    compare(replace(before, corpus=config.corpus).differences(config))
    training = setup(config, world, state, tokenizer)
    now = text_fingerprint(training.text)
    if state.text != now:
        compare([f"text of {config.corpus}: {state.text[:12]}… → {now[:12]}…"])
    return training


def _save_and_say(training: Training) -> str:
    save_training(training)
    return f"A checkpoint is saved; go on with: {go_on(training.config.out)}"


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
