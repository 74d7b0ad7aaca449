"""Our models beside the library `transformers`: forward and backward passes on the same weights.

    python benchmarks/model.py            # a result, also written to data/results
    python benchmarks/model.py --quick    # a first look, not a result

`gpt2-nano` and `llama-nano` are saved once and opened by both, so shape and weights are the same;
the logits are compared before anything is timed. One unit of work is the logits of a batch and the
gradients of all weights from given gradients of the logits (no loss on either side), in float32,
in one process with the same threads, in turn, after a warm-up round: both as they are written, and
both after `torch.compile` (ours `prepared` for it). The first column is the library as it comes:
its default attention, scaled_dot_product_attention; training mode, dropout 0, no cache. Without a
C++ compiler the compiled rows are left out. FLOPs are those of `llmtutor.model.accounting`, the
peak is that of square matrix products measured between the rounds. The last line is one JSON
object.
"""

import json
import tempfile
import warnings
from collections.abc import Callable
from statistics import median

import torch
from _measure import Times, Work, can_compile, from_command_line, in_turn, machine, ratio, record
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging

from llmtutor.fast.compiling import prepared, twin
from llmtutor.interop.hf import load_hf, save_hf
from llmtutor.model.accounting import backward_flops, forward_flops
from llmtutor.model.presets import build, preset

MODELS: dict[str, type[PreTrainedModel]] = {
    "gpt2-nano": GPT2LMHeadModel,
    "llama-nano": LlamaForCausalLM,
}
BATCHES = (8, 1)  # sequences of 256 tokens
SQUARE = 1024  # side of the matrices whose product sets the peak
PEAK = "matrix product"
AIM = 1.2


def step(model: nn.Module, logits: Callable[[], Tensor], upstream: Tensor) -> Work:
    """Forward and backward; gradients are dropped before, as each training step does."""

    def work() -> None:
        model.zero_grad(set_to_none=True)
        logits().backward(upstream)

    return work


def works(name: str, batch: int) -> dict[str, Work]:
    """One step of each on the same ids and weights; the peer comes first."""
    torch.manual_seed(0)
    config = preset(name)
    ids = torch.randint(config.vocab_size, (batch, config.max_seq_len))
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
    made: dict[str, Work] = {
        "transformers": step(theirs, lambda: theirs(ids, use_cache=False).logits, upstream),
        "ours": step(ours, lambda: ours(ids), upstream),
        PEAK: lambda: a @ a,
    }
    if can_compile():
        torch.compiler.reset()
        fast, fast_theirs = torch.compile(prepared(twin(ours))), torch.compile(theirs)
        made["transformers, compiled"] = step(
            theirs, lambda: fast_theirs(ids, use_cache=False).logits, upstream
        )
        made["ours, compiled"] = step(ours, lambda: fast(ids), upstream)
    return made


def table(name: str, batch: int, times: Times) -> dict[str, float]:
    """Print the times of one shape; the speeds, which are ratios of medians the other way up."""
    config = preset(name)
    tokens = batch * config.max_seq_len
    flops = sum(f(config, batch, config.max_seq_len) for f in (forward_flops, backward_flops))
    peak = 2 * SQUARE**3 / min(times[PEAK])
    print(f"\n{name}, {batch} × {config.max_seq_len} tokens a step, {flops / 1e9:.1f} GFLOP")
    print(f"{'':24}{'median':>10}{'min':>9}{'max':>9}{'tokens/s':>11}{'of peak':>9}{'speed':>7}")
    figures: dict[str, float] = {}
    work = f"{name}_{batch}x{config.max_seq_len}"
    for who, values in times.items():
        if who == PEAK:
            continue
        middle = median(values)
        share, label = flops / middle / peak, who.replace(", ", "_")
        print(
            f"  {who:22}{middle:9.3f}s{min(values):8.3f}s{max(values):8.3f}s"
            f"{tokens / middle:11,.0f}{share:9.0%}{1 / ratio(times, who):7.2f}"
        )
        figures[f"{work}_{label}_tokens_per_second"] = round(tokens / middle)
        figures[f"{work}_{label}_of_peak"] = round(share, 3)
    print(f"  peak of a {SQUARE} × {SQUARE} matrix product: {peak / 1e9:.0f} GFLOP/s")
    figures[f"{work}_peak_gflops"] = round(peak / 1e9, 1)
    figures[f"{work}_time_to_transformers"] = ratio(times)
    if "ours, compiled" in times:
        figures[f"{work}_compiled_time_to_transformers"] = ratio(times, "ours, compiled")
        figures[f"{work}_compiled_time_to_transformers_compiled"] = ratio(
            times, "ours, compiled", "transformers, compiled"
        )
    return figures


def main(quick: bool) -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.compile's own
    about = machine("torch", "transformers")
    rounds = 5 if quick else 40
    if quick:
        print("QUICK: few rounds. A first look, not a result.")
    print(f"{rounds} rounds, {torch.get_num_threads()} threads; the aim is {AIM} times the speed")
    figures: dict[str, object] = {"benchmark": "model", "quick": quick}
    seconds: dict[str, Times] = {}
    for name in MODELS:
        for batch in BATCHES:
            times = in_turn(rounds, works(name, batch))
            figures |= table(name, batch, times)
            del times[PEAK]
            seconds[f"{name}_{batch}x{preset(name).max_seq_len}"] = times
    if not quick:
        record("model", {**figures, **about}, seconds, threads=torch.get_num_threads())
    print(json.dumps(figures))


if __name__ == "__main__":
    from_command_line(main, __doc__)
