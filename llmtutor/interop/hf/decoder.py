"""Chapter 09, the transformer: what Llama and the families that followed it have in common.

All of them have RMSNorm, RoPE and a gated feed-forward part, and mostly the same names for things.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmtutor.interop.hf.family import Family, of_kind
from llmtutor.interop.hf.keys import DEEPEST, LONGEST, Keys, listed
from llmtutor.interop.hf.rope import Shape
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.layers.positions import RopeConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig

GATES = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
    "sigmoid": "sigmoid",
}
"""Their activations → ours; the first of several is the one that we write."""
FULL, SLIDING = "full_attention", "sliding_attention"
ATTENTION = {
    "mixer.query": "self_attn.q_proj",
    "mixer.key": "self_attn.k_proj",
    "mixer.value": "self_attn.v_proj",
    "mixer.output": "self_attn.o_proj",
    "mixer.query_norm": "self_attn.q_norm",
    "mixer.key_norm": "self_attn.k_norm",
}
MLP = {"ffn.gate": "mlp.gate_proj", "ffn.up": "mlp.up_proj", "ffn.down": "mlp.down_proj"}


def mlp_inside(ours: str, theirs: str) -> dict[str, str]:
    """``MLP`` for one of several such parts inside of the feed-forward part.

    >>> mlp_inside("shared", "shared_expert")["ffn.shared.up"]
    'mlp.shared_expert.up_proj'
    """
    return {a.replace(".", f".{ours}."): b.replace(".", f".{theirs}.") for a, b in MLP.items()}


@dataclass(frozen=True)
class Decoder:
    """What every one of these files says."""

    vocab_size: int
    """Number of tokens."""
    max_seq_len: int
    """Longest text, in tokens."""
    d_model: int
    """Width of the residual stream."""
    n_layers: int
    """Number of blocks."""
    heads: Mapping[str, Any]
    """n_heads, n_kv_heads and head_dim, None where they are what they would be anyway."""
    head_dim: int
    """Components of a head."""
    ffn: GatedMLPConfig
    """The feed-forward part, without biases."""
    eps: float
    """Of all norms."""
    tie_weights: bool
    """Whether the output layer is the embedding."""

    @property
    def shape(self) -> Shape:
        """What a scaling of RoPE may want to know."""
        return Shape(self.max_seq_len, self.head_dim)

    def model(self, blocks: Sequence[BlockConfig], **rest: Any) -> ModelConfig:
        """The whole configuration; the last norm is that of the blocks."""
        return ModelConfig(
            vocab_size=self.vocab_size,
            max_seq_len=self.max_seq_len,
            d_model=self.d_model,
            blocks=tuple(blocks),
            norm=blocks[0].norm,
            tie_weights=self.tie_weights,
            **rest,
        )


class DecoderFamily(Family):
    """A family of this kind."""

    inside: ClassVar[Mapping[str, str]] = {
        "norm_1": "input_layernorm",
        **ATTENTION,
        "norm_2": "post_attention_layernorm",
        **MLP,
    }
    activation: ClassVar[str] = "hidden_act"
    """The key of the gate's activation."""
    default_activation: ClassVar[str] = "silu"
    default_eps: ClassVar[float] = 1e-6
    default_tied: ClassVar[bool] = False
    default_head_dim: ClassVar[int | None] = None
    """None for hidden_size / num_attention_heads."""
    default_kv_heads: ClassVar[int | None] = None
    """None for num_attention_heads."""
    nulls: ClassVar[tuple[str, ...]] = ("num_key_value_heads", "head_dim")
    """Which of these two may be null, which leaves it to the other sizes."""
    divides: ClassVar[bool] = False
    """Whether the library wants num_attention_heads to divide hidden_size in any case."""

    def read_decoder(self, keys: Keys) -> Decoder:
        """Take what every one of these files says."""
        d_model, n_heads = keys.size("hidden_size"), keys.size("num_attention_heads")
        head_dim = self._head_dim(keys, d_model, n_heads)
        return Decoder(
            vocab_size=keys.size("vocab_size"),
            max_seq_len=keys.size("max_position_embeddings", most=LONGEST),
            d_model=d_model,
            n_layers=keys.size("num_hidden_layers", most=DEEPEST),
            head_dim=head_dim,
            heads={
                "n_heads": n_heads,
                "n_kv_heads": self._kv_heads(keys, n_heads),
                "head_dim": None if head_dim * n_heads == d_model else head_dim,
            },
            ffn=GatedMLPConfig(
                keys.size("intermediate_size"),
                keys.name(self.activation, GATES, self.default_activation),
            ),
            eps=keys.number("rms_norm_eps", self.default_eps),
            tie_weights=keys.flag("tie_word_embeddings", self.default_tied),
        )

    def _kv_heads(self, keys: Keys, n_heads: int) -> int | None:
        """None for as many as there are heads of queries."""
        kv_heads = self._or_null(keys, "num_key_value_heads", self.default_kv_heads)
        if kv_heads is not None and n_heads % kv_heads:
            raise keys.refused(
                "num_key_value_heads", kv_heads, f"a divisor of num_attention_heads = {n_heads}"
            )
        return None if kv_heads == n_heads else kv_heads

    def _head_dim(self, keys: Keys, d_model: int, n_heads: int) -> int:
        if self.divides and d_model % n_heads:
            expected = f"a divisor of hidden_size = {d_model}, as the library wants it"
            raise keys.refused("num_attention_heads", n_heads, expected)
        given = self._or_null(keys, "head_dim", self.default_head_dim)
        head_dim = d_model // n_heads if given is None else given
        if head_dim < 2 or head_dim % 2:
            if given is not None:
                raise keys.refused("head_dim", given, "an even number: RoPE turns pairs")
            expected = f"one that makes heads of hidden_size = {d_model} with an even width"
            raise keys.refused("num_attention_heads", n_heads, expected)
        return head_dim

    def _or_null(self, keys: Keys, key: str, default: int | None) -> int | None:
        if key in self.nulls or key not in keys:
            return keys.size_or_none(key, default)
        return keys.size(key)

    def write_decoder(self, config: ModelConfig) -> dict[str, Any]:
        """The keys that ``read_decoder`` takes."""
        mixer, ffn, norm, _ = llama_parts(config, 0)
        return {
            **self.write_sizes(config),
            "num_attention_heads": mixer.n_heads,
            "num_key_value_heads": mixer.kv_heads,
            "head_dim": mixer.width(config.d_model),
            "intermediate_size": ffn.d_ff,
            self.activation: name_of(ffn.activation, GATES),
            "rms_norm_eps": norm.eps,
        }


def llama_parts(
    config: ModelConfig, i: int
) -> tuple[AttentionConfig, GatedMLPConfig, RMSNormConfig, RopeConfig]:
    """Mixer, feed-forward part, norm and positions of block ``i``.

    Raises:
        ValueError: parts of another kind.
    """
    block, place = config.blocks[i], f"blocks[{i}]"
    mixer = of_kind(AttentionConfig, block.mixer, f"{place}.mixer")
    position = of_kind(RopeConfig, mixer.position, f"{place}.mixer.position")
    ffn = of_kind(GatedMLPConfig, block.ffn, f"{place}.ffn")
    return mixer, ffn, of_kind(RMSNormConfig, block.norm, f"{place}.norm"), position


def name_of(activation: str, names: Mapping[str, str]) -> str:
    """Their name of an activation.

    Raises:
        ValueError: they have none.
    """
    for name, ours in names.items():
        if ours == activation:
            return name
    raise ValueError(f"activation must be one of {listed(names.values())}, got {activation!r}")


# Layers that differ -------------------------------------------------------------------------------


def read_types(keys: Keys, known: tuple[str, str], default: Sequence[str]) -> list[str]:
    """The kind of each layer, from ``layer_types``, or from ``default`` where it is absent."""
    types = keys.take("layer_types", None)
    kinds = list(default) if types is None else types
    if not isinstance(kinds, list) or any(kind not in known for kind in kinds):
        raise keys.refused("layer_types", types, f"a list of {' and '.join(known)}")
    if len(kinds) != len(default):
        expected = f"as many as num_hidden_layers = {len(default)}, it has {len(kinds)}"
        raise keys.refused("layer_types", types, expected)
    return kinds


def read_windows(keys: Keys, window: int | None, default: Sequence[str]) -> list[int | None]:
    """The window of each layer, which looks back only so far, by its kind."""
    kinds = read_types(keys, (FULL, SLIDING), default)
    if window is None and SLIDING in kinds:
        expected = f"only {FULL}: there is no sliding_window, or use_sliding_window is not true"
        raise keys.refused("layer_types", kinds, expected)
    return [window if kind == SLIDING else None for kind in kinds]


def write_windows(config: ModelConfig) -> tuple[int | None, list[str]]:
    """The one window of all layers that have one, and ``layer_types``."""
    windows = [llama_parts(config, i)[0].window for i in range(config.n_layers)]
    one = next((window for window in windows if window is not None), None)
    return one, [FULL if window is None else SLIDING for window in windows]
