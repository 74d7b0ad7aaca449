"""Chapter 19, ssm: many leaky averages of each channel, with time scales that are learned.

Each channel of the input has ``d_state`` numbers that turn and fade at their own speeds. Nothing of
this depends on the tokens, so the whole layer is a convolution with one long kernel for each
channel, which the fast Fourier transform does at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.checks import check_at_least
from llmtutor.layers.basic import RESIDUAL, Layer, Linear, check_width, tag
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.part import Costs, Load, Site
from llmtutor.layers.recurrent.discretise import Pair, step_sizes, times, zoh_pair
from llmtutor.layers.recurrent.state import StateCache

Spectrum = Literal["lin", "real"]


@dataclass(frozen=True)
class S4DConfig(MixerConfig):
    """``S4D``."""

    kind: ClassVar[str] = "s4d"
    d_state: int = 16
    """Complex numbers in the state of a channel; each stands for itself and its conjugate."""
    spectrum: Spectrum = "lin"
    """Where A begins: "lin" at −1/2 + iπn, "real" at −(n + 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, d_state=self.d_state)

    def build(self, site: Site) -> "S4D":
        """The layer."""
        return S4D(site.d_model, self.d_state, self.spectrum, longest=site.max_seq_len)

    def costs(self, site: Site, load: Load) -> Costs:
        """Products: the state that is read, and the two matrices. Kept of the past: the state."""
        d, n = site.d_model, self.d_state
        matrices = 2 * d * d
        total = matrices + 2 * d + 4 * d * n + 2 * d
        state = 2 * d * n * load.batch * load.itemsize
        return Costs(total, total, 2 * matrices + 4 * d * n, state, self._kept(d, load))

    def _kept(self, d: int, load: Load) -> int:
        """Of a token: what goes into GELU and comes out, both factors of the gate, one spectrum of
        inputs; and once for all texts what the kernel was made of."""
        spectrum = 2 * (load.seq + 1) * d * load.itemsize
        kernel = 5 * self.d_state * d * load.seq * load.itemsize
        return 4 * d * load.tokens_bytes + (load.batch + 1) * spectrum + kernel


class S4D(Layer):
    """A diagonal state space for each channel, then a gated product that mixes the channels.

    With ``A = decay + i · frequency`` and a step Δ for each channel,
    ``h_t = exp(Δ A) h_{t−1} + B̄ x_t`` and ``y_t = 2 Re Σ_n C_n h_{t,n} + D x_t`` (Gu et al. 2022,
    S4D, with B = 1 and a zero-order hold); then ``output(z) · σ(gate(z))`` of ``z = gelu(y)``, as
    in their block. Read from the left it is a recurrence; since nothing in it depends on the
    tokens it is a convolution with ``kernel`` too, and a text without a cache takes that way.
    (batch, seq, d_model) → (batch, seq, d_model).

    ``longest`` bounds the texts in a program that serves any length (``fast.lengths``).

    Raises:
        ValueError: sizes below 1, an input of another width.
    """

    no_decay = ("log_step", "log_decay", "frequency", "readout", "skip")

    def __init__(
        self, d_model: int, d_state: int = 16, spectrum: Spectrum = "lin", *, longest: int = 2048
    ) -> None:
        super().__init__(d_model=d_model, d_state=d_state, spectrum=spectrum)
        check_at_least(1, d_model=d_model, d_state=d_state, longest=longest)
        self.longest = longest
        n = torch.arange(d_state, dtype=torch.get_default_dtype()).expand(d_model, -1)
        decay = torch.full_like(n, 0.5) if spectrum == "lin" else n + 1
        self.log_step = nn.Parameter(step_sizes(d_model))
        self.log_decay = nn.Parameter(decay.log())
        self.frequency = nn.Parameter(math.pi * n if spectrum == "lin" else torch.zeros_like(n))
        self.readout = nn.Parameter(torch.randn(d_model, d_state, 2) * math.sqrt(0.5))
        self.skip = nn.Parameter(torch.ones(d_model))
        self.output = tag(Linear(d_model, d_model, bias=True), RESIDUAL)
        self.gate = Linear(d_model, d_model, bias=True)
        self.convolve: Callable[[Tensor, Tensor], Tensor] = causal_convolution
        """Or a function that gives the same."""

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: StateCache | None = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """The convolution of a whole text; with a ``cache``, the recurrence over what is next."""
        check_width(x, "d_model", len(self.skip))
        mixed = self.convolved(x) if cache is None else self.continued(x, cache)
        z = F.gelu(mixed + self.skip * x)
        return self.output(z) * torch.sigmoid(self.gate(z))

    def convolved(self, x: Float[Tensor, "batch seq d"]) -> Float[Tensor, "batch seq d"]:
        """``y_t = Σ_l kernel_l x_{t−l}``, by the product of two spectra."""
        return self.convolve(x, self.kernel(x.shape[1]))

    def kernel(self, seq: int) -> Float[Tensor, "seq d_model"]:
        """What an input of 1 gives at once, one token later, …: ``2 Re Σ_n C_n Āˡ_n B̄_n``."""
        _, inputs = self._discrete()
        real, imaginary = (2 * part for part in times(inputs, self._read()))
        step = self.log_step.exp()[:, None]
        times_on = torch.arange(seq, device=step.device, dtype=step.dtype)[:, None, None]
        size = (times_on * (-step * self.log_decay.exp())).exp()
        angle = times_on * (step * self.frequency)
        return (size * (real * angle.cos() - imaginary * angle.sin())).sum(-1)

    def continued(
        self, x: Float[Tensor, "batch seq d"], cache: StateCache
    ) -> Float[Tensor, "batch seq d"]:
        """One token after another, from the state in the cache on."""
        real = cache.real(x.shape[1])
        inputs = (x if real is None else x * real)[..., None]
        turn, enter = self._discrete()
        read_real, read_imaginary = (2 * part for part in self._read())
        read = torch.cat((read_real, -read_imaginary), dim=-1)[..., None]  # (d, 2 n, 1)
        h: Pair = cache["real"], cache["imaginary"]
        outputs = []
        for t in range(x.shape[1]):
            kept, new = times(turn, h), [part * inputs[:, t] for part in enter]
            h = kept[0] + new[0], kept[1] + new[1]
            outputs.append((torch.cat(h, dim=-1)[:, :, None] @ read).flatten(1))
        cache.keep(x.shape[1], real=h[0], imaginary=h[1])
        return torch.stack(outputs, dim=1)

    def make_cache(
        self, batch: int, max_len: int, *, starts: Int[Tensor, " batch"] | None = None
    ) -> StateCache:
        """A state of zeros, 2 · d_state numbers for each channel, however long the text will be.

        Raises:
            ValueError: sizes below 1; ``starts`` that are not one integer in 0 … max_len − 1 a row.
        """
        check_at_least(1, batch=batch, max_len=max_len)
        shape = batch, *self.log_decay.shape
        parts = {name: self.log_decay.new_zeros(shape) for name in ("real", "imaginary")}
        return StateCache(max_len, starts=starts, **parts)

    def _discrete(self) -> tuple[Pair, Pair]:
        """Ā and B̄, (d_model, d_state) each."""
        step = self.log_step.exp()[:, None]
        return zoh_pair(-self.log_decay.exp(), self.frequency, step)

    def _read(self) -> Pair:
        """C."""
        return self.readout[..., 0], self.readout[..., 1]


def causal_convolution(
    x: Float[Tensor, "batch seq d"], kernel: Float[Tensor, "seq d"], longest: int | None = None
) -> Float[Tensor, "batch seq d"]:
    """``y_t = Σ_{l ≤ t} kernel_l x_{t−l}``, channel by channel: O(seq log seq) instead of seq².

    The transform knows only circles: on one of ``seq`` places the end of the text would reach
    round to its beginning. Zeros behind both make the circle twice as long, and nothing does.
    ``longest`` bounds seq where the program must not depend on it.

    >>> x, kernel = torch.tensor([[[1.0], [0.0], [2.0]]]), torch.tensor([[1.0], [0.5], [0.25]])
    >>> causal_convolution(x, kernel).flatten()
    tensor([1.0000, 0.5000, 2.2500])
    """
    seq = x.shape[1]
    places = 2 * (seq if longest is None else longest)
    wide = torch.promote_types(x.dtype, torch.float32)
    spectra = [
        torch.fft.rfft(F.pad(part.to(wide), (0, 0, 0, places - seq)), dim=-2)
        for part in (x, kernel)
    ]
    y = torch.fft.irfft(spectra[0] * spectra[1], n=places, dim=-2)
    return y[:, :seq].to(x.dtype)
