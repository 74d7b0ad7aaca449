"""Chapter 25, linear_attention: what layers with a matrix as state have in common.

Their inputs are cut into heads and into chunks; a short convolution may stand in front; padding
must not reach the state.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from llmtutor.layers.recurrent.conv import CausalConv
from llmtutor.layers.recurrent.state import StateCache

Sizes = dict[str, tuple[int, ...]]
"""Shapes of what a cache holds, by name."""
CHUNK = 32
"""Tokens that are worked on together, unless the longest text is shorter."""


def head_width(d_model: int, n_heads: int, head_dim: int | None) -> int:
    """``head_dim`` if it is given, else d_model / n_heads.

    Raises:
        ValueError: ``n_heads`` that do not divide ``d_model``, where nothing else is said.
    """
    if head_dim is not None:
        return head_dim
    if d_model % n_heads:
        raise ValueError(
            f"n_heads must divide d_model unless head_dim is given, got d_model = {d_model} "
            f"and n_heads = {n_heads}: {d_model / n_heads:g} components a head"
        )
    return d_model // n_heads


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Float32 at least: a state adds up thousands of tokens, and bfloat16 has three digits."""
    return torch.promote_types(dtype, torch.float32)


def split_heads(
    x: Float[Tensor, "batch seq width"], n_heads: int
) -> Float[Tensor, "batch heads seq head_dim"]:
    """(batch, seq, heads · head_dim) → (batch, heads, seq, head_dim)."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def n_chunks(seq: int, chunk: int) -> int:
    """How many it takes for ``seq`` tokens."""
    return (seq + chunk - 1) // chunk


def cut(x: Float[Tensor, "*batch seq d"], chunk: int) -> Float[Tensor, "*batch chunks chunk d"]:
    """Chunks of ``chunk`` tokens, the last one filled up with zeros."""
    n = n_chunks(x.shape[-2], chunk)
    # Padded by nothing, a transposed tensor would stay so, which a compiled program cannot know.
    x = F.pad(x.contiguous(), (0, 0, 0, n * chunk - x.shape[-2]))
    return x.unflatten(-2, (n, chunk))


def join_chunks(
    x: Float[Tensor, "*batch chunks chunk d"], seq: int
) -> Float[Tensor, "*batch seq d"]:
    """The inverse of ``cut``."""
    x = x.flatten(-3, -2)
    return F.pad(x, (0, 0, 0, seq - x.shape[-2]))  # a slice would be a view for one seq alone


def tail_size(batch: int, conv: CausalConv | None) -> Sizes:
    """Of the tail of a convolution, where there is one."""
    return {} if conv is None else {"tail": (batch, conv.width - 1, len(conv.weight))}


def empty_past(sizes: Sizes, max_len: int, starts: Tensor | None, like: Tensor) -> StateCache:
    """A cache of zeros for a layer with weights ``like`` these: the state in float32 at least."""
    wide = {"state": state_dtype(like.dtype)}
    tensors = {n: like.new_zeros(s, dtype=wide.get(n, like.dtype)) for n, s in sizes.items()}
    return StateCache(max_len, starts=starts, **tensors)


def continued(
    x: Tensor, cache: StateCache | None, sizes: Callable[[int], Sizes]
) -> Float[Tensor, "batch new 1"] | None:
    """Which tokens of ``x`` are real (``StateCache.real``); ``sizes`` of a batch are the layer's.

    Raises:
        ValueError: ``x`` is not (batch, seq, d_model), or a cache that is not for it.
    """
    if x.ndim != 3:
        raise ValueError(f"x must be (batch, seq, d_model), got shape {tuple(x.shape)}")
    if cache is None:
        return None
    cache.check_sizes(sizes(len(x)))
    return cache.real(x.shape[1])


def short_conv(
    conv: CausalConv | None, x: Tensor, real: Tensor | None, cache: StateCache | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """``silu(conv(x))`` and what the cache is to keep for it; x itself without a convolution.

    Padding goes in as zeros, as what stands before a text.
    """
    x = x if real is None else x * real
    if conv is None:
        return x, {}
    tail = None if cache is None else cache["tail"]
    tails = {} if cache is None else {"tail": conv.next_tail(x, tail)}
    return F.silu(conv(x, tail)), tails
