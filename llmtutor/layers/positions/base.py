"""Chapter 05, positions: the three places where a position can enter a transformer.

Attention by itself sees a set: permute the tokens and its outputs are permuted, no more. A scheme
tells it the order in one of three places, and each place is a hook here that does nothing unless
a subclass fills it: added to the token embeddings (``embed``), turned into the queries and keys
(``rotate``), or added to the scores (``score_bias``).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.layers.basic import Layer, check_integers
from llmtutor.layers.part import Costs, Load, Part, Site

# What the hooks are given and give.
Embedded = Float[Tensor, "*batch seq d_model"]
Heads = Float[Tensor, "*batch seq head_dim"]
KeyHeads = Float[Tensor, "*kv_batch seq head_dim"]
Places = Int[Tensor, " seq"]
Queries = Float[Tensor, "*batch heads q head_dim"]
QueryPlaces = Int[Tensor, " q"]
KeyPlaces = Int[Tensor, " k"]
Bias = Float[Tensor, "*bias_batch heads q k"]


class Position(Layer):
    """How a model learns where its tokens stand; every hook is a no-op until it is overridden.

    ``positions`` are integers from 0, one per token: 0 … seq − 1 for a whole sequence, and what
    comes next when a text is continued. Hooks raise ``ValueError`` for inputs of a wrong shape
    and for positions that are not integers.
    """

    def embed(self, x: Embedded, positions: Places) -> Embedded:
        """Token embeddings with the positions added, at the bottom of the model."""
        return x

    def rotate(self, x: Heads, positions: Places) -> Heads:
        """Queries or keys (batch, heads, seq, head_dim) turned according to their positions."""
        return x

    def rotate_both(self, q: Heads, k: KeyHeads, positions: Places) -> tuple[Tensor, Tensor]:
        """Queries and keys of the same positions, in the shapes they came in."""
        return self.rotate(q, positions), self.rotate(k, positions)

    def score_bias(
        self, q: Queries, q_positions: QueryPlaces, k_positions: KeyPlaces
    ) -> Bias | None:
        """What is added to the scaled scores ``q · k / √head_dim``; None adds nothing.

        A bias that does not depend on ``q`` has no batch dimension: (heads, q, k).
        """
        return None


class NoPosition(Position):
    """No scheme at all: only the causal mask tells a decoder something about the order."""


class EmbeddingPositionConfig(Part, ABC):
    """The configuration of a scheme that acts once, below the first block."""

    @abstractmethod
    def build(self, site: Site) -> Position:
        """The module."""

    def table(self, site: Site) -> int:
        """Numbers that are learned."""
        return 0


class AttentionPositionConfig(Part, ABC):
    """The configuration of a scheme that acts in each attention layer."""

    shared: ClassVar[bool] = False
    """Whether all layers with this configuration use one module."""

    @abstractmethod
    def build(self, site: Site, n_heads: int, head_dim: int) -> Position:
        """The module for a layer with so many query heads."""

    def table(self, n_heads: int, head_dim: int) -> int:
        """Numbers that are learned."""
        return 0

    def costs(self, n_heads: int, head_dim: int, load: Load) -> Costs:
        """What it adds to attention; without the ``table``."""
        return Costs()


@dataclass(frozen=True)
class NoPositionConfig(AttentionPositionConfig):
    """``NoPosition``, in attention; below the blocks it is None."""

    kind: ClassVar[str] = "none"

    def build(self, site: Site, n_heads: int, head_dim: int) -> NoPosition:
        """The module."""
        return NoPosition()


def check_positions(positions: Tensor, seq: int) -> None:
    """Raise ``ValueError`` unless ``positions`` are ``seq`` integers."""
    check_integers("positions", positions)
    if positions.shape != (seq,):
        raise ValueError(
            f"positions must have shape ({seq},), one for each token of the sequence, "
            f"got {tuple(positions.shape)}"
        )


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


def relative_positions(
    q: Tensor, q_positions: QueryPlaces, k_positions: KeyPlaces
) -> Int[Tensor, "q k"]:
    """Key position minus query position: negative looks back, 0 is the token itself.

    >>> import torch
    >>> relative_positions(torch.zeros(2, 8), torch.tensor([1, 2]), torch.tensor([0, 1, 2]))
    tensor([[-1,  0,  1],
            [-2, -1,  0]])

    Raises:
        ValueError: not one integer for each query in ``q`` (…, q, head_dim) and for each key.
    """
    check_positions(q_positions, q.shape[-2])
    check_positions(k_positions, k_positions.numel())
    return k_positions.long()[None, :] - q_positions.long()[:, None]


def score_bias_bytes(n_heads: int, load: Load, *, learned: bool) -> int:
    """What torch keeps when a bias is added to the scores: the weights it would not store else.

    A ``learned`` bias keeps the row that each score takes (int64), and the mask, as well.
    """
    kept = load.itemsize * load.batch * n_heads * load.seq**2
    return kept + learned * (8 + 1) * load.seq**2
