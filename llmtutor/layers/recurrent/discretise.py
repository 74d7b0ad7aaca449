"""Chapter 19, ssm: from a state that flows to one that steps from token to token.

``h' = A h + B x`` says how the state changes at every moment. A text has no moments between its
tokens: each input is held for a time Δ, and what is left is ``h_t = Ā h_{t−1} + B̄ x_t``.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""Real and imaginary part."""


def zoh(
    a: Float[Tensor, "*state"], step: Float[Tensor, "*state"]
) -> tuple[Float[Tensor, "*state"], Float[Tensor, "*state"]]:
    """Zero-order hold: ``Ā = exp(Δ A)`` and ``B̄ = (exp(Δ A) − 1) / A``, for B = 1.

    Exact where the input stands still during each step. A is a diagonal, its numbers not 0.

    >>> zoh(torch.tensor(-1.0), torch.tensor(2.0).log())  # half of it is gone in a step of log 2
    (tensor(0.5000), tensor(0.5000))
    """
    moved = step * a
    return moved.exp(), moved.expm1() / a


def euler(
    a: Float[Tensor, "*state"], step: Float[Tensor, "*state"]
) -> tuple[Float[Tensor, "*state"], Float[Tensor, "*state"]]:
    """``Ā`` as ``zoh`` has it, with ``B̄ = Δ``: its first term, as in the code published with Mamba.

    Of Euler's rule it is only the half that belongs to the input.
    """
    return (step * a).exp(), step.expand_as(step * a)


def zoh_pair(decay: Tensor, frequency: Tensor, step: Tensor) -> tuple[Pair, Pair]:
    """``zoh`` of ``A = decay + i · frequency`` in real numbers, which every export knows.

    ``exp(z) − 1`` is written without a difference of numbers that are nearly equal.
    """
    size, angle = step * decay, step * frequency
    moved = size.exp() * angle.cos(), size.exp() * angle.sin()
    gone = size.expm1() * angle.cos() - 2 * (angle / 2).sin().square(), moved[1]
    return moved, over(gone, (decay, frequency))


def times(a: Pair, b: Pair) -> Pair:
    """The product of two complex numbers."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def over(a: Pair, b: Pair) -> Pair:
    """Their quotient."""
    real, imaginary = times(a, (b[0], -b[1]))
    size = b[0].square() + b[1].square()
    return real / size, imaginary / size


def step_sizes(n: int, smallest: float = 1e-3, largest: float = 1e-1) -> Float[Tensor, " n"]:
    """The logarithms of ``n`` step sizes, drawn evenly between those of the two ends.

    So each factor of ten has as many: some channels begin with a memory of ten tokens, others with
    one of a thousand (Gu et al. 2022; Mamba begins alike).
    """
    low, high = torch.tensor([smallest, largest]).log()
    return low + (high - low) * torch.rand(n)
