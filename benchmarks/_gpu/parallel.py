"""DDP and FSDP2 with the library that moves tensors between GPUs, in a group of one process."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from _gpu.device import in_one_order, name_of
from torch import Tensor, nn

from llmtutor.model.presets import build, preset
from llmtutor.optim import make_optimizer
from llmtutor.optim.base import Rule
from llmtutor.train.distributed import STRATEGIES, World, full_state, load_full_state, wrap
from llmtutor.train.step import train_step

TOLERANCE = 1e-5
STEPS = 4


def started(world: World, strategy: str) -> tuple[nn.Module, Rule]:
    torch.manual_seed(0)
    model = build(preset("llama-nano", max_seq_len=32))
    # A world of one is left as it is; who says that there is another gets the wrapper, and the
    # group, which has one process all the same.
    wrapped = wrap(model, replace(world, world_size=2), strategy)
    return wrapped, make_optimizer(wrapped, "adamw", 1e-3)


def steps(model: nn.Module, optimizer: Rule, device: str) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randint(1024, (8, 33), generator=generator).to(device) for _ in range(STEPS)]
    return [
        train_step(
            model, [(ids[:4, :-1], ids[:4, 1:]), (ids[4:, :-1], ids[4:, 1:])], optimizer
        ).loss
        for ids in batches
    ]


def compare(world: World, strategy: str, device: str) -> dict[str, float]:
    """The largest differences to a model that nobody wraps, and to a copy loaded from its state."""
    torch.manual_seed(0)
    plain = build(preset("llama-nano", max_seq_len=32)).to(device)
    rule = make_optimizer(plain, "adamw", 1e-3)
    wrapped, optimizer = started(world, strategy)
    losses = steps(plain, rule, device), steps(wrapped, optimizer, device)
    state = full_state(wrapped, optimizer)
    copy, its = started(world, strategy)
    load_full_state(copy, its, *state)
    wanted = {name: value.detach().cpu() for name, value in plain.state_dict().items()}
    return {
        "losses": max(abs(a - b) for a, b in zip(*losses, strict=True)),
        "weights": largest(state[0], wanted),
        "loaded": largest(full_state(copy, its)[0], state[0]),
    }


def largest(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max((a[name] - b[name]).abs().max().item() for name in b)


def run(device: str, tiny: bool, report: Callable[[dict[str, Any]], None]) -> None:
    in_one_order()
    backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    where = torch.device(device, 0) if backend == "nccl" else torch.device(device)
    found: dict[str, dict[str, float]] = {}
    try:
        for strategy in STRATEGIES:
            found[strategy] = compare(World(device=where), strategy, device)
            report({"differences": found, "backend": backend})
    finally:
        dist.destroy_process_group()
    worst = max(value for figures in found.values() for value in figures.values())
    report(
        {
            "device": name_of(device),
            "ok": worst <= TOLERANCE,
            "summary": f"{', '.join(STRATEGIES)} over {backend}: losses, weights and loaded states "
            f"within {worst:.1g} of a process without them",
        }
    )
