"""Chapter 09, the transformer: the one place where the names in a configuration become layers.

A variant is one file under ``layers`` and one line here. Each line is a function from a
``ModelConfig`` to a module; layers themselves take plain values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import nn

from llmtutor.layers.attention.gqa import GroupedQueryAttention
from llmtutor.layers.attention.mha import MultiHeadAttention
from llmtutor.layers.ffn import MLP, GatedMLP
from llmtutor.layers.norms import LayerNorm, RMSNorm
from llmtutor.layers.positions import (
    Alibi,
    LearnedPosition,
    NoPosition,
    Position,
    Rope,
    ShawPosition,
    SinusoidalPosition,
    T5Bias,
)

if TYPE_CHECKING:
    from llmtutor.model.config import ModelConfig

SHAW_DISTANCE = 16  # Shaw et al. (2018), section 4.1
T5_BUCKETS = 32  # Raffel et al. (2020), section 2.1


@dataclass(frozen=True)
class PositionPart:
    """A position scheme and where it acts."""

    build: Callable[[ModelConfig], Position]
    """Makes the module."""
    where: Literal["embeddings", "attention", "each attention"]
    """Once below the first block; one module for all attentions; or a module in each."""


MIXERS: dict[str, Callable[[ModelConfig, Position | None], nn.Module]] = {
    "mha": lambda c, position: MultiHeadAttention(
        c.d_model, c.n_heads, position=position, bias=c.bias, qk_norm=c.qk_norm, eps=c.eps
    ),
    "gqa": lambda c, position: GroupedQueryAttention(
        c.d_model,
        c.n_heads,
        c.n_kv_heads or c.n_heads,
        position=position,
        bias=c.bias,
        qk_norm=c.qk_norm,
        eps=c.eps,
    ),
}
FFNS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "relu": lambda c: MLP(c.d_model, c.d_ff, activation="relu", bias=c.bias),
    "gelu": lambda c: MLP(c.d_model, c.d_ff, activation="gelu", bias=c.bias),
    "gelu_tanh": lambda c: MLP(c.d_model, c.d_ff, activation="gelu_tanh", bias=c.bias),
    "relu2": lambda c: MLP(c.d_model, c.d_ff, activation="relu2", bias=c.bias),
    "silu": lambda c: MLP(c.d_model, c.d_ff, activation="silu", bias=c.bias),
    "glu": lambda c: GatedMLP(c.d_model, c.d_ff, activation="sigmoid", bias=c.bias),
    "reglu": lambda c: GatedMLP(c.d_model, c.d_ff, activation="relu", bias=c.bias),
    "geglu": lambda c: GatedMLP(c.d_model, c.d_ff, activation="gelu", bias=c.bias),
    "swiglu": lambda c: GatedMLP(c.d_model, c.d_ff, activation="silu", bias=c.bias),
}
NORMS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "layernorm": lambda c: LayerNorm(c.d_model, c.eps, bias=c.bias),
    "rmsnorm": lambda c: RMSNorm(c.d_model, c.eps),
}
POSITIONS: dict[str, PositionPart] = {
    "none": PositionPart(lambda c: NoPosition(), "embeddings"),
    "learned": PositionPart(lambda c: LearnedPosition(c.max_seq_len, c.d_model), "embeddings"),
    "sinusoidal": PositionPart(lambda c: SinusoidalPosition(c.d_model), "embeddings"),
    "shaw": PositionPart(lambda c: ShawPosition(c.head_dim, SHAW_DISTANCE), "each attention"),
    "t5": PositionPart(lambda c: T5Bias(c.n_heads, n_buckets=T5_BUCKETS), "attention"),
    "alibi": PositionPart(lambda c: Alibi(c.n_heads), "attention"),
    "rope": PositionPart(
        lambda c: Rope(
            c.head_dim,
            base=c.rope_base,
            pairing=c.rope_pairing,
            fraction=c.rope_fraction,
            scaling=c.rope_scaling,
        ),
        "attention",
    ),
}
