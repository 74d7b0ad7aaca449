"""Chapter 06, rope: queries and keys turned by their position, so that scores see distances.

A rotation by angle a of the query and by angle b of the key leaves in their product only a − b.
With angles proportional to the position, a score depends on how far apart two tokens are.
"""

import difflib
from typing import Literal, get_args

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from llmtutor.layers.positions.angles import AngleTable, geometric_frequencies
from llmtutor.layers.positions.base import Position, check_at_least, check_last
from llmtutor.layers.positions.rope_scaling import RopeScaling

Pairing = Literal["interleaved", "half"]


class Rope(Position):
    """Turn pair ``i`` of a query or key at position ``p`` by ``p · ω_i``, ``ω_i = base^(−2i/d)``.

    ``(a, b) → (a cos − b sin, a sin + b cos)``: Su et al. (2021), eq. 34. Which components make
    pair i of the d rotated ones is a convention that belongs to the weights:
    ``interleaved`` takes 2i and 2i + 1 (the paper, Llama as published), ``half`` takes i and
    i + d/2 (GPT-NeoX, ``transformers``). Mixing them up gives no error, only a wrong model;
    ``convert_pairing`` translates. With ``fraction`` below 1 only the first
    ``d = fraction · head_dim`` components turn (Black et al. 2022); ``scaling`` slows the hands.

    Angles come from float64, and the rotation is computed in float32 at least: in bfloat16, 8 bits
    could not hold a cosine to better than 1 part in 256. The result has the dtype of ``x``.

    Raises:
        ValueError: ``head_dim`` odd or below 2, a rotated part that is not an even whole number,
            unknown pairing, ``base`` not above 1; ``x`` of another width, wrong positions.
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
        super().__init__()
        _check_pairing(pairing)
        self.head_dim, self.rotary_dim = head_dim, rotary_dim(head_dim, fraction)
        self.base, self.pairing, self.scaling = base, pairing, scaling
        frequencies = geometric_frequencies(self.rotary_dim, base)
        if scaling is not None:
            frequencies = scaling.scale(frequencies, base)
        factor = scaling.attention_factor if scaling is not None else 1.0
        layout = half_layout if pairing == "half" else interleaved_layout
        self.angles = AngleTable(frequencies, factor, layout)

    @property
    def frequencies(self) -> Float[Tensor, " pairs"]:
        """Radians per token of each pair, after scaling, in float64."""
        return self.angles.frequencies

    def rotate(
        self, x: Float[Tensor, "*batch seq head_dim"], positions: Int[Tensor, " seq"]
    ) -> Float[Tensor, "*batch seq head_dim"]:
        """Queries or keys (batch, heads, seq, head_dim) → the same shape, turned.

        >>> Rope(2).rotate(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
        tensor([[1.0000, 0.0000],
                [0.5403, 0.8415]])
        """
        check_last(x, "head_dim", self.head_dim)
        dtype = torch.promote_types(x.dtype, torch.float32)
        turns = self.angles(positions, x.shape[-2], dtype)
        turned = rotate_pairs(x[..., : self.rotary_dim].to(dtype), *turns).to(x.dtype)
        if self.rotary_dim == self.head_dim:
            return turned
        return torch.cat((turned, x[..., self.rotary_dim :]), dim=-1)

    def extra_repr(self) -> str:
        """What sets it apart, for ``print(model)``."""
        text = f"head_dim={self.head_dim}, base={self.base:g}, pairing={self.pairing!r}"
        if self.rotary_dim != self.head_dim:
            text += f", rotary_dim={self.rotary_dim}"
        return text if self.scaling is None else f"{text}, scaling={self.scaling}"


def half_layout(
    cos: Float[Tensor, "seq pairs"], sin: Float[Tensor, "seq pairs"]
) -> tuple[Float[Tensor, "seq dim"], Float[Tensor, "seq dim"]]:
    """``(cos, cos)`` and ``(−sin, sin)``, for whole heads at a time."""
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def interleaved_layout(
    cos: Float[Tensor, "seq pairs"], sin: Float[Tensor, "seq pairs"]
) -> tuple[Complex[Tensor, "seq pairs"]]:
    """The complex numbers ``cos + i sin``."""
    return (torch.complex(cos, sin),)


def rotate_pairs(
    x: Float[Tensor, "*batch seq dim"], *turns: Tensor
) -> Float[Tensor, "*batch seq dim"]:
    """Each pair ``(a, b)`` of ``x`` turned: ``(a cos − b sin, a sin + b cos)``.

    ``turns`` is what the layout of a pairing makes of the cosines and sines.

    >>> cos, sin = torch.zeros(1, 2), torch.ones(1, 2)  # a quarter turn
    >>> x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    >>> rotate_pairs(x, *interleaved_layout(cos, sin))
    tensor([[-2.,  1., -4.,  3.]])
    >>> rotate_pairs(x, *half_layout(cos, sin))
    tensor([[-3., -4.,  1.,  2.]])
    """
    if len(turns) == 1:
        # Neighbours are what torch takes for the complex number a + ib, and turning it is one
        # product with cos + i sin, several times faster than four products of every other entry.
        numbers = torch.view_as_complex(x.contiguous().unflatten(-1, (-1, 2)))
        return torch.view_as_real(numbers * turns[0]).flatten(-2)
    cos, sin = turns
    if torch.compiler.is_compiling():
        # As the formula has it: compiled, a roll would look up each component by itself.
        (a, b), (_, cos), (_, sin) = (whole.chunk(2, dim=-1) for whole in (x, cos, sin))
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    # (a, b) · (cos, cos) + (b, a) · (−sin, sin): whole heads at a time, in one pass less.
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


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
    with queries and keys both converted every score is the sum of the same products. Converting
    back gives the weight again. Value and output projections are not turned and stay as they are.

    >>> convert_pairing(torch.arange(6.0), 1, "interleaved", "half")
    tensor([0., 2., 4., 1., 3., 5.])

    Raises:
        ValueError: unknown pairing; rows that do not divide among the heads; odd rotated part.
    """
    _check_pairing(from_)
    _check_pairing(to)
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

    >>> rotary_dim(64, 0.25)
    16

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


def _check_pairing(pairing: str) -> None:
    known = get_args(Pairing)
    if pairing not in known:
        nearest = difflib.get_close_matches(str(pairing).lower(), known, n=1, cutoff=0.4)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise ValueError(f"unknown pairing {pairing!r}: {hint}There are {', '.join(known)}")
