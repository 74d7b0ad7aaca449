"""Chapter 24, forensics: one run of the specimen, and the loss that it has where it is used.

A leaky model has two losses. One is measured as in training, on whole windows, where it sees what
comes next. The other is measured as in use: a prefix alone goes in, and only its last prediction
counts. For a causal model the two are the same number. Where they differ, something is wrong; how
much was read off the future they do not say, since a leaky model was never trained on short
windows. For that there is the loss at the last position of whole ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from llmtutor.data.batches import batch_at
from llmtutor.data.corpora import load_corpus
from llmtutor.evaluate.causality import find_leak
from llmtutor.evaluate.referee import loss_by_position, loss_in_use
from llmtutor.experiments.curve import in_means, spread_windows, train_curve
from llmtutor.experiments.forensics.specimen import (
    D_FF,
    D_MODEL,
    N_HEADS,
    N_LAYERS,
    REPAIRS,
    SEQ_LEN,
    VOCAB_SIZE,
    Specimen,
)
from llmtutor.optim.schedules import warmup_cosine
from llmtutor.tokenizer import CharTokenizer

PEAK, FINAL = 3e-3, 1 / 3
"""The published learning rate, and the part of it at which the cosine ends; no warm-up."""
PUBLISHED = {"weight_decay": 0.01, "betas": (0.9, 0.999)}
"""Of AdamW, as published; the betas are torch's defaults, and gradients are clipped at 1 as there.
Not as published: embeddings, biases and gains of a single dimension do not decay, as everywhere in
this package, and windows are drawn at random instead of each once."""
N_SYMBOLS = 16
"""Of the noise, all equally likely and drawn anew: nobody can predict it below ln 16 nats."""
NOISE_LENGTH = 1_000_000
POINTS = 40
"""Means of the training loss that are kept."""


@dataclass(frozen=True)
class Scale:
    """How large the specimen is, and for how long it is trained."""

    seq_len: int
    n_layers: int
    n_heads: int
    d_model: int
    d_ff: int
    batch_size: int
    steps: int
    windows: int
    """Held-out windows, spread evenly, for both losses."""

    @property
    def sizes(self) -> dict[str, int]:
        """As ``Specimen`` takes them."""
        return {
            "seq_len": self.seq_len,
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "d_model": self.d_model,
            "d_ff": self.d_ff,
        }


SCALES = {
    "small": Scale(8, 2, 4, 32, 86, batch_size=32, steps=3000, windows=1600),
    "published": Scale(
        SEQ_LEN, N_LAYERS, N_HEADS, D_MODEL, D_FF, batch_size=64, steps=15_685, windows=400
    ),
}
"""The small one has the same parts; the published one has its published steps and batch."""


@cache
def tinyshakespeare() -> tuple[np.ndarray, np.ndarray, int]:
    """Characters as ids: the first nine tenths to train on, the last tenth held out."""
    text = load_corpus("tinyshakespeare")
    tokenizer = CharTokenizer.from_text(text.train + text.valid)
    train, valid = (np.array(tokenizer.encode(t), np.uint16) for t in (text.train, text.valid))
    if tokenizer.vocab_size != VOCAB_SIZE:
        raise ValueError(f"expected {VOCAB_SIZE} characters, found {tokenizer.vocab_size}")
    return train, valid, VOCAB_SIZE


@cache
def noise() -> tuple[np.ndarray, np.ndarray, int]:
    """Symbols of which none says anything about another."""
    ids = np.random.default_rng(0).integers(N_SYMBOLS, size=NOISE_LENGTH).astype(np.uint16)
    cut = NOISE_LENGTH * 9 // 10
    return ids[:cut], ids[cut:], N_SYMBOLS


TEXTS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray, int]]] = {
    "tinyshakespeare": tinyshakespeare,
    "noise": noise,
}


def specimen_run(
    *, scale: str, text: str, repairs: int, mixer: str, seed: int, device: str = "cpu"
) -> dict[str, Any]:
    """Train with the first ``repairs`` of ``REPAIRS`` made, and measure both losses."""
    train, valid, vocab_size = TEXTS[text]()
    size = SCALES[scale]
    torch.manual_seed(seed)
    model = Specimen(REPAIRS[:repairs], mixer=mixer, vocab_size=vocab_size, **size.sizes)
    leak = find_leak(model, vocab_size, seq_len=size.seq_len)
    batches = (
        batch_at(train, size.batch_size, size.seq_len, seed=seed, step=step)
        for step in range(size.steps)
    )
    windows = list(spread_windows(valid, size.windows, size.seq_len))
    curve = train_curve(
        model,
        batches,
        steps=size.steps,
        lr=PEAK,
        schedule=warmup_cosine(size.steps, 0, FINAL),
        settings=PUBLISHED,
        held_out=lambda: windows,
        marks=list(_quarters(size.steps)),
        device=device,
    )
    model.to("cpu")
    by_position = loss_by_position(model, windows)
    return {
        "n_params": sum(p.numel() for p in model.parameters()),
        "leak": None if leak is None else [leak.position, leak.source],
        "valid_loss": round(float(by_position.mean()), 5),
        "by_position": [round(loss, 4) for loss in by_position.tolist()],
        "in_use": round(loss_in_use(model, windows), 5),
        "marks": {str(step): round(loss, 5) for step, loss in curve.marks.items()},
        "curve": in_means(curve.losses, POINTS),
    }


def _quarters(steps: int) -> Iterator[int]:
    return (steps * part // 4 for part in range(1, 5))
