"""Chapter 04, attention: who may look at whom, as boolean tensors.

A mask has one row for each query and one column for each key; True means *may attend*. Masks are
data, so the rules combine with ``&``: ``causal_mask(8) & padding_mask(lengths, 8)``.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from llmtutor.checks import check_at_least
from llmtutor.layers.basic import check_rows


def causal_mask(
    seq_q: int, seq_k: int | None = None, *, device: torch.device | str | None = None
) -> Bool[Tensor, "q k"]:
    """Each position sees itself and what came before.

    The queries are the *last* ``seq_q`` of ``seq_k`` positions (all of them by default), so that
    a new token after a stored past sees it: query i sees key j where j ≤ i + seq_k − seq_q.

    >>> causal_mask(2, 3).int()
    tensor([[1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)

    Raises:
        ValueError: sizes below 1, or more queries than keys.
    """
    return _distance(seq_q, seq_k, device) >= 0


def sliding_window_mask(seq_q: int, window: int, seq_k: int | None = None) -> Bool[Tensor, "q k"]:
    """Causal, and no further back than ``window`` positions *including the current token*.

    Query at position i sees keys i − window + 1 … i: a window of 1 sees only itself
    (``sliding_window`` of ``transformers`` counts alike).

    >>> sliding_window_mask(3, window=2).int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [0, 1, 1]], dtype=torch.int32)

    Raises:
        ValueError: sizes or window below 1, or more queries than keys.
    """
    check_at_least(1, window=window)
    distance = _distance(seq_q, seq_k)
    return (distance >= 0) & (distance < window)


def padding_mask(lengths: Int[Tensor, " batch"], seq: int) -> Bool[Tensor, "batch 1 1 k"]:
    """The first ``lengths[b]`` keys of sequence b are real; nobody looks at the padding after them.

    The two axes of length 1 stand for heads and queries.

    >>> padding_mask(torch.tensor([2, 3]), 3)[:, 0, 0].int()
    tensor([[1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)

    Raises:
        ValueError: lengths that are not integers in 0 … seq, or not one for each sequence.
    """
    check_rows("lengths", lengths, lengths.numel(), most=seq)
    real = torch.arange(seq, device=lengths.device) < lengths[:, None]
    return real[:, None, None, :]


def _distance(seq_q: int, seq_k: int | None, device: torch.device | str | None = None) -> Tensor:
    """How far key j lies behind query i, (q, k); negative for a key in the future."""
    seq_k = seq_q if seq_k is None else seq_k
    if not 1 <= seq_q <= seq_k:
        raise ValueError(
            "need 1 <= seq_q <= seq_k (the queries are the last seq_q of seq_k positions), "
            f"got seq_q = {seq_q}, seq_k = {seq_k}"
        )
    keys = torch.arange(seq_k, device=device)
    return keys[seq_k - seq_q :, None] - keys
