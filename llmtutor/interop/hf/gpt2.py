"""Chapter 09, the transformer: GPT-2 (Radford et al. 2019)."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import name_of
from llmtutor.interop.hf.family import TOKENS, Entry, Family, of_kind
from llmtutor.interop.hf.keys import DEEPEST, LONGEST, Keys
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.ffn import MLPConfig
from llmtutor.layers.norms import LayerNormConfig
from llmtutor.layers.positions import LearnedPositionConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}
"""Their activations → ours; the first of several is the one that we write."""
TURNED = "mixer.output", "ffn.up", "ffn.down"
"""Their linear layers keep weights as (d_in, d_out), and q, k, v as one matrix."""


class GPT2(Family):
    """Learned positions, LayerNorm, two matrices with an activation between them; all biases."""

    model_type: ClassVar[str] = "gpt2"
    architecture: ClassVar[str] = "GPT2LMHeadModel"
    prefix: ClassVar[str] = "transformer."
    layer: ClassVar[str] = "h"
    outside: ClassVar[Mapping[str, str]] = {"embedding": "wte", "position": "wpe", "norm": "ln_f"}
    inside: ClassVar[Mapping[str, str]] = {
        "norm_1": "ln_1",
        "mixer.query": "attn.c_attn",
        "mixer.key": "attn.c_attn",
        "mixer.value": "attn.c_attn",
        "mixer.output": "attn.c_proj",
        "norm_2": "ln_2",
        "ffn.up": "mlp.c_fc",
        "ffn.down": "mlp.c_proj",
    }
    buffers: ClassVar[tuple[str, ...]] = (".attn.bias", ".attn.masked_bias")

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        keys.only(
            {
                "scale_attn_weights": True,
                "scale_attn_by_inverse_layer_idx": False,
                "reorder_and_upcast_attn": False,
            }
        )
        d_model, n_heads = keys.size("n_embd"), keys.size("n_head")
        if d_model % n_heads:
            raise keys.refused("n_head", n_heads, f"a divisor of n_embd = {d_model}")
        d_ff = keys.size_or_none("n_inner", None)
        activation = keys.name("activation_function", ACTIVATIONS, "gelu_new")
        norm = LayerNormConfig(keys.number("layer_norm_epsilon", 1e-5))
        block = BlockConfig(
            AttentionConfig(n_heads, bias=True),
            MLPConfig(4 * d_model if d_ff is None else d_ff, activation, bias=True),
            norm,
        )
        return ModelConfig(
            vocab_size=keys.size("vocab_size"),
            max_seq_len=keys.size("n_positions", most=LONGEST),
            d_model=d_model,
            blocks=keys.size("n_layer", most=DEEPEST) * (block,),
            norm=norm,
            position=LearnedPositionConfig(),
            tie_weights=keys.flag("tie_word_embeddings", True),
        )

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys; dropout is written as 0, because we have none."""
        block = config.blocks[0]
        mixer = of_kind(AttentionConfig, block.mixer, "blocks[0].mixer")
        ffn = of_kind(MLPConfig, block.ffn, "blocks[0].ffn")
        return {
            "model_type": self.model_type,
            "architectures": [self.architecture],
            "vocab_size": config.vocab_size,
            "n_positions": config.max_seq_len,
            "n_layer": config.n_layers,
            "n_embd": config.d_model,
            "n_head": mixer.n_heads,
            "n_inner": ffn.d_ff,
            "activation_function": name_of(ffn.activation, ACTIVATIONS),
            "layer_norm_epsilon": getattr(block.norm, "eps", 1e-5),
            "tie_word_embeddings": config.tie_weights,
            **TOKENS,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        }

    def entries(self, config: ModelConfig) -> Iterator[Entry]:
        """Every tensor; queries, keys and values are one."""
        for (ours,), theirs, *_ in super().entries(config):
            module, _, kind = ours.split(".", 2)[-1].rpartition(".")
            if module == "mixer.query":
                parts = (ours.replace("query", part) for part in ("query", "key", "value"))
                yield Entry(tuple(parts), theirs, turned=kind == "weight")
            elif module not in ("mixer.key", "mixer.value"):
                yield Entry((ours,), theirs, turned=kind == "weight" and module in TURNED)
