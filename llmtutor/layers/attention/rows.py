"""Chapter 16, efficient-attention: positions of rows that do not begin in the same slot.

Prompts of several lengths are padded on the left. Where only distances between tokens count, slots
serve as positions; where a place is absolute (the first tokens of a text, the blocks that it is
cut into), each row counts from its own first token.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llmtutor.layers.positions.base import Position


def row_places(
    length: int, seq: int, starts: Int[Tensor, " batch"] | None, device: torch.device
) -> Int[Tensor, "rows seq"]:
    """Places of ``seq`` tokens after ``length``, counted from each row's first token.

    One row where all begin alike; below 0 is padding.

    >>> row_places(2, 3, torch.tensor([0, 3]), torch.device("cpu"))
    tensor([[ 2,  3,  4],
            [-1,  0,  1]])
    """
    slots = torch.arange(length, length + seq, device=device)[None]
    return slots if starts is None else slots - starts[:, None]


def rotate_rows(
    scheme: Position,
    x: Float[Tensor, "batch heads seq head_dim"],
    places: Int[Tensor, "rows seq"],
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Queries or keys turned by the places of their own rows, or by the one row for all."""
    places = places.clamp(min=0)
    if len(places) == 1:
        return scheme.rotate(x, places[0])
    # A scheme knows one row of positions: all rows are laid one behind the other.
    behind = x.transpose(0, 1).flatten(1, 2)
    return scheme.rotate(behind, places.flatten()).unflatten(1, places.shape).transpose(0, 1)


def bias_rows(
    scheme: Position,
    q: Float[Tensor, "batch heads q head_dim"],
    places: Int[Tensor, "rows q"],
    keys: Int[Tensor, " k"],
) -> Float[Tensor, "*bias_batch heads q k"] | None:
    """What a scheme adds to the scores of queries at ``places`` and keys at ``keys``."""
    places = places.clamp(min=0)
    if len(places) == 1:
        return scheme.score_bias(q, places[0], keys)
    behind = q.transpose(0, 1).flatten(1, 2)
    bias = scheme.score_bias(behind, places.flatten(), keys)
    return None if bias is None else bias.unflatten(-2, places.shape).transpose(-4, -3)


def seen_in_window(
    places: Int[Tensor, "rows q"], n_keys: int, window: int, first: int = 0
) -> Bool[Tensor, "rows q k"]:
    """Which of the newest ``n_keys`` tokens a query sees: not padding, none before ``first``.

    >>> seen_in_window(torch.tensor([[2, 3]]), 4, window=2, first=2).int()
    tensor([[[0, 0, 1, 0],
             [0, 0, 1, 1]]], dtype=torch.int32)
    """
    keys = places[:, -1:] - torch.arange(n_keys - 1, -1, -1, device=places.device)
    behind = places[:, :, None] - keys[:, None]
    return (behind >= 0) & (behind < window) & (keys >= first)[:, None]


def bias_of_both(
    scheme: Position,
    q: Float[Tensor, "batch heads q head_dim"],
    places: Int[Tensor, "rows q"],
    keys: Int[Tensor, " k"],
    n_near: int,
) -> Float[Tensor, "*bias_batch heads q all_k"] | None:
    """``bias_rows``, and beside it the bias of the newest ``n_near`` keys, by plain distances."""
    far = bias_rows(scheme, q, places, keys)
    slots = torch.arange(n_near, device=q.device)
    near = scheme.score_bias(q, slots[n_near - q.shape[2] :], slots)
    if far is None or near is None:
        return None
    return torch.cat((far, near.expand(*far.shape[:-1], n_near)), dim=-1)
