"""For speed alone: other forms of the formulas, of which torch.compile makes faster programs."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.layers.positions import Position, Rope
from llmtutor.layers.positions.angles import cos_and_sin
from llmtutor.layers.positions.base import check_last, check_positions
from llmtutor.layers.positions.rope import rotate_pairs


def sigmoid_gelu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``gelu_tanh``, by (1 + tanh z)/2 = σ(2z): torch compiles σ to a faster program than tanh."""
    return x * torch.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x * x * x))


def compiled_cross_entropy(
    logits: Float[Tensor, "tokens vocab"], targets: Int[Tensor, " tokens"]
) -> Float[Tensor, ""]:
    """Sum of −log p = log Σ exp(logits) − logit, in a form that compiles to fewer passes.

    The logit of the target is found by comparing, whose gradient needs no tensor of zeros to be
    written into. A target that is no token would be found nowhere: there the loss is nan.
    """
    # In int32, of which a CPU compares as many at once as it adds of float32.
    tokens = torch.arange(logits.shape[-1], dtype=torch.int32, device=logits.device)
    hit = tokens == targets[:, None].to(torch.int32)
    chosen = torch.where(hit, logits, 0.0).sum(-1)
    is_token = (targets >= 0) & (targets < logits.shape[-1])
    return (logits.logsumexp(-1) - torch.where(is_token, chosen, math.nan)).sum()


class TableRope(Position):
    """A ``Rope`` that looks its cosines and sines up in a table of all positions.

    A compiled program would else compute a cosine of its own for every component of every head.
    """

    def __init__(self, rope: Rope, max_seq_len: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.head_dim, self.rotary_dim, self.pairing = rope.head_dim, rope.rotary_dim, rope.pairing
        positions = torch.arange(max_seq_len)
        wide = torch.promote_types(dtype, torch.float32)
        tables = cos_and_sin(positions, rope.frequencies, torch.float64)
        factor = 1.0 if rope.scaling is None else rope.scaling.attention_factor
        self.cos, self.sin = ((factor * table).to(wide) for table in tables)

    def rotate(
        self, x: Float[Tensor, "*batch seq head_dim"], positions: Int[Tensor, " seq"]
    ) -> Float[Tensor, "*batch seq head_dim"]:
        """As ``Rope.rotate``, for positions below ``max_seq_len``."""
        check_last(x, "head_dim", self.head_dim)
        check_positions(positions, x.shape[-2])
        cos, sin = self.cos[positions], self.sin[positions]
        turned = rotate_pairs(x[..., : self.rotary_dim].to(cos.dtype), cos, sin, self.pairing)
        if self.rotary_dim == self.head_dim:
            return turned.to(x.dtype)
        return torch.cat((turned.to(x.dtype), x[..., self.rotary_dim :]), dim=-1)
