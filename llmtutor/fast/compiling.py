"""For speed alone: a function as one compiled program, of forms that compile well.

``compiled_loss`` is for training, from ids to losses; ``decoding.Compiled`` compiles the step of a
token. Both work on a model whose parts ``prepared`` has given other forms: the same functions, as
the tests show, of which torch.compile makes faster programs for a CPU.
"""

import os
import shutil
import sys
from collections.abc import Callable
from copy import deepcopy
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from llmtutor.fast.attention import compiled_attention
from llmtutor.fast.forms import TableRope, compiled_cross_entropy, sigmoid_gelu
from llmtutor.fast.lengths import any_length
from llmtutor.layers.attention.heads import Attention
from llmtutor.layers.attention.latent import LatentAttention
from llmtutor.layers.ffn import MLP, GatedMLP, gelu_tanh
from llmtutor.layers.positions import Rope
from llmtutor.model.losses import Batch, Loss, Losses, batch_losses
from llmtutor.model.transformer import Transformer

M = TypeVar("M", bound=nn.Module)


def prepared(model: M) -> M:
    """``model`` itself, its parts now in the forms that compile well on a CPU; weights stay.

    Call it when the model has its device and dtype. On other devices nothing changes.
    """
    parameters = list(model.parameters())
    if not parameters or parameters[0].device.type != "cpu":
        return model
    longest = model.config.max_seq_len if isinstance(model, Transformer) else None
    for module in model.modules():
        if isinstance(module, Attention | LatentAttention):
            module.attend = compiled_attention
            if isinstance(module.position, Rope) and longest is not None:
                module.position = TableRope(module.position, longest, parameters[0].dtype)
        if isinstance(module, MLP | GatedMLP) and module.act is gelu_tanh:
            module.act = sigmoid_gelu
    return any_length(model)


def twin(model: M) -> M:
    """A copy of all modules around the same parameters and buffers."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return deepcopy(model, shared)


def compiled_loss(model: nn.Module, device: torch.device) -> Loss:
    """``batch_losses`` as one program (see ``compiled``) for ``model``, which is ``prepared``."""
    prepared(model)
    return compiled(batch_losses if device.type != "cpu" else losses_to_compile, device)


def losses_to_compile(
    model: nn.Module, batch: Batch, precision: torch.dtype = torch.float32
) -> Losses:
    """``batch_losses`` with the cross-entropy of which a CPU gets the faster program."""
    return batch_losses(model, batch, precision, compiled_cross_entropy)


def compiled(
    function: Callable[..., Any], device: torch.device, *, dynamic: bool | None = None
) -> Callable[..., Any]:
    """``function`` as one program for ``device``, made at its first call.

    On a CPU what calls the operations is part of it: from Python, calling the small ones takes its
    time. ``dynamic`` as in ``torch.compile``: True for a program that serves any shape, None to
    make another one for each, at first.

    Raises:
        ValueError: for a CPU, and no C++ compiler.
    """
    if device.type != "cpu":
        return torch.compile(function, dynamic=dynamic)
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    if shutil.which(compiler) is None:
        raise ValueError(
            f"compiling for the CPU needs a C++ compiler, but there is no {compiler!r}: install "
            "one, name another in the environment variable CXX, or go without compiling"
        )
    return torch.compile(function, dynamic=dynamic, options={"cpp_wrapper": True})
