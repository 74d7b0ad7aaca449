"""Chapter 24, forensics: parts that look ahead, each by a mistake that is easily made.

A referee's tools are tested as any others are: on cases whose answer is known. Each part here maps
(batch, seq, d_model) to the same shape, and lets a position see later ones.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class MaskOffByOne(nn.Module):
    """Attention whose mask begins one column too late: every position sees the next one."""

    def forward(self, x: Float[Tensor, "batch seq d"]) -> Float[Tensor, "batch seq d"]:
        """Attention of ``x`` to itself."""
        scores = x @ x.mT
        hidden = torch.ones(scores.shape[-2:]).triu(2).bool()
        return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ x


class CircularConvolution(nn.Module):
    """A long convolution by FFT without padding: what falls off the end comes in at the front."""

    def forward(self, x: Float[Tensor, "batch seq d"]) -> Float[Tensor, "batch seq d"]:
        """``x`` with a kernel of powers of one half."""
        seq = x.shape[1]
        kernel = 0.5 ** torch.arange(seq).to(x)
        product = torch.fft.rfft(x, dim=1) * torch.fft.rfft(kernel)[:, None]
        return torch.fft.irfft(product, n=seq, dim=1)


class ExpertChoice(nn.Module):
    """An expert that takes the two tokens of the text that suit it best."""

    def forward(self, x: Float[Tensor, "batch seq d"]) -> Float[Tensor, "batch seq d"]:
        """``x`` where it was chosen, else 0."""
        chosen = x[..., 0].topk(2, dim=1).indices
        taken = torch.zeros(x.shape[:2]).to(x).scatter(1, chosen, 1.0)
        return x * taken[..., None]


class SequenceProjection(nn.Module):
    """Linformer's keys: all positions mixed into two, at which every query looks."""

    def forward(self, x: Float[Tensor, "batch seq d"]) -> Float[Tensor, "batch seq d"]:
        """Attention of ``x`` to two mixtures."""
        mixed = torch.linspace(-1, 1, 2 * x.shape[1]).to(x).view(2, -1) @ x
        return (x @ mixed.mT).softmax(-1) @ mixed


class MaskedTooLate(nn.Module):
    """Keys mixed of all positions, and a causal mask over the *mixtures*: it hides whole mixtures
    from early positions, and what is in the others has seen everything. As found in a public
    project; as many mixtures as positions here."""

    def forward(self, x: Float[Tensor, "batch seq d"]) -> Float[Tensor, "batch seq d"]:
        """Attention of ``x`` to the mixtures up to its own number."""
        seq = x.shape[1]
        mixed = torch.linspace(-1, 1, seq * seq).to(x).view(seq, seq) @ x
        hidden = torch.ones(seq, seq).triu(1).bool()
        return (x @ mixed.mT).masked_fill(hidden, -torch.inf).softmax(-1) @ mixed


class Around(nn.Module):
    """A small language model around a part: embedding, ``x + part(x)``, output."""

    def __init__(self, part: nn.Module, vocab_size: int, d_model: int = 16) -> None:
        super().__init__()
        self.embedding, self.part = nn.Embedding(vocab_size, d_model), part
        self.output = nn.Linear(d_model, vocab_size)

    def forward(self, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        """Ids → logits."""
        x = self.embedding(ids)
        logits: Tensor = self.output(x + self.part(x))
        return logits


PLANTED: dict[str, Callable[[], nn.Module]] = {
    "mask off by one": MaskOffByOne,
    "convolution that wraps around": CircularConvolution,
    "expert that chooses its tokens": ExpertChoice,
    "projection over the sequence": SequenceProjection,
    "projection, masked afterwards": MaskedTooLate,
}
"""By what went wrong."""
