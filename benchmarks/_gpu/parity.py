"""Every registered part on the GPU as on the CPU: logits, gradients, cached decoding, bfloat16."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import MISSING, fields
from typing import Any, get_args

import torch
from _gpu.device import name_of
from torch import Tensor, nn

from llmtutor.layers.ffn import FeedForwardConfig
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.moe import RouterConfig
from llmtutor.layers.norms import NormConfig
from llmtutor.layers.part import Part
from llmtutor.layers.positions import AttentionPositionConfig, EmbeddingPositionConfig, RopeScaling
from llmtutor.layers.registry import PARTS
from llmtutor.model.block import Placement
from llmtutor.model.changes import FFNS
from llmtutor.model.config import ModelConfig
from llmtutor.model.losses import batch_losses
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer

TOLERANCE = 1e-4
"""Of float32: the largest difference, as a part of the largest number."""
BFLOAT16 = 0.02
"""Nats a token by which the loss in bfloat16 may differ."""
FLOAT32 = ("logits", "gradients", "cached")
BATCH, SEQ = 2, 32
BASE = ModelConfig.uniform(
    vocab_size=64, max_seq_len=SEQ, n_layers=2, d_model=32, n_heads=4, d_ff=64, init="glorot"
)
ROLES: dict[type[Part], str] = {
    MixerConfig: "mixer",
    FeedForwardConfig: "ffn",
    NormConfig: "norm",
    AttentionPositionConfig: "position",
    EmbeddingPositionConfig: "position",
    RopeScaling: "rope_scaling",
    RouterConfig: "router",
}
SCALING = {"factor": 2.0, "original_max_seq_len": SEQ // 2}
MORE: tuple[dict[str, Any], ...] = (
    *({"norm_placement": placement} for placement in get_args(Placement)),
    *({"ffn": ffn} for ffn in FFNS),
    {"n_kv_heads": 2},
    {"window": 8},
    {"qk_norm": "rmsnorm"},
    {"softcap": 5.0},
    {"sinks": True},
    {"rope_pairing": "interleaved", "rope_fraction": 0.5},
)


def changes() -> Iterator[tuple[str, dict[str, Any] | None]]:
    """What to change in BASE, with a name; None for a part in a role that is not known here."""
    for kind, part in PARTS.items():
        role = next((name for role, name in ROLES.items() if issubclass(part, role)), None)
        if role is None:
            yield kind, None
        elif role == "rope_scaling":
            needed = [f.name for f in fields(part) if f.default is MISSING]  # type: ignore[arg-type]
            yield f"{role} {kind}", {role: part(**{name: SCALING[name] for name in needed})}
        elif role == "router":
            yield f"{role} {kind}", {"ffn": "moe", role: part()}
        else:
            yield f"{role} {kind}", {role: kind}
    for change in MORE:
        yield ", ".join(f"{name} {value}" for name, value in change.items()), change


def compare(config: ModelConfig, device: str) -> dict[str, float]:
    """Relative differences in float32, and the difference of the loss in bfloat16."""
    torch.manual_seed(0)
    here = build(config)
    there = deepcopy(here).to(device)
    ids = torch.randint(config.vocab_size, (BATCH, SEQ + 1))
    batch, batch_there = ((x[:, :-1], x[:, 1:]) for x in (ids, ids.to(device)))
    loss = batch_losses(here, batch).total / batch[1].numel()
    loss.backward()
    (batch_losses(there, batch_there).total / batch[1].numel()).backward()
    with torch.no_grad():
        half = batch_losses(there, batch_there, torch.bfloat16).nats / batch[1].numel()
        logits, logits_there = here(batch[0]), there(batch_there[0])
        cached = in_two(there, batch_there[0])
    return {
        "logits": difference(logits_there, logits),
        "gradients": difference(gradients(there), gradients(here)),
        "cached": difference(cached, logits),
        "bfloat16": abs(half.item() - loss.item()),
    }


def in_two(model: Transformer, ids: Tensor) -> Tensor:
    """Logits of a text that is read in two pieces and then token by token, with a cache."""
    cache = model.make_caches(len(ids))
    pieces = ids.split([SEQ // 4, SEQ // 4, *[1] * (SEQ // 2)], dim=1)
    return torch.cat([model(piece, cache=cache) for piece in pieces], dim=1)


def gradients(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.cpu().flatten() for p in model.parameters() if p.grad is not None])


def difference(there: Tensor, here: Tensor) -> float:
    """The largest, as a part of the largest number.

    Raises:
        ArithmeticError: something is no number.
    """
    worst = (there.detach().cpu() - here.detach()).abs().max() / here.detach().abs().max()
    if not worst.isfinite():
        raise ArithmeticError("what comes out is not all numbers")
    return worst.item()


def run(device: str, tiny: bool, report: Callable[[dict[str, Any]], None]) -> None:
    found: dict[str, dict[str, Any]] = {}
    for name, change in changes():
        try:
            if change is None:
                raise ValueError("a role that benchmarks/_gpu/parity.py does not know")
            figures = compare(BASE.replace(**change), device)
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            found[name] = {"error": str(error).splitlines()[0][:200], "ok": False}
        else:
            close = max(figures[what] for what in FLOAT32) <= TOLERANCE
            ok = close and figures["bfloat16"] <= BFLOAT16
            rounded = {what: float(f"{value:.2g}") for what, value in figures.items()}
            found[name] = {**rounded, "ok": ok}
        report(summary(found, device))


def summary(found: dict[str, dict[str, Any]], device: str) -> dict[str, Any]:
    wrong = [name for name, figures in found.items() if not figures["ok"]]
    worst = max((f[what] for f in found.values() for what in FLOAT32 if what in f), default=0.0)
    half = max((f["bfloat16"] for f in found.values() if "bfloat16" in f), default=0.0)
    head = ["model", *FLOAT32, "bfloat16"]
    rows = [[name, *(str(f.get(what, "")) for what in head[1:])] for name, f in found.items()]
    return {
        "device": name_of(device),
        "models": found,
        "ok": not wrong,
        "summary": f"{len(found) - len(wrong)} of {len(found)} models agree with the CPU, in "
        f"float32 within {worst:.1g} of the largest number, the loss in bfloat16 within {half:.3f} "
        "nats" + (f"; these do not: {', '.join(wrong)}" if wrong else ""),
        "table": [head, *rows],
    }
