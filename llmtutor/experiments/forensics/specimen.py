"""Chapter 24, forensics: the model of LLM-Explorations as its page describes it, and its repairs.

A specimen, not a part to build with: its norm takes one statistic over the whole window, so every
position is divided by a number in which later tokens have a share. Four repairs, each on its own,
lead from it to the block that its page names: pre-norm, a residual stream and a SwiGLU.
"""

from collections.abc import Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from llmtutor.checks import check_name
from llmtutor.layers.attention.differential import LAMBDA_STD, DifferentialAttention
from llmtutor.layers.attention.heads import Attention
from llmtutor.layers.positions.rope import Rope

VOCAB_SIZE, SEQ_LEN = 65, 32
N_LAYERS, N_HEADS, D_MODEL, D_FF = 4, 8, 128, 341
REPAIRS = ("norm over channels", "residual kept", "gate multiplied", "own norms")
"""In the order in which the study makes them. The first closes the leak."""
MIXERS = ("attention", "differential")


class WindowNorm(nn.RMSNorm):
    """RMSNorm with one statistic for a whole window, and a gain for each place in it.

    ``x / RMS(all of x) · gain`` with a gain (seq, d_model). The published layer refuses a shorter
    window; that one uses the first rows of the gain is ours. (batch, seq, d_model) → the same
    shape. **It is not causal.**
    """

    def __init__(self, seq_len: int, d_model: int) -> None:
        super().__init__((seq_len, d_model))

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        """All positions of a window divided by one number."""
        shape = tuple(x.shape[1:])
        return F.rms_norm(x, shape, self.weight[: shape[0]], self.eps)


class ChainedGate(nn.Module):
    """``W₂ (SiLU(h) · V h)`` with ``h = W₁ x``: both factors come from one projection."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.first = nn.Linear(d_model, d_ff)
        self.value = nn.Linear(d_ff, d_ff)
        self.second = nn.Linear(d_ff, d_model)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """(…, d_model) → (…, d_model)."""
        hidden = self.first(x)
        return self.second(F.silu(hidden) * self.value(hidden))


class MultipliedGate(nn.Module):
    """``W₂ (SiLU(W₁ x) · V x)``: SwiGLU as Shazeer (2020) has it, with biases as above."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.first = nn.Linear(d_model, d_ff)
        self.value = nn.Linear(d_model, d_ff)
        self.second = nn.Linear(d_ff, d_model)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """(…, d_model) → (…, d_model)."""
        return self.second(F.silu(self.first(x)) * self.value(x))


class SpecimenBlock(nn.Module):
    """One block. As published, the stream is *replaced* by its norm before each of the two parts.

    ``x = norm(x); x = x + attention(x); x = norm(x); x = x + ffn(x)``, with one norm for both.
    """

    def __init__(self, mixer: nn.Module, repairs: Collection[str], sizes: tuple[int, int, int]):
        super().__init__()
        seq_len, d_model, d_ff = sizes
        self.keeps = "residual kept" in repairs
        gate = MultipliedGate if "gate multiplied" in repairs else ChainedGate
        self.mixer, self.ffn = mixer, gate(d_model, d_ff)

        def norm() -> nn.Module:
            if "norm over channels" in repairs:
                return nn.RMSNorm(d_model)
            return WindowNorm(seq_len, d_model)

        self.first_norm = norm()
        self.second_norm = norm() if "own norms" in repairs else self.first_norm

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        """(batch, seq, d_model) → the same shape."""
        for norm, part in ((self.first_norm, self.mixer), (self.second_norm, self.ffn)):
            normed = norm(x)
            x = (x if self.keeps else normed) + part(normed)
        return x


class Specimen(nn.Module):
    """Ids (batch, seq) → logits (batch, seq, vocab); ``seq`` is at most the window's length.

    As published there is no norm before the logits, and the output layer has a bias. The default
    sizes are the published ones. ``repairs`` are names of ``REPAIRS``; ``mixer`` is one of
    ``MIXERS``. The λ of the differential form have four vectors of two heads' width, which is what
    its published parameter count fits.

    >>> sum(p.numel() for p in Specimen().parameters())
    1112781
    >>> sum(p.numel() for p in Specimen(mixer="differential").parameters())
    1113421

    Raises:
        ValueError: an unknown repair or mixer; a window longer than ``seq_len``.
    """

    def __init__(
        self,
        repairs: Collection[str] = (),
        *,
        mixer: str = "attention",
        vocab_size: int = VOCAB_SIZE,
        seq_len: int = SEQ_LEN,
        n_layers: int = N_LAYERS,
        n_heads: int = N_HEADS,
        d_model: int = D_MODEL,
        d_ff: int = D_FF,
    ) -> None:
        super().__init__()
        for repair in repairs:
            check_name("repair", repair, REPAIRS)
        check_name("mixer", mixer, MIXERS)
        self.seq_len = seq_len
        self.embedding = nn.Embedding(vocab_size, d_model)
        mixers = [_mixer(mixer, d_model, n_heads, layer) for layer in range(n_layers)]
        sizes = seq_len, d_model, d_ff
        self.blocks = nn.ModuleList(SpecimenBlock(part, repairs, sizes) for part in mixers)
        self.output = nn.Linear(d_model, vocab_size)

    def forward(self, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        """Logits of every position."""
        if ids.shape[1] > self.seq_len:
            raise ValueError(f"expected at most {self.seq_len} ids a row, got {ids.shape[1]}")
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.output(x)
        return logits


def _mixer(kind: str, d_model: int, n_heads: int, layer: int) -> Attention:
    """Attention with interleaved RoPE, its projections drawn as torch draws a new ``Linear``."""
    position = Rope(d_model // n_heads)
    if kind == "attention":
        mixer = Attention(d_model, n_heads, position=position)
    else:
        mixer = DifferentialAttention(d_model, n_heads, layer=layer, position=position)
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            vector = LAMBDA_STD * torch.randn(2 * mixer.head_dim)
            setattr(mixer, name, nn.Parameter(vector))
    for projection in (mixer.query, mixer.key, mixer.value, mixer.output):
        nn.init.kaiming_uniform_(projection.weight, a=5**0.5)
    return mixer
