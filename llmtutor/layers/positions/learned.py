"""Chapter 05, positions: one learned vector for each position, added to the token's embedding."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from llmtutor.checks import check_at_least
from llmtutor.layers.part import Site
from llmtutor.layers.positions import base as scheme


class LearnedPosition(scheme.Position):
    """``x_p + P[p]`` with a table ``weight`` of shape (max_seq_len, d_model), as in GPT-2.

    Proposed for convolutions by Gehring et al. (2017), used by Radford et al. (2019). The table
    starts as a normal of deviation 0.02, as in ``transformers``; the code published with GPT-2 has
    0.01. A position beyond the table does not exist, and one rarely met in training is hardly
    trained.

    Raises:
        ValueError: sizes below 1; positions beyond ``max_seq_len``; ``x`` of another width.
    """

    no_decay: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(self, max_seq_len: int, d_model: int) -> None:
        super().__init__(max_seq_len=max_seq_len, d_model=d_model)
        check_at_least(1, max_seq_len=max_seq_len, d_model=d_model)
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(max_seq_len, d_model), std=0.02))

    def embed(self, x: scheme.Embedded, positions: scheme.Places) -> scheme.Embedded:
        """Add the row of each position: (…, seq, d_model) → the same shape."""
        max_seq_len, d_model = self.weight.shape
        scheme.check_last(x, "d_model", d_model)
        scheme.check_positions(positions, x.shape[-2])
        try:
            return x + F.embedding(positions.long(), self.weight)
        except IndexError:
            low, high = int(positions.min()), int(positions.max())
            raise ValueError(
                f"position {low if low < 0 else high} is beyond the table: max_seq_len = "
                f"{max_seq_len} holds positions 0 … {max_seq_len - 1}; shorten the sequence or "
                "build the model with a longer one"
            ) from None


@dataclass(frozen=True)
class LearnedPositionConfig(scheme.EmbeddingPositionConfig):
    """``LearnedPosition``, as long as the model's longest text."""

    kind: ClassVar[str] = "learned"

    def build(self, site: Site) -> LearnedPosition:
        """The module."""
        return LearnedPosition(site.max_seq_len, site.d_model)

    def table(self, site: Site) -> int:
        """A row for each position."""
        return site.max_seq_len * site.d_model
