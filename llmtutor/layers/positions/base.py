"""Chapter 05, positions: the three places where a position can enter a transformer.

Attention by itself sees a set: permute the tokens and its outputs are permuted, no more. A scheme
tells it the order in one of three places, and each place is a hook here that does nothing unless
a subclass fills it: added to the token embeddings (``embed``), turned into the queries and keys
(``rotate``), or added to the scores (``score_bias``).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.layers.basic import INT_DTYPES


class Position(nn.Module):
    """How a model learns where its tokens stand; every hook is a no-op until it is overridden.

    ``positions`` are integers from 0, one per token: 0 … seq − 1 for a whole sequence, and what
    comes next when a text is continued. Hooks raise ``ValueError`` for inputs of a wrong shape
    and for positions that are negative or not integers.
    """

    def embed(
        self, x: Float[Tensor, "*batch seq d_model"], positions: Int[Tensor, " seq"]
    ) -> Float[Tensor, "*batch seq d_model"]:
        """Token embeddings with the positions added, at the bottom of the model."""
        return x

    def rotate(
        self, x: Float[Tensor, "*batch seq head_dim"], positions: Int[Tensor, " seq"]
    ) -> Float[Tensor, "*batch seq head_dim"]:
        """Queries or keys (batch, heads, seq, head_dim) turned according to their positions."""
        return x

    def score_bias(
        self,
        q: Float[Tensor, "*batch heads q head_dim"],
        q_positions: Int[Tensor, " q"],
        k_positions: Int[Tensor, " k"],
    ) -> Float[Tensor, "*bias_batch heads q k"] | None:
        """What is added to the scaled scores ``q · k / √head_dim``; None adds nothing.

        A bias that does not depend on ``q`` has no batch dimension: (heads, q, k).
        """
        return None


class NoPosition(Position):
    """No scheme at all: only the causal mask tells a decoder something about the order."""


def check_positions(positions: Tensor, seq: int) -> int:
    """The largest of ``positions``, which must be ``seq`` integers from 0 up.

    −1 for none, and while ``torch.compile`` traces: it has no values to look at. Who indexes with
    them then relies on the kernel, which checks the bounds itself.

    >>> check_positions(torch.tensor([4, 5, 6]), 3)
    6

    Raises:
        ValueError: another shape, a floating-point dtype or a negative position.
    """
    if positions.dtype not in INT_DTYPES:
        raise ValueError(f"positions must be integers (torch.int64), got {positions.dtype}")
    if positions.shape != (seq,):
        raise ValueError(
            f"positions must have shape ({seq},), one for each token of the sequence, "
            f"got {tuple(positions.shape)}"
        )
    if seq == 0 or torch.compiler.is_compiling():
        return -1
    low, high = torch.aminmax(positions)
    if low < 0:
        raise ValueError(f"positions count from 0, got {int(low)}")
    return int(high)


def check_last(x: Tensor, name: str, size: int) -> None:
    """Raise ``ValueError`` unless ``x`` is floating point, of shape (…, seq, ``size``)."""
    if x.ndim < 2 or x.shape[-1] != size:
        raise ValueError(f"expected shape (…, seq, {name} = {size}), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"expected floating point, got {x.dtype}; convert with .float()")


def check_heads(q: Tensor, n_heads: int) -> None:
    """Raise ``ValueError`` unless ``q`` has shape (…, ``n_heads``, seq, head_dim)."""
    if q.ndim < 3 or q.shape[-3] != n_heads:
        raise ValueError(
            f"queries must have shape (…, n_heads = {n_heads}, seq, head_dim), got {tuple(q.shape)}"
        )


def check_at_least(least: int, **sizes: int) -> None:
    """Raise ``ValueError`` naming the first of ``sizes`` that lies below ``least``."""
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"{name} must be at least {least}, got {size}")


def relative_positions(
    q_positions: Int[Tensor, " q"], k_positions: Int[Tensor, " k"]
) -> Int[Tensor, "q k"]:
    """Key position minus query position: negative looks back, 0 is the token itself.

    >>> relative_positions(torch.tensor([1, 2]), torch.tensor([0, 1, 2]))
    tensor([[-1,  0,  1],
            [-2, -1,  0]])
    """
    return k_positions.long()[None, :] - q_positions.long()[:, None]
