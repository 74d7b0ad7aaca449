"""Chapter 25, linear_attention: a look at the last few tokens, for each channel by itself.

A layer whose past is one state is poor at "the token just before". A short causal convolution in
front of it gives it that, at the price of the last few inputs in its cache.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.checks import check_at_least
from llmtutor.layers.basic import Layer, check_width

Inputs = Float[Tensor, "batch seq channels"]


class CausalConv(Layer):
    """``y_t = Σ_i weight[:, 0, i] · x_{t − width + 1 + i} (+ bias)``, channel by channel.

    (batch, seq, channels) → the same; the last of ``width`` taps is that of the present token,
    and what stands before the text is 0. ``weight`` has the shape (channels, 1, width) of
    ``torch.nn.Conv1d(channels, channels, width, groups=channels)`` and starts as there, uniform up
    to 1/√width; ``bias`` starts at 0.

    >>> conv = CausalConv(1, width=2)
    >>> conv.weight.data = torch.tensor([[[10.0, 1.0]]])
    >>> conv(torch.tensor([[[1.0], [2.0], [3.0]]])).flatten()
    tensor([ 1., 12., 23.], grad_fn=<ViewBackward0>)

    Raises:
        ValueError: sizes below 1, an input of another width.
    """

    no_decay = ("weight",)  # a filter of a few numbers for each channel, no matrix

    def __init__(self, channels: int, width: int, bias: bool = False) -> None:
        super().__init__(channels=channels, width=width, bias=bias)
        check_at_least(1, channels=channels, width=width)
        self.width = width
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(channels, 1, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Inputs, tail: Inputs | None = None) -> Inputs:
        """The convolution of a text that starts here, or that goes on behind its ``tail``.

        ``tail`` are the width − 1 inputs before x, as ``next_tail`` gave them.
        """
        check_width(x, "channels", len(self.weight))
        seq, padded = x.shape[1], self._behind(x, tail)
        taps = (padded[:, i : i + seq] * self.weight[:, 0, i] for i in range(self.width))
        y = sum(taps, start=torch.zeros((), dtype=x.dtype, device=x.device))
        return y if self.bias is None else y + self.bias

    def next_tail(self, x: Inputs, tail: Inputs | None = None) -> Inputs:
        """The last width − 1 inputs up to now, (batch, width − 1, channels): the next ``tail``."""
        padded = self._behind(x, tail)
        return padded[:, padded.shape[1] - self.width + 1 :]

    def _behind(self, x: Tensor, tail: Tensor | None) -> Tensor:
        if tail is None:
            return F.pad(x, (0, 0, self.width - 1, 0))
        return torch.cat((tail, x), dim=1)
