"""Chapter 23, export: what each format costs, in bits per byte, for trained models of three sizes.

The smallest is stories260K, as published. The others are rungs of the staircase: one is trained
again by its own recipe, the last is the one that is kept, in int8 by rows, so that int8 by rows
costs *it* nothing here. (What int8 cost when it was kept is in the record of the staircase.)

All formats are measured on the same stretches of held-out text, so that two of them are compared
stretch by stretch.
"""

import math
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmtutor.checks import check_name
from llmtutor.data.corpora import stream_documents
from llmtutor.experiments.climbing import texts, train_rung
from llmtutor.experiments.kept import load_kept
from llmtutor.experiments.rungs import LAST, RUNGS
from llmtutor.experiments.study import Study, load_record
from llmtutor.interop.llama2c import load_stories260k
from llmtutor.interop.llama2c_tokenizer import BOS
from llmtutor.interop.quantize import (
    CALIBRATED,
    SCHEMES,
    Integers,
    bits_per_weight,
    gptq_model,
    packed,
    round_model,
    stored_bytes,
    unpacked,
)
from llmtutor.interop.quantize.apply import matrices, weight
from llmtutor.interop.quantize.cache import quantized_caches
from llmtutor.interop.quantize.format import Rounded
from llmtutor.layers.basic import cross_entropy
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import Tokenizer

MODELS = ("stories260K", "feed-forward", LAST)
"""From the smallest."""
STRETCHES, STRETCH = 32, 512
"""Of held-out plays, and tokens of each."""
STORIES, STORY = 64, 256
"""Held-out stories that stand for stretches, and tokens of each."""
CALIBRATION = 8192
"""Tokens that GPTQ reads."""
CALIBRATION_SEEDS = 3
FLOATS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
DYNAMIC = "int8-dynamic"
CACHES = {"cache-8": 8, "cache-4": 4}
PARTS: Mapping[str, Callable[[str, int], bool]] = {
    "embedding": lambda name, n_layers: name == "embedding",
    "first block": lambda name, n_layers: name.startswith("blocks.0."),
    "last block": lambda name, n_layers: name.startswith(f"blocks.{n_layers - 1}."),
    "head": lambda name, n_layers: name == "head",
    "query, key": lambda name, n_layers: name.endswith(("query", "key")),
    "value": lambda name, n_layers: name.endswith("value"),
    "output": lambda name, n_layers: name.endswith("output"),
    "gate, up": lambda name, n_layers: name.endswith(("gate", "up")),
    "down": lambda name, n_layers: name.endswith("down"),
}
"""Matrices that are rounded alone, all others left as they were."""
PARTS_SCHEME = "int3"


@dataclass(frozen=True)
class Subject:
    """A trained model with its text."""

    model: Transformer
    rows: Tensor
    """Stretches, (how many, tokens + 1): the first token is never predicted."""
    context: int
    """Tokens that are read at once."""
    n_bytes: int
    """Of all predicted tokens."""
    calibration: Callable[[int], Tensor]
    """From a seed to texts of the training part."""


@cache
def subject(name: str) -> Subject:
    """One of MODELS; ``ValueError`` for another name, with the nearest."""
    check_name("model", name, MODELS)
    if name == "stories260K":
        return _stories()
    rung, text = RUNGS[name], texts()
    if name == LAST:
        model, _ = load_kept()
    else:
        lr = load_record("staircase").plan["learning_rate"][name]
        trained, _ = train_rung(rung, lr, seed=0, times=rung.recipe.times)
        assert isinstance(trained, Transformer)
        model = trained.eval()
    context = rung.recipe.seq_len
    starts = np.linspace(0, len(text.held_out) - STRETCH - 1, STRETCHES).astype(int)
    rows = _rows(text.held_out, starts, STRETCH + 1)

    def calibration(seed: int) -> Tensor:
        random = np.random.default_rng(seed)
        places = random.integers(len(text.train) - context, size=CALIBRATION // context)
        return _rows(text.train, places, context)

    return Subject(model, rows, context, _n_bytes(rows, text.tokenizer), calibration)


def _stories() -> Subject:
    """stories260K; a stretch is a story, and so is a text to calibrate on."""
    model, tokenizer = load_stories260k()

    def long_ones(part: str, n: int) -> Tensor:
        documents = stream_documents("tinystories-sample", part)
        rows = ([BOS, *tokenizer.encode(document.strip())] for document in documents)
        return torch.tensor([row[: STORY + 1] for row in islice(filter(_is_long, rows), n)])

    rows = long_ones("valid", STORIES)
    pool = long_ones("train", 8 * CALIBRATION // STORY)[:, :-1]

    def calibration(seed: int) -> Tensor:
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
        return pool[order[: CALIBRATION // STORY]]

    return Subject(model, rows, STORY, _n_bytes(rows, tokenizer), calibration)


def _is_long(row: list[int]) -> bool:
    return len(row) > STORY


def _rows(ids: np.ndarray, starts: np.ndarray, length: int) -> Tensor:
    return torch.from_numpy(ids[starts[:, None] + np.arange(length)].astype(np.int64))


def _n_bytes(rows: Tensor, tokenizer: Tokenizer) -> int:
    return sum(len(tokenizer.token_bytes(id)) for id in rows[:, 1:].flatten().tolist())


def by_stretch(model: Transformer, one: Subject, cache_bits: int | None = None) -> list[float]:
    """Bits per byte of each stretch, over the mean bytes of one: their mean is that of the text."""
    inputs, targets = (x.reshape(-1, one.context) for x in (one.rows[:, :-1], one.rows[:, 1:]))
    nats = []
    with torch.no_grad():
        for some, wanted in zip(inputs.split(8), targets.split(8), strict=True):
            caches = None
            if cache_bits is not None:
                caches = quantized_caches(model, len(some), one.context, cache_bits)
            logits = model(some, cache=caches)
            nats.append(cross_entropy(logits, wanted, reduction="none").double().sum(1))
    total = torch.cat(nats).view(len(one.rows), -1).sum(1)
    bits = total / (math.log(2) * one.n_bytes / len(one.rows))
    return [round(x, 5) for x in bits.tolist()]


def ladder_run(*, model: str, scheme: str, part: str | None, seed: int) -> dict[str, Any]:
    """A model in a format, or with one part of it in that format.

    Raises:
        ValueError: an unknown model, scheme or part.
        FetchError: a text or the published weights are not here.
    """
    one = subject(model)
    if scheme in FLOATS:
        dtype = FLOATS[scheme]
        changed = as_floats(one.model, dtype)
        bits = float(torch.finfo(dtype).bits)
        sizes = {"bits_per_weight": bits, "bytes": int(stored_bytes(one.model) * bits / 32)}
        return sizes | _losses(by_stretch(changed, one))
    if scheme in CACHES:
        caches = quantized_caches(one.model, 1, one.context, CACHES[scheme])
        plain = one.model.make_caches(1, one.context).nbytes
        found = _losses(by_stretch(one.model, one, CACHES[scheme]))
        return {"cache_bytes": caches.nbytes, "cache_bytes_float32": plain, **found}
    rounded = _rounded(one, scheme, _names(one.model, part), seed)
    small = packed(one.model, rounded, dynamic=scheme == DYNAMIC)
    measured = small if scheme == DYNAMIC else unpacked(one.model, rounded)
    return {
        "bits_per_weight": round(bits_per_weight(rounded), 3),
        "bytes": stored_bytes(small),
        "n_weights": sum(x.codes.numel() for x in rounded.values()),
        **_losses(by_stretch(measured, one)),
    }


def _losses(stretches: list[float]) -> dict[str, Any]:
    return {"bits_per_byte": round(float(np.mean(stretches)), 5), "stretches": stretches}


def _names(model: Transformer, part: str | None) -> list[str]:
    """The matrices of a part; None for all."""
    names = list(matrices(model))
    if part is None:
        return names
    belongs = PARTS[check_name("part", part, PARTS)]
    return [name for name in names if belongs(name, model.config.n_layers)]


def _rounded(one: Subject, scheme: str, names: Collection[str], seed: int) -> dict[str, Rounded]:
    format = SCHEMES["int8" if scheme == DYNAMIC else check_name("scheme", scheme, SCHEMES)]
    if scheme in CALIBRATED and isinstance(format, Integers):
        return gptq_model(one.model, one.calibration(seed), format, names)
    return round_model(one.model, format, names)


def as_floats(model: Transformer, dtype: torch.dtype) -> Transformer:
    """A copy whose matrices are rounded to ``dtype``; it computes in its own."""
    copy = deepcopy(model)
    for name in matrices(copy):
        place = weight(copy, name)
        place.copy_(place.to(dtype))
    return copy


def _runs(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    schemes = [*FLOATS, *SCHEMES, DYNAMIC, *CACHES]
    whole = [
        {"model": model, "scheme": scheme, "part": None, "seed": seed}
        for model in sorted(MODELS, key=lambda name: name == "feed-forward")  # it has to be trained
        for scheme in schemes
        for seed in range(CALIBRATION_SEEDS if scheme in CALIBRATED else 1)
    ]
    parts = [{"model": LAST, "scheme": PARTS_SCHEME, "part": part, "seed": 0} for part in PARTS]
    return whole + parts


QUANTISATION = Study(
    name="quantisation-ladder",
    description="Trained models of three sizes in fewer bits: what each format and each part costs",
    runs=_runs,
    run=ladder_run,
)
