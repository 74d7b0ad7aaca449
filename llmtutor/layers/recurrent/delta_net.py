"""Chapter 25, linear_attention: the delta rule as a layer that stands in the place of attention.

DeltaNet (Yang et al. 2024a) has a short convolution, keys of length 1 and a write strength for each
token. Gated DeltaNet (2024b) lets the state fade as far as the token says, and gates what is read;
that is the layer of Qwen3-Next.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.checks import check_at_least, check_number
from llmtutor.layers.basic import RESIDUAL, Layer, Linear, tag
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.norms import RMSNorm
from llmtutor.layers.part import Costs, Load, Site
from llmtutor.layers.recurrent.conv import CausalConv
from llmtutor.layers.recurrent.delta import delta_rule_chunked, delta_rule_recurrent, unit_keys
from llmtutor.layers.recurrent.heads import (
    CHUNK,
    Sizes,
    continued,
    empty_past,
    head_width,
    n_chunks,
    short_conv,
    split_heads,
    state_dtype,
    tail_size,
)
from llmtutor.layers.recurrent.state import StateCache


class Fading(Layer):
    """How much of the state is kept at each token: the logarithm of it, for each head.

    ``−exp(log_rate) · softplus(decay(x) + bias)``, as Mamba's step times its rate (Gu and Dao
    2023): rates start uniform in 1 … 16, steps log-uniform in 0.001 … 0.1.
    (batch, seq, d_model) → (batch, seq, n_heads), in float32 at least, never above 0.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__(n_heads=n_heads)
        self.decay = Linear(d_model, n_heads)
        self.log_rate = nn.Parameter(torch.empty(n_heads).uniform_(1, 16).log())
        steps = torch.empty(n_heads).uniform_(math.log(1e-3), math.log(0.1)).exp()
        self.bias = nn.Parameter(steps.expm1().log())  # softplus of it is the step

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq heads"]:
        """The logarithm of the factor on the state."""
        wide = state_dtype(x.dtype)
        steps = F.softplus(self.decay(x).to(wide) + self.bias)
        return -self.log_rate.to(wide).exp() * steps


class DeltaNet(Layer):
    """Each head writes with the delta rule into a state (head_dim, value_dim) and reads from it.

    ``n_heads`` heads of queries and keys, each for equally many of the ``n_value_heads`` heads of
    values that stand next to each other. (batch, seq, d_model) → (batch, seq, d_model). ``options``
    are the fields of ``DeltaNetConfig``.

    >>> DeltaNet(8, n_heads=2)(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])

    Raises:
        ValueError: what ``DeltaNetConfig`` refuses; an input that is not (batch, seq, d_model), a
            cache made for other shapes.
    """

    def __init__(self, d_model: int, n_heads: int, *, chunk: int = CHUNK, **options: Any) -> None:
        config = DeltaNetConfig(n_heads, **options)
        check_at_least(1, d_model=d_model, chunk=chunk)
        super().__init__(n_heads=n_heads, n_value_heads=config.value_heads, fades=config.fades)
        self.n_heads, self.n_value_heads, self.chunk = n_heads, config.value_heads, chunk
        self.head_dim, self.value_dim = config.widths(d_model)
        keys, values = n_heads * self.head_dim, self.n_value_heads * self.value_dim
        self.query = Linear(d_model, keys)
        self.key = Linear(d_model, keys)
        self.value = Linear(d_model, values)
        self.write = Linear(d_model, self.n_value_heads)
        self.conv = CausalConv(2 * keys + values, config.conv_width) if config.conv_width else None
        self.fading = Fading(d_model, self.n_value_heads) if config.fades else None
        self.gate = Linear(d_model, values) if config.output_gate else None
        self.norm = RMSNorm(self.value_dim, config.eps)
        self.output = tag(Linear(values, d_model), RESIDUAL)

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: StateCache | None = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """What each position reads from the state: (batch, seq, d_model) → the same shape."""
        real = continued(x, cache, self._sizes)
        mixed = torch.cat((self.query(x), self.key(x), self.value(x)), dim=-1)
        mixed, tails = short_conv(self.conv, mixed, real, cache)
        q, k, v = self._heads(mixed)
        # Nothing of padding is written: its keys and values are 0.
        write = self.write(x).sigmoid()
        log_keep = None if self.fading is None else self.fading(x).mT
        out, state = self._read(q, k, v, write.mT, log_keep, cache)
        if cache is not None:
            cache.keep(x.shape[1], state=state, **tails)
        out = self.norm(out).transpose(1, 2).flatten(2)
        return self.output(out if self.gate is None else out * F.silu(self.gate(x)))

    def _heads(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit queries, scaled by 1/√head_dim, unit keys, and values; one of each a value head."""
        keys = self.n_heads * self.head_dim
        q, k, v = mixed.split((keys, keys, mixed.shape[-1] - 2 * keys), dim=-1)
        q, k = (unit_keys(split_heads(part, self.n_heads)) for part in (q, k))
        if (shared := self.n_value_heads // self.n_heads) > 1:
            q, k = (part.repeat_interleave(shared, dim=1) for part in (q, k))
        return q * self.head_dim**-0.5, k, split_heads(v, self.n_value_heads)

    def _read(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        write: Tensor,
        log_keep: Tensor | None,
        cache: StateCache | None,
    ) -> tuple[Tensor, Tensor]:
        """In chunks, or the one step of one token; the state is kept in float32 at least."""
        past = None if cache is None else cache["state"]
        dtype, wide = q.dtype, state_dtype(q.dtype)
        q, k, v, write = q.to(wide), k.to(wide), v.to(wide), write.to(wide)
        if cache is not None and q.shape[2] == 1:
            out, state = delta_rule_recurrent(q, k, v, write, log_keep, past)
        else:
            out, state = delta_rule_chunked(q, k, v, write, log_keep, past, chunk=self.chunk)
        return out.to(dtype), state

    def make_cache(
        self, batch: int, max_len: int, *, starts: Int[Tensor, " batch"] | None = None
    ) -> StateCache:
        """A state of zeros for each row, and the tail of the convolution where there is one.

        Raises:
            ValueError: as ``StateCache``, sizes below 1.
        """
        check_at_least(1, batch=batch, max_len=max_len)
        return empty_past(self._sizes(batch), max_len, starts, self.key.weight)

    def _sizes(self, batch: int) -> Sizes:
        """Of what the cache holds."""
        state = (batch, self.n_value_heads, self.head_dim, self.value_dim)
        return {"state": state, **tail_size(batch, self.conv)}


@dataclass(frozen=True)
class DeltaNetConfig(MixerConfig):
    """``DeltaNet``; as it comes it is the gated one."""

    kind: ClassVar[str] = "delta-net"
    n_heads: int
    """Heads of queries and keys."""
    n_value_heads: int | None = None
    """Heads of values, each with its own state: a multiple of ``n_heads``; None for as many."""
    head_dim: int | None = None
    """Width of queries and keys; None for d_model / n_heads."""
    value_dim: int | None = None
    """Width of values; None for ``head_dim``."""
    conv_width: int | None = 4
    """Tokens that a short convolution in front looks at, its own included; None for none."""
    fades: bool = True
    """Whether a token says how much of the state is kept; DeltaNet keeps all."""
    output_gate: bool = True
    """Whether a gate, ``silu`` of a projection of x, lets through what was read."""
    eps: float = 1e-6
    """Of the RMSNorm of each head's output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {name: getattr(self, name) for name in ("n_heads", "n_value_heads", "head_dim")}
        check_at_least(1, **sizes, value_dim=self.value_dim, conv_width=self.conv_width)
        check_number("eps", self.eps, above=0)
        if self.value_heads % self.n_heads:
            raise ValueError(
                "n_value_heads must be a multiple of n_heads, "
                f"got n_value_heads = {self.n_value_heads}, n_heads = {self.n_heads}"
            )

    @property
    def value_heads(self) -> int:
        """Heads of values."""
        return self.n_heads if self.n_value_heads is None else self.n_value_heads

    def widths(self, d_model: int) -> tuple[int, int]:
        """Of keys and of values, in each head.

        Raises:
            ValueError: ``n_heads`` that do not divide ``d_model``, where nothing else is said.
        """
        head_dim = head_width(d_model, self.n_heads, self.head_dim)
        return head_dim, head_dim if self.value_dim is None else self.value_dim

    def in_full(self, d_model: int) -> "DeltaNetConfig":
        """The same with all its sizes said."""
        head_dim, value_dim = self.widths(d_model)
        heads = {"n_value_heads": self.value_heads}
        return replace(self, **heads, head_dim=head_dim, value_dim=value_dim)

    def build(self, site: Site) -> DeltaNet:
        """The layer."""
        return DeltaNet(site.d_model, chunk=min(CHUNK, site.max_seq_len), **self.values())

    def costs(self, site: Site, load: Load) -> Costs:
        """For each token the state is read, written and read again; it does not grow."""
        head_dim, value_dim = self.widths(site.d_model)
        keys, values = self.n_heads * head_dim, self.value_heads * value_dim
        mixed, state = 2 * keys + values, head_dim * values
        matrices = site.d_model * (mixed + values * (1 + self.output_gate))
        matrices += site.d_model * self.value_heads * (1 + self.fades)
        taps = mixed * (self.conv_width or 0)
        n = matrices + taps + 2 * self.fades * self.value_heads + value_dim
        tail = mixed * ((self.conv_width or 1) - 1)
        cache = load.batch * (max(load.itemsize, 4) * state + load.itemsize * tail)
        return Costs(n, n, 2 * matrices + 6 * state, cache, self._kept(site, load))

    def _kept(self, site: Site, load: Load) -> int:
        """For the backward pass: what goes into each step, in chunks from the rule to its output.

        Four squares of a chunk a head: two of products of keys, two of queries with keys; and three
        of what is left. Solving by halves keeps a right side and a solution of half at each level.
        """
        head_dim, value_dim = self.widths(site.d_model)
        heads, chunk = self.value_heads, min(CHUNK, site.max_seq_len)
        keys, values = self.n_heads * head_dim, heads * value_dim
        mixed = (2 * keys + values) * (3 if self.conv_width else 1)
        read = (
            values * (6 if self.output_gate else 3)
            + 2 * self.n_heads
            + heads * (2 + 4 * self.fades)
        )
        both = heads * (head_dim + value_dim)
        levels = chunk.bit_length() - 1
        cut: float = 4 * heads * head_dim + 2 * values + both * (levels + 2)
        cut += heads * ((4 + 3 * self.fades) * chunk + 3) + head_dim * values / chunk
        whole = round(cut * chunk * n_chunks(load.seq, chunk))
        return load.batch * load.itemsize * ((mixed + read) * load.seq + whole)
