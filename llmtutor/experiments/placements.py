"""Chapter 07, norms: stacks before their first step, and what the records of ``depth`` say.

Losses are in nats a character, infinite where a run diverged; differences are those of pairs of one
seed, which see the same batches and start from the same matrices.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from math import inf, isfinite, log

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llmtutor.data.batches import random_batches
from llmtutor.evaluate.compare import Comparison, compare_pairs
from llmtutor.experiments.depth import BATCH, DEPTHS, PLACEMENTS, stack
from llmtutor.experiments.study import Record
from llmtutor.experiments.training import SEQ_LEN, tokens
from llmtutor.model.language_modelling import NGram
from llmtutor.model.losses import Batch
from llmtutor.model.transformer import Transformer

BySeed = dict[int, float]


def a_batch(seed: int = 0) -> Batch:
    """Characters of the training text and those that follow, as the study draws them."""
    train, _, _ = tokens()
    generator = torch.Generator().manual_seed(seed)
    return next(random_batches(train, BATCH, SEQ_LEN, generator=generator))


def new_stack(placement: str, n_layers: int, seed: int = 0) -> Transformer:
    """A stack of the study before its first step: one seed gives all placements one start."""
    torch.manual_seed(seed)
    return stack(placement, n_layers, tokens()[2])


@torch.no_grad()
def stream_sizes(model: Transformer, ids: Tensor) -> list[float]:
    """Root mean square of the residual stream: of the embedding, and after each block."""
    sizes: list[float] = []

    def keep(x: Tensor) -> None:
        sizes.append(x.square().mean(-1).sqrt().mean().item())

    hooks = [model.blocks[0].register_forward_pre_hook(lambda block, args: keep(args[0]))]
    hooks += [b.register_forward_hook(lambda block, args, out: keep(out)) for b in model.blocks]
    model(ids)
    for hook in hooks:
        hook.remove()
    return sizes


def gradient_sizes(model: Transformer, batch: Batch) -> list[float]:
    """Norm of the gradient of each block's matrices, for the loss of one batch."""
    inputs, targets = batch
    F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
    sizes = []
    for block in model.blocks:
        gradients = [p.grad for p in block.parameters() if p.ndim > 1 and p.grad is not None]
        sizes.append(sum(float(g.square().sum()) for g in gradients) ** 0.5)
    return sizes


@cache
def counted(order: int) -> float:
    """Loss of a model that counts, on the held-out works: a level to compare with."""
    train, valid, vocab_size = tokens()
    return float(NGram(order, vocab_size).fit(train).loss(valid))


def losses(record: Record, **settings: object) -> BySeed:
    """Held-out losses by seed of the runs with these settings."""
    found = {}
    for run in record.runs:
        if all(run["settings"].get(name) == value for name, value in settings.items()):
            loss = run["result"]["valid_loss"]
            found[run["settings"]["seed"]] = inf if loss is None else float(loss)
    return dict(sorted(found.items()))


def by_depth(record: Record) -> dict[str, dict[int, BySeed]]:
    """Losses of each placement at each depth."""
    return {
        name: {n: losses(record, placement=name, n_layers=n) for n in DEPTHS} for name in PLACEMENTS
    }


def against(
    record: Record, names: Sequence[str], baseline: str
) -> dict[tuple[str, int], Comparison]:
    """Each of the placements minus the baseline at each depth, as one family of questions.

    A pair with a run that diverged has no difference and is left out.
    """
    found = by_depth(record)
    questions = {
        (name, n): (found[name][n], found[baseline][n])
        for name in names
        for n in DEPTHS
        if all(map(isfinite, (*found[name][n].values(), *found[baseline][n].values())))
    }
    return compare_pairs(questions)


def deeper(record: Record) -> dict[str, Comparison]:
    """For each placement the deepest stack minus the shallowest, at as many steps."""
    found = by_depth(record)
    ends = {name: (of[DEPTHS[-1]], of[DEPTHS[0]]) for name, of in found.items()}
    finite = {n: e for n, e in ends.items() if all(isfinite(x) for end in e for x in end.values())}
    return compare_pairs(finite)


def by_rate(record: Record, qk_norm: bool) -> dict[float, BySeed]:
    """Losses of the stacks with or without a norm on queries and keys, by learning rate."""
    rates = sorted({run["settings"]["lr"] for run in record.runs})
    return {lr: losses(record, qk_norm=qk_norm, lr=lr) for lr in rates}


def best_rate(found: Mapping[float, BySeed]) -> float:
    """That with the lowest mean loss."""
    return min(found, key=lambda lr: float(np.mean(list(found[lr].values()))))


def sensitivity(found: Mapping[float, BySeed]) -> BySeed:
    """How much a rate costs, on the mean over all that were tried, beyond the best of them.

    A run that diverged counts as one that has learned nothing, log(vocabulary): the learning-rate
    sensitivity of Wortsman et al. (2023).
    """
    most = log(tokens()[2])
    costs: BySeed = {}
    for seed in next(iter(found.values())):
        of_seed = [min(of[seed], most) for of in found.values()]
        costs[seed] = float(np.mean(of_seed)) - min(of_seed)
    return costs


def qk_gaps(record: Record) -> dict[str, Comparison]:
    """With the norm minus without it: at the best rate of each, and in sensitivity."""
    plain, normed = by_rate(record, False), by_rate(record, True)
    best = normed[best_rate(normed)], plain[best_rate(plain)]
    pairs = {"loss, each at its best rate": best}
    pairs["sensitivity to the rate"] = sensitivity(normed), sensitivity(plain)
    return compare_pairs(pairs)
