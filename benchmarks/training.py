"""A whole training step beside `transformers` with torch's AdamW: time, data loading, memory.

    python benchmarks/training.py            # a result, also written to data/results
    python benchmarks/training.py --quick    # a first look, not a result

One unit of work is everything that a step does: a random batch is cut out of the training part of
Shakespeare's works (1,024 tokens learned from it), forward, loss, backward, the norm of the
gradient clipped to 1, one update of AdamW. The library's side is what its users write: the model
with `labels`, `clip_grad_norm_`, `torch.optim.AdamW`, as it comes; its batches are cut by indexing
one tensor of ids. Ours is `batch_at`, `train_step` and `make_optimizer`, as written with
`freed_memory_kept` (`llmtutor train --fast keep-memory`). Both also after `torch.compile` (left out
without a C++ compiler): ours without kept memory, which hardly matters there, the library with
everything, `fused=True` and kept memory.

Each of them has a process of its own, since the memory that is kept belongs to a process. The
processes are alive together and work in turn, the others asleep: a turn is one step that is not
timed and four that are. Weights are the same at the start, float32, the same threads. The losses of
the first steps have to fall. The peak of memory is that of the same processes, less what each held
before its model was made, with its libraries and its compiler loaded; making the program is in it.
The last line is one JSON object.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from _measure import (
    Times,
    can_compile,
    from_command_line,
    machine,
    peak_mb,
    ratio,
    record,
    timed,
    without_first,
)
from torch import nn
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging

from llmtutor.data import load_corpus
from llmtutor.data.batches import batch_at
from llmtutor.fast.compiling import compiled, compiled_loss
from llmtutor.fast.memory import freed_memory_kept
from llmtutor.interop.hf import load_hf, save_hf
from llmtutor.model.losses import Batch, Loss, Losses, batch_losses
from llmtutor.model.presets import build, preset
from llmtutor.optim.groups import make_optimizer
from llmtutor.tokenizer import BPETokenizer
from llmtutor.train.step import train_step

CPU = torch.device("cpu")
MODELS: dict[str, type[PreTrainedModel]] = {
    "gpt2-nano": GPT2LMHeadModel,
    "llama-nano": LlamaForCausalLM,
}
SHAPES = ((12, 64), (8, 256))  # sequences × tokens of a step: those of the record, and longer ones
LR, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.95), 0.1, 1.0
IDS = "ids.npy"
AIM = 1.2
STEPS = 4
"""Timed in a turn, after one that is not: it finds what the other processes left of the caches."""
PEER, OURS = "transformers", "ours"
PEER_TUNED, OURS_COMPILED = "transformers, compiled and tuned", "ours, compiled"

Shape = tuple[int, int]
Step = Callable[[], tuple[float, float]]
"""One training step; returns the loss and the norm of the gradient."""


def corpus_ids(quick: bool) -> np.ndarray:
    text = load_corpus("shakespeare").train
    tokenizer = BPETokenizer.train(text[:500_000], preset("gpt2-nano").vocab_size)
    return np.array(tokenizer.encode(text[: 200_000 if quick else 2_000_000]), dtype=np.uint16)


def saved(name: str, folder: str) -> None:
    torch.manual_seed(0)
    save_hf(build(preset(name)), folder)


def their_step(name: str, folder: str, ids: np.ndarray, shape: Shape) -> Step:
    """As the library's users write it."""
    batch_size, seq = shape
    model = MODELS[name].from_pretrained(folder).train()
    row = torch.from_numpy(ids.astype(np.int64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, weight_decay=DECAY)
    offsets = torch.arange(seq)
    generator = torch.Generator().manual_seed(0)

    def step() -> tuple[float, float]:
        starts = torch.randint(len(row) - seq, (batch_size, 1), generator=generator)
        batch = row[starts + offsets]
        optimizer.zero_grad(set_to_none=True)
        loss = model(batch, labels=batch, use_cache=False).loss
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item(), norm.item()

    return step


def their_losses(model: nn.Module, batch: Batch, precision: torch.dtype) -> Losses:
    """The library's loss, a mean, as the sum that ``train_step`` asks for."""
    inputs, targets = batch
    nats = model(inputs, labels=inputs, use_cache=False).loss * targets.numel()
    return Losses(nats, nats, {}, {})


def our_step(model: nn.Module, ids: np.ndarray, shape: Shape, loss: Loss) -> Step:
    optimizer = make_optimizer(model, "adamw", LR, betas=BETAS, weight_decay=DECAY)
    done = 0

    def step() -> tuple[float, float]:
        nonlocal done
        batch = batch_at(ids, *shape, seed=0, step=done)
        metrics = train_step(model, [batch], optimizer, clip=CLIP, loss=loss)
        done += 1
        return metrics.loss, metrics.grad_norm

    return step


@contextmanager
def made_step(who: str, name: str, folder: str, ids: np.ndarray, shape: Shape) -> Iterator[Step]:
    if who == PEER:
        yield their_step(name, folder, ids, shape)
        return
    theirs = who == PEER_TUNED
    model: nn.Module = MODELS[name].from_pretrained(folder) if theirs else load_hf(folder)
    loss: Loss = batch_losses
    if theirs:
        loss = compiled(their_losses, CPU)
    elif who == OURS_COMPILED:
        loss = compiled_loss(model, CPU)
    with nullcontext() if who == OURS_COMPILED else freed_memory_kept():
        yield our_step(model.train(), ids, shape, loss)


def answer(who: str, name: str, folder: str, shape: Shape, turns: Iterable[str]) -> None:
    """What a process does: prints its first losses, the seconds of a step for each turn, its peak.

    The peak is that of the model and its steps, in MB.
    """
    ids = np.load(Path(folder) / IDS)
    if who in (OURS_COMPILED, PEER_TUNED):
        load_compiler()
    before = peak_mb()
    with made_step(who, name, folder, ids, shape) as step:
        print(json.dumps([step() for _ in range(12)]), flush=True)
        for _ in turns:
            step()
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            print((time.perf_counter() - start) / STEPS, flush=True)
    print(peak_mb() - before)


def load_compiler() -> None:
    """A first program, of one operation: what torch.compile imports stays, as torch itself does."""
    torch.compile(torch.cos)(torch.ones(9, requires_grad=True)).sum().backward()


class Worker:
    """The other end of ``answer``: a process that sleeps unless it is its turn."""

    def __init__(self, who: str, name: str, folder: str, shape: Shape) -> None:
        command = [sys.executable, __file__, "--worker", who, name, folder, *map(str, shape)]
        # Programs kept from an earlier run would spare a process the memory of making its own.
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "programs")}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        losses, norms = zip(*self.read(), strict=True)
        if not (losses[0] > losses[-1] > 3 and all(0 < norm < 100 for norm in norms)):
            raise AssertionError(f"{who} does not train: losses {losses}, norms {norms}")

    def read(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def turn(self) -> float:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds: float = self.read()
        return seconds

    def end(self) -> float:
        """Its peak of memory, in MB."""
        assert self.process.stdin
        self.process.stdin.close()
        peak: float = self.read()
        self.process.wait()
        return peak


def loading(ids: np.ndarray, shape: Shape) -> float:
    """Median seconds of a batch."""
    times: Times = {}
    for i in range(200):
        timed(times, OURS, lambda i=i: batch_at(ids, *shape, seed=0, step=i))  # type: ignore[misc]
    return median(times[OURS])


def table(work: str, tokens: int, times: Times) -> dict[str, float]:
    """Print the times; the speeds are ratios of medians the other way up."""
    print(f"\n{work.replace('_', ', ')} tokens a step")
    print(f"{'':38}{'median':>9}{'min':>9}{'max':>9}{'tokens/s':>11}{'speed':>7}")
    figures: dict[str, float] = {}
    for who, values in times.items():
        middle = median(values)
        print(
            f"  {who:36}{middle:8.3f}s{min(values):8.3f}s{max(values):8.3f}s"
            f"{tokens / middle:11,.0f}{1 / ratio(times, who):7.2f}"
        )
        figures[f"{work}_{key(who)}_tokens_per_second"] = round(tokens / middle)
    figures[f"{work}_time_to_{PEER}"] = ratio(times)
    if OURS_COMPILED in times:
        figures[f"{work}_compiled_time_to_{PEER}"] = ratio(times, OURS_COMPILED)
        figures[f"{work}_compiled_time_to_{key(PEER_TUNED)}"] = ratio(
            times, OURS_COMPILED, PEER_TUNED
        )
    return figures


def key(who: str) -> str:
    return who.replace(", ", "_").replace(" ", "_").lower()


def main(quick: bool) -> None:
    about = machine("torch", "transformers")
    rounds = 3 if quick else 30
    if quick:
        print("QUICK: few rounds. A first look, not a result.")
    print(f"{rounds} rounds, {torch.get_num_threads()} threads; the aim is {AIM} times the speed")
    ids = corpus_ids(quick)
    figures: dict[str, object] = {"benchmark": "training", "quick": quick}
    seconds: dict[str, Times] = {}
    everybody = [PEER, OURS] + ([OURS_COMPILED, PEER_TUNED] if can_compile() else [])
    for name, shape in product(MODELS, SHAPES):
        work = f"{name}_{shape[0]}x{shape[1]}"
        with tempfile.TemporaryDirectory() as folder:
            saved(name, folder)
            np.save(Path(folder) / IDS, ids)
            workers = {who: Worker(who, name, folder, shape) for who in everybody}
            turns = [{who: w.turn() for who, w in workers.items()} for _ in range(rounds + 1)]
            peaks = {who: worker.end() for who, worker in workers.items()}
        times = without_first({who: [turn[who] for turn in turns] for who in everybody})
        figures |= table(work, shape[0] * shape[1], times)
        load = loading(ids, shape)
        share = load / min(median(values) for who, values in times.items() if OURS in who)
        print(f"  data loading: {1000 * load:.2f} ms, {share:.2%} of our fastest step")
        print("  peak memory: " + ", ".join(f"{peak:.0f} MB {who}" for who, peak in peaks.items()))
        figures[f"{work}_loading_share"] = round(share, 5)
        figures |= {f"{work}_{key(who)}_peak_mb": round(peak, 1) for who, peak in peaks.items()}
        seconds[work] = times
    if not quick:
        record("training", {**figures, **about}, seconds, threads=torch.get_num_threads())
    print(json.dumps(figures))


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.compile's own
    if sys.argv[1:2] == ["--worker"]:
        who, name, folder, batch_size, seq = sys.argv[2:]
        answer(who, name, folder, (int(batch_size), int(seq)), sys.stdin)
    else:
        from_command_line(main, __doc__)
