"""Chapter 25, linear_attention: attention without the softmax is a matrix that is written to.

Without it, ``Σ_i (q · k_i) v_i`` is ``q (Σ_i k_i v_iᵀ)``: keys and values can be added up before
anybody asks. The sum is the state, a matrix that stays as small as it is. Three functions below
compute the same: token by token, all at once, and in chunks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_at_least, check_name
from llmtutor.layers.basic import RESIDUAL, Layer, Linear, tag
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.norms import RMSNorm
from llmtutor.layers.part import Costs, Load, Site
from llmtutor.layers.recurrent.conv import CausalConv
from llmtutor.layers.recurrent.heads import (
    CHUNK,
    Sizes,
    continued,
    cut,
    empty_past,
    head_width,
    join_chunks,
    n_chunks,
    short_conv,
    split_heads,
    state_dtype,
    tail_size,
)
from llmtutor.layers.recurrent.state import StateCache

Keys = Float[Tensor, "*batch seq d_key"]
Values = Float[Tensor, "*batch seq d_value"]
State = Float[Tensor, "*batch d_key d_value"]


def linear_attention_recurrent(
    q: Keys, k: Keys, v: Values, state: State | None = None
) -> tuple[Values, State]:
    """``S_t = S_{t−1} + k_t v_tᵀ`` and ``o_t = S_tᵀ q_t``, token by token; the last state as well.

    >>> k = torch.eye(2)  # the key of the first token, then that of the second
    >>> v = torch.tensor([[10.0], [20.0]])
    >>> linear_attention_recurrent(torch.ones(2, 2), k, v)
    (tensor([[10.],
            [30.]]), tensor([[10.],
            [20.]]))
    """
    state = k.new_zeros(*k.shape[:-2], k.shape[-1], v.shape[-1]) if state is None else state
    outputs = []
    for t in range(k.shape[-2]):
        query, key, value = (x[..., t : t + 1, :] for x in (q, k, v))
        state = state + key.mT @ value
        outputs.append(query @ state)
    return torch.cat(outputs, dim=-2), state


def linear_attention_parallel(q: Keys, k: Keys, v: Values) -> Values:
    """``(q kᵀ, its future set to 0) v``: what attention computes, where it has no softmax."""
    return (q @ k.mT).tril() @ v


def linear_attention_chunked(
    q: Keys, k: Keys, v: Values, state: State | None = None, chunk: int = CHUNK
) -> tuple[Values, State]:
    """As ``linear_attention_recurrent``; the tokens of a chunk look at each other all at once.

    Work grows with seq · chunk instead of seq², and seq / chunk states are stored.
    """
    seq = k.shape[-2]
    q, k, v = (cut(x, chunk) for x in (q, k, v))
    written = k.mT @ v
    after = written.cumsum(-3)
    if state is not None:
        after = after + state[..., None, :, :]
    out = q @ (after - written) + linear_attention_parallel(q, k, v)
    return join_chunks(out, seq), after[..., -1, :, :]


def elu_plus_one(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``elu(x) + 1``: x + 1 above 0, eˣ below, never 0 (Katharopoulos et al. 2020, eq. 7)."""
    return F.elu(x) + 1


FEATURES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "elu": elu_plus_one,
    "relu": F.relu,
    "silu": F.silu,
    "identity": lambda x: x,
}
"""What queries and keys go through; a sum of weights needs the first two, which are never below
0."""


def divided(x: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch d_value"]:
    """What was read without its last column, divided by it: there stands the sum of the weights."""
    return x[..., :-1] / (x[..., -1:] + 1e-6)


class LinearAttention(Layer):
    """``o_t = S_tᵀ φ(q_t)`` for each head, with ``S_t = Σ_{i ≤ t} φ(k_i) v_iᵀ``, then normalised.

    ``normalise="weights"`` divides by the sum of the weights ``φ(q_t) · φ(k_i)`` (Katharopoulos et
    al. 2020, eqs. 8–12): one more component of every value, always 1, adds it up in the state.
    ``"output"`` takes an RMSNorm of each head's output instead (Qin et al. 2022). With a
    ``conv_width`` queries, keys and values see their last tokens through a short convolution.
    (batch, seq, d_model) → (batch, seq, d_model). ``options`` are the fields of
    ``LinearAttentionConfig``.

    >>> LinearAttention(8, n_heads=2)(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])

    Raises:
        ValueError: what ``LinearAttentionConfig`` refuses; an input that is not (batch, seq,
            d_model), a cache made for other shapes.
    """

    def __init__(self, d_model: int, n_heads: int, *, chunk: int = CHUNK, **options: Any) -> None:
        config = LinearAttentionConfig(n_heads, **options)
        super().__init__(n_heads=n_heads, features=config.features, normalise=config.normalise)
        check_at_least(1, d_model=d_model, chunk=chunk)
        self.n_heads, self.chunk = n_heads, chunk
        self.head_dim = head_width(d_model, n_heads, config.head_dim)
        width = n_heads * self.head_dim
        self.query = Linear(d_model, width)
        self.key = Linear(d_model, width)
        self.value = Linear(d_model, width)
        self.conv = CausalConv(3 * width, config.conv_width) if config.conv_width else None
        self.features = FEATURES[config.features]
        self.norm = RMSNorm(self.head_dim) if config.normalise == "output" else None
        self.output = tag(Linear(width, d_model), RESIDUAL)

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: StateCache | None = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """What each position reads from the state: (batch, seq, d_model) → the same shape."""
        real = continued(x, cache, self._sizes)
        mixed = torch.cat((self.query(x), self.key(x), self.value(x)), dim=-1)
        mixed, tails = short_conv(self.conv, mixed, real, cache)
        q, k, v = (split_heads(part, self.n_heads) for part in mixed.chunk(3, dim=-1))
        q, k = self.features(q), self.features(k)
        if real is not None:
            k = k * real[:, None]
        if self.norm is None:
            v = torch.cat((v, torch.ones_like(v[..., :1])), dim=-1)
        out, state = self._read(q, k, v, cache)
        if cache is not None:
            cache.keep(x.shape[1], state=state, **tails)
        out = divided(out) if self.norm is None else self.norm(out)
        return self.output(out.transpose(1, 2).flatten(2))

    def _read(
        self, q: Tensor, k: Tensor, v: Tensor, cache: StateCache | None
    ) -> tuple[Tensor, Tensor]:
        """In chunks, or the one step of one token; the state is kept in float32 at least."""
        wide = state_dtype(q.dtype)
        past = None if cache is None else cache["state"]
        one_token = cache is not None and q.shape[2] == 1
        form = linear_attention_recurrent if one_token else self._chunked
        out, state = form(q.to(wide), k.to(wide), v.to(wide), past)
        return out.to(q.dtype), state

    def _chunked(self, q: Tensor, k: Tensor, v: Tensor, past: Any) -> tuple[Tensor, Tensor]:
        return linear_attention_chunked(q, k, v, past, self.chunk)

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
        columns = self.head_dim + (self.norm is None)
        state = (batch, self.n_heads, self.head_dim, columns)
        return {"state": state, **tail_size(batch, self.conv)}


@dataclass(frozen=True)
class LinearAttentionConfig(MixerConfig):
    """``LinearAttention``."""

    kind: ClassVar[str] = "linear-attention"
    n_heads: int
    """Heads, each with a state of its own."""
    head_dim: int | None = None
    """Width of keys and of values; None for d_model / n_heads."""
    features: str = "elu"
    """φ, one of ``FEATURES``."""
    normalise: Literal["weights", "output"] = "weights"
    """Divide by the sum of the weights, or take an RMSNorm of each head's output."""
    conv_width: int | None = None
    """Tokens that a short convolution in front looks at, its own included; None for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, n_heads=self.n_heads, head_dim=self.head_dim, conv_width=self.conv_width)
        check_name("features", self.features, FEATURES)
        if self.normalise == "weights" and self.features not in ("elu", "relu"):
            raise ValueError(
                f"with features={self.features!r} weights can be below 0, and their sum 0: take "
                "'elu' or 'relu', or normalise='output'"
            )

    def build(self, site: Site) -> LinearAttention:
        """The layer."""
        chunk = min(CHUNK, site.max_seq_len)
        return LinearAttention(site.d_model, chunk=chunk, **self.values())

    def costs(self, site: Site, load: Load) -> Costs:
        """The state is written and read once for each token, and does not grow with the text."""
        head_dim = head_width(site.d_model, self.n_heads, self.head_dim)
        width = self.n_heads * head_dim
        columns = head_dim + (self.normalise == "weights")
        matrices, state = 4 * site.d_model * width, width * columns
        taps = 3 * width * (self.conv_width or 0)
        n = matrices + taps + (self.normalise == "output") * head_dim
        tail = 3 * width * ((self.conv_width or 1) - 1)
        cache = load.batch * (max(load.itemsize, 4) * state + load.itemsize * tail)
        return Costs(n, n, 2 * matrices + 4 * state, cache, self._kept(site, load, width, columns))

    def _kept(self, site: Site, load: Load, width: int, columns: int) -> int:
        """For the backward pass: what goes into each step, in chunks from φ to what is read."""
        chunk = min(CHUNK, site.max_seq_len)
        mixed = {"elu": 3, "silu": 3, "relu": 2, "identity": 0}[self.features] * width
        convolved = 6 * width if self.conv_width else 0
        read = self.n_heads * (columns + 1) + width
        if self.normalise == "output":
            read = 3 * width + self.n_heads
        state = width * columns // chunk
        cut = 2 * width + self.n_heads * (columns + chunk) + state
        tokens = (mixed + convolved + read) * load.seq
        return load.batch * load.itemsize * (tokens + cut * chunk * n_chunks(load.seq, chunk))
