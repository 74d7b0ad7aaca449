"""A whole training step beside `transformers` with torch's AdamW: time, data loading, memory.

    python benchmarks/training.py            # a result, also written to data/results
    python benchmarks/training.py --quick    # a first look, not a result

One unit of work is everything that a step does: a random batch is cut out of the training part of
Shakespeare's works (1,024 tokens learned from it), forward, loss, backward, the norm of the
gradient clipped to 1, one update of AdamW. The library's side is what its users write: the model
with `labels`, `clip_grad_norm_`, `torch.optim.AdamW`, as it comes and, in a row of its own, with
`fused=True`; its batches are cut by indexing one tensor of ids. Ours is `batch_at`, `train_step`
and `make_optimizer`. Weights are the same at the start, float32, one process with the same threads,
in turn, after a warm-up round; both as written and after `torch.compile` (left out without a C++
compiler). Losses and gradient norms of the first steps are compared before anything is timed. The
peak of memory is that of a process of its own which makes 30 steps and nothing else, less what the
process held before the model was made. The last line is one JSON object.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from itertools import product
from statistics import median

import numpy as np
import torch
from _measure import Times, Work, in_turn, machine, peak_mb, ratio, record, timed
from torch import nn
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging

from llmtutor.data import load_corpus
from llmtutor.data.batches import batch_at
from llmtutor.interop.hf import load_hf, save_hf
from llmtutor.model.presets import build, preset
from llmtutor.optim.groups import make_optimizer
from llmtutor.tokenizer import BPETokenizer
from llmtutor.train.step import total_loss, train_step

MODELS: dict[str, type[PreTrainedModel]] = {
    "gpt2-nano": GPT2LMHeadModel,
    "llama-nano": LlamaForCausalLM,
}
SHAPES = ((12, 64), (8, 256))  # sequences × tokens of a step: those of the record, and longer ones
LR, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.95), 0.1, 1.0
AIM = 1.3
PEER = "transformers"

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


def their_step(
    name: str, folder: str, ids: np.ndarray, shape: Shape, *, fused: bool, compiled: bool
) -> Step:
    batch_size, seq = shape
    model = MODELS[name].from_pretrained(folder).train()
    row = torch.from_numpy(ids.astype(np.int64))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LR, betas=BETAS, weight_decay=DECAY, fused=fused or None
    )
    run = torch.compile(model) if compiled else model
    offsets = torch.arange(seq)
    generator = torch.Generator().manual_seed(0)

    def step() -> tuple[float, float]:
        starts = torch.randint(len(row) - seq, (batch_size, 1), generator=generator)
        batch = row[starts + offsets]
        optimizer.zero_grad(set_to_none=True)
        loss = run(batch, labels=batch, use_cache=False).loss
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item(), norm.item()

    return step


def our_step(folder: str, ids: np.ndarray, shape: Shape, *, compiled: bool) -> Step:
    model: nn.Module = load_hf(folder).train()
    optimizer = make_optimizer(model, "adamw", LR, betas=BETAS, weight_decay=DECAY)
    loss = torch.compile(total_loss) if compiled else total_loss
    done = 0

    def step() -> tuple[float, float]:
        nonlocal done
        batch = batch_at(ids, *shape, seed=0, step=done)
        metrics = train_step(model, [batch], optimizer, clip=CLIP, loss=loss)
        done += 1
        return metrics.loss, metrics.grad_norm

    return step


def steps(name: str, folder: str, ids: np.ndarray, shape: Shape) -> dict[str, Step]:
    """All of them on the same weights; the peer comes first."""
    made = {
        PEER: their_step(name, folder, ids, shape, fused=False, compiled=False),
        "ours": our_step(folder, ids, shape, compiled=False),
        f"{PEER}, fused AdamW": their_step(name, folder, ids, shape, fused=True, compiled=False),
    }
    if shutil.which("g++") or shutil.which("clang++"):
        torch.compiler.reset()
        made["ours, compiled"] = our_step(folder, ids, shape, compiled=True)
        made[f"{PEER}, fused AdamW, compiled"] = their_step(
            name, folder, ids, shape, fused=True, compiled=True
        )
    return made


def check(made: dict[str, Step]) -> None:
    """Same weights and other batches of the same text: losses near each other and falling."""
    for who, step in made.items():
        losses, norms = zip(*(step() for _ in range(12)), strict=True)
        if not (losses[0] > losses[-1] > 3 and all(0 < norm < 100 for norm in norms)):
            raise AssertionError(f"{who} does not train: losses {losses}, norms {norms}")


def loading(ids: np.ndarray, shape: Shape) -> Times:
    times: Times = {}
    for i in range(200):
        timed(times, "ours", lambda i=i: batch_at(ids, *shape, seed=0, step=i))  # type: ignore[misc]
    return times


def memory(name: str, who: str, shape: Shape) -> float:
    """Peak in MB above what was held before the model was made, in a process of its own."""
    command = [sys.executable, __file__, "--memory", name, who, *map(str, shape)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def measure_memory(name: str, who: str, shape: Shape) -> None:
    ids = np.random.default_rng(0).integers(preset(name).vocab_size, size=100_000)
    with tempfile.TemporaryDirectory() as folder:
        saved(name, folder)
        before = peak_mb()
        step = (
            our_step(folder, ids, shape, compiled=False)
            if who == "ours"
            else their_step(name, folder, ids, shape, fused=False, compiled=False)
        )
        for _ in range(30):
            step()
    print(peak_mb() - before)


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
        label = who.replace(", ", "_").replace(" ", "_").lower()
        figures[f"{work}_{label}_tokens_per_second"] = round(tokens / middle)
    figures[f"{work}_time_to_{PEER}"] = ratio(times)
    if "ours, compiled" in times:
        figures[f"{work}_compiled_time_to_{PEER}"] = ratio(times, "ours, compiled")
        figures[f"{work}_compiled_time_to_{PEER}_fused_compiled"] = ratio(
            times, "ours, compiled", f"{PEER}, fused AdamW, compiled"
        )
    return figures


def as_work(step: Step) -> Work:
    return lambda: step()


def main(quick: bool) -> None:
    about = machine("torch", "transformers")
    rounds = 5 if quick else 40
    if quick:
        print("QUICK: few rounds. A first look, not a result.")
    print(f"{rounds} rounds, {torch.get_num_threads()} threads; the aim is {AIM} times the speed")
    ids = corpus_ids(quick)
    figures: dict[str, object] = {"benchmark": "training", "quick": quick}
    seconds: dict[str, Times] = {}
    for name, shape in product(MODELS, SHAPES):
        work = f"{name}_{shape[0]}x{shape[1]}"
        with tempfile.TemporaryDirectory() as folder:
            saved(name, folder)
            made = steps(name, folder, ids, shape)
        check(made)
        times = in_turn(rounds, {who: as_work(step) for who, step in made.items()})
        figures |= table(work, shape[0] * shape[1], times)
        load = median(loading(ids, shape)["ours"])
        share = load / min(median(values) for who, values in times.items() if "ours" in who)
        mb = {who: memory(name, who, shape) for who in (PEER, "ours")}
        print(f"  data loading: {1000 * load:.2f} ms, {share:.2%} of our fastest step")
        print(f"  peak memory of a run: {mb['ours']:.0f} MB, {PEER} {mb[PEER]:.0f} MB")
        figures[f"{work}_loading_share"] = round(share, 5)
        figures |= {f"{work}_{who}_peak_mb": round(value, 1) for who, value in mb.items()}
        seconds[work] = times
    if not quick:
        record("training", {**figures, **about}, seconds, threads=torch.get_num_threads())
    print(json.dumps(figures))


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.compile's own
    if sys.argv[1:2] == ["--memory"]:
        name, who, batch_size, seq = sys.argv[2:]
        measure_memory(name, who, (int(batch_size), int(seq)))
    elif sys.argv[1:] in ([], ["--quick"]):
        main(quick="--quick" in sys.argv)
    else:
        sys.exit(__doc__)
