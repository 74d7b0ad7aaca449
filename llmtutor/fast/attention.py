"""For speed alone: attention in the form that torch.compile makes the most of.

``fused_attention`` hands its work to torch's kernel, which stores no weights and computes them a
second time on the way back. For a short sequence, or a single query, the weights are few, and a
program that stores them, whose steps torch.compile joins, was through sooner on the CPU on which
``benchmarks/training.py`` and ``benchmarks/generation.py`` were recorded; both numbers below were
chosen there.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from llmtutor.layers.attention.core import check_shapes, fused_attention

LONGEST = 256
"""Tokens up to which the weights are stored; twice as many would take four times the memory."""
BLOCK = 64
"""Queries whose scores are computed together, those of their future with them."""


def compiled_attention(
    q: Float[Tensor, "*batch q head_dim"],
    k: Float[Tensor, "*kv_batch k head_dim"],
    v: Float[Tensor, "*kv_batch k v_dim"],
    *,
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
    bias: Float[Tensor, "..."] | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " heads"] | None = None,
) -> Float[Tensor, "*batch q v_dim"]:
    """``attention``, same arguments and results: short sequences and single queries store weights.

    Not in fewer bits than float32, in which the scores themselves would be rounded, and only
    without mask and bias: everything else goes to ``fused_attention``.

    Raises:
        ValueError: as ``attention``.
    """
    plain = all(option is None for option in (mask, bias, softcap, sinks))
    if plain and q.dtype == torch.float32:
        check_shapes(q, k, v)
        factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
        if q.shape[-2] == 1:
            return single_query_attention(q, k, v, factor)
        if causal and q.shape[-2] == k.shape[-2] and q.shape[-2] <= LONGEST:
            shared = q.shape[-3] // k.shape[-3] if q.ndim > 2 else 1
            if shared > 1:
                k, v = (x.repeat_interleave(shared, dim=-3) for x in (k, v))
            return materialised_attention(q, k, v, factor)
    rest = {"mask": mask, "bias": bias, "softcap": softcap, "sinks": sinks}
    return fused_attention(q, k, v, causal=causal, scale=scale, **rest)  # type: ignore[arg-type]


def materialised_attention(
    q: Float[Tensor, "*batch seq head_dim"],
    k: Float[Tensor, "*batch seq head_dim"],
    v: Float[Tensor, "*batch seq v_dim"],
    scale: float,
) -> Float[Tensor, "*batch seq v_dim"]:
    """Causal attention over whole sequences, ``attention(q, k, v, causal=True, scale=scale)``.

    The queries go in blocks of ``BLOCK``, to which only the keys up to their last one are shown: of
    the scores that the mask would take away, most need not be computed.

    >>> q = torch.tensor([[1.0], [0.0]])
    >>> materialised_attention(q, q, torch.tensor([[10.0], [20.0]]), scale=1.0)
    tensor([[10.],
            [15.]])
    """
    ends = [*range(BLOCK, q.shape[-2], BLOCK), q.shape[-2]]
    blocks = [
        _last_queries(q[..., start:end, :], k[..., :end, :], v[..., :end, :], scale)
        for start, end in pairwise([0, *ends])
    ]
    return torch.cat(blocks, dim=-2)


def single_query_attention(
    q: Float[Tensor, "*batch 1 head_dim"],
    k: Float[Tensor, "*kv_batch k head_dim"],
    v: Float[Tensor, "*kv_batch k v_dim"],
    scale: float,
) -> Float[Tensor, "*batch 1 v_dim"]:
    """Attention of one query in each head, which sees every key: ``attention(q, k, v, scale=…)``.

    This is what a new token costs that is read after a cache. Query heads that share keys and
    values read them together.

    >>> k, v = torch.tensor([[0.0], [0.0]]), torch.tensor([[10.0], [20.0]])
    >>> single_query_attention(torch.tensor([[1.0]]), k, v, scale=1.0)
    tensor([[15.]])
    """
    queries = (q * scale).reshape(*k.shape[:-2], -1, q.shape[-1])
    # Sums in place of matrix products: torch.compile joins them to what stands around them. Keys
    # and values are transposed in them, or those that fill their cache would need another program.
    scores = (queries[..., None] * k.mT[..., None, :, :]).sum(-2)
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    # Divided last, once for each component instead of once for each key.
    out = (weights[..., None, :] * v.mT[..., None, :, :]).sum(-1) / weights.sum(-1, keepdim=True)
    return out.reshape(*q.shape[:-1], v.shape[-1])


def _last_queries(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    # A query has fewer components than scores: scaling it costs less, and joins the rotation.
    scores = (q * scale) @ k.transpose(-2, -1)
    # In int32, of which a CPU compares as many at once as it adds of float32.
    keys = torch.arange(k.shape[-2], dtype=torch.int32, device=k.device)
    past = keys <= keys[k.shape[-2] - q.shape[-2] :, None]
    return torch.where(past, scores, -math.inf).softmax(-1) @ v
