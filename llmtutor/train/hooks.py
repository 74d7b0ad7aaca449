"""Chapter 11, training: what layers do after a step, besides being moved by the optimizer.

A router that balances its experts by a bias counts tokens over the whole step: all micro-batches,
all processes. It keeps no count itself: its load leaves it as a statistic, and comes back here.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from llmtutor.layers.extras import AfterStep


def after_step(model: nn.Module, statistics: Mapping[str, Any]) -> None:
    """Tell each layer that wants it its own ``statistics``, the means over a step.

    All processes must call it; each layer gets the mean over them, so that all do the same.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for name, layer in model.named_modules():
        if not isinstance(layer, AfterStep):
            continue
        start = f"{name}." if name else ""
        own = {
            key.removeprefix(start): torch.tensor(value, dtype=torch.float64)
            for key, value in statistics.items()
            if key.startswith(start)
        }
        if dist.is_initialized():
            for key in sorted(own):
                total = own[key].to(device)
                dist.all_reduce(total)
                own[key] = total.cpu() / dist.get_world_size()
        layer.after_step(own)
