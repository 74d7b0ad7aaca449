"""torch.compile: the same losses as without it, and how much sooner."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from _gpu.device import name_of, wait_for

from llmtutor.fast.compiling import compiled_loss
from llmtutor.model.losses import batch_losses
from llmtutor.model.presets import build, preset
from llmtutor.optim import make_optimizer
from llmtutor.train.step import train_step

TOLERANCE = 0.01
"""Nats a token by which the losses of the first steps may differ."""
FIRST = 10


def run(device: str, tiny: bool, report: Callable[[dict[str, Any]], None]) -> None:
    config = preset("llama-nano", **({"n_layers": 1, "max_seq_len": 32} if tiny else {}))
    batch_size, steps = (2, FIRST) if tiny else (32, 50)
    losses: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for how in ("as written", "compiled"):
        torch.manual_seed(0)
        model = build(config).to(device)
        optimizer = make_optimizer(model, "adamw", 1e-3)
        loss = compiled_loss(model, torch.device(device)) if how == "compiled" else batch_losses
        generator = torch.Generator().manual_seed(0)
        taken: list[float] = []
        times: list[float] = []
        for _ in range(steps):
            ids = torch.randint(
                config.vocab_size, (batch_size, config.max_seq_len + 1), generator=generator
            ).to(device)
            start = time.perf_counter()
            metrics = train_step(model, [(ids[:, :-1], ids[:, 1:])], optimizer, loss=loss)
            wait_for(device)
            times.append(time.perf_counter() - start)
            taken.append(metrics.loss)
        losses[how], seconds[how] = taken[:FIRST], median(times[len(times) // 2 :])
        report({"losses": losses, "step_seconds": seconds})
    worst = max(abs(a - b) for a, b in zip(*losses.values(), strict=True))
    speed_up = seconds["as written"] / seconds["compiled"]
    report(
        {
            "device": name_of(device),
            "difference": worst,
            "speed_up": round(speed_up, 2),
            "ok": worst <= TOLERANCE,
            "summary": f"losses of {FIRST} steps within {worst:.1g} nats of those as written; a "
            f"step of llama-nano is {speed_up:.2f} times as fast",
        }
    )
