"""Chapter 06, rope: slower rotations, so that a model reads further than it was trained to.

Beyond the trained length the slow pairs reach angles that were never seen. Each scaling here maps
the frequencies ``ω_i`` of ``d = 2 · pairs`` rotated components to slower ones, for a text
``factor`` times as long. They are plain values, used by ``Rope(…, scaling=…)``.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from llmtutor.checks import check_at_least, check_number
from llmtutor.layers.part import Part


@dataclass(frozen=True)
class RopeScaling(Part, ABC):
    """A map of frequencies, and a factor on the rotated vectors (1 unless a scaling says more)."""

    factor: float
    """new length / trained length, at least 1"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise ValueError(
                f"factor is new length / trained length: expected 1 or more, got {self.factor}"
            )

    @property
    def attention_factor(self) -> float:
        """Factor on the rotated queries and keys; the scores grow by its square."""
        return 1.0

    @abstractmethod
    def scale(self, frequencies: Float[Tensor, " pairs"], base: float) -> Float[Tensor, " pairs"]:
        """The frequencies to use in place of ``frequencies = base^(−2i/d)`` (radians per token)."""


@dataclass(frozen=True)
class LengthScaling(RopeScaling, ABC):
    """A scaling that knows how long the texts were on which the model was trained."""

    original_max_seq_len: int
    """trained length, in tokens, at least 1"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, original_max_seq_len=self.original_max_seq_len)


@dataclass(frozen=True)
class LinearScaling(RopeScaling):
    """Position interpolation, Chen et al. (2023): ``ω_i / factor``, every pair slower alike.

    Positions are squeezed into the trained range, at the price of the fast pairs, which tell
    neighbours apart.

    >>> LinearScaling(4).scale(torch.tensor([1.0, 0.01]), 10_000)
    tensor([0.2500, 0.0025])
    """

    kind: ClassVar[str] = "linear"

    def scale(self, frequencies: Float[Tensor, " pairs"], base: float) -> Float[Tensor, " pairs"]:
        """All divided by the factor."""
        return frequencies / self.factor


@dataclass(frozen=True)
class NtkScaling(LengthScaling):
    """NTK-aware scaling (bloc97, 2023; restated by Peng et al. 2024): a larger base.

    ``base' = base · factor^(d/(d−2))``, which is the same as ``ω_i · factor^(−2i/(d−2))``: the
    fastest pair keeps its speed, the slowest is divided by ``factor``, those between lie between.
    The factor is fixed when the model is built. "Dynamic NTK" grows it with the text, which makes
    keys cached earlier disagree with new queries.

    Raises:
        ValueError: fewer than two pairs.
    """

    kind: ClassVar[str] = "ntk"

    def scale(self, frequencies: Float[Tensor, " pairs"], base: float) -> Float[Tensor, " pairs"]:
        """Each divided by a power of the factor that goes from 0 (first) to 1 (last)."""
        pairs = len(frequencies)
        if pairs < 2:
            raise ValueError(f"NTK scaling spreads over at least 4 components, got {2 * pairs}")
        return frequencies * self.factor ** -(_indices(frequencies) / (pairs - 1))


@dataclass(frozen=True)
class YarnScaling(LengthScaling):
    """YaRN, Peng et al. (2024): each pair by its turns in the trained length.

    A pair with more than ``beta_fast`` turns is kept, one with fewer than ``beta_slow`` is divided
    by ``factor``, those between are mixed. Queries and keys are also multiplied by
    ``0.1 · ln(factor) + 1``, which sharpens the softmax that a longer text flattens.

    The paper's ramp is linear in the number of turns; ours is linear in the index ``i``, taken
    between whole indices, as the authors' code and the checkpoints made with it do. That code turns
    the ramp round when every pair is fast enough to be kept; here all are kept.

    Raises:
        ValueError: betas not ``fast > slow > 0``; ``sharpen`` not above 0.
    """

    kind: ClassVar[str] = "yarn"
    beta_fast: float = 32
    """turns in the trained length from which a pair is kept"""
    beta_slow: float = 1
    """turns in the trained length below which a pair is divided by the factor"""
    sharpen: float | None = None
    """factor on queries and keys; None for ``0.1 · ln(factor) + 1``"""
    truncate: bool = True
    """whether the ramp begins and ends at whole indices"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sharpen is not None:
            check_number("sharpen", self.sharpen, above=0)
        if not self.beta_fast > self.beta_slow > 0:
            raise ValueError(
                "expected beta_fast > beta_slow > 0 (turns in the trained length), "
                f"got beta_fast = {self.beta_fast}, beta_slow = {self.beta_slow}"
            )

    @property
    def attention_factor(self) -> float:
        """``0.1 · ln(factor) + 1``, the paper's √(1/t), fitted on Llama models, or ``sharpen``."""
        return 0.1 * math.log(self.factor) + 1 if self.sharpen is None else self.sharpen

    def scale(self, frequencies: Float[Tensor, " pairs"], base: float) -> Float[Tensor, " pairs"]:
        """Kept, mixed or divided, by turns in the trained length."""
        dim = 2 * len(frequencies)
        first, last = (min(max(index, 0), dim - 1) for index in self.ramp(dim, base))
        width = last - first or 1e-3  # a ramp of no width becomes a step
        slowed = ((_indices(frequencies) - first) / width).clamp(0, 1)
        return frequencies * (1 - slowed) + frequencies / self.factor * slowed

    def ramp(self, dim: int, base: float) -> tuple[float, float]:
        """Between which indices pairs of ``dim`` components are mixed; both may lie outside."""
        length = self.original_max_seq_len
        # The index i whose pair turns so often solves ω_i · length = 2π · turns.
        first, last = (
            dim * math.log(length / (math.tau * turns)) / (2 * math.log(base))
            for turns in (self.beta_fast, self.beta_slow)
        )
        return (math.floor(first), math.ceil(last)) if self.truncate else (first, last)


@dataclass(frozen=True)
class Llama3Scaling(LengthScaling):
    """Llama 3.1's: each frequency by its wavelength, the tokens of one turn.

    Wavelengths below ``original_max_seq_len / high_freq_factor`` are kept, those above
    ``original_max_seq_len / low_freq_factor`` are multiplied by ``factor``; between them the
    frequency is a mean of both, linear in the number of turns in the trained length (Grattafiori
    et al. 2024; the formula is that of the code published with the model).

    Raises:
        ValueError: factors not ``high > low > 0``.
    """

    kind: ClassVar[str] = "llama3"
    low_freq_factor: float = 1.0
    """turns in the trained length below which a frequency is divided by the factor"""
    high_freq_factor: float = 4.0
    """turns in the trained length above which a frequency is kept"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.high_freq_factor > self.low_freq_factor > 0:
            raise ValueError(
                "expected high_freq_factor > low_freq_factor > 0 (turns in the trained length), "
                f"got {self.high_freq_factor} and {self.low_freq_factor}"
            )

    def scale(self, frequencies: Float[Tensor, " pairs"], base: float) -> Float[Tensor, " pairs"]:
        """Kept, mixed or divided, by turns in the trained length."""
        turns = self.original_max_seq_len * frequencies / math.tau
        low, high = self.low_freq_factor, self.high_freq_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * kept + frequencies / self.factor * (1 - kept)


def _indices(frequencies: Tensor) -> Tensor:
    """0, 1, …, one for each frequency, on its device and in its dtype."""
    return torch.arange(len(frequencies), dtype=frequencies.dtype, device=frequencies.device)
