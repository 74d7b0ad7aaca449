"""Chapter 11, training: a run in the middle, from its settings or, to the bit, a checkpoint."""

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from llmtutor.data.batches import sequential_batches
from llmtutor.evaluate.perplexity import evaluate_loss
from llmtutor.fast.compiling import compiled_loss
from llmtutor.model.losses import Loss, batch_losses
from llmtutor.model.presets import build
from llmtutor.optim import Schedule, make_optimizer
from llmtutor.train.config import TrainConfig
from llmtutor.train.distributed import World, full_state, load_full_state, mean, wrap
from llmtutor.train.state import (
    TrainState,
    random_state,
    save_checkpoint,
    seed_everything,
    set_random_state,
)
from llmtutor.train.text import Text, load_text


@dataclass
class Training:
    """A run in the middle; ``wrapped`` is what a step calls: the model, or the same inside DDP."""

    config: TrainConfig
    world: World
    text: Text
    model: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    loss: Loss = batch_losses
    """Of a batch; compiled, if the settings say so."""
    step: int = 0
    n_tokens: int = 0
    """Tokens trained on, over all processes."""
    seconds: float = 0.0
    """Time spent in steps, over all parts of the run."""
    valid_loss: float | None = None
    """Validation loss after the last step, if it was taken there."""


def setup(
    config: TrainConfig,
    world: World,
    state: TrainState | None = None,
    tokenizer: Path | None = None,
) -> Training:
    """Text, model, optimizer and schedule of a run, at its start or where ``state`` stands.

    ``tokenizer`` is the folder of one to take instead of making that of the settings again.

    Raises:
        ValueError: what ``load_text`` and the makers of the parts refuse; compiling without a C++
            compiler; a state of another tokenizer.
    """
    text = load_text(config) if tokenizer is None else _text_as_before(config, tokenizer)
    seed_everything(config.seed)
    model = build(config.model_config(text.tokenizer.vocab_size))
    wrapped = wrap(model, world, config.strategy)
    optimizer = make_optimizer(model, config.optimizer, config.lr, weight_decay=config.weight_decay)
    schedule = config.make_schedule()
    loss = compiled_loss(model, world.device) if config.compile else batch_losses
    training = Training(config, world, text, model, wrapped, optimizer, schedule, loss)
    if state is not None:
        if state.tokenizer != text.tokenizer.fingerprint():
            raise ValueError(
                f"the checkpoint was trained with tokenizer {state.tokenizer[:12]}…, but this run "
                f"has {text.tokenizer.fingerprint()[:12]}…: has the corpus changed?"
            )
        _load(training, state)
        set_random_state(state.random)
        training.step, training.n_tokens = state.step, state.n_tokens
        training.seconds, training.valid_loss = state.seconds, state.valid_loss
    return training


def _text_as_before(config: TrainConfig, tokenizer: Path) -> Text:
    try:
        return load_text(replace(config, tokenizer=str(tokenizer)))
    except ValueError as error:
        raise ValueError(f"{error}; has the text of the run changed or moved?") from None


def _load(training: Training, state: TrainState) -> None:
    """Weights and moments from the state, settings (should they differ) from the run."""
    groups = training.optimizer.param_groups
    kept = ("params", "lr")  # the schedule sets lr at each step
    settings = [{k: v for k, v in g.items() if k not in kept} for g in groups]
    try:
        load_full_state(training.wrapped, training.optimizer, state.model, state.optimizer)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"the checkpoint is of another model or optimizer: {error}") from None
    for group, own in zip(training.optimizer.param_groups, settings, strict=True):
        group.update(own)


def text_fingerprint(text: Text) -> str:
    """64 hex digits, other ones for any other text to train or to validate on."""
    headers = [file.header for file in (text.train, text.valid)]
    content = [(header.corpus_sha256, header.separator, header.count) for header in headers]
    return hashlib.sha256(json.dumps(content).encode("utf-8")).hexdigest()


def validate(training: Training) -> float:
    """Mean loss in nats a token over the validation text, in float32, the same on all ranks.

    Ranks share the batches; each token is predicted once. A model in slices needs all ranks for
    each batch, so there they all take every one.
    """
    config, world = training.config, training.world
    ids = training.text.valid.ids[: None if config.eval_tokens is None else config.eval_tokens + 1]
    batches = sequential_batches(ids, config.batch_size, config.seq_len)
    if config.strategy == "ddp":
        batches = islice(batches, world.rank, None, world.world_size)
    placed = ((inputs.to(world.device), targets.to(world.device)) for inputs, targets in batches)
    report = evaluate_loss(training.model, placed)
    return mean(report.total_nats, world) / mean(report.n_tokens, world)


def save_training(training: Training) -> Path:
    """Write ``out/checkpoints/step-…``: all ranks take part, rank 0 writes."""
    model, optimizer = full_state(training.wrapped, training.optimizer)
    folder = Path(training.config.out) / "checkpoints"
    if not training.world.is_main:
        return folder
    state = TrainState(
        step=training.step,
        config=training.config.to_dict(),
        tokenizer=training.text.tokenizer.fingerprint(),
        model=model,
        optimizer=optimizer,
        random=random_state(),
        valid_loss=training.valid_loss,
        n_tokens=training.n_tokens,
        seconds=training.seconds,
        text=text_fingerprint(training.text),
    )
    return save_checkpoint(folder, state, keep=training.config.keep)
