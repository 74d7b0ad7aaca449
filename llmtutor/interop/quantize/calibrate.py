"""Chapter 23, export: GPTQ for a whole model, block after block.

A block is rounded for the inputs that it will really get: those that come out of the blocks before
it, which are rounded by then.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from llmtutor.interop.quantize.apply import chosen, matrices, round_named, weight
from llmtutor.interop.quantize.format import Rounded
from llmtutor.interop.quantize.gptq import gptq, hessian
from llmtutor.interop.quantize.integers import Integers
from llmtutor.layers.basic import Linear
from llmtutor.model.transformer import Transformer

WINDOWS = 8
"""Texts that are read at once."""


def gptq_model(
    model: Transformer,
    ids: Int64[Tensor, "texts seq"],
    format: Integers,
    only: Collection[str] | None = None,
    **options: Any,
) -> dict[str, Rounded]:
    """Each chosen matrix rounded by GPTQ for the inputs it gets from the texts ``ids``.

    ``options`` are those of ``gptq``. Rounded to nearest instead is what multiplies nothing: the
    embedding (its inputs are 0 but for one 1, so no other column could mend an error), also where
    it is tied to the output layer; and a layer that got no input, such as an expert that no token
    chose.

    Raises:
        ValueError: as ``chosen`` and ``gptq``, with the name of the matrix.
    """
    names, users = chosen(model, only), matrices(model)
    copy = deepcopy(model).eval()
    rounded: dict[str, Rounded] = {}
    for stage in _stages(names):
        linear = [n for n in stage if len(users[n]) == 1 and type(model.get_submodule(n)) is Linear]
        bends = hessians(copy, linear, ids) if linear else {}
        for name in stage:
            rounded[name] = _rounded(model, name, bends.get(name), format, options)
            with torch.no_grad():
                weight(copy, name).copy_(rounded[name].matrix())
    return {name: rounded[name] for name in names}


def hessians(
    model: Transformer, names: Collection[str], ids: Int64[Tensor, "texts seq"]
) -> dict[str, Tensor]:
    """The Hessian of each named layer over the texts; layers that read nothing are left out."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def note(name: str, x: Tensor) -> None:
        inputs = x.detach().flatten(0, -2)
        if len(inputs):
            sums[name] = sums.get(name, 0) + hessian(inputs) * len(inputs)
            counts[name] = counts.get(name, 0) + len(inputs)

    with torch.no_grad(), watched(model, names, note):
        for some in ids.split(WINDOWS):
            model(some)
    return {name: total / counts[name] for name, total in sums.items()}


@contextmanager
def watched(model: nn.Module, names: Collection[str], note: Any) -> Iterator[None]:
    """Call ``note(name, input)`` whenever a named layer is called."""
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: note(name, args[0])
        )
        for name in names
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _stages(names: list[str]) -> list[list[str]]:
    """Names that are rounded together: the embedding, each block, what stands behind them."""
    stages: dict[str, list[str]] = {}
    for name in names:
        first, *rest = name.split(".")
        stages.setdefault(f"{first}.{rest[0]}" if first == "blocks" else first, []).append(name)
    return list(stages.values())


def _rounded(
    model: nn.Module, name: str, bend: Tensor | None, format: Integers, options: dict[str, Any]
) -> Rounded:
    if bend is None or not bool(bend.diagonal().any()):
        return round_named(model, name, format)
    try:
        return gptq(weight(model, name), bend, format, **options)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
