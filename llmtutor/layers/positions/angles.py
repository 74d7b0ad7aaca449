"""Chapter 05, positions: cosines and sines of position × frequency.

Sinusoidal positions and RoPE share the same frequencies: pair ``i`` turns by ``ω_i`` radians per
token, fast for small ``i`` and slow for large.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_number
from llmtutor.layers.positions.base import check_positions


def geometric_frequencies(dim: int, base: float) -> Float[Tensor, " pairs"]:
    """Radians per token of each of the dim / 2 pairs, ``ω_i = base^(−2i / dim)``, in float64.

    >>> geometric_frequencies(4, 10_000)
    tensor([1.0000, 0.0100], dtype=torch.float64)

    Raises:
        ValueError: ``dim`` below 2 or odd; ``base`` not finite or not above 1.
    """
    if dim < 2 or dim % 2:
        raise ValueError(
            f"components turn in pairs: d_model, or what turns of head_dim, must be even, got {dim}"
        )
    check_number("base", base, above=1)
    steps = torch.arange(0, dim, 2, dtype=torch.float64, device="cpu")  # also in a meta context
    return base ** (-steps / dim)


def cos_and_sin(
    positions: Int[Tensor, " seq"],
    frequencies: Float[Tensor, " pairs"],
    dtype: torch.dtype,
) -> tuple[Float[Tensor, "seq pairs"], Float[Tensor, "seq pairs"]]:
    """Of ``position · frequency``, in ``dtype``, on the device of ``positions``.

    Angles are products in float64: at position 10,000 a float32 angle is off by up to 5e-4. That is
    why frequencies are no buffer, which ``model.to(torch.bfloat16)`` would round.

    Raises:
        ValueError: positions of another shape or that are not integers.
    """
    check_positions(positions, positions.numel())
    # Apple's GPUs have no float64.
    wide = positions.cpu() if positions.device.type == "mps" else positions
    angles = wide.double()[:, None] * frequencies.to(wide.device)
    return angles.cos().to(positions.device, dtype), angles.sin().to(positions.device, dtype)
