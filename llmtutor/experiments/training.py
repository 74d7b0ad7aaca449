"""Chapter 12, scaling: one run of a study, from its settings to its curve.

A run is a function of its settings alone: they name the model, the data and the seed, and the same
settings give the same curve on the same machine and versions.
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from llmtutor.data.batches import random_batches
from llmtutor.data.corpora import load_corpus
from llmtutor.experiments.curve import spread_windows, train_curve
from llmtutor.layers.ffn import swiglu_width
from llmtutor.model.accounting import parameters
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import build, preset
from llmtutor.optim import Schedule
from llmtutor.optim.schedules import warmup_cosine
from llmtutor.tokenizer import BPETokenizer, CharTokenizer

SEQ_LEN = 64
HEAD_DIM = 8
WARMUP = 0.05
"""Share of the steps after which the learning rate is at its peak."""
FINAL = 0.1
"""The cosine ends at this part of the peak."""
VALID_WINDOWS = 1600
"""Windows of SEQ_LEN tokens, spread evenly over the held-out works, that a final loss is taken on:
102,400 characters. Every run is measured on the same ones."""


@cache
def tokens(vocab_size: int = 0, corpus: str = "shakespeare") -> tuple[np.ndarray, np.ndarray, int]:
    """Ids of a corpus for training and validation, and the number of different ones.

    Characters by default, or ``vocab_size`` byte pairs, learned from the same text.
    """
    text = load_corpus(corpus)
    tokenizer = (
        BPETokenizer.train(text.train_documents, vocab_size)
        if vocab_size
        else CharTokenizer.from_text(text.train + text.valid)
    )
    train, valid = (np.array(tokenizer.encode(t), np.uint16) for t in (text.train, text.valid))
    return train, valid, tokenizer.vocab_size


def model_config(d_model: int, n_layers: int, vocab_size: int, **changes: Any) -> ModelConfig:
    """Llama's parts at any width: heads of 8 channels, tied weights, Glorot's deviations."""
    sizes = {"vocab_size": vocab_size, "max_seq_len": SEQ_LEN, "n_layers": n_layers}
    shape = {"n_heads": d_model // HEAD_DIM, "d_ff": swiglu_width(d_model, 8)}
    parts = {"tie_weights": True, "init": "glorot"}
    return preset("llama", d_model=d_model, **{**sizes, **shape, **parts, **changes})


def schedule(steps: int) -> Schedule:
    """Linear warm-up to the peak, then half a cosine down to FINAL of it."""
    return warmup_cosine(steps, max(1, round(WARMUP * steps)) - 1, FINAL)


def train_run(
    *,
    d_model: int,
    n_tokens: int,
    lr: float,
    seed: int,
    batch_size: int = 16,
    vocab_size: int = 0,
    model: dict[str, Any] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train once and report: sizes, the raw curve and the final loss on held-out works.

    The curve holds the first ten steps one by one and then the mean of every ten: the loss, the
    norm of the gradient before clipping, and the norm of the part of it that belongs to the
    embedding (which, tied, is also the output layer). A run that diverges ends there, without a
    final loss.
    """
    train, valid, size = tokens(vocab_size)
    config = model_config(d_model, 2, size, **(model or {}))
    torch.manual_seed(seed)
    net = build(config)
    of_embedding: list[float] = []
    net.embedding.weight.register_post_accumulate_grad_hook(  # before any clipping
        lambda p: of_embedding.append(p.grad.norm().item())
    )
    generator = torch.Generator().manual_seed(seed)
    steps = n_tokens // (batch_size * SEQ_LEN)
    curve = train_curve(
        net,
        random_batches(train, batch_size, SEQ_LEN, generator=generator),
        steps=steps,
        lr=lr,
        schedule=schedule(steps),
        held_out=lambda: spread_windows(valid, VALID_WINDOWS, SEQ_LEN),
        marks=(steps,),
        device=device,
    )
    rows = list(zip(curve.losses, curve.grad_norms, of_embedding, strict=False))
    final = curve.marks.get(steps)
    count = parameters(config)
    return {
        "n_params": count.non_embedding,
        "n_embedding": count.embedding,
        "n_tokens": steps * batch_size * SEQ_LEN,
        "steps": steps,
        "valid_loss": None if final is None else round(final, 5),
        "curve": _curve(rows),
    }


def _curve(rows: Sequence[tuple[float, float, float]]) -> dict[str, list[float]]:
    """Steps counted from 1; a mean over steps stands at the last of them."""
    edges = [*range(min(10, len(rows))), *range(10, len(rows), 10), len(rows)]
    means = [np.mean(rows[a:b], axis=0) for a, b in pairwise(edges)]
    columns = np.array(means).reshape(-1, 3).T.round(4).tolist()
    return {
        "step": edges[1:],
        **dict(zip(("loss", "grad_norm", "embedding"), columns, strict=True)),
    }
