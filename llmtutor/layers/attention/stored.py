"""Chapter 04, attention: the formula in the form that torch.compile makes the most of.

``fused_attention`` hands whole sequences to torch's kernel, which stores no weights and computes
them a second time on the way back. For a short sequence the weights are few, and a program that
stores them, made of two products and what torch.compile joins in between, was through sooner on
the CPU on which ``benchmarks/training.py`` was recorded; both numbers below were chosen there.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

LONGEST = 256
"""Tokens up to which the weights are stored; twice as many would take four times the memory."""
BLOCK = 64
"""Queries whose scores are computed together, those of their future with them."""


def worth_storing(q: Float[Tensor, "*batch seq head_dim"]) -> bool:
    """Whether ``stored_attention`` is the faster way: compiled, on a CPU, a short sequence.

    Not in fewer bits than float32, in which the scores themselves would be rounded.
    """
    return (
        torch.compiler.is_compiling()
        and q.device.type == "cpu"
        and q.dtype == torch.float32
        and q.shape[-2] <= LONGEST
    )


def stored_attention(
    q: Float[Tensor, "*batch seq head_dim"],
    k: Float[Tensor, "*batch seq head_dim"],
    v: Float[Tensor, "*batch seq v_dim"],
    scale: float,
) -> Float[Tensor, "*batch seq v_dim"]:
    """Causal attention over whole sequences, ``attention(q, k, v, causal=True, scale=scale)``.

    The queries go in blocks of ``BLOCK``, to which only the keys up to their last one are shown: of
    the scores that the mask would take away, most need not be computed.

    >>> q = torch.tensor([[1.0], [0.0]])
    >>> stored_attention(q, q, torch.tensor([[10.0], [20.0]]), scale=1.0)
    tensor([[10.],
            [15.]])
    """
    ends = [*range(BLOCK, q.shape[-2], BLOCK), q.shape[-2]]
    blocks = [
        _last_queries(q[..., start:end, :], k[..., :end, :], v[..., :end, :], scale)
        for start, end in pairwise([0, *ends])
    ]
    return torch.cat(blocks, dim=-2)


def _last_queries(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    # A query has fewer components than scores: scaling it costs less, and joins the rotation.
    scores = (q * scale) @ k.transpose(-2, -1)
    # In int32, of which a CPU compares as many at once as it adds of float32.
    keys = torch.arange(k.shape[-2], dtype=torch.int32, device=k.device)
    past = keys <= keys[k.shape[-2] - q.shape[-2] :, None]
    return torch.where(past, scores, -math.inf).softmax(-1) @ v
