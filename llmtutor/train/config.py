"""Chapter 11, training: everything that decides a run, in one frozen record.

A ``TrainConfig`` is checked when it is made, goes to JSON and back without loss, and is saved with
every checkpoint, so that a run can say with what it was made and refuse to go on with something
else. The options of ``llmtutor train`` are its fields.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

import torch

from llmtutor.checks import check_name
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import PRESETS, preset
from llmtutor.optim import OPTIMIZERS, SCHEDULES, Schedule, make_schedule
from llmtutor.train.distributed import STRATEGIES
from llmtutor.train.log import LOGGERS

Value = int | float | bool | str
PRECISIONS: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FREE = ("out", "keep", "save_every", "eval_every", "eval_tokens", "loggers", "device", "strategy")
"""Fields that may differ when a run is resumed: they do not change what is computed, beyond the
rounding of another device or another number of processes."""
AT_LEAST_ONE = ("seq_len", "batch_size", "accumulate", "steps", "eval_every", "save_every", "keep")
AT_LEAST_ZERO = ("weight_decay", "final_lr", "seed")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    >>> config = TrainConfig(preset="gpt2-nano", steps=10, model={"n_layers": 2})
    >>> TrainConfig.from_json(config.to_json()) == config
    True

    Raises:
        ValueError: an unknown name (with the nearest one), a number out of range, a value of
            another type, a batch that its micro-batches do not divide.
    """

    preset: str = "llama-nano"
    """Name of the model's configuration, such as gpt2-nano or llama-nano."""
    model: dict[str, Value] = field(default_factory=dict)
    """Fields of the model's configuration to change, such as n_layers. Its vocabulary is the
    tokenizer's, and max_seq_len is seq_len if not given here."""
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
    out: str = "runs/last"
    """Folder of the run: log.jsonl, checkpoints, tokenizer."""

    def __post_init__(self) -> None:
        overrides = {name.replace("-", "_"): value for name, value in self.model.items()}
        object.__setattr__(self, "model", overrides)
        object.__setattr__(self, "loggers", tuple(self.loggers))
        self._check_types()
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in AT_LEAST_ZERO:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("lr", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number above 0, got {value}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate must divide batch_size, got {self.batch_size} sequences in "
                f"{self.accumulate} micro-batches"
            )
        if self.eval_tokens is not None and self.eval_tokens < 1:
            raise ValueError(f"eval_tokens must be at least 1, got {self.eval_tokens}")
        for name, known in _NAMES.items():
            check_name(name, getattr(self, name), known)
        for name in self.loggers:
            check_name("logger", name, LOGGERS)
        self.make_schedule()  # refuses stretches that do not fit into the run
        self.model_config(vocab_size=2)  # refuses changes that make no model

    def _check_types(self) -> None:
        hints = get_type_hints(type(self))
        for name, hint in hints.items():
            value = getattr(self, name)
            if get_origin(hint) is Literal:
                continue  # refused later, with the nearest name
            kinds = [get_origin(kind) or kind for kind in (get_args(hint) or (hint,))]
            if name == "model":
                kinds = [dict]
            if name == "loggers":
                kinds = [tuple]
            allowed = {*kinds, int} if float in kinds else set(kinds)
            if not isinstance(value, tuple(allowed)) or (
                isinstance(value, bool) and bool not in kinds
            ):
                wanted = " or ".join("nothing" if k is NoneType else k.__name__ for k in kinds)
                raise ValueError(f"{name} must be {wanted}, got {value!r}")

    def model_config(self, vocab_size: int) -> ModelConfig:
        """The model's configuration for a tokenizer with that many ids."""
        sizes = {"vocab_size": vocab_size, "max_seq_len": self.seq_len}
        config = preset(self.preset, **(sizes | dict(self.model)))
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

    def differences(self, other: Self) -> list[str]:
        """One line for each field that makes ``other`` another run, `name: mine → theirs`.

        >>> TrainConfig(lr=1e-3).differences(TrainConfig(lr=2e-3, out="elsewhere"))
        ['lr: 0.001 → 0.002']
        """
        mine, theirs = self.to_dict(), other.to_dict()
        return [
            f"{name}: {json.dumps(mine[name])} → {json.dumps(theirs[name])}"
            for name in mine
            if name not in FREE and mine[name] != theirs[name]
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, as they are in JSON."""
        values = {name.name: getattr(self, name.name) for name in fields(self)}
        return values | {"model": dict(self.model), "loggers": list(self.loggers)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; a field that is not there has its default.

        Raises:
            ValueError: an unknown field (with the nearest one) or a bad value.
        """
        for name in values:
            check_name("field", name, [f.name for f in fields(cls)])
        if not isinstance(values.get("loggers", []), list | tuple):
            raise ValueError(f"loggers must be a list of names, got {values['loggers']!r}")
        if not isinstance(values.get("model", {}), Mapping):
            raise ValueError(f"model must be fields and values, got {values['model']!r}")
        return cls(**values)

    def to_json(self) -> str:
        """One JSON object, indented, fields in the order of the class."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of ``to_json``.

        Raises:
            ValueError: text that is not a JSON object, and what ``from_dict`` refuses.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ValueError(f"a configuration is JSON: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"a configuration is a JSON object, got {type(values).__name__}")
        return cls.from_dict(values)


_NAMES: dict[str, Iterable[str]] = {
    "preset": PRESETS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "device": ("auto", "cuda", "mps", "cpu"),
    "strategy": STRATEGIES,
}
