"""Chapter 11, training: what a run tells, to people and to programs.

``log.jsonl`` holds all records, one JSON object a line: a line is whole or not there, and no step
is there twice, however often the run was stopped.
"""

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from llmtutor.evaluate.perplexity import perplexity
from llmtutor.tokenizer.files import write_files

Record = Mapping[str, Any]
"""Plain numbers by name; all records of a step have the same ``step``."""


class Logger(Protocol):
    """Takes records, and is closed at the end."""

    def log(self, record: Record) -> None:
        """Take one record."""

    def close(self) -> None:
        """Give back files and connections."""


class JsonLines:
    """Appends to ``path``; of what is there it keeps the records up to ``step``.

    A resumed run goes on from a checkpoint and takes the steps after it a second time.

    Raises:
        OSError: the file cannot be written or the disk is full; it ends with a whole line.
        ValueError: the file is there and holds something else.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [r for r in read_log(path) if r["step"] <= step] if path.exists() else []
        try:
            write_files(path.parent, {path.name: "".join(map(_line, kept))})
        except OSError as error:
            raise _failed(error, path) from error
        self._file = path.open("ab", buffering=0)  # each line goes out in one call

    def log(self, record: Record) -> None:
        """Write one line."""
        data = _line(record).encode("utf-8")
        end = self._file.tell()
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(end)
            raise _failed(error, self.path) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _failed(error: OSError, path: Path) -> OSError:
    return OSError(error.errno, f"cannot write the log: {error.strerror}", str(path))


def _line(record: Record) -> str:
    try:
        return json.dumps(record, allow_nan=False) + "\n"
    except ValueError:
        raise ValueError(f"a log holds finite numbers only, got {dict(record)}") from None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a ``log.jsonl``; a last line that a power cut left unfinished is not one.

    Raises:
        ValueError: a line that is no record, with its number.
    """
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last "\n" is unfinished
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise ValueError(f"{path}, line {number}: expected a record with a step, got {line!r}")
        records.append(record)
    return records


class Progress:
    """A bar on standard error with the loss, where that is a terminal; else a line now and then."""

    def __init__(self, steps: int, step: int = 0) -> None:
        self._every = max(1, steps // 20)
        hidden = not sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=step, unit="step", disable=hidden, dynamic_ncols=True)

    def log(self, record: Record) -> None:
        """Move the bar on, or show a validation loss in a line above it."""
        step, say = record["step"], partial(tqdm.write, file=sys.stderr)
        if "valid_loss" in record:
            loss = record["valid_loss"]
            say(f"step {step}: validation loss {loss:.4f}, perplexity {perplexity(loss):.2f}")
        elif not self._bar.disable:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
        elif step % self._every == 0:
            say(f"step {step}: loss {record['loss']:.4f}, lr {record['lr']:.2e}")

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


class TensorBoard:
    """Curves for TensorBoard, in ``folder``; needs the package ``tensorboard``."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        module = _optional("torch.utils.tensorboard", "tensorboard")
        # purge_step hides what an earlier part of the run logged beyond the checkpoint.
        self._writer = module.SummaryWriter(str(folder), purge_step=step + 1)

    def log(self, record: Record) -> None:
        """One point on each curve; several numbers make none."""
        for name, value in record.items():
            if name != "step" and not isinstance(value, list):
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Write out what is buffered."""
        self._writer.close()


class Wandb:
    """Weights & Biases, in ``folder``; needs the package ``wandb``.

    Offline unless ``WANDB_MODE`` says otherwise: nothing leaves the machine unasked, and
    ``wandb sync`` sends it later. What comes after a resume is a run of its own there.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        module = _optional("wandb", "wandb")
        folder.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE", "offline")
        name = folder.parent.name
        self._run = module.init(project="llmtutor", name=name, dir=str(folder), mode=mode)

    def log(self, record: Record) -> None:
        """One point on each curve."""
        values = {name: value for name, value in record.items() if name != "step"}
        self._run.log(values, step=record["step"])

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


LOGGERS: dict[str, Callable[[Path, int], Logger]] = {"tensorboard": TensorBoard, "wandb": Wandb}
"""Further loggers by name, each made with its own folder and the step the run stands at."""


def _optional(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the logger {package!r} needs a package that is not installed ({error}); install it "
            f"with `pip install {package}`, or leave the logger out (log.jsonl is always written)"
        ) from None


class Loggers:
    """Several loggers as one; on ranks other than 0 there are none.

    The first is the record of the run, and its errors are the run's. The others only show it: one
    that fails is left out from then on, and the work goes on.
    """

    def __init__(self, loggers: list[Logger]) -> None:
        self._loggers = loggers

    def log(self, record: Record) -> None:
        """Give the record to each."""
        self._each(lambda logger: logger.log(record))

    def close(self) -> None:
        """Close each."""
        self._each(lambda logger: logger.close())

    def _each(self, act: Callable[[Logger], None]) -> None:
        for i, logger in enumerate([*self._loggers]):
            try:
                act(logger)
            except Exception as error:
                if i == 0:
                    raise
                self._loggers.remove(logger)
                say(f"{type(logger).__name__} is left out from here on: {error}")


def say(text: str) -> None:
    """One line on standard error; if nobody takes it, the work goes on."""
    with suppress(OSError):
        print(f"llmtutor: {text}", file=sys.stderr)


def open_loggers(out: Path, names: tuple[str, ...], steps: int, step: int, quiet: bool) -> Loggers:
    """``log.jsonl`` in ``out``, the progress bar unless ``quiet``, and those called ``names``."""
    bar = [] if quiet else [Progress(steps, step)]
    further = [LOGGERS[name](out / name, step) for name in names]
    return Loggers([JsonLines(out / "log.jsonl", step), *bar, *further])
