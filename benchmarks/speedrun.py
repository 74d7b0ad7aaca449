"""The record: tiny Shakespeare on two cores, nanoGPT's CPU recipe beside the one of chapter 11.

    python benchmarks/speedrun.py            # the record, also written to data/results
    python benchmarks/speedrun.py --quick    # a first look, not a result

Characters (65), first 90 % of the text to train on, context 64, about 0.8M parameters, float32, as
many threads as torch takes; about 35 minutes on two quiet cores. The *published* baseline is what
nanoGPT's README says for a CPU: its GPT (4 layers, 4 heads, d_model 128, no biases, tied head, no
dropout), AdamW from 1e-3 to 1e-4 on a cosine after 100 steps of warm-up, betas 0.9 and 0.99, decay
0.1 of every matrix, gradients clipped at 1, 2,000 steps of 12 windows. The *baseline* is the same
with its rate tuned: 1, 2, 4 and 8 times 1e-3, and on while an end is the best, by the validation
loss of one seed that is used for nothing else. Ours gets as many steps as fit into 97 %
of the baseline's time, from step times measured first. The three train in turn, a part of their
steps each, so that all meet the same weather. Between the turns all are evaluated on the whole
validation text, each target once, in windows of 64 (`sequential_batches`); the clock counts
training alone: batches, passes, optimizer. Settings of ours were chosen by hand, with an eye on the
same validation text.

Then every difference of ours to the baseline is given up, one at a time, for what the baseline does
(`_recipes.left_out`), all rows in a fifth of the baseline's time; rows whose steps compute the same
get as many of them. AdamW in Muon's place gets a sweep of its own. A warm-up of 100 steps is cut to
a third of the row's. Decay is 0.1 of the matrices; our tables and gains never decay.

Keys of data/results/bench-speedrun.json, beside machine and versions:

- `rates`: {"baseline" | "AdamW in Muon's place": {rate: validation loss of one seed}}, and
  `chosen`: {the same: the best rate};
- `curves`: {"baseline" | "ours": a list for each seed of [step, seconds, validation loss]}, the
  baseline tuned; `published_curves`: the same list for the published baseline;
- `final_loss`: {"ours" | "baseline" | "published": a value for each seed}, the last of the curves;
- `loss_at_equal_time`: ours at its last point within the seconds of the baseline, for each seed;
- `seconds`: {"reach_the_loss_of_the_baseline": {"baseline" | "ours": seconds for each seed}}, on
  straight lines between the points; `reach_…_time_to_baseline` is the ratio of the medians;
- `published_time_ratio`: for each seed, ours' seconds to the published one's final loss as a part
  of the published one's seconds;
- `intervals`: 95 % by Student's t over the seeds: [low, high] of `final_loss_baseline`,
  `final_loss_published`, `loss_at_equal_time`, `time_ratio`, `published_time_ratio`;
- `left_out`: {"nothing" | difference: final loss for each of `left_out_seeds` seeds}, each in
  `left_out_seconds`; `left_out_gaps`: {difference: [mean of loss minus that of "nothing" by seed,
  low, high]}, 95 % by Student's t; `left_out_verdicts`: {difference: "worse" | "better" | "not
  distinguishable"}, by the paired test with Holm's correction over all rows;
- `steps`, `left_out_steps`, `parameters`, `left_out_parameters`: {name: number}; `seeds`,
  `left_out_seeds`, `threads`.

The last line is one JSON object.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from _measure import from_command_line, machine, ratio, record
from _recipes import (
    BASELINE_STEPS,
    PUBLISHED_RATE,
    RECIPE,
    WITHOUT_MUON,
    Curve,
    Recipe,
    Run,
    baseline,
    left_out,
    ours,
    works_like,
)

from llmtutor.data.corpora import load_corpus
from llmtutor.evaluate.compare import compare_family, t_interval
from llmtutor.tokenizer import CharTokenizer

SHARE = 0.97  # of the baseline's time, so that ours ends before it also when the machine wavers
POINTS = 20
SEEDS, LEFT_OUT_SEEDS = 3, 5
TUNING_SEED = 100
LEFT_OUT_SHARE = 1 / 5
BASELINE_RATES = tuple(PUBLISHED_RATE * times for times in (1, 2, 4, 8))
ADAMW_RATES = (0.0015, 0.003, 0.006, 0.012)
WORK = "reach_the_loss_of_the_baseline"
IN_MUONS_PLACE = "AdamW in Muon's place"
AIMS = {"time_ratio": 0.25, "loss_at_equal_time": 1.60}

Start = Callable[[int, int], Run]  # of steps and seed


def step_seconds(starts: Mapping[str, Start], rounds: int) -> dict[str, float]:
    """Median seconds of a step of each, in turn, after a warm-up."""
    runs = {name: start(10_000, 0) for name, start in starts.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            before = run.seconds
            run.train(run.step + 10)
            times[name].append((run.seconds - before) / 10)
    return {name: median(values[1:]) for name, values in times.items()}


def race(
    starts: Mapping[str, Start], steps: Mapping[str, int], seed: int, valid: np.ndarray, points: int
) -> dict[str, Curve]:
    """All runs of a seed in turn, a part of their steps at a time."""
    runs = {name: start(steps[name], seed) for name, start in starts.items()}
    for point in range(1, points + 1):
        for name, run in runs.items():
            run.train(steps[name] * point // points)
            run.evaluate(valid)
    return {name: run.curve for name, run in runs.items()}


def sweep(
    start: Callable[[float], Start], rates: tuple[float, ...], steps: int, valid: np.ndarray
) -> dict[float, float]:
    """The final loss at each rate; while an end is the best, on beyond it, at most twice.

    >>> from types import SimpleNamespace as Fake
    >>> def runs(lr):
    ...     return lambda steps, seed: Fake(
    ...         train=lambda n: None, evaluate=lambda v: None, curve=[(1, 1.0, abs(lr - 4))])
    >>> sweep(runs, (1, 2), 10, None)
    {1: 3, 2: 2, 4: 0, 8: 4}
    """
    found: dict[float, float] = {}
    left, more = list(rates), 2
    while left:
        lr = left.pop(0)
        run = start(lr)(steps, TUNING_SEED)
        run.train(steps)
        run.evaluate(valid)
        loss = run.curve[-1][2]
        found[lr] = loss if math.isfinite(loss) else math.inf
        best = min(found, key=found.__getitem__)
        if not left and more and best in (min(found), max(found)):
            left, more = [2 * best if best == max(found) else best / 2], more - 1
    return dict(sorted(found.items()))


def seconds_to(curve: Curve, loss: float) -> float:
    """When the curve falls to ``loss``, on straight lines between its points; inf if never.

    >>> seconds_to([(1, 10.0, 3.0), (2, 20.0, 2.0)], 2.5)
    15.0
    """
    for (_, t0, high), (_, t1, low) in pairwise([(0, 0.0, math.inf), *curve]):
        if low <= loss:
            return t1 if high == math.inf else t0 + (t1 - t0) * (high - loss) / (high - low)
    return math.inf


def interval(values: list[float]) -> list[float]:
    """95 % interval of the mean by Student's t."""
    return [round(end, 4) for end in t_interval(np.array(values))]


def record_runs(
    starts: Mapping[str, Start], valid: np.ndarray, quick: bool
) -> tuple[dict[str, list[Curve]], dict[str, int]]:
    """All three, seed by seed: their curves and numbers of steps."""
    total = BASELINE_STEPS // (20 if quick else 1)
    each = step_seconds(starts, rounds=5 if quick else 15)
    steps = dict.fromkeys(starts, total)
    steps["ours"] = int(SHARE * total * each["baseline"] / each["ours"])
    curves: dict[str, list[Curve]] = {name: [] for name in starts}
    for seed in range(2 if quick else SEEDS):
        for name, curve in race(starts, steps, seed, valid, 5 if quick else POINTS).items():
            curves[name].append(curve)
            step, seconds, loss = curve[-1]
            print(f"  seed {seed}  {name:10}{step:6} steps{seconds:8.2f} s   loss {loss:.4f}")
    return curves, steps


def figures(curves: Mapping[str, list[Curve]]) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """What the curves say, and the seconds to the final loss of the tuned baseline."""
    pairs = list(zip(curves["baseline"], curves["ours"], strict=True))
    equal = [
        [loss for _, seconds, loss in our if seconds <= base[-1][1]][-1] for base, our in pairs
    ]
    reach = {
        "baseline": [base[-1][1] for base, _ in pairs],
        "ours": [round(seconds_to(our, base[-1][2]), 3) for base, our in pairs],
    }
    final = {
        name: [curve[-1][2] for curve in curves[name]] for name in ("ours", "baseline", "published")
    }
    as_published = [
        round(seconds_to(our, base[-1][2]) / base[-1][1], 4)
        for base, our in zip(curves["published"], curves["ours"], strict=True)
    ]
    shown = {
        "final_loss_baseline": final["baseline"],
        "final_loss_published": final["published"],
        "loss_at_equal_time": equal,
        "time_ratio": [b / a for a, b in zip(*reach.values(), strict=True)],
        "published_time_ratio": as_published,
    }
    print(f"\nMean and 95 % interval over {len(pairs)} seeds; the aims are {AIMS}")
    for name, values in shown.items():
        low, high = interval(values)
        print(f"  {name:22}{mean(values):8.3f}   {low:.3f} … {high:.3f}")
    return {
        f"{WORK}_time_to_baseline": ratio(reach, "ours"),
        "final_loss": final,
        "loss_at_equal_time": equal,
        "published_time_ratio": as_published,
        "intervals": {name: interval(values) for name, values in shown.items()},
    }, reach


def rows(
    recipes: Mapping[str, Recipe],
    of: Callable[[Recipe], Start],
    valid: np.ndarray,
    seconds: float,
    seeds: int,
) -> dict[str, Any]:
    """All rows in the same time: an ingredient that saves time is paid."""
    like = {name: works_like(recipe) for name, recipe in recipes.items()}
    kinds = {str(kind): kind for kind in like.values()}
    each = step_seconds({name: of(kind) for name, kind in kinds.items()}, rounds=25)
    steps = {name: max(1, int(seconds / each[str(kind)])) for name, kind in like.items()}
    starts = {name: of(recipe) for name, recipe in recipes.items()}
    losses: dict[str, list[float]] = {name: [] for name in starts}
    for seed in range(seeds):
        for name, curve in race(starts, steps, seed, valid, points=1).items():
            losses[name].append(curve[-1][2])
    found: dict[str, Any] = {"left_out": losses, "left_out_steps": steps}
    found["left_out_parameters"] = {name: parameters(start) for name, start in starts.items()}
    if seeds > 1:
        by_seed = {name: dict(enumerate(values)) for name, values in losses.items()}
        whole = by_seed.pop("nothing")
        gaps = compare_family(by_seed, whole)
        found["left_out_gaps"] = {
            name: [round(x, 4) for x in (gap.difference, *gap.t_interval)]
            for name, gap in gaps.items()
        }
        found["left_out_verdicts"] = {name: gap.verdict for name, gap in gaps.items()}
    print(f"\nLeft out, {seconds:.1f} s of training each; number of seeds: {seeds}")
    for name, values in losses.items():
        more = mean(values) - mean(losses["nothing"])
        size = found["left_out_parameters"][name]
        print(f"  {name:28}{size:10,}{steps[name]:6} steps   loss {mean(values):.3f}{more:+8.3f}")
    return found


def _finite(loss: float) -> float | None:
    """The loss, or null for a run that diverged: JSON knows no infinity."""
    return loss if math.isfinite(loss) else None


def parameters(start: Start) -> int:
    return sum(p.numel() for p in start(100, 0).model.parameters())


def shown_sweep(name: str, found: Mapping[float, float]) -> float:
    best = min(found, key=found.__getitem__)
    tried = ", ".join(f"{lr:g}: {loss:.4f}" for lr, loss in found.items())
    print(f"Rates of {name}: {tried}; best {best:g}")
    return best


def main(quick: bool) -> None:
    about = machine("torch", "numpy")
    corpus = load_corpus("tinyshakespeare")
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.valid)
    n = tokenizer.vocab_size
    ids, valid = (np.array(tokenizer.encode(text)) for text in (corpus.train, corpus.valid))
    if quick:
        print("QUICK: a twentieth of the steps. A first look, not a result.")
        valid = valid[:20_000]

    def base(lr: float) -> Start:
        return partial(baseline, ids, n, lr=lr)

    def of(recipe: Recipe) -> Start:
        return partial(ours, recipe, ids, n)

    tried = {"baseline": sweep(base, BASELINE_RATES, BASELINE_STEPS // (20 if quick else 1), valid)}
    chosen = {"baseline": shown_sweep("the baseline", tried["baseline"])}
    starts = {
        "baseline": base(chosen["baseline"]),
        "ours": of(RECIPE),
        "published": base(PUBLISHED_RATE),
    }
    sizes = {name: parameters(start) for name, start in starts.items()}
    print(f"{torch.get_num_threads()} threads, parameters: {sizes}")
    curves, steps = record_runs(starts, valid, quick)
    result, reach = figures(curves)
    seconds = LEFT_OUT_SHARE * mean(reach["baseline"])

    def without_muon(lr: float) -> Start:
        return of(replace(WITHOUT_MUON, lr=lr))

    each = step_seconds({"": without_muon(ADAMW_RATES[0])}, rounds=5)[""]
    tried[IN_MUONS_PLACE] = sweep(without_muon, ADAMW_RATES, max(1, int(seconds / each)), valid)
    chosen[IN_MUONS_PLACE] = shown_sweep(IN_MUONS_PLACE, tried[IN_MUONS_PLACE])
    recipes = left_out(chosen["baseline"], chosen[IN_MUONS_PLACE])
    found = rows(recipes, of, valid, seconds, 1 if quick else LEFT_OUT_SEEDS)
    rates = {
        name: {f"{lr:g}": _finite(loss) for lr, loss in by.items()} for name, by in tried.items()
    }
    result = {"benchmark": "speedrun", "quick": quick, **result, "rates": rates, "chosen": chosen}
    if not quick:
        record(
            "speedrun",
            {**result, **found, **about, "threads": torch.get_num_threads(), "parameters": sizes},
            {WORK: reach},
            seeds=SEEDS,
            steps=steps,
            left_out_seeds=LEFT_OUT_SEEDS,
            left_out_seconds=round(seconds, 2),
            published_curves=curves.pop("published"),
            curves=curves,
        )
    print(json.dumps({**result, "left_out": found["left_out"]}))


if __name__ == "__main__":
    from_command_line(main, __doc__)
