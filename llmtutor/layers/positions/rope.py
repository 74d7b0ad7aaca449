"""Chapter 06, rope: queries and keys turned by their position, so that scores see distances.

A rotation by angle a of the query and by angle b of the key leaves in their product only a − b.
With angles proportional to the position, a score depends on how far apart two tokens are.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from llmtutor.checks import check_at_least, check_name
from llmtutor.layers.part import Site
from llmtutor.layers.positions import base as scheme
from llmtutor.layers.positions.angles import cos_and_sin, geometric_frequencies
from llmtutor.layers.positions.rope_scaling import RopeScaling

Pairing = Literal["interleaved", "half"]


class Rope(scheme.Position):
    """Turn pair ``i`` of a query or key at position ``p`` by ``p · ω_i``, ``ω_i = base^(−2i/d)``.

    ``(a, b) → (a cos − b sin, a sin + b cos)``: Su et al. (2021), eq. 34. Which components make
    pair i of the d rotated ones is a convention that belongs to the weights:
    ``interleaved`` takes 2i and 2i + 1 (the paper, Llama as published), ``half`` takes i and
    i + d/2 (GPT-NeoX, ``transformers``). Mixing them up gives no error, only a wrong model;
    ``convert_pairing`` translates. With ``fraction`` below 1 only the first
    ``d = fraction · head_dim`` components turn (Black et al. 2022); ``scaling`` slows the
    frequencies down.

    The rotation is computed in float32 at least: the 8 bits of bfloat16 could not hold a cosine to
    better than 1 part in 256. The result has the dtype of ``x``.

    Raises:
        ValueError: ``head_dim`` odd or below 2, a rotated part that is not an even whole number,
            unknown pairing, ``base`` not above 1, a scaling that does not fit; ``x`` of another
            width, wrong positions.
    """

    def __init__(
        self,
        head_dim: int,
        *,
        base: float = 10_000.0,
        pairing: Pairing = "interleaved",
        fraction: float = 1.0,
        scaling: RopeScaling | None = None,
    ) -> None:
        super().__init__(head_dim=head_dim, base=base, pairing=pairing)
        check_name("pairing", pairing, get_args(Pairing))
        self.head_dim, self.rotary_dim = head_dim, rotary_dim(head_dim, fraction)
        self.base, self.pairing, self.scaling = base, pairing, scaling
        self.frequencies = geometric_frequencies(self.rotary_dim, base)
        """Radians per token of each pair, after scaling, in float64."""
        if self.rotary_dim != head_dim:
            self.settings["rotary_dim"] = self.rotary_dim
        if scaling is not None:
            self.settings["scaling"] = scaling
            self.frequencies = scaling.scale(self.frequencies, base)

    def rotate_both(
        self, q: scheme.Heads, k: scheme.KeyHeads, positions: scheme.Places
    ) -> tuple[Tensor, Tensor]:
        """Both by the same angles: as heads side by side, they turn in one go."""
        if q.shape[-2:] != k.shape[-2:]:
            raise ValueError(
                "queries and keys must agree in (seq, head_dim), got shapes "
                f"{tuple(q.shape)} and {tuple(k.shape)}"
            )
        heads = q.shape[-3], k.shape[-3]
        q, k = self.rotate(torch.cat((q, k), dim=-3), positions).split(heads, dim=-3)
        return q, k

    def rotate(self, x: scheme.Heads, positions: scheme.Places) -> scheme.Heads:
        """Queries or keys (batch, heads, seq, head_dim) → the same shape, turned."""
        scheme.check_last(x, "head_dim", self.head_dim)
        scheme.check_positions(positions, x.shape[-2])
        dtype = torch.promote_types(x.dtype, torch.float32)
        cos, sin = cos_and_sin(positions, self.frequencies, dtype)
        if self.scaling is not None and self.scaling.attention_factor != 1:
            cos, sin = self.scaling.attention_factor * cos, self.scaling.attention_factor * sin
        turned = rotate_pairs(x[..., : self.rotary_dim].to(dtype), cos, sin, self.pairing)
        if self.rotary_dim == self.head_dim:
            return turned.to(x.dtype)
        return torch.cat((turned.to(x.dtype), x[..., self.rotary_dim :]), dim=-1)


def rotate_pairs(
    x: Float[Tensor, "*batch seq dim"],
    cos: Float[Tensor, "seq pairs"],
    sin: Float[Tensor, "seq pairs"],
    pairing: Pairing = "interleaved",
) -> Float[Tensor, "*batch seq dim"]:
    """Each pair ``(a, b)`` of ``x`` turned: ``(a cos − b sin, a sin + b cos)``.

    >>> cos, sin = torch.zeros(1, 2), torch.ones(1, 2)  # a quarter turn
    >>> x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    >>> rotate_pairs(x, cos, sin)
    tensor([[-2.,  1., -4.,  3.]])
    >>> rotate_pairs(x, cos, sin, "half")
    tensor([[-3., -4.,  1.,  2.]])
    """
    if pairing == "half":
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


def convert_pairing(
    weight: Float[Tensor, "out *d_in"],
    n_heads: int,
    from_: Pairing,
    to: Pairing,
    *,
    fraction: float = 1.0,
) -> Float[Tensor, "out *d_in"]:
    """Rows of a query or key projection in the order that another pairing expects.

    ``weight`` is (n_heads · head_dim, d_in), or a bias (n_heads · head_dim,); with ``n_heads=1``
    also the gain of a norm over a head. Rows move inside their head and no value changes, so
    with queries and keys both converted every score is the sum of the same products. Value and
    output projections are not turned and stay as they are.

    >>> convert_pairing(torch.arange(6.0), 1, "interleaved", "half")
    tensor([0., 2., 4., 1., 3., 5.])

    Raises:
        ValueError: unknown pairing; rows that do not divide among the heads; odd rotated part.
    """
    check_name("pairing", from_, get_args(Pairing))
    check_name("pairing", to, get_args(Pairing))
    check_at_least(1, n_heads=n_heads)
    if weight.ndim == 0 or weight.shape[0] % n_heads:
        raise ValueError(
            f"the first dimension must be n_heads · head_dim with n_heads = {n_heads}, "
            f"got shape {tuple(weight.shape)}"
        )
    head_dim = weight.shape[0] // n_heads
    turned = rotary_dim(head_dim, fraction)
    order = torch.arange(head_dim, device=weight.device)
    if from_ != to:
        split = (-1, 2) if from_ == "interleaved" else (2, -1)
        order[:turned] = order[:turned].unflatten(0, split).T.flatten()
    return weight.unflatten(0, (n_heads, head_dim))[:, order].flatten(0, 1)


def rotary_dim(head_dim: int, fraction: float) -> int:
    """How many components turn: ``fraction · head_dim``, which must be whole and even.

    Raises:
        ValueError: ``fraction`` outside (0, 1], or a product that is odd or not whole.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction of the head that turns must lie in (0, 1], got {fraction}")
    dim = round(head_dim * fraction)
    if dim < 2 or dim % 2 or abs(dim - head_dim * fraction) > 1e-6:
        part = "head_dim" if fraction == 1 else f"fraction · head_dim = {fraction} · {head_dim}"
        raise ValueError(
            f"RoPE turns components in pairs: {part} must be an even number of at least 2, "
            f"got {head_dim * fraction:g}"
        )
    return dim


@dataclass(frozen=True)
class RopeConfig(scheme.AttentionPositionConfig):
    """``Rope``."""

    kind: ClassVar[str] = "rope"
    base: float = 10_000.0
    """The slowest pair turns by about 1 / base radians a token."""
    pairing: Pairing = "half"
    """Pairs are neighbours (the paper) or half a head apart (Hugging Face)."""
    fraction: float = 1.0
    """The part of each head's components that is rotated."""
    scaling: RopeScaling | None = None
    """How frequencies are changed for texts longer than those trained on."""

    def build(self, site: Site, n_heads: int, head_dim: int) -> Rope:
        """The module."""
        return Rope(head_dim, **self.values())
