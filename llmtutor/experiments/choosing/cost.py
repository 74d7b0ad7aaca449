"""Chapter 20, comparison: what an option costs in time and memory, beside the baseline.

The two are measured in turns, in one process, so that a busy moment of the machine falls on both.
What is kept are both sides; what is told is their ratio, over rounds.
"""

import math
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array
from torch import Tensor

from llmtutor.checks import check_name
from llmtutor.data.batches import batch_at
from llmtutor.evaluate.compare import t_interval
from llmtutor.experiments.choosing.options import OPTIONS, SIZES, Size, build_option
from llmtutor.experiments.peak import peak_bytes
from llmtutor.experiments.study import Record, Study
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.model.accounting import forward_flops, parameters
from llmtutor.model.transformer import Transformer
from llmtutor.optim import make_optimizer
from llmtutor.train.step import train_step

NAME = "choosing-cost"
SIZE = "large"
ROUNDS = 5
TURNS = 6
"""In a round, for each side: so many training steps, the first to warm up, and half as many texts
decoded."""
PROMPT = 8
"""Tokens before the first one that is decoded; the rest of the context is filled."""
BASELINE = "baseline"


@dataclass(frozen=True)
class Ratio:
    """An option's figure over the baseline's."""

    mean: float
    """The geometric one, over rounds."""
    interval: tuple[float, float]
    """95 % by Student's t, of the logarithms; of no width for what is counted, not timed."""
    option: float
    """The option's own figure, the geometric mean over rounds."""
    option_interval: tuple[float, float]
    """As ``interval``; wider, because what slows a round down is in it."""


FIGURES = (
    "train_tokens_per_second",
    "decode_tokens_per_second",
    "cache_bytes",
    "peak_bytes",
    "forward_flops_per_token",
)


def measure_cost(*, option: str, round: int) -> dict[str, Any]:
    """Speeds and memory of an option and of the baseline, in a process of their own.

    ``round`` only tells runs apart.

    Raises:
        ValueError: an unknown option.
    """
    check_name("option", option, OPTIONS)
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        return pool.submit(side_by_side, option, SIZES[SIZE]).result()


def side_by_side(option: str, size: Size, turns: int = TURNS) -> dict[str, dict[str, float]]:
    """Both sides, ``option`` and ``baseline``, with the same figures of each."""
    sides = {"option": option, "baseline": BASELINE}
    peaks = {side: peak_bytes(partial(begin, name, size)) for side, name in sides.items()}
    trained = {side: Trained(name, size) for side, name in sides.items()}
    steps: dict[str, list[float]] = {side: [] for side in sides}
    tokens: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(turns):
        order = sides if turn % 2 else reversed(sides)
        for side in order:
            taken = trained[side](1)
            if turn:
                steps[side] += taken
    for turn in range(max(1, turns // 2)):
        for side in sides if turn % 2 else reversed(sides):
            tokens[side].append(decode(trained[side].model, size))
    found = {}
    for side in sides:
        model = trained[side].model
        found[side] = {
            "n_params": parameters(model.config).total,
            "train_tokens_per_second": round(
                size.batch_size * size.seq_len / statistics.median(steps[side])
            ),
            "decode_tokens_per_second": round(1 / statistics.median(tokens[side]), 1),
            "cache_bytes": model.make_caches(1).nbytes,
            "peak_bytes": peaks[side],
            "forward_flops_per_token": forward_flops(model.config, 1, size.seq_len) // size.seq_len,
        }
    return found


class Trained:
    """A model of an option in training, on ids that mean nothing; called, it makes some steps."""

    def __init__(self, option: str, size: Size) -> None:
        self.size = size
        self.model: Transformer = build_option(option, size, 0)
        self.optimizer = make_optimizer(self.model, OPTIONS[option].optimizer, 1e-3)
        self.ids = np.random.default_rng(0).integers(size.vocab_size, size=100_000)
        self.step = 0

    def __call__(self, steps: int) -> list[float]:
        """Seconds of each step."""
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            shape = self.size.batch_size, self.size.seq_len
            batch: tuple[Tensor, Tensor] = batch_at(self.ids, *shape, seed=0, step=self.step)
            train_step(self.model, [batch], self.optimizer, clip=1.0)
            seconds.append(time.perf_counter() - began)
            self.step += 1
        return seconds


def begin(option: str, size: Size) -> Trained:
    """An option that has made two steps, so that all that training holds is there."""
    trained = Trained(option, size)
    trained(2)
    return trained


def decode(model: Transformer, size: Size) -> float:
    """Seconds a token with a cache, one text at a time, until the context is full."""
    new = size.seq_len - PROMPT
    began = time.perf_counter()
    generate(model, [[1] * PROMPT], max_new_tokens=new, sampler=Sampler(greedy=True))
    return (time.perf_counter() - began) / new


def ratios(record: Record) -> Mapping[str, Mapping[str, Ratio]]:
    """Each figure of FIGURES of each option over the baseline's of the same round.

    Options of fewer than two rounds are left out.
    """
    rounds: dict[str, list[dict[str, dict[str, float]]]] = {}
    for run in record.runs:
        rounds.setdefault(run["settings"]["option"], []).append(run["result"])
    found: dict[str, dict[str, Ratio]] = {}
    for option, results in rounds.items():
        if len(results) < 2:
            continue
        found[option] = {}
        for figure in FIGURES:
            ours = np.log([result["option"][figure] for result in results])
            theirs = np.log([result["baseline"][figure] for result in results])
            found[option][figure] = Ratio(*_mean(ours - theirs), *_mean(ours))
    return found


def _mean(logs: Float[Array, "rounds"]) -> tuple[float, tuple[float, float]]:
    low, high = t_interval(logs)
    return math.exp(float(logs.mean())), (math.exp(low), math.exp(high))


COST = Study(
    name=NAME,
    description="What each option costs beside the baseline: speeds, memory, cache",
    runs=lambda plan: [
        {"option": name, "round": i}
        for i in range(ROUNDS)
        for name, option in OPTIONS.items()
        if option.zeroed_head == "never" and option.larger == 1 and option.tuned_at == "small"
    ],
    run=measure_cost,
)
