"""Training gpt2 (124M) in bfloat16: tokens a second beside `transformers`, and of the peak."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from _gpu.device import name_of, peak_flops, wait_for
from torch import Tensor, nn

from llmtutor.fast.compiling import compiled_loss
from llmtutor.model.accounting import backward_flops, forward_flops
from llmtutor.model.config import ModelConfig
from llmtutor.model.losses import batch_losses
from llmtutor.model.presets import build, preset
from llmtutor.optim import make_optimizer
from llmtutor.train.step import train_step

LR, BETAS, DECAY, CLIP = 6e-4, (0.9, 0.95), 0.1, 1.0
PEER = "transformers"
SQUARE = 8192
"""Side of the matrices whose product shows what the card does at best."""

Step = Callable[[Tensor], float]


def our_step(config: ModelConfig, device: str, *, compile: bool) -> Step:
    torch.manual_seed(0)
    model = build(config).to(device)
    optimizer = make_optimizer(model, "adamw", LR, betas=BETAS, weight_decay=DECAY)
    loss = compiled_loss(model, torch.device(device)) if compile else batch_losses

    def step(ids: Tensor) -> float:
        batch = ids[:, :-1], ids[:, 1:]
        return train_step(
            model, [batch], optimizer, clip=CLIP, precision=torch.bfloat16, loss=loss
        ).loss

    return step


def their_step(config: ModelConfig, device: str, *, compile: bool) -> Step:
    """What the library's users write, and torch's fused AdamW."""
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415 - it may be missing

    mixer = config.blocks[0].mixer
    theirs = GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.max_seq_len,
        n_embd=config.d_model,
        n_layer=config.n_layers,
        n_head=getattr(mixer, "n_heads", 1),
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    torch.manual_seed(0)
    model: Any = GPT2LMHeadModel(theirs)
    model.to(device).train()
    call = torch.compile(model) if compile else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LR, betas=BETAS, weight_decay=DECAY, fused=True
    )

    def step(ids: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            # It takes the targets out of the inputs: one token less than ours is predicted.
            loss = call(ids[:, :-1], labels=ids[:, :-1], use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        value: float = loss.item()
        return value

    return step


MAKERS = {PEER: their_step, "ours": our_step}


def product_flops(device: str, side: int) -> float:
    """Operations a second of a square matrix product in bfloat16, the best of ten."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    times = []
    for _ in range(11):
        start = time.perf_counter()
        a @ a
        wait_for(device)
        times.append(time.perf_counter() - start)
    return float(2 * side**3 / min(times))


def in_turn(
    steps: dict[str, Step], ids: Tensor, device: str, rounds: int
) -> dict[str, list[float]]:
    """Seconds of a step of each: round by round, three steps at a time, after a warm-up."""
    times: dict[str, list[float]] = {who: [] for who in steps}
    for turn in range(rounds + 1):
        for who, step in steps.items():
            wait_for(device)
            start = time.perf_counter()
            for _ in range(3):
                step(ids)
            wait_for(device)
            if turn:
                times[who].append(round((time.perf_counter() - start) / 3, 5))
    return times


def run(device: str, tiny: bool, report: Callable[[dict[str, Any]], None]) -> None:
    config = preset("gpt2")
    batch, rounds, square = 16, 10, SQUARE
    if tiny:
        sizes = {"n_layers": 1, "d_model": 32, "n_heads": 2, "d_ff": 128, "vocab_size": 64}
        config, batch, rounds, square = config.replace(max_seq_len=16, **sizes), 2, 1, 64
    ids = torch.randint(config.vocab_size, (batch, config.max_seq_len + 1), device=device)
    head = {"device": name_of(device), "shape": [batch, config.max_seq_len]}
    report({**head, "product_tflops": round(product_flops(device, square) / 1e12, 1)})
    steps: dict[str, Step] = {}
    for compile in (False, True):
        for who, make in MAKERS.items():
            try:
                step = make(config, device, compile=compile)
                step(ids)
            except ImportError as error:
                report({"missing": error.name})
            except (RuntimeError, ValueError) as error:  # of the compiler
                report({f"{who}, compiled" if compile else who: str(error)[:200]})
            else:
                steps[f"{who}, compiled" if compile else who] = step
        report(figures(config, batch, device, in_turn(steps, ids, device, rounds)))
        if tiny:
            break


def figures(
    config: ModelConfig, batch: int, device: str, times: dict[str, list[float]]
) -> dict[str, Any]:
    """Tokens a second; of the peak by FLOPs as ``llmtutor.model.accounting`` counts them."""
    tokens = batch * config.max_seq_len
    size = batch, config.max_seq_len
    flops = forward_flops(config, *size) + backward_flops(config, *size)
    peak = peak_flops(device)
    rows = []
    for who, values in times.items():
        middle = median(values)
        share = "" if peak is None else f"{flops / middle / peak:.1%}"
        rows.append([who, f"{1000 * middle:.1f} ms", f"{tokens / middle:,.0f}", share])
    best = max(rows, key=lambda row: float(row[2].replace(",", "")))
    return {
        "step_seconds": times,
        "flops_per_step": flops,
        "peak_tflops": None if peak is None else peak / 1e12,
        "ok": "ours" in times,
        "summary": f"{batch} × {config.max_seq_len} tokens a step; the fastest is {best[0]}, "
        f"{best[2]} tokens a second" + (f", {best[3]} of the peak" if best[3] else ""),
        "table": [["by", "a step", "tokens a second", "of the peak"], *rows],
    }
