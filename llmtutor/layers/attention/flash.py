"""Chapter 16, efficient-attention: the same function as ``attention``, one tile at a time.

Flash attention (Dao et al. 2022; the order of the loops as in Dao 2023) walks over the square of
scores and keeps of each query a running maximum, a running sum and a running mean of the values.
No two tiles exist together. The backward pass computes each tile again: all that it needs of a row
of weights is the logarithm of its sum.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from llmtutor.layers.attention.core import attention, check_added, check_shapes
from llmtutor.layers.attention.masks import sliding_window_mask
from llmtutor.layers.attention.tiles import Tiles
from llmtutor.layers.attention.traffic import Traffic


def flash_attention(
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
    window: int | None = None,
    tile: tuple[int, int] = (64, 64),
    traffic: Traffic | None = None,
) -> Float[Tensor, "*batch q v_dim"]:
    """``attention`` (same arguments, results and errors) in tiles of (queries, keys).

    ``window`` is that of ``sliding_window_mask`` and needs ``causal``; tiles outside of it, or in
    the future, are not visited, where a ``mask`` only hides. ``traffic`` counts what is read and
    written. With ``bias``, ``softcap`` or ``sinks`` it is the formula that runs, as in
    ``fused_attention``. Sums are kept in float32 at least.

    Memory grows with the number of tokens, not with its square. In Python it is no quicker: what
    it saves are the ways of numbers between a large memory and a small one, and only a kernel can
    keep a tile in the small one.

    >>> k = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
    >>> flash_attention(k[:1], k, torch.tensor([[10.0], [20.0]]), scale=0.0, tile=(1, 1))
    tensor([[15.]])

    Raises:
        ValueError: as ``attention`` and ``Tiles``.
    """
    check_shapes(q, k, v)
    check_added(q, k, mask, bias)
    tiles = Tiles(q.shape[-2], k.shape[-2], *tile, causal=causal, window=window)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if bias is not None or softcap is not None or sinks is not None:
        if window is not None:
            near = sliding_window_mask(tiles.seq_q, window, tiles.seq_k).to(q.device)
            mask = near if mask is None else mask & near
        rest: dict[str, Any] = {"bias": bias, "softcap": softcap, "sinks": sinks}
        return attention(q, k, v, mask=mask, causal=causal, scale=scale, **rest)
    traffic = Traffic() if traffic is None else traffic
    if q.ndim == 2:
        return _Flash.apply(q, k, v, mask, tiles, scale, traffic)
    # Query heads that share keys and values get an axis of their own: (…, kv_heads, group, q, d).
    groups = k.shape[-3], q.shape[-3] // k.shape[-3]
    if mask is not None and mask.ndim > 2:
        mask = mask.unsqueeze(-3) if mask.shape[-3] == 1 else mask.unflatten(-3, groups)
    shared = k.unsqueeze(-3), v.unsqueeze(-3)
    out = _Flash.apply(q.unflatten(-3, groups), *shared, mask, tiles, scale, traffic)
    return out.flatten(-4, -3)


def flash_forward(
    q: Float[Tensor, "*batch q head_dim"],
    k: Float[Tensor, "*kv_batch k head_dim"],
    v: Float[Tensor, "*kv_batch k v_dim"],
    tiles: Tiles,
    scale: float,
    mask: Bool[Tensor, "..."] | None,
    traffic: Traffic,
) -> tuple[Float[Tensor, "*batch q v_dim"], Float[Tensor, "*batch q"]]:
    """Outputs, and the log-sum-exp of each row of scores: −inf for a query that sees nothing."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    out = q.new_empty(*q.shape[:-1], v.shape[-1])
    lse = q.new_empty(q.shape[:-1], dtype=dtype)
    for rows in tiles.rows():
        queries = traffic.read(q[..., rows, :]).to(dtype)
        top = queries.new_full((*queries.shape[:-1], 1), -math.inf)
        total = torch.zeros_like(top)
        sums = queries.new_zeros(*queries.shape[:-1], v.shape[-1])
        for columns in tiles.columns(rows):
            keys = traffic.read(k[..., columns, :]).to(dtype)
            values = traffic.read(v[..., columns, :]).to(dtype)
            scores = _scores(queries, keys, tiles, rows, columns, scale, mask)
            higher = torch.maximum(top, scores.amax(-1, keepdim=True))
            shift = _or_zero(higher)
            weights = (scores - shift).exp()
            shrink = (top - shift).exp()  # what was summed up was relative to the old maximum
            total = shrink * total + weights.sum(-1, keepdim=True)
            sums = shrink * sums + weights @ values
            top = higher
        out[..., rows, :] = traffic.write(sums / total.masked_fill(total == 0, 1.0))
        lse[..., rows] = traffic.write((top + total.log()).squeeze(-1))
    return out, lse


def flash_backward(
    d_out: Float[Tensor, "*batch q v_dim"],
    q: Float[Tensor, "*batch q head_dim"],
    k: Float[Tensor, "*kv_batch k head_dim"],
    v: Float[Tensor, "*kv_batch k v_dim"],
    out: Float[Tensor, "*batch q v_dim"],
    lse: Float[Tensor, "*batch q"],
    tiles: Tiles,
    scale: float,
    mask: Bool[Tensor, "..."] | None,
    traffic: Traffic,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values from that of the output.

    With weights P and scores S: dV = Pᵀ dO, dP = dO Vᵀ, dS = P · (dP − δ), where δ = Σ P · dP of
    a row is also Σ dO · O, so that no whole row is ever needed (Dao et al. 2022, appendix B.4).
    """
    dq, dk, dv = (torch.zeros_like(x, dtype=lse.dtype) for x in (q, k, v))
    for rows in tiles.rows():
        queries, d_rows, outputs = (
            traffic.read(x[..., rows, :]).to(lse.dtype) for x in (q, d_out, out)
        )
        log_total = _or_zero(traffic.read(lse[..., rows])).unsqueeze(-1)
        delta = (d_rows * outputs).sum(-1, keepdim=True)
        dq_rows = torch.zeros_like(queries)
        for columns in tiles.columns(rows):
            keys = traffic.read(k[..., columns, :]).to(lse.dtype)
            values = traffic.read(v[..., columns, :]).to(lse.dtype)
            scores = _scores(queries, keys, tiles, rows, columns, scale, mask)
            weights = (scores - log_total).exp()
            d_scores = weights * (d_rows @ values.mT - delta) * scale
            dq_rows += d_scores @ keys
            for d, more in ((dk, d_scores.mT @ queries), (dv, weights.mT @ d_rows)):
                summed = traffic.read(d[..., columns, :])
                summed += more.sum_to_size(summed.shape)  # over the heads that share it
                traffic.write(summed)
        dq[..., rows, :] = traffic.write(dq_rows)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


class _Flash(torch.autograd.Function):
    """The two passes as one differentiable function."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        tiles: Tiles,
        scale: float,
        traffic: Traffic,
    ) -> Tensor:
        out, lse = flash_forward(q, k, v, tiles, scale, mask, traffic)
        ctx.save_for_backward(q, k, v, out, lse, mask)
        ctx.rest = tiles, scale, traffic
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, mask = ctx.saved_tensors
        tiles, scale, traffic = ctx.rest
        gradients = flash_backward(d_out, q, k, v, out, lse, tiles, scale, mask, traffic)
        return *gradients, None, None, None, None


def _scores(
    queries: Tensor,
    keys: Tensor,
    tiles: Tiles,
    rows: slice,
    columns: slice,
    scale: float,
    mask: Tensor | None,
) -> Tensor:
    """The scores of one tile, −inf where a query may not look."""
    scores = queries @ keys.mT * scale
    allowed = tiles.allowed(rows, columns, queries.device)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~_part(_part(mask, -2, rows), -1, columns), -math.inf)
    return scores


def _part(mask: Tensor, axis: int, piece: slice) -> Tensor:
    """A piece along an axis, unless it is one that broadcasts."""
    if mask.ndim < -axis or mask.shape[axis] == 1:
        return mask
    return mask.narrow(axis, piece.start, piece.stop - piece.start)


def _or_zero(x: Tensor) -> Tensor:
    """−inf, of a row that is masked completely, as 0: −inf − (−inf) would be nan."""
    return x.masked_fill(x == -math.inf, 0.0)
