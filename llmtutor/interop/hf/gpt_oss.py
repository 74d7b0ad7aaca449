"""Chapter 18, moe: gpt-oss (OpenAI 2025), in the numbers that its files become when opened.

Its published files keep the experts in 4 bits (MXFP4), which we do not read; the library writes
them in 16 or 32 bits, all experts of a layer in one tensor.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from llmtutor.interop.hf.decoder import (
    ATTENTION,
    FULL,
    SLIDING,
    DecoderFamily,
    llama_parts,
    read_windows,
    write_windows,
)
from llmtutor.interop.hf.experts import mixture, read_experts
from llmtutor.interop.hf.family import Entry, of_kind
from llmtutor.interop.hf.keys import Keys
from llmtutor.interop.hf.rope import read_rope, write_rope
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.clamped import ClampedGatedMLPConfig
from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig

WINDOW = 128
"""The library's default."""
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
THETA = 150_000.0
"""RoPE of a file that says nothing of it."""


class ExpertsEntry(Entry):
    """All experts of a layer: theirs is (experts, d_in, d_out), a bias (experts, d_out).

    ``heads`` matrices of each expert lie in it, their outputs in turn.
    """

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Theirs, of ours."""
        n = self.heads
        each = [torch.stack(list(parts[i : i + n]), 1) for i in range(0, len(parts), n)]
        stacked = torch.stack([matrix.flatten(0, 1) for matrix in each])
        return stacked.mT if stacked.ndim == 3 else stacked

    def cut(self, value: Tensor) -> list[Tensor]:
        """Ours, of theirs.

        Raises:
            ValueError: another number of experts, or outputs that are not so many matrices'.
        """
        n_experts = len(self.ours) // self.heads
        if value.ndim < 2 or len(value) != n_experts or value.shape[-1] % self.heads:
            raise ValueError(
                f"{self.theirs} has shape {tuple(value.shape)}, expected {n_experts} experts first "
                f"and a multiple of {self.heads} last"
            )
        each = value.mT if value.ndim == 3 else value
        parts = each.unflatten(1, (-1, self.heads)).transpose(1, 2).flatten(0, 1)
        return [part.contiguous() for part in parts]


class GptOss(DecoderFamily):
    """Sinks, windows in every other layer, YaRN, and experts whose activations are bounded."""

    model_type: ClassVar[str] = "gpt_oss"
    architecture: ClassVar[str] = "GptOssForCausalLM"
    default_eps: ClassVar[float] = 1e-5
    default_head_dim: ClassVar[int | None] = 64
    default_kv_heads: ClassVar[int | None] = 8
    nulls: ClassVar[tuple[str, ...]] = ()
    inside: ClassVar[Mapping[str, str]] = {
        "norm_1": "input_layernorm",
        **ATTENTION,
        "mixer": "self_attn",
        "norm_2": "post_attention_layernorm",
        "ffn.router.linear": "mlp.router",
        # Replaced by ``entries``.
        **{f"ffn.experts.*.{part}": "mlp.experts" for part in ("gate", "up", "down")},
    }

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        decoder = self.read_decoder(keys)
        if decoder.ffn.activation != "silu":
            raise keys.refused("hidden_act", decoder.ffn.activation, "silu, which is all we have")
        if not keys.left.get("rope_parameters") and not keys.left.get("rope_scaling"):
            keys.left["rope_parameters"] = dict(YARN)
        position = read_rope(keys, decoder.shape, default=THETA)
        keys.take("initial_context_length", None)  # says what YaRN says
        expert = ClampedGatedMLPConfig(
            decoder.ffn.d_ff,
            limit=_with_point(keys, "swiglu_limit", 7.0),
            slope=_with_point(keys, "swiglu_alpha", 1.702),
        )
        ffn = read_experts(keys, expert, "num_local_experts", 128, top_k=4, logit_bias=True)
        keys.only({"experts_per_token": ffn.router.top_k})  # of the first files, which say it twice
        bias = keys.flag("attention_bias", True)
        types = [FULL if i % 2 else SLIDING for i in range(decoder.n_layers)]
        windows = read_windows(keys, keys.size_or_none("sliding_window", WINDOW), types)
        options = {**decoder.heads, "position": position, "bias": bias, "sinks": True}
        norm = RMSNormConfig(decoder.eps)
        return decoder.model(
            [BlockConfig(AttentionConfig(**options, window=w), ffn, norm) for w in windows]
        )

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        ffn, dense = mixture(config, 0), _as_llama(config)
        mixer, _, _, rope = llama_parts(dense, 0)
        expert = _expert(config)
        window, types = write_windows(dense)
        return {
            **self.write_decoder(dense),
            "attention_bias": mixer.bias,
            "num_local_experts": ffn.n_experts,
            "num_experts_per_tok": ffn.router.top_k,
            "swiglu_limit": expert.limit,
            "swiglu_alpha": expert.slope,
            "sliding_window": WINDOW if window is None else window,
            "layer_types": types,
            "rope_parameters": write_rope(rope),
        }

    def entries(self, config: ModelConfig) -> Iterator[Entry]:
        """Every tensor; the experts of a layer lie in four."""
        for entry in super().entries(config):
            if ".ffn.experts." not in entry.ours[0]:
                yield entry
        for i in range(config.n_layers):
            n = mixture(config, i).n_experts
            for theirs, ours in (("gate_up_proj", ("gate", "up")), ("down_proj", ("down",))):
                for kind, end in (("weight", ""), ("bias", "_bias")):
                    start = f"blocks.{i}.ffn.experts"
                    names = tuple(f"{start}.{e}.{part}.{kind}" for e in range(n) for part in ours)
                    name = f"{self.prefix}{self.layer}.{i}.mlp.experts.{theirs}{end}"
                    yield ExpertsEntry(names, name, heads=len(ours))


def _with_point(keys: Keys, key: str, default: float) -> float:
    """A number above 0; the library takes no whole one, 7, in its place, only 7.0."""
    if isinstance(value := keys.left.get(key), int):
        raise keys.refused(key, value, "a number above 0, written with a point, such as 7.0")
    return keys.number(key, default)


def _expert(config: ModelConfig) -> ClampedGatedMLPConfig:
    """An expert of the first block.

    Raises:
        ValueError: one of another kind.
    """
    return of_kind(ClampedGatedMLPConfig, mixture(config, 0).expert, "blocks[0].ffn.expert")


def _as_llama(config: ModelConfig) -> ModelConfig:
    """The same with a plain gated part, as wide as an expert, in the place of the experts."""
    plain = GatedMLPConfig(_expert(config).d_ff)
    return replace(config, blocks=tuple(replace(block, ffn=plain) for block in config.blocks))
