"""Chapter 11, training: everything that decides a run, in one frozen record.

A ``TrainConfig`` is saved with every checkpoint, so that a run can say with what it was made and
refuse to go on with something else. The options of ``llmtutor train`` are its fields.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_type_hints

import numpy as np
import torch

from llmtutor.checks import check_at_least, check_name, check_number, check_types
from llmtutor.data.corpora import CORPORA
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import PRESETS, PUBLISHED, preset
from llmtutor.optim import OPTIMIZERS, SCHEDULES, Schedule, make_schedule
from llmtutor.train.distributed import STRATEGIES
from llmtutor.train.log import LOGGERS

Value = int | float | bool | str
PRECISIONS: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FAST = ("keep-memory",)
"""What can be done for speed alone."""
WHEN = ("eval_every", "eval_tokens", "save_every", "keep")
"""How often a run is validated and saved, and how much of either."""
FREE = (*WHEN, "out", "loggers", "device", "strategy", "fast")
"""Fields that may differ when a run is resumed: they do not change what is computed, beyond the
rounding of another device or another number of processes."""
AT_LEAST_ONE = (*WHEN, "seq_len", "batch_size", "accumulate", "steps")
AT_LEAST_ZERO = ("weight_decay", "final_lr", "warmup", "decay")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Raises:
        ValueError: an unknown name (with the nearest one), a number out of range, a value of
            another type, a batch that its micro-batches do not divide.
    """

    preset: str = "llama-nano"
    """Name of the model's configuration, such as gpt2-nano or llama-nano."""
    model: dict[str, Value] = field(default_factory=dict)
    """Fields of the model's configuration to change, such as n_layers. Not given here, vocab_size
    is the tokenizer's (a larger one leaves ids unused) and max_seq_len is seq_len."""
    corpus: str = "shakespeare"
    """Name of a corpus, a text file, or a folder that `llmtutor data prepare` made."""
    tokenizer: str = "char"
    """char, bpe-N for byte pairs with a vocabulary of N, or the folder of a tokenizer."""
    seq_len: int = 128
    """Tokens in a sequence."""
    batch_size: int = 32
    """Sequences in a step, over all processes and micro-batches."""
    accumulate: int = 1
    """Micro-batches in which each process computes its part of a step, to save memory."""
    steps: int = 1000
    """Steps of the whole run."""
    optimizer: str = "adamw"
    """sgd, adamw or muon."""
    lr: float = 1e-3
    """Peak learning rate."""
    schedule: str = "warmup_cosine"
    """How the learning rate moves: constant, warmup_cosine, wsd or inverse_sqrt."""
    warmup: int | None = None
    """Steps over which the learning rate rises; without it a tenth of the run, at most 100."""
    decay: int | None = None
    """Steps over which wsd falls at the end; without it a fifth of the run."""
    final_lr: float = 0.1
    """Learning rate at the end, as a part of the peak."""
    weight_decay: float = 0.1
    """Part of a matrix that is taken off in a step, times the learning rate."""
    clip: float | None = 1.0
    """Largest norm of the gradient; longer ones are shortened to it."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the products in a step; weights stay float32."""
    compile: bool = False
    """Let torch.compile fuse the operations from ids to loss (slow to start, then faster)."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    strategy: str = "ddp"
    """How several processes share the work: ddp (copies of the model) or fsdp (slices)."""
    seed: int = 0
    """Decides the first weights and all batches."""
    eval_every: int = 250
    """Steps between two validation losses."""
    eval_tokens: int | None = None
    """Validate on so many first tokens of the validation text; without it on all of it."""
    save_every: int = 250
    """Steps between two checkpoints; each one is validated."""
    keep: int = 2
    """Last checkpoints to keep, besides the one with the lowest validation loss."""
    loggers: tuple[str, ...] = ()
    """Besides the progress bar and log.jsonl: tensorboard, wandb."""
    fast: tuple[str, ...] = ()
    """For speed alone, on a CPU: keep-memory (what a step frees is kept for the next)."""
    out: str = "runs/last"
    """Folder of the run: log.jsonl, checkpoints, tokenizer."""

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        for name, choices in (("loggers", LOGGERS), ("fast", FAST)):
            if not isinstance(names := getattr(self, name), list | tuple):
                raise ValueError(f"{name} must be a list of names, got {names!r}")
            for each in names:
                check_name(f"name in {name}", each, choices)
            object.__setattr__(self, name, tuple(names))
        for name, known in _NAMES.items():
            check_name(name, getattr(self, name), known)
        check_types(self, get_type_hints(type(self)))
        model = {str(name).replace("-", "_"): _plain(value) for name, value in self.model.items()}
        object.__setattr__(self, "model", model)
        self._check_ranges()
        self.make_schedule()  # refuses stretches that do not fit into the run
        self.model_config()  # refuses changes that make no model

    def _check_ranges(self) -> None:
        for name in ("lr", "clip", "weight_decay", "final_lr"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, above=0 if name in ("lr", "clip") else None)
        for least, names in ((1, AT_LEAST_ONE), (0, AT_LEAST_ZERO)):
            given = {name: getattr(self, name) for name in names}
            check_at_least(least, **{name: v for name, v in given.items() if v is not None})
        if not 0 <= self.seed < 2**64:  # what torch's generators take
            raise ValueError(f"seed must lie between 0 and 2**64 - 1, got {self.seed}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate must divide batch_size, got {self.batch_size} sequences in "
                f"{self.accumulate} micro-batches"
            )

    def model_config(self, vocab_size: int = 1) -> ModelConfig:
        """The model's configuration for a tokenizer with that many ids.

        Raises:
            ValueError: ``model`` names a smaller vocabulary, or a context shorter than ``seq_len``.
        """
        sizes = {"vocab_size": vocab_size, "max_seq_len": self.seq_len}
        config = preset(self.preset, **(sizes | self.model))
        if config.vocab_size < vocab_size:
            raise ValueError(
                f"the model's vocab_size must be at least the tokenizer's, {vocab_size}, got "
                f"{config.vocab_size}; leave it out to have as many"
            )
        if config.max_seq_len < self.seq_len:
            raise ValueError(
                f"seq_len must be at most the model's max_seq_len, got {self.seq_len} and "
                f"{config.max_seq_len}"
            )
        return config

    def make_schedule(self) -> Schedule:
        """The factor of the peak learning rate at each step."""
        return make_schedule(
            self.schedule,
            steps=self.steps,
            warmup=min(100, self.steps // 10) if self.warmup is None else self.warmup,
            final=self.final_lr,
            decay=self.decay,
        )

    def located(self) -> Self:
        """The same with absolute paths of corpus and tokenizer, to be found from any folder."""
        corpus, tokenizer = self.corpus, self.tokenizer
        if corpus not in CORPORA and Path(corpus).exists():
            corpus = os.path.abspath(corpus)
        if Path(tokenizer).is_dir():
            tokenizer = os.path.abspath(tokenizer)
        return replace(self, corpus=corpus, tokenizer=tokenizer)

    def differences(self, other: Self) -> list[str]:
        """One line for each field that makes ``other`` another run, `name: mine → theirs`."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [
            f"{name}: {json.dumps(mine[name])} → {json.dumps(theirs[name])}"
            for name in mine
            if name not in FREE and mine[name] != theirs[name]
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, as they are in JSON."""
        return asdict(self) | {"loggers": list(self.loggers), "fast": list(self.fast)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; a field that is not there has its default.

        Raises:
            ValueError: an unknown field (with the nearest one) or a bad value.
        """
        for name in values:
            check_name("field", name, [f.name for f in fields(cls)])
        return cls(**values)

    def to_json(self) -> str:
        """One JSON object, indented, fields in the order of the class."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The inverse of ``to_json``.

        Raises:
            ValueError: text that is not a JSON object, and what ``from_dict`` refuses.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"a configuration is JSON: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"a configuration is a JSON object, got {type(values).__name__}")
        return cls.from_dict(values)


def _plain(value: Any) -> Any:
    """A number of NumPy's as one of Python's, which JSON knows; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


_NAMES: dict[str, Iterable[str]] = {
    "preset": {**PRESETS, **PUBLISHED},
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "device": ("auto", "cuda", "mps", "cpu"),
    "strategy": STRATEGIES,
}
