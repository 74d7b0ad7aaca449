"""Chapter 11, training: which layer made the first number that is none.

A NaN spreads: when the loss is one, nearly everything is. To find its source the step is taken
again with an eye on every layer, forward in the order of the computation and then backward.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves


def first_non_finite(
    model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], batches: Sequence[Any]
) -> str:
    """In words, the first layer whose output or gradient is not finite.

    Weights are looked at first, then for each batch the outputs in the order in which layers finish
    (a layer is named before those around it), the loss, and the gradients: of outputs in the order
    of the backward pass, then of weights. Nothing is added to ``.grad``.
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"the weights {name} were not finite before it"
    sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
    # Ranks that share a model must all do the same, so none of them stops at its first find.
    with torch.set_grad_enabled(not sharded), torch.compiler.set_stance("force_eager"):
        found = [_in_batch(model, loss, batch) for batch in batches]
    return next(filter(None, found), "no layer of this process shows it, so another one's does")


def _in_batch(model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], batch: Any) -> str:
    names = {module: name or "model" for name, module in model.named_modules()}
    outputs: list[tuple[str, Tensor]] = []
    seen: list[str] = []

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        for tensor in (t for t in tree_leaves(output) if isinstance(t, Tensor)):
            if not _finite(tensor):
                seen.append(f"the first output that is not finite is that of layer {names[module]}")
            elif tensor.requires_grad:
                outputs.append((f"the output of layer {names[module]}", tensor))

    with ExitStack() as hooks:
        for module in names:
            hooks.enter_context(module.register_forward_hook(watch))
        value = loss(model, batch)
    if seen:
        return seen[0]
    if not _finite(value):
        return "all layers are finite, the loss itself is not"
    if not value.requires_grad:
        return ""
    weights = [(f"the weights {n}", p) for n, p in model.named_parameters() if p.requires_grad]
    candidates = [*reversed(outputs), *reversed(weights)]
    # torch.autograd.grad, unlike backward, leaves .grad and the hooks of DDP alone.
    gradients = torch.autograd.grad(value, [tensor for _, tensor in candidates], allow_unused=True)
    for (what, _), gradient in zip(candidates, gradients, strict=True):
        if gradient is not None and not _finite(gradient):
            return f"the first gradient that is not finite is that of {what}"
    return ""


def _finite(tensor: Tensor) -> bool:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return bool(torch.isfinite(local.detach()).all())
