"""Our models beside the library `transformers`: forward and backward passes on the same weights.

    python benchmarks/model.py            # a result, also written to data/results
    python benchmarks/model.py --quick    # a first look, not a result

`gpt2-nano` and `llama-nano` are saved once and opened by both, so shape and weights are the same;
the logits are compared before anything is timed. One unit of work is the logits of a batch and the
gradients of all weights from given gradients of the logits (no loss on either side), in float32,
in one process with the same threads, in turn, after a warm-up round. The library runs as it comes:
its default attention (scaled_dot_product_attention), training mode, dropout 0, no cache.
FLOPs are those of `llmtutor.model.accounting`, the peak is that of square matrix products measured
between the rounds. The last line is one JSON object.
"""

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging

from llmtutor.interop.hf import load_hf, save_hf
from llmtutor.model.accounting import backward_flops, forward_flops
from llmtutor.model.presets import build, preset

MODELS: dict[str, type[PreTrainedModel]] = {
    "gpt2-nano": GPT2LMHeadModel,
    "llama-nano": LlamaForCausalLM,
}
BATCH = 8
SQUARE = 1024  # side of the matrices whose product sets the peak
AIM = 1.2
RESULT = Path(__file__).resolve().parents[1] / "data" / "results" / "bench-model.json"

Times = dict[str, list[float]]
Work = Callable[[], object]


def in_turn(rounds: int, works: Mapping[str, Work]) -> Times:
    """Time the works one after the other, round by round; the first round is a warm-up."""
    times: Times = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in times.items()}


def step(model: nn.Module, logits: Callable[[], Tensor], upstream: Tensor) -> Work:
    """Forward and backward; gradients are dropped before, as each training step does."""

    def work() -> None:
        model.zero_grad(set_to_none=True)
        logits().backward(upstream)

    return work


def works(name: str) -> dict[str, Work]:
    """One step of each on the same ids and weights; the peer comes first."""
    torch.manual_seed(0)
    config = preset(name)
    ids = torch.randint(config.vocab_size, (BATCH, config.max_seq_len))
    upstream = torch.randn(*ids.shape, config.vocab_size) / ids.numel()
    with tempfile.TemporaryDirectory() as folder:
        save_hf(build(config), folder)
        ours = load_hf(folder).train()
        theirs = MODELS[name].from_pretrained(folder).train()
    with torch.no_grad():
        difference = (ours(ids) - theirs(ids, use_cache=False).logits).abs().max().item()
    if difference > 1e-5:
        raise AssertionError(f"expected the same logits from both, got a difference {difference}")
    a = torch.randn(SQUARE, SQUARE)
    return {
        "transformers": step(theirs, lambda: theirs(ids, use_cache=False).logits, upstream),
        "ours": step(ours, lambda: ours(ids), upstream),
        "matrix product": lambda: a @ a,
    }


def report(name: str, times: Times) -> dict[str, float]:
    config = preset(name)
    tokens = BATCH * config.max_seq_len
    flops = sum(f(config, BATCH, config.max_seq_len) for f in (forward_flops, backward_flops))
    peak = 2 * SQUARE**3 / min(times["matrix product"])
    print(f"\n{name}, {tokens:,} tokens a step, {flops / 1e9:.1f} GFLOP")
    print(f"{'':16}{'median':>10}{'min':>9}{'max':>9}{'tokens/s':>11}{'of peak':>9}{'speed':>7}")
    figures: dict[str, float] = {}
    for who in ("transformers", "ours"):
        middle = median(times[who])
        ratio = median(times["transformers"]) / middle
        share = flops / middle / peak
        print(
            f"  {who:14}{middle:9.3f}s{min(times[who]):8.3f}s{max(times[who]):8.3f}s"
            f"{tokens / middle:11,.0f}{share:9.0%}{ratio:7.2f}"
        )
        figures[f"{name} {who} tokens/s"] = round(tokens / middle)
        figures[f"{name} {who} of peak"] = round(share, 3)
    print(f"  peak of a {SQUARE} × {SQUARE} matrix product: {peak / 1e9:.0f} GFLOP/s")
    figures[f"{name} peak GFLOP/s"] = round(peak / 1e9, 1)
    figures[f"{name} speed to transformers"] = round(ratio, 3)
    return figures


def machine() -> dict[str, object]:
    cpu = platform.processor() or platform.machine()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    packages = {name: version(name) for name in ("torch", "transformers")}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cpu": cpu,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "system": platform.system(),
        },
        "versions": {"python": platform.python_version(), **packages},
    }


def main(quick: bool) -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rounds = 5 if quick else 30
    if quick:
        print("QUICK: few rounds. A first look, not a result.")
    print(f"{rounds} rounds, {torch.get_num_threads()} threads; the aim is {AIM} times the speed")
    seconds = {name: in_turn(rounds, works(name)) for name in MODELS}
    figures: dict[str, object] = {"benchmark": "model", "quick": quick}
    for name, times in seconds.items():
        figures |= report(name, times)
    if not quick:
        rounded = {
            work: {
                who: [round(value, 5) for value in times[who]] for who in ("transformers", "ours")
            }
            for work, times in seconds.items()
        }
        content = {**figures, **machine(), "batch": BATCH, "seconds": rounded}
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))


if __name__ == "__main__":
    if sys.argv[1:] in ([], ["--quick"]):
        main(quick="--quick" in sys.argv)
    else:
        sys.exit(__doc__)
