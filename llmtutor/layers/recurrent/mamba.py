"""Chapter 19, ssm: a state that looks at the token before it decides what to keep.

In S4D a token enters the state, and is forgotten, whatever it is. Here each token says how large a
step the state makes, along which direction it enters, and what of the state it reads. That is no
convolution any more; a scan does it.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.checks import check_at_least
from llmtutor.layers.basic import RESIDUAL, Layer, Linear, check_width, tag
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.part import Costs, Load, Site
from llmtutor.layers.recurrent.conv import CausalConv
from llmtutor.layers.recurrent.discretise import step_sizes
from llmtutor.layers.recurrent.scan import Scan, sequential_scan
from llmtutor.layers.recurrent.state import StateCache


@dataclass(frozen=True)
class MambaConfig(MixerConfig):
    """``Mamba``."""

    kind: ClassVar[str] = "mamba"
    d_state: int = 16
    """Numbers in the state of a channel."""
    expand: int = 2
    """Channels inside, as a multiple of d_model."""
    d_conv: int = 4
    """Tokens that the short convolution sees, the present one included."""
    dt_rank: int | None = None
    """Width from which the steps of all channels are made; None for d_model / 16, rounded up."""
    bias: bool = False
    """Of the projections in and out."""
    conv_bias: bool = True
    """Of the short convolution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = ("d_state", "expand", "d_conv", "dt_rank")
        check_at_least(1, **{name: getattr(self, name) for name in sizes})

    def rank(self, d_model: int) -> int:
        """``dt_rank``, or what stands for it."""
        return math.ceil(d_model / 16) if self.dt_rank is None else self.dt_rank

    def build(self, site: Site) -> "Mamba":
        """The layer."""
        return Mamba(site.d_model, longest=site.max_seq_len, **self.values())

    def costs(self, site: Site, load: Load) -> Costs:
        """Kept of a token: its two branches on their way, and of each number of the state how much
        stays and what it is then. Kept of the past: the state, and the inputs of the convolution.
        """
        d, n, rank = site.d_model, self.d_state, self.rank(site.d_model)
        inner = self.expand * d
        matrices = 3 * d * inner + inner * (rank + 2 * n) + rank * inner
        biases = self.bias * (2 * inner + d) + self.conv_bias * inner
        total = matrices + biases + inner * (self.d_conv + 1 + n + 1)
        state = inner * (n + self.d_conv - 1) * load.batch * load.itemsize
        kept = inner * (11 + 2 * n) + rank + 2 * n
        padded = inner * (self.d_conv - 1) * load.batch * load.itemsize
        return Costs(
            total,
            total,
            2 * matrices + 2 * inner * n,
            state,
            kept * load.tokens_bytes + padded,
        )


class Mamba(Layer):
    """A selective state space (Gu and Dao 2023, section 3.4).

    x goes into two branches of ``inner = expand · d_model`` channels. One is the gate. The other
    passes a short causal convolution and SiLU, and gives v; from v each token takes its step Δ (one
    for each channel), its B and its C (d_state numbers, shared by the channels). Then, with
    ``A = −exp(log_decay)``, each channel has ``h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t v_t`` and
    ``y_t = C_t · h_t + D v_t``; the output is a projection of ``y · silu(gate)``.
    (batch, seq, d_model) → (batch, seq, d_model).

    ``B̄ = Δ B`` is what the published code computes; the paper writes a zero-order hold
    (``discretise.zoh``). ``longest`` bounds the texts in a program that serves any length
    (``fast.lengths``); ``options`` are the fields of ``MambaConfig``.

    Raises:
        ValueError: sizes below 1, an input of another width.
    """

    no_decay = ("log_decay", "skip")

    def __init__(self, d_model: int, *, longest: int = 2048, **options: Any) -> None:
        config = MambaConfig(**options)
        super().__init__(d_model=d_model, **options)
        check_at_least(1, d_model=d_model, longest=longest)
        inner, n = config.expand * d_model, config.d_state
        self.longest = longest
        self.sizes = config.rank(d_model), n, n
        self.input = Linear(d_model, 2 * inner, config.bias)
        self.conv = CausalConv(inner, config.d_conv, bias=config.conv_bias)
        self.select = Linear(inner, sum(self.sizes))
        self.step = StepSize(config.rank(d_model), inner)
        self.log_decay = nn.Parameter(torch.arange(1.0, n + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.output = tag(Linear(inner, d_model, config.bias), RESIDUAL)
        self.scan: Scan = sequential_scan
        """The least work, on a processor; or a function that gives the same."""

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: StateCache | None = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """What each token reads from the state; with a ``cache``, x goes on behind it."""
        check_width(x, "d_model", self.output.weight.shape[0])
        u, gate = self.input(x).chunk(2, dim=-1)
        if cache is None:
            y, _ = self._mixed(u, None, None, None)
            return self.output(y * F.silu(gate))
        real = cache.real(x.shape[1])
        u = u if real is None else u * real
        y, state = self._mixed(u, cache["tail"], cache["state"], real)
        cache.keep(x.shape[1], state=state, tail=self.conv.next_tail(u, cache["tail"]))
        return self.output(y * F.silu(gate))

    def _mixed(
        self, u: Tensor, tail: Tensor | None, state: Tensor | None, real: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The outputs of the state space, and the last state. Padding, where ``real`` is 0, gives
        the state nothing."""
        v = F.silu(self.conv(u, tail))
        v = v if real is None else v * real
        step, enter, read = self.selected(v)
        stays = torch.exp(step[..., None] * -self.log_decay.exp())
        new = (step * v)[..., None] * enter[..., None, :]
        h = self.scan(stays, new.to(stays.dtype), state)
        y = (h.to(v.dtype) @ read[..., None]).squeeze(-1) + self.skip * v
        return y, h[:, -1].to(v.dtype)

    def selected(
        self, v: Float[Tensor, "batch seq inner"]
    ) -> tuple[
        Float[Tensor, "batch seq inner"],
        Float[Tensor, "batch seq d_state"],
        Float[Tensor, "batch seq d_state"],
    ]:
        """What each token chooses: its steps Δ, where it enters (B), what it reads (C)."""
        low, enter, read = self.select(v).split(self.sizes, dim=-1)
        return self.step(low), enter, read

    def make_cache(
        self, batch: int, max_len: int, *, starts: Int[Tensor, " batch"] | None = None
    ) -> StateCache:
        """A state of zeros and the last inputs of the convolution, however long the text will be.

        Raises:
            ValueError: sizes below 1; ``starts`` that are not one integer in 0 … max_len − 1 a row.
        """
        check_at_least(1, batch=batch, max_len=max_len)
        inner, n = self.log_decay.shape
        zeros = self.output.weight.new_zeros
        tail = zeros(batch, self.conv.width - 1, inner)
        return StateCache(max_len, starts=starts, state=zeros(batch, inner, n), tail=tail)


class StepSize(Layer):
    """``softplus(x Wᵀ + b)``: a step above 0 for each channel, from a few numbers for all.

    ``weight`` starts uniform up to 1/√d_in; ``bias`` so that steps begin between 0.001 and 0.1 (see
    ``step_sizes``). Neither is drawn anew with a model's matrices, or the time scales would be
    lost.
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in=d_in, d_out=d_out)
        bound = d_in**-0.5
        self.weight = nn.Parameter(torch.empty(d_out, d_in).uniform_(-bound, bound))
        steps = step_sizes(d_out).exp()
        self.bias = nn.Parameter(steps + (-(-steps).expm1()).log())  # softplus of it is steps

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """(…, d_in) → (…, d_out)."""
        return F.softplus(F.linear(x, self.weight, self.bias))
