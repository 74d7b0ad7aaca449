"""A run that stops and goes on ends, to the bit, where one ends that was never stopped."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _gpu.device import in_one_order, name_of
from torch import nn

from llmtutor.data.tales import generate, stream
from llmtutor.train.config import TrainConfig
from llmtutor.train.loop import train


def settings(folder: Path, out: str, device: str, tiny: bool) -> TrainConfig:
    steps = 6 if tiny else 60
    return TrainConfig(
        preset="llama-nano",
        model={"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32} if tiny else {},
        corpus=str(folder / "tales.txt"),
        seq_len=32 if tiny else 256,
        batch_size=4 if tiny else 32,
        steps=steps,
        save_every=steps // 2,
        eval_every=steps,
        device=device,
        out=str(folder / out),
    )


def trained(config: TrainConfig, resume: Path | None = None) -> nn.Module:
    return train(config, resume=resume, quiet=True).model


def run(device: str, tiny: bool, report: Callable[[dict[str, Any]], None]) -> None:
    in_one_order()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LLMTUTOR_DATA"] = str(folder / "data")
        stories = stream(generate(100 if tiny else 3000, seed=0))
        (folder / "tales.txt").write_text(stories, encoding="utf-8")
        whole = trained(settings(folder, "whole", device, tiny))
        again = trained(settings(folder, "again", device, tiny))
        half = min((folder / "whole" / "checkpoints").glob("step-*"))
        config = settings(folder, "resumed", device, tiny)
        out = Path(config.out)
        shutil.copytree(folder / "whole", out, ignore=shutil.ignore_patterns("step-*", "log.jsonl"))
        shutil.copytree(half, out / "checkpoints" / half.name)
        resumed = trained(config, resume=out)
    differences = {
        what: max(
            (a - b).abs().max().item()
            for a, b in zip(whole.parameters(), other.parameters(), strict=True)
        )
        for what, other in (("resumed", resumed), ("made again", again))
    }
    exact = differences["resumed"] == 0
    report(
        {
            "device": name_of(device),
            "steps": config.steps,
            "differences": differences,
            "ok": exact,
            "summary": f"{config.steps} steps, stopped after half of them and resumed: "
            + ("the same weights to the bit" if exact else f"other weights, {differences}"),
        }
    )
