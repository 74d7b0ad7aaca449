"""Chapter 09, the transformer: everything that decides a model's shape, in one frozen record.

A ``ModelConfig`` is checked when it is made, so a model that cannot be built is refused by the
name of the field at fault. It goes to JSON and back without loss.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Literal, Self

from llmtutor.checks import check_name
from llmtutor.layers.attention.mha import check_groups
from llmtutor.layers.positions import LinearScaling, NtkScaling, YarnScaling
from llmtutor.layers.positions.rope import rotary_dim
from llmtutor.model.init import INITS
from llmtutor.model.parts import FFNS, MIXERS, NORMS, POSITIONS

Scaling = LinearScaling | NtkScaling | YarnScaling
SCALINGS: dict[str, type[Scaling]] = {
    "linear": LinearScaling,
    "ntk": NtkScaling,
    "yarn": YarnScaling,
}
SIZES = ("vocab_size", "max_seq_len", "n_layers", "d_model", "n_heads", "d_ff")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a decoder.

    >>> config = ModelConfig(
    ...     vocab_size=65, max_seq_len=32, n_layers=2, d_model=16, n_heads=4, d_ff=64
    ... )
    >>> ModelConfig.from_json(config.to_json()) == config, config.head_dim
    (True, 4)

    Raises:
        ValueError: a size below 1, heads that do not divide ``d_model``, an odd number of rotated
            channels, a name that nobody registered (with the nearest one), a value of another type.
    """

    vocab_size: int
    """Number of tokens; ids are 0 … vocab_size − 1."""
    max_seq_len: int
    """Longest sequence the model accepts, in tokens."""
    n_layers: int
    """Number of blocks."""
    d_model: int
    """Width of the residual stream."""
    n_heads: int
    """Attention heads; each has d_model / n_heads channels."""
    d_ff: int
    """Inner width of the feed-forward part (of each of its two branches, if it is gated)."""
    mixer: str = "mha"
    """What mixes positions: "mha" or "gqa"."""
    n_kv_heads: int | None = None
    """"gqa": heads of keys and values; None for as many as n_heads."""
    ffn: str = "swiglu"
    """Feed-forward part: an activation for two matrices, or a gated one for three."""
    norm: str = "rmsnorm"
    """Normalisation: "layernorm" or "rmsnorm"."""
    norm_placement: Literal["pre", "post"] = "pre"
    """"pre": x + f(norm(x)), and one more norm before the logits; "post": norm(x + f(x))."""
    position: str = "rope"
    """How order is told: none, learned, sinusoidal, shaw, t5, alibi or rope."""
    rope_base: float = 10000.0
    """RoPE: the slowest pair turns by about 1 / rope_base radians a token."""
    rope_pairing: Literal["interleaved", "half"] = "half"
    """RoPE: pairs are neighbours (the paper) or half a head apart (Hugging Face)."""
    rope_fraction: float = 1.0
    """RoPE: the part of each head's channels that is rotated."""
    rope_scaling: Scaling | None = None
    """RoPE: how frequencies are stretched for sequences longer than those trained on."""
    tie_weights: bool = True
    """The logits are taken with the embedding matrix instead of one of their own."""
    bias: bool = False
    """Biases in the linear layers of the blocks and in LayerNorm; never in the logits."""
    qk_norm: bool = False
    """Queries and keys are normalised in each head before their product."""
    eps: float = 1e-5
    """Added to the variance (or mean square) in every norm."""
    init: str = "gpt2"
    """Initialisation: "gpt2", "glorot" or "glorot-embedding" (see ``model.init``)."""

    def __post_init__(self) -> None:
        self._check_types()
        for name in SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, known in _NAMES.items():
            check_name(name, getattr(self, name), known)
        if self.d_model % self.n_heads:
            raise ValueError(
                f"n_heads must divide d_model, got d_model = {self.d_model} and n_heads = "
                f"{self.n_heads}: {self.d_model / self.n_heads:g} channels a head"
            )
        if self.n_kv_heads is not None:
            if self.mixer != "gqa":
                raise ValueError(
                    f"n_kv_heads = {self.n_kv_heads} needs mixer = 'gqa', got {self.mixer!r}"
                )
            check_groups(self.n_heads, self.n_kv_heads)
        if not self.eps > 0:
            raise ValueError(f"eps must be above 0, got {self.eps}")
        if self.position == "rope":
            rotary_dim(self.head_dim, self.rope_fraction)
            if not self.rope_base > 1:
                raise ValueError(f"rope_base must be above 1, got {self.rope_base}")
        if self.position == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"d_model must be even with sinusoidal positions, got {self.d_model}")

    def _check_types(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "rope_scaling":
                if value is not None and not isinstance(value, tuple(SCALINGS.values())):
                    raise ValueError(f"rope_scaling must be a scaling or None, got {value!r}")
                continue
            if field.name == "n_kv_heads" and value is None:
                continue
            kind = field.type if isinstance(field.type, type) else str  # the rest are Literals
            kind = int if field.name == "n_kv_heads" else kind
            allowed = (int, float) if kind is float else kind
            if not isinstance(value, allowed) or (kind is not bool and isinstance(value, bool)):
                raise ValueError(f"{field.name} must be {kind.__name__}, got {value!r}")

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.d_model // self.n_heads

    @property
    def kv_dim(self) -> int:
        """Channels of the keys (and of the values) of one token, all heads together."""
        return (self.n_kv_heads or self.n_heads) * self.head_dim

    def replace(self, **changes: Any) -> Self:
        """The same configuration with some fields changed, checked again.

        Raises:
            ValueError: an unknown field (with the nearest one) or a bad value.
        """
        for name in changes:
            check_name("field", name, FIELDS)
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only; a scaling becomes a dictionary with its name under "type"."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.rope_scaling is not None:
            kind = next(n for n, cls in SCALINGS.items() if type(self.rope_scaling) is cls)
            values["rope_scaling"] = {"type": kind, **asdict(self.rope_scaling)}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``.

        Raises:
            ValueError: unknown or missing fields, or bad values.
        """
        values = dict(values)
        for name in values:
            check_name("field", name, FIELDS)
        missing = [name for name in SIZES if name not in values]
        if missing:
            raise ValueError(f"the configuration lacks {', '.join(missing)}")
        scaling = values.get("rope_scaling")
        if scaling is not None:
            if not isinstance(scaling, Mapping) or "type" not in scaling:
                raise ValueError(f'rope_scaling must be null or have a "type", got {scaling!r}')
            options = {name: value for name, value in scaling.items() if name != "type"}
            kind = SCALINGS[check_name("rope_scaling type", scaling["type"], SCALINGS)]
            for name in options:
                check_name("rope_scaling option", name, [f.name for f in fields(kind)])
            needed = [f.name for f in fields(kind) if f.default is MISSING]
            if lacking := [name for name in needed if name not in options]:
                raise ValueError(f"rope_scaling {scaling['type']} lacks {', '.join(lacking)}")
            values["rope_scaling"] = kind(**options)
        return cls(**values)

    def to_json(self) -> str:
        """One JSON object, indented, fields in the order of the class."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of ``to_json``.

        Raises:
            ValueError: text that is not a JSON object, and what ``from_dict`` refuses.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"a configuration is a JSON object, got {type(values).__name__}")
        return cls.from_dict(values)


_NAMES: dict[str, Iterable[str]] = {
    "mixer": MIXERS,
    "ffn": FFNS,
    "norm": NORMS,
    "norm_placement": ("pre", "post"),
    "position": POSITIONS,
    "rope_pairing": ("interleaved", "half"),
    "init": INITS,
}
FIELDS = tuple(field.name for field in fields(ModelConfig))
