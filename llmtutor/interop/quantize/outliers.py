"""Chapter 23, export: the few large numbers that make all others coarse.

A scale reaches to the largest number that shares it. Where one is a hundred times as large as the
others, the others share what is left of the codes.
"""

from collections.abc import Collection

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llmtutor.interop.quantize.calibrate import watched
from llmtutor.model.transformer import Transformer


def spread(x: Float[Tensor, "n columns"], dim: int = 0) -> Float[Tensor, "rest"]:
    """Largest absolute value over the root of the mean square, along ``dim``; 0 where all is 0.

    1 when all are equally large, √n when one alone is not 0; about 3.5 for a thousand numbers of a
    normal distribution.

    >>> spread(torch.tensor([[1.0, 0.0], [-1.0, 4.0]])).tolist()
    [1.0, 1.4142135381698608]
    """
    rms = x.square().mean(dim).sqrt()
    return torch.where(rms > 0, x.abs().amax(dim) / rms, 0.0)


def column_scales(
    model: Transformer, names: Collection[str], ids: Int64[Tensor, "texts seq"]
) -> dict[str, Float[Tensor, "columns"]]:
    """Root of the mean square of each input column of the named layers, over texts."""
    sums: dict[str, Tensor] = {}
    n: dict[str, int] = {}

    def note(name: str, x: Tensor) -> None:
        x = x.detach().flatten(0, -2)
        sums[name] = sums.get(name, 0) + x.double().square().sum(0)
        n[name] = n.get(name, 0) + len(x)

    with torch.no_grad(), watched(model, names, note):
        model(ids)
    return {name: (total / n[name]).sqrt().float() for name, total in sums.items()}
