"""Chapter 12, scaling: one run of a study, from its settings to its curve.

A run is a function of its settings alone: they name the model, the data and the seed, and the same
settings give the same curve on the same machine and versions.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmtutor.data.batches import random_batches
from llmtutor.data.corpora import load_corpus
from llmtutor.evaluate.perplexity import evaluate_loss
from llmtutor.layers.basic import cross_entropy
from llmtutor.layers.ffn import swiglu_width
from llmtutor.model.accounting import parameters
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import build, preset
from llmtutor.tokenizer import BPETokenizer, CharTokenizer

SEQ_LEN = 64
HEAD_DIM = 8
WARMUP = 0.05
"""Share of the steps in which the learning rate rises from 0 to its peak."""
FINAL = 0.1
"""The cosine ends at this part of the peak."""
CLIP = 1.0
VALID_WINDOWS = 1600
"""Windows of SEQ_LEN tokens, spread evenly over the held-out works, that a final loss is taken on:
102,400 characters. Every run is measured on the same ones."""


@cache
def tokens(vocab_size: int = 0) -> tuple[np.ndarray, np.ndarray, int]:
    """Ids of Shakespeare for training and validation, and the number of different ones.

    Characters by default, or the tokens of a BPE tokenizer with ``vocab_size`` of them.
    """
    corpus = load_corpus("shakespeare")
    tokenizer: CharTokenizer | BPETokenizer
    if vocab_size:
        tokenizer = BPETokenizer.train(corpus.train_documents, vocab_size)
    else:
        tokenizer = CharTokenizer.from_text(corpus.train + corpus.valid)
    train, valid = (np.array(tokenizer.encode(t), np.uint16) for t in (corpus.train, corpus.valid))
    return train, valid, tokenizer.vocab_size


def model_config(d_model: int, n_layers: int, vocab_size: int, **changes: Any) -> ModelConfig:
    """Llama's parts at any width: heads of 8 channels, tied weights, Glorot's deviations.

    >>> parameters(model_config(32, 2, 84)).non_embedding
    25248
    """
    sizes = {"vocab_size": vocab_size, "max_seq_len": SEQ_LEN, "n_layers": n_layers}
    shape = {"n_heads": d_model // HEAD_DIM, "d_ff": swiglu_width(d_model, 8)}
    parts = {"tie_weights": True, "init": "glorot"}
    return preset("llama", d_model=d_model, **{**sizes, **shape, **parts, **changes})


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then half a cosine down to a tenth of the peak; steps count from 0."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (FINAL + (1 - FINAL) * (1 + math.cos(math.pi * progress)) / 2)


def train_run(
    *,
    d_model: int,
    n_tokens: int,
    lr: float,
    seed: int,
    n_layers: int = 2,
    batch_size: int = 16,
    vocab_size: int = 0,
    model: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train once and report: sizes, the raw curve and the final loss on held-out works.

    The curve holds the first ten steps one by one and then the mean of every ten: the loss, the
    norm of the gradient before clipping, and the norm of the part of it that belongs to the
    embedding (which, tied, is also the output layer). A run whose loss stops being a finite number
    ends there and has no final loss.
    """
    train, valid, size = tokens(vocab_size)
    config = model_config(d_model, n_layers, size, **(model or {}))
    torch.manual_seed(seed)
    net = build(config)
    optimizer = torch.optim.AdamW(_groups(net), lr=lr, betas=(0.9, 0.95), fused=True)
    generator = torch.Generator().manual_seed(seed)
    batches = random_batches(train, batch_size, SEQ_LEN, generator=generator)
    steps = n_tokens // (batch_size * SEQ_LEN)
    rows: list[tuple[float, float, float]] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, lr)
        inputs, targets = next(batches)
        optimizer.zero_grad()
        loss = cross_entropy(net(inputs), targets)
        loss.backward()
        embedding = net.embedding.weight.grad
        assert embedding is not None
        of_embedding = embedding.norm()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        row = (loss.item(), norm.item(), of_embedding.item())
        if not all(map(math.isfinite, row)):
            break
        optimizer.step()
        rows.append(row)
    count = parameters(config)
    final = evaluate_loss(net, _windows(valid)).nats_per_token if len(rows) == steps else None
    return {
        "n_params": count.non_embedding,
        "n_embedding": count.embedding,
        "n_tokens": steps * batch_size * SEQ_LEN,
        "steps": steps,
        "valid_loss": None if final is None else round(final, 5),
        "curve": _curve(rows),
    }


def _groups(net: torch.nn.Module) -> list[dict[str, Any]]:
    """Weight decay on matrices inside the blocks; none on gains and the embedding."""
    named = list(net.named_parameters())
    decayed = [p for name, p in named if p.ndim == 2 and name.startswith("blocks")]
    rest = [p for name, p in named if not (p.ndim == 2 and name.startswith("blocks"))]
    return [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]


def _windows(ids: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """VALID_WINDOWS windows at even distances, as batches of 32."""
    starts = np.linspace(0, len(ids) - SEQ_LEN - 1, VALID_WINDOWS).astype(int)
    for some in np.split(starts, VALID_WINDOWS // 32):
        rows = torch.from_numpy(ids[some[:, None] + np.arange(SEQ_LEN + 1)].astype(np.int64))
        yield rows[:, :-1], rows[:, 1:]


def _curve(rows: Sequence[tuple[float, float, float]]) -> dict[str, list[float]]:
    """Steps counted from 1; a mean over steps stands at the last of them."""
    edges = [*range(min(10, len(rows))), *range(10, len(rows), 10), len(rows)]
    means = [np.mean(rows[a:b], axis=0) for a, b in pairwise(edges)]
    columns = np.array(means).reshape(-1, 3).T.round(4).tolist()
    return {
        "step": edges[1:],
        **dict(zip(("loss", "grad_norm", "embedding"), columns, strict=True)),
    }
