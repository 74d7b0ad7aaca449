"""Chapter 23, export: a model, and the same with chosen matrices in few bits.

Rounding and putting in place are two steps. The first gives a ``Rounded`` for each matrix by its
name, the second a model: with packed layers, or with plain ones that hold what comes back, which
compute the same and are faster to measure.
"""

from collections.abc import Collection, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from llmtutor.checks import check_name
from llmtutor.interop.quantize.format import Format, Rounded, nearest
from llmtutor.interop.quantize.linear import (
    Int8Linear,
    PackedWeight,
    QuantizedEmbedding,
    QuantizedLinear,
)
from llmtutor.layers.basic import Embedding, Linear
from llmtutor.model.transformer import Transformer


def matrices(model: nn.Module) -> dict[str, list[str]]:
    """The matrices that can be rounded, by name, each with all layers that use it.

    These are the weights of every ``Linear`` and ``Embedding``. Where embedding and output layer
    are tied they are one matrix, called "embedding", with two users. Other parameters (norms,
    biases, stacks of experts) stay as they are.
    """
    found: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        if type(module) in (Linear, Embedding):
            found.setdefault(id(module.weight), []).append(name)
    return {users[0]: users for users in found.values()}


def chosen(model: nn.Module, only: Collection[str] | None) -> list[str]:
    """All names of ``matrices``, or those in ``only``.

    Raises:
        ValueError: a name that is none, with the nearest; a model without any.
    """
    known = matrices(model)
    if not known:
        raise ValueError("expected a model with matrices to round, found none: is it packed?")
    for name in only or ():
        check_name("matrix", name, known)
    return [name for name in known if only is None or name in only]


def round_model(
    model: nn.Module, format: Format, only: Collection[str] | None = None
) -> dict[str, Rounded]:
    """Each chosen matrix to the nearest values of ``format``.

    Raises:
        ValueError: as ``chosen``; a matrix that is not finite or does not fit, by its name.
    """
    return {name: round_named(model, name, format) for name in chosen(model, only)}


def round_named(model: nn.Module, name: str, format: Format) -> Rounded:
    """One of them, with its name in what is refused."""
    try:
        return nearest(weight(model, name), format)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def packed(
    model: Transformer, rounded: Mapping[str, Rounded], *, dynamic: bool = False
) -> Transformer:
    """A copy with packed layers; with ``dynamic`` each linear one rounds its inputs to int8 too.

    Raises:
        ValueError: a name that is none, ``dynamic`` with another format than int8.
    """
    copy, users = deepcopy(model), matrices(model)
    for name, one in rounded.items():
        check_name("matrix", name, users)
        place(copy, users[name], PackedWeight(one, weight(model, name).dtype), dynamic=dynamic)
    return copy.eval()


def place(model: nn.Module, users: list[str], packed: PackedWeight, *, dynamic: bool) -> None:
    """Let all ``users`` of a matrix hold it packed."""
    for name in users:
        old = model.get_submodule(name)
        new: nn.Module
        if isinstance(old, Embedding):
            new = QuantizedEmbedding(packed)
        else:
            assert isinstance(old, Linear)
            new = (Int8Linear if dynamic else QuantizedLinear)(packed, old.bias)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, new)


def unpacked(model: Transformer, rounded: Mapping[str, Rounded]) -> Transformer:
    """A copy with plain layers that hold what comes back."""
    copy = deepcopy(model)
    with torch.no_grad():
        for name, one in rounded.items():
            weight(copy, name).copy_(one.matrix())
    return copy.eval()


def weight(model: nn.Module, name: str) -> Tensor:
    """The matrix of this name, to read or to write into."""
    return model.get_submodule(name).get_parameter("weight").detach()


def stored_bytes(model: nn.Module) -> int:
    """Bytes of all tensors that a file of the model holds, shared ones once.

    >>> stored_bytes(Linear(8, 4))
    128
    """
    return sum(tensor.nbytes for tensor in distinct(model).values())


def distinct(model: nn.Module) -> dict[str, Tensor]:
    """What ``state_dict`` gives, shared tensors under their first name alone."""
    found: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        found.setdefault(id(tensor), name)
    return {name: state[name].detach() for name in found.values()}


def bits_per_weight(rounded: Mapping[str, Rounded]) -> float:
    """Of the rounded matrices alone, with their scales."""
    bytes_ = sum(PackedWeight(one, torch.float32).nbytes for one in rounded.values())
    return 8 * bytes_ / sum(one.codes.numel() for one in rounded.values())
