"""Chapter 09, the transformer: models that were published, as configurations.

Sizes are those of the ``config.json`` beside the published weights, named with the paper. The book
does not train these models. They are there to be counted, drawn and compared, and for weights of
their shape to be loaded (``interop.hf``). ``preset("llama3-8b", n_layers=6, d_model=64)`` is a
small twin with the same parts; Gemma's needs ``embedding_scale=8.0`` as well, its √d_model.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.layers.positions import Llama3Scaling, RopeConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig


def _decoder(
    vocab_size: int,
    max_seq_len: int,
    n_layers: int,
    d_model: int,
    n_heads: int,
    d_ff: int,
    **changes: Any,
) -> ModelConfig:
    """A stack of equal blocks, its sizes in the order of the columns of most tables."""
    return ModelConfig.uniform(
        vocab_size=vocab_size,
        max_seq_len=max_seq_len,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        d_ff=d_ff,
        **changes,
    )


GPT2 = {"ffn": "gelu_tanh", "norm": "layernorm", "position": "learned", "bias": True}
LLAMA3 = {"n_kv_heads": 8, "rope_base": 500_000.0}
QWEN = {"rope_base": 1_000_000.0, "eps": 1e-6}
UNIFORM = {
    # Radford et al. 2019, table 2 (which counts 117M for the smallest; its weights are 124M).
    # openai-community/gpt2, gpt2-medium, gpt2-large, gpt2-xl.
    "gpt2": _decoder(50257, 1024, 12, 768, 12, 3072, **GPT2),
    "gpt2-medium": _decoder(50257, 1024, 24, 1024, 16, 4096, **GPT2),
    "gpt2-large": _decoder(50257, 1024, 36, 1280, 20, 5120, **GPT2),
    "gpt2-xl": _decoder(50257, 1024, 48, 1600, 25, 6400, **GPT2),
    # Touvron et al. 2023b (arXiv 2307.09288); meta-llama/Llama-2-7b-hf.
    "llama2-7b": _decoder(32000, 4096, 32, 4096, 32, 11008, tie_weights=False),
    # Grattafiori et al. 2024 (arXiv 2407.21783), table 3; meta-llama/Meta-Llama-3-8B.
    "llama3-8b": _decoder(128256, 8192, 32, 4096, 32, 14336, tie_weights=False, **LLAMA3),
    # meta-llama/Llama-3.2-1B, whose context was stretched from 8,192 tokens.
    "llama3.2-1b": _decoder(
        128256, 131072, 16, 2048, 32, 8192, rope_scaling=Llama3Scaling(32.0, 8192), **LLAMA3
    ),
    # Jiang et al. 2023 (arXiv 2310.06825), table 1; mistralai/Mistral-7B-v0.1.
    "mistral-7b": _decoder(
        32000, 32768, 32, 4096, 32, 14336, n_kv_heads=8, window=4096, tie_weights=False
    ),
    # Qwen team 2024 (arXiv 2412.15115), table 1; Qwen/Qwen2.5-0.5B.
    "qwen2.5-0.5b": _decoder(
        *(151936, 32768, 24, 896, 14, 4864),
        eps=1e-6,
        mixer=AttentionConfig(14, 2, position=RopeConfig(1e6), bias=True, output_bias=False),
    ),
    # Yang et al. 2025 (arXiv 2505.09388), table 1; Qwen/Qwen3-0.6B.
    "qwen3-0.6b": _decoder(
        151936, 40960, 28, 1024, 16, 3072, n_kv_heads=8, head_dim=128, qk_norm="rmsnorm", **QWEN
    ),
}


def _gemma(attention: AttentionConfig, d_ff: int) -> BlockConfig:
    """A block with norms before and after both sub-layers, whose gains are 1 + weight."""
    return BlockConfig(
        attention,
        GatedMLPConfig(d_ff, "gelu_tanh"),
        RMSNormConfig(1e-6, offset=True),
        "sandwich",
    )


def _gemma2_2b() -> ModelConfig:
    """Riviere et al. 2024 (arXiv 2408.00118), table 1; google/gemma-2-2b."""
    window, full = (
        AttentionConfig(8, 4, 256, RopeConfig(), window=size, softcap=50.0) for size in (4096, None)
    )
    return ModelConfig(
        vocab_size=256_000,
        max_seq_len=8192,
        d_model=2304,
        blocks=13 * (_gemma(window, 9216), _gemma(full, 9216)),
        norm=RMSNormConfig(1e-6, offset=True),
        embedding_scale=2304**0.5,
        logit_softcap=30.0,
    )


def _gemma3_1b() -> ModelConfig:
    """Gemma team 2025 (arXiv 2503.19786), table 1; google/gemma-3-1b-pt."""
    norm = RMSNormConfig(1e-6, offset=True)
    window = AttentionConfig(4, 1, 256, RopeConfig(10_000.0), window=512, qk_norm=norm)
    full = AttentionConfig(4, 1, 256, RopeConfig(1_000_000.0), qk_norm=norm)
    pattern = (*5 * (_gemma(window, 6912),), _gemma(full, 6912))
    return ModelConfig(
        vocab_size=262_144,
        max_seq_len=32768,
        d_model=1152,
        blocks=(5 * pattern)[:26],
        norm=norm,
        embedding_scale=1152**0.5,
    )


def _olmo2_1b() -> ModelConfig:
    """OLMo team 2025 (arXiv 2501.00656); allenai/OLMo-2-0425-1B."""
    norm = RMSNormConfig(1e-6)
    position = RopeConfig(500_000.0)
    mixer = AttentionConfig(16, position=position, qk_norm=norm, qk_norm_over="heads")
    block = BlockConfig(mixer, GatedMLPConfig(8192), norm, "res-post")
    return ModelConfig(
        vocab_size=100_352,
        max_seq_len=4096,
        d_model=2048,
        blocks=16 * (block,),
        norm=norm,
        tie_weights=False,
    )


PUBLISHED: Mapping[str, ModelConfig] = MappingProxyType(
    {
        **UNIFORM,
        "gemma2-2b": _gemma2_2b(),
        "gemma3-1b": _gemma3_1b(),
        "olmo2-1b": _olmo2_1b(),
    }
)
"""By name and number of parameters, as their makers count them."""
