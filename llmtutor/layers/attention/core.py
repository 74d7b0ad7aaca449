"""Chapter 04, attention: each query takes a mean of the values, weighted by how its key fits.

``attention`` is the formula, line by line. ``fused_attention`` is the same function through
``torch.nn.functional.scaled_dot_product_attention``, which never stores the weights of all
queries and keys at once.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from llmtutor.layers.attention.masks import causal_mask
from llmtutor.layers.basic import softmax


def attention(
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
    """Scaled dot-product attention: ``softmax(q kᵀ · scale + bias) v``.

    Vaswani et al. 2017, eq. 1. The leading axes are (batch, heads) in a model; any number of
    them will do.

    - ``mask``: boolean, True = may attend, broadcast to (..., q, k). A query that may attend
      to nothing gives zeros with zero gradient; the paper's formula gives nan there.
    - ``causal``: the plain causal mask as well (``causal_mask``: the queries are the last ones).
    - ``bias``: added to the scaled scores, broadcast to (..., q, k).
    - ``k`` and ``v`` may have fewer heads (third to last axis) than ``q``: each then serves equally
      many query heads that stand next to each other (chapter 14).
    - ``scale``: 1/√head_dim by default. Components of variance 1 give scores of variance
      head_dim; the scale brings it back to 1, so that the softmax does not start saturated.
    - ``softcap``: c bends the scaled scores to ``c tanh(score / c)``, which never reach ±c; before
      bias and mask (Gemma 2, arXiv 2408.00118, section 2).
    - ``sinks``: one more score for each head, of a key whose value is 0: where a query can leave
      its attention when no key fits (gpt-oss; after Xiao et al. 2024).

    >>> k = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
    >>> attention(k[:1], k, torch.tensor([[10.0], [20.0]]), scale=0.0)  # no preference: the mean
    tensor([[15.]])

    Raises:
        ValueError: shapes that do not fit, ``mask`` not boolean, values not floating point,
            ``softcap`` not above 0.
    """
    check_shapes(q, k, v)
    weights = attention_weights(
        q, k, mask=mask, causal=causal, bias=bias, scale=scale, softcap=softcap, sinks=sinks
    )
    return weights @ _for_each_query_head(v, q)


def attention_weights(
    q: Float[Tensor, "*batch q head_dim"],
    k: Float[Tensor, "*kv_batch k head_dim"],
    *,
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
    bias: Float[Tensor, "..."] | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " heads"] | None = None,
) -> Float[Tensor, "*batch q k"]:
    """The weights of ``attention`` (same arguments): rows sum to 1, or to 0 where all is masked.

    With ``sinks`` they sum to less: what is missing went there.
    """
    check_shapes(q, k, k)
    check_added(q, k, mask, bias)
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap must be above 0, got {softcap}")
    if sinks is not None and (q.ndim < 3 or sinks.shape != q.shape[-3:-2]):
        raise ValueError(
            f"sinks must be one number for each head of q {tuple(q.shape)}, (…, heads, q, "
            f"head_dim): got shape {tuple(sinks.shape)}"
        )
    scores = q @ _for_each_query_head(k, q).transpose(-2, -1) * _scale(q, scale)
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if causal:
        plain = causal_mask(q.shape[-2], k.shape[-2], device=q.device)
        mask = plain if mask is None else mask & plain
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    if sinks is None:
        return softmax(scores)
    beside = sinks[:, None, None].expand(*scores.shape[:-1], 1).to(scores.dtype)
    return softmax(torch.cat((scores, beside), dim=-1))[..., :-1]


def fused_attention(
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
    """``attention`` (same arguments, results and errors) in one fused kernel of torch.

    ``causal=True`` alone builds no mask for whole sequences, whose future the kernel skips, nor
    for a single query, which is the last position and has none. Keys and values that several query
    heads share are not repeated in memory. The kernel knows neither ``softcap`` nor ``sinks``: with
    these it is the formula that runs. With a ``bias`` that needs a gradient, or that has three axes
    beside four of the queries, torch 2.13 takes another path on the CPU, which stores the weights.
    """
    if softcap is not None or sinks is not None:
        rest = {"mask": mask, "bias": bias, "softcap": softcap, "sinks": sinks}
        return attention(q, k, v, causal=causal, scale=scale, **rest)  # type: ignore[arg-type]
    check_shapes(q, k, v)
    check_added(q, k, mask, bias)
    seq_q, seq_k = q.shape[-2], k.shape[-2]
    # torch aligns is_causal with the first positions, we with the last; equal lengths agree.
    is_causal = False
    if causal and mask is None and bias is None and seq_q == seq_k:
        is_causal = True  # by an "if": the kernel takes no bool that depends on an open length
    if causal and not is_causal and seq_q > 1:
        plain = causal_mask(seq_q, seq_k, device=q.device)
        mask = plain if mask is None else mask & plain
    if bias is not None:
        added = bias.to(q.dtype)
        mask = added if mask is None else torch.where(mask, added, -math.inf)
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=is_causal,
        scale=_scale(q, scale),
        enable_gqa=q.shape[:-2] != k.shape[:-2],
    )


def _for_each_query_head(x: Tensor, q: Tensor) -> Tensor:
    """Keys or values repeated, heads a, b → a, a, b, b, until there are as many as queries."""
    if x.shape[:-2] == q.shape[:-2]:
        return x
    return x.repeat_interleave(q.shape[-3] // x.shape[-3], dim=-3)


def _scale(q: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(q.shape[-1]) if scale is None else scale


def check_shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ``ValueError`` unless queries, keys and values fit together."""
    for name, x in (("q", q), ("k", k)):
        if x.ndim < 2 or not x.is_floating_point():
            raise ValueError(
                f"{name} must be floating point of shape (..., seq, head_dim), "
                f"got {x.dtype} of shape {tuple(x.shape)}"
            )
    grouped = q.ndim == k.ndim > 2 and q.shape[:-3] == k.shape[:-3] and k.shape[-3] > 0
    same = q.shape[:-2] == k.shape[:-2] or (grouped and q.shape[-3] % k.shape[-3] == 0)
    if not same or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            "q and k must agree in all but their second to last axis (seq), or the heads of k "
            f"divide those of q: got q {tuple(q.shape)}, k {tuple(k.shape)}"
        )
    if not v.is_floating_point() or v.shape[:-1] != k.shape[:-1]:
        raise ValueError(
            "v must be floating point with one row for each key: "
            f"got v {tuple(v.shape)} of {v.dtype}, k {tuple(k.shape)}"
        )


def check_added(q: Tensor, k: Tensor, mask: Tensor | None, bias: Tensor | None) -> None:
    """Errors by name; broadcasting alone would accept a mask of too many rows or a mask of 0s."""
    shape = (*q.shape[:-1], k.shape[-2])
    if mask is not None:
        if mask.dtype != torch.bool:
            raise ValueError(
                f"mask must be boolean (True = may attend), got {mask.dtype}; "
                "numbers to add to the scores go into bias"
            )
        _check_broadcast("mask", mask, shape)
    if bias is not None:
        if not bias.is_floating_point():
            raise ValueError(f"bias must be floating point, got {bias.dtype}")
        _check_broadcast("bias", bias, shape)


def _check_broadcast(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    sizes = zip(x.shape[::-1], shape[::-1], strict=False)
    if x.ndim > len(shape) or any(have not in (1, want) for have, want in sizes):
        raise ValueError(
            f"{name} must broadcast to the scores (..., q, k) = {shape}, got {tuple(x.shape)}"
        )
