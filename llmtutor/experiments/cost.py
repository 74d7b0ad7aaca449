"""Chapter 20, comparison: what a variant costs in time and memory, measured side by side."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from llmtutor.data.batches import batch_at
from llmtutor.experiments.variants import BATCH_SIZE, SEQ_LEN, VOCAB_SIZE, build_variant
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.model.accounting import cache_bytes, forward_flops, parameters
from llmtutor.model.transformer import Transformer
from llmtutor.optim import make_optimizer
from llmtutor.train.step import train_step

PROMPT = 8
"""Tokens before the first one that is decoded; the rest of the context is filled."""


def measure_variant(*, variant: str, round: int) -> dict[str, Any]:
    """Speeds and memory of a variant, in a process of its own; ``round`` only tells runs apart."""
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        return pool.submit(_measure, variant).result()


def _measure(variant: str) -> dict[str, Any]:
    peak = peak_bytes(lambda: _train(variant, 2))
    times, model = _train(variant, 60)
    config = model.config
    decode = statistics.median(_decode(model) for _ in range(5))
    return {
        "n_params": parameters(config).total,
        "d_ff": getattr(config.blocks[0].ffn, "d_ff", None),
        "train_tokens_per_second": round(BATCH_SIZE * SEQ_LEN / statistics.median(times[10:])),
        "decode_tokens_per_second": round(1 / decode),
        "peak_bytes": peak,
        "kv_bytes_per_token": cache_bytes(config, 1, 1),
        "forward_flops_per_token": forward_flops(config, 1, SEQ_LEN) // SEQ_LEN,
    }


def _train(variant: str, steps: int) -> tuple[list[float], Transformer]:
    """Seconds of each training step on random ids, and the model."""
    ids = np.random.default_rng(0).integers(VOCAB_SIZE, size=100_000)
    model = build_variant(variant, 0)
    optimizer = make_optimizer(model, "adamw", 1e-3)
    times = []
    for step in range(steps):
        began = time.perf_counter()
        batch = batch_at(ids, BATCH_SIZE, SEQ_LEN, seed=0, step=step)
        train_step(model, [batch], optimizer, clip=1.0)
        times.append(time.perf_counter() - began)
    return times, model


def _decode(model: Transformer) -> float:
    """Seconds a token with a cache, one text at a time, until the context is full."""
    new = SEQ_LEN - PROMPT
    began = time.perf_counter()
    generate(model, [[1] * PROMPT], max_new_tokens=new, sampler=Sampler(greedy=True))
    return (time.perf_counter() - began) / new


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that tensors made during ``work`` held at one time, by the allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as traced:
        kept = work()
    del kept
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        traced.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    sizes = [event["args"]["Bytes"] for event in events if event["name"] == "[memory]"]
    return int(np.cumsum(sizes).max())
