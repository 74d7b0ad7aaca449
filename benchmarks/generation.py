"""Decoding with a cache beside `transformers.generate`, and what a token costs as the text grows.

    python benchmarks/generation.py            # a result, also written to data/results
    python benchmarks/generation.py --quick    # a first look, not a result

Shapes and weights are those of `gpt2-nano` and `llama-nano`, with a context of 1,024 tokens, saved
once and opened by both. One unit of work is 64 new tokens after a prompt of 64, greedily, with a
cache, for one row and for eight: `generate` here and there, as their users call it, prompt
included. The ids are compared before anything is timed. In float32, in one process, in turn, after
a warm-up round; with the threads that torch takes by itself, and again with one, since the work of
a token is hardly enough to share. Ours is measured as it comes and, with the usual threads, with a
`Compiled` step (left out without a C++ compiler); making the program is reported and not timed.

The second table is ours alone: the time from one token to the next where a text has 64 tokens and
where it has 512, in `generate` with a cache and without. The third counts the bytes of a cache.
The last line is one JSON object.
"""

import json
import tempfile
import time
import warnings
from functools import partial
from itertools import pairwise, product
from statistics import median

import torch
from _measure import (
    Times,
    Work,
    can_compile,
    from_command_line,
    in_turn,
    machine,
    ratio,
    record,
    without_first,
)
from scipy.stats import quantile_test
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging

from llmtutor.fast.decoding import Compiled
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.interop.hf import load_hf, save_hf
from llmtutor.model.presets import build, preset
from llmtutor.model.transformer import Transformer

MODELS: dict[str, type[PreTrainedModel]] = {
    "gpt2-nano": GPT2LMHeadModel,
    "llama-nano": LlamaForCausalLM,
}
CONTEXT = 1024
BATCHES = (1, 8)
PROMPT, NEW = 64, 64
LENGTHS = (64, 512)
WINDOW = {"compiled": 32, "cached": 32, "uncached": 4}  # tokens timed around each length
ROUNDS = {1: 150, 8: 40}
"""With a cache, by the batch: for the larger one the growth is no close call."""
FEW_ROUNDS = 6
AIM, GROWTH_AIM = 2.0, 0.10
PEER = "transformers"

Prompts = list[list[int]]
PerToken = dict[str, dict[str, list[float]]]
"""Seconds a token, compiled, cached and uncached, at each length."""
Readers = dict[str, Transformer | Compiled]
"""Our model as it comes, and compiled."""


def pair(name: str) -> tuple[Transformer, PreTrainedModel]:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        save_hf(build(preset(name, max_seq_len=CONTEXT)), folder)
        return load_hf(folder).eval(), MODELS[name].from_pretrained(folder).eval()


def random_prompts(batch: int, length: int) -> Prompts:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(preset("gpt2-nano").vocab_size, (batch, length), generator=generator)
    prompts: Prompts = ids.tolist()
    return prompts


def readers(model: Transformer) -> Readers:
    torch.compiler.reset()
    return {"ours": model} | ({"ours, compiled": Compiled(model)} if can_compile() else {})


def our_ids(model: Transformer | Compiled, prompts: Prompts) -> Prompts:
    return generate(model, prompts, max_new_tokens=NEW, sampler=Sampler(greedy=True))


def their_ids(model: PreTrainedModel, prompts: Prompts) -> Prompts:
    ids = torch.tensor(prompts)
    out = model.generate(  # type: ignore[operator]  # a mixin hides its type
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        use_cache=True,
        min_new_tokens=NEW,
        max_new_tokens=NEW,
        pad_token_id=0,
    )
    new: Prompts = out[:, ids.shape[1] :].tolist()
    return new


def works(ours: Readers, theirs: PreTrainedModel, batch: int) -> tuple[dict[str, Work], float]:
    """The same new ids by each, the peer first; and the seconds of the longest first run."""
    prompts = random_prompts(batch, PROMPT)
    want, longest = their_ids(theirs, prompts), 0.0
    made: dict[str, Work] = {PEER: lambda: their_ids(theirs, prompts)}
    for who, model in ours.items():
        start = time.perf_counter()
        if our_ids(model, prompts) != want:
            raise AssertionError(f"expected the same ids from {PEER} and {who}, got others")
        longest = max(longest, time.perf_counter() - start)
        made[who] = partial(our_ids, model, prompts)
    return made, longest


def seconds_per_token(model: Transformer | Compiled, batch: int, length: int, kind: str) -> float:
    """From one token to the next, where the text has about ``length``; the prompt is not in it.

    The median over the window: a single token may be interrupted, by milliseconds.
    """
    n = WINDOW[kind]
    stamps: list[float] = []

    def stamp(row: int, _: int) -> None:
        if row == 0:
            stamps.append(time.perf_counter())

    prompts = random_prompts(batch, length - n // 2)
    generate(
        model,
        prompts,
        max_new_tokens=n + 1,
        sampler=Sampler(greedy=True),
        on_token=stamp,
        use_cache=kind != "uncached",
    )
    return median(after - before for before, after in pairwise(stamps))


def per_token(ours: Readers, batch: int, *, quick: bool) -> PerToken:
    """All kinds in turn, each as often as it has rounds; the first round is a warm-up."""
    models = {"cached": ours["ours"], "uncached": ours["ours"]}
    if "ours, compiled" in ours:
        models["compiled"] = ours["ours, compiled"]
    kinds = [kind for kind in WINDOW if kind in models]
    times: dict[str, Times] = {kind: {str(length): [] for length in LENGTHS} for kind in kinds}
    many = FEW_ROUNDS if quick else ROUNDS[batch]
    rounds = {kind: FEW_ROUNDS if kind == "uncached" else many for kind in kinds}
    for i in range(max(rounds.values()) + 1):
        for kind, length in product([kind for kind in kinds if i <= rounds[kind]], LENGTHS):
            seconds = seconds_per_token(models[kind], batch, length, kind)
            times[kind][str(length)].append(seconds)
    return {kind: without_first(values) for kind, values in times.items()}


def growth(times: Times) -> tuple[float, float, float]:
    """By which part of itself the time grows from the first length to the last, and how surely.

    The median over the rounds, since the two are measured right after each other in a round, while
    the speed of a machine that is shared with others can double within minutes. Least and most are
    its interval of 95 %, by the binomial distribution of how many rounds lie below it.
    """
    first, *_, last = times.values()
    parts = [long / short - 1 for short, long in zip(first, last, strict=True)]
    interval = quantile_test(parts, p=0.5).confidence_interval(0.95)
    return round(median(parts), 4), round(interval.low, 4), round(interval.high, 4)


def cache_bytes() -> dict[str, int]:
    """Bytes of a full cache of one row, by the heads of keys and values."""
    config = preset("llama-nano", max_seq_len=CONTEXT)
    whole = build(config).make_caches(1).nbytes
    counted = {}
    for n_kv_heads in (1, 2, 4):
        grouped = build(config.replace(n_kv_heads=n_kv_heads))
        counted[f"n_kv_heads = {n_kv_heads}"] = nbytes = grouped.make_caches(1).nbytes
        if nbytes * 4 != whole * n_kv_heads:
            raise AssertionError(f"expected {n_kv_heads}/4 of {whole}, got {nbytes}")
    return {"multi-head attention": whole, **counted}


def show_decoding(work: str, batch: int, times: Times) -> dict[str, float]:
    """Print the times of one model and batch; the speeds are ratios the other way up."""
    figures: dict[str, float] = {}
    for who, values in times.items():
        middle, tokens = median(values), batch * NEW
        print(
            f"  {work:36}{who:16}{middle:8.3f}s{min(values):8.3f}s{max(values):8.3f}s"
            f"{tokens / middle:10,.0f}{1 / ratio(times, who):7.2f}"
        )
        figures[f"{work}_{who}_tokens_per_second"] = round(tokens / middle)
    figures[f"{work}_time_to_{PEER}"] = ratio(times)
    if "ours, compiled" in times:
        figures[f"{work}_compiled_time_to_{PEER}"] = ratio(times, "ours, compiled")
    return figures


def show_growth(work: str, times: PerToken) -> dict[str, tuple[float, float, float]]:
    grown = {kind: growth(values) for kind, values in times.items()}
    for kind, values in times.items():
        shown = "".join(f"{1000 * median(v):10.3f} ms" for v in values.values())
        middle, low, high = grown[kind]
        print(f"  {work:36}{kind:14}{shown}{middle:+9.1%} ({low:+.1%} to {high:+.1%})")
    return grown


def main(quick: bool) -> None:
    about = machine("torch", "transformers")
    usual, rounds = torch.get_num_threads(), 4 if quick else 30
    if quick:
        print("QUICK: few rounds. A first look, not a result.")
    print(f"{rounds} rounds; the aims are {AIM} times the speed and less than {GROWTH_AIM:.0%}")
    figures: dict[str, object] = {"benchmark": "generation", "quick": quick}
    seconds: dict[str, Times] = {}
    tokens: dict[str, PerToken] = {}
    print(f"\n{NEW} new tokens after {PROMPT}")
    print(f"{'':54}{'median':>9}{'min':>9}{'max':>9}{'tokens/s':>10}{'speed':>7}")
    for name in MODELS:
        ours, theirs = pair(name)
        both = readers(ours)
        for batch, threads in product(BATCHES, dict.fromkeys((usual, 1))):
            torch.set_num_threads(threads)
            work = label(name, batch, threads)
            # A program is made for a number of threads.
            these: Readers = both if threads == usual else {"ours": ours}
            todo, first = works(these, theirs, batch)
            seconds[work] = in_turn(rounds, todo)
            figures |= show_decoding(work, batch, seconds[work])
            if len(these) > 1:
                figures[f"{work}_compile_seconds"] = round(first, 1)
                print(f"  {'':36}compiled within {first:.0f} s")
            tokens[work] = per_token(these, batch, quick=quick)
    print("\ntime per token" + "".join(f"{f'at {length}':>12}" for length in LENGTHS))
    figures["growth"] = {work: show_growth(work, times) for work, times in tokens.items()}
    torch.set_num_threads(usual)
    print(f"\nbytes of the cache of llama-nano, one row of {CONTEXT} tokens")
    for heads, nbytes in (counted := cache_bytes()).items():
        print(f"  {heads:24}{nbytes:12,}{nbytes / counted['multi-head attention']:8.2f}")
    figures["cache_bytes"] = counted
    if not quick:
        record("generation", {**figures, **about}, seconds, seconds_per_token=tokens)
    print(json.dumps(figures))


def label(name: str, batch: int, threads: int) -> str:
    return f"{name}_batch_{batch}_{threads}_thread{'s' if threads > 1 else ''}"


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    from_command_line(main, __doc__)
