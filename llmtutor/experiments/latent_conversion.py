"""Chapter 15, mla: a trained model brought down to a smaller cache, by sharing or by compressing.

The model is that of chapter 14's ``uptraining``, but RoPE turns half of each head's components, so
that the other half can go into a latent. Its heads of keys and values are merged by means, or
compressed by singular values, to the same numbers for a token. Each result is trained on for a
tenth of the steps. The control is the same model, trained on for as long.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmtutor.experiments.study import Study
from llmtutor.experiments.training import SEQ_LEN, model_config, tokens
from llmtutor.experiments.uptraining import (
    D_MODEL,
    FINAL,
    MARKS,
    N_HEADS,
    N_LAYERS,
    STEPS,
    falling,
    train_on,
)
from llmtutor.model.grouping import group_heads
from llmtutor.model.latent import compress_heads
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer
from llmtutor.optim.schedules import warmup_cosine

HEAD_DIM = D_MODEL // N_HEADS
TURNED = HEAD_DIM // 2
"""Components of a head that RoPE turns."""
WHOLE = 2 * D_MODEL
"""Numbers that the multi-head model keeps of a token in each layer."""
SIZES = (64, 32, 16)
"""Numbers that are left; those of 4, 2 and 1 heads of keys and values."""
FULL_RANK = D_MODEL + TURNED
"""Numbers at which the latent loses nothing, and only the turned keys are shared."""
METHODS = ("grouped", "latent", "latent, by texts")
SEEDS = 5
SEARCH_SEED, SEARCH_SIZE = 100, 32
"""Where the rates were looked for: a model that is not among those compared."""
SEARCH_RATES = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Parts of the peak at which uptraining might begin."""
CONTROL_RATES = (0.00390625, 0.0078125, 0.015625, 0.03125, *SEARCH_RATES)
"""The same for the control, which has nothing to mend."""
RATES = {"control": 0.0078125, "grouped": 0.5, "latent": 0.25, "latent, by texts": 0.25}
"""Those at which it does: the best of the search."""


@cache
def trained(seed: int, device: str = "cpu") -> Transformer:
    """The multi-head model of a seed, after STEPS steps; do not change it."""
    torch.manual_seed(seed)
    config = model_config(D_MODEL, N_LAYERS, tokens()[2], n_heads=N_HEADS, rope_fraction=0.5)
    model = build(config)
    train_on(model, warmup_cosine(STEPS, STEPS // 20, FINAL), (STEPS,), seed, device)
    return model


def converted(model: Transformer, method: str, numbers: int) -> Transformer:
    """The model with a cache of ``numbers`` for a token and layer; the control as it is."""
    if method == "control":
        return group_heads(model, N_HEADS)
    if method == "grouped":
        return group_heads(model, numbers // (2 * HEAD_DIM))
    return compress_heads(model, numbers - TURNED, _texts() if "texts" in method else None)


def convert_run(
    *, method: str, numbers: int, rate: float, seed: int, device: str = "cpu"
) -> dict[str, Any]:
    """Convert the trained model and train on, on batches that all conversions share."""
    model = converted(trained(seed, device), method, numbers)
    losses = train_on(model, falling(MARKS[-1], rate), MARKS, 1000 + seed, device)
    return {
        "cache_bytes": model.make_caches(1, 1).nbytes,
        "valid_loss": losses.get(str(MARKS[-1])),
        "losses": losses,
    }


def _texts() -> Tensor:
    """32 windows of the training text, at even distances."""
    ids = tokens()[0]
    starts = np.linspace(0, len(ids) - SEQ_LEN, 32).astype(int)
    return torch.from_numpy(ids[starts[:, None] + np.arange(SEQ_LEN)].astype(np.int64))


def _runs() -> list[dict[str, Any]]:
    """The search first, then all methods and sizes, seed by seed."""
    tried: dict[str, tuple[int, tuple[float, ...]]]
    tried = dict.fromkeys(METHODS, (SEARCH_SIZE, SEARCH_RATES))
    tried["control"] = (WHOLE, CONTROL_RATES)
    search = [
        {"method": method, "numbers": numbers, "rate": rate, "seed": SEARCH_SEED}
        for method, (numbers, rates) in tried.items()
        for rate in rates
    ]
    kinds = [("control", WHOLE), ("latent", FULL_RANK), ("latent, by texts", FULL_RANK)]
    kinds += [(method, numbers) for numbers in SIZES for method in METHODS]
    compared = [
        {"method": method, "numbers": numbers, "rate": RATES[method], "seed": seed}
        for seed in range(SEEDS)
        for method, numbers in kinds
    ]
    return search + compared


LATENT_CONVERSION = Study(
    name="latent-conversion",
    description="A trained model's cache made smaller, by shared heads or a latent; trained on",
    runs=lambda plan: _runs(),
    run=convert_run,
)
