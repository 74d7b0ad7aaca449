"""Chapter 09, the transformer: models that were published, as configurations.

Sizes are those of the ``config.json`` beside the published weights, named with the paper. The book
does not train these models. They are there to be counted, drawn and compared, and for weights of
their shape to be loaded (``interop.hf``). ``preset("llama3-8b", n_layers=6, d_model=64)`` is a
small twin with the same parts; Gemma's needs ``embedding_scale=8.0`` as well, its √d_model.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.attention.latent import LatentAttentionConfig
from llmtutor.layers.clamped import ClampedGatedMLPConfig
from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.moe import MoEConfig, RouterConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.layers.positions import Llama3Scaling, RopeConfig, YarnScaling
from llmtutor.layers.recurrent.delta_net import DeltaNetConfig
from llmtutor.layers.recurrent.mamba import MambaConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig


def _with_windows(config: ModelConfig, every: int, **full: Any) -> ModelConfig:
    """Each block numbered a multiple of ``every`` sees all, and has what ``full`` changes."""
    full_block = config.replace(window=None, **full).blocks[0]
    pattern = [*(every - 1) * config.blocks[:1], full_block]
    return config.replace(blocks=pattern, n_layers=config.n_layers)


def _deepseek(sizes: tuple[int, ...], dense: int, n_dense: int, mscale: float, **parts: Any) -> Any:
    """Latent attention of DeepSeek's widths; ``n_dense`` layers ``dense`` wide, then experts.

    Its context was stretched by YaRN from 4,096 tokens, which scales all scores by ``mscale``.
    """
    vocab_size, n_layers, d_model, n_heads = sizes
    mixer = LatentAttentionConfig(
        n_heads,
        kv_rank=512,
        q_rank=parts["q_rank"],
        nope_dim=128,
        rope_dim=64,
        v_dim=128,
        position=RopeConfig(
            pairing="interleaved", scaling=YarnScaling(40.0, 4096, 32.0, 1.0, sharpen=1.0)
        ),
        scale=(0.1 * mscale * math.log(40.0) + 1) ** 2 * (128 + 64) ** -0.5,
    )
    norm = RMSNormConfig(1e-6)
    ffns = n_dense * [GatedMLPConfig(dense)] + (n_layers - n_dense) * [parts["experts"]]
    return ModelConfig(
        vocab_size=vocab_size,
        max_seq_len=163_840,
        d_model=d_model,
        blocks=tuple(BlockConfig(mixer, ffn, norm) for ffn in ffns),
        norm=norm,
        tie_weights=False,
    )


def _three_to_one(config: ModelConfig, mixer: MixerConfig) -> ModelConfig:
    """Each block whose number is a multiple of four stays as it is, the others get the mixer."""
    pattern = [*3 * config.replace(mixer=mixer).blocks[:1], *config.blocks[:1]]
    return config.replace(blocks=pattern, n_layers=config.n_layers)


Parts = dict[str, Any]
GPT2: Parts = {"ffn": "gelu_tanh", "norm": "layernorm", "position": "learned", "bias": True}
LLAMA3: Parts = {"n_kv_heads": 8, "rope_base": 500_000.0}
QWEN: Parts = {"rope_base": 1_000_000.0, "eps": 1e-6}
GEMMA: Parts = {"activation": "gelu_tanh", "offset": True, "norm_placement": "sandwich"}

PUBLISHED: Mapping[str, ModelConfig] = MappingProxyType(
    {
        # Radford et al. 2019, table 2 (which counts 117M for the smallest; its weights are 124M).
        # openai-community/gpt2, gpt2-medium, gpt2-large, gpt2-xl.
        "gpt2": ModelConfig.uniform(50257, 1024, 12, 768, 12, 3072, **GPT2),
        "gpt2-medium": ModelConfig.uniform(50257, 1024, 24, 1024, 16, 4096, **GPT2),
        "gpt2-large": ModelConfig.uniform(50257, 1024, 36, 1280, 20, 5120, **GPT2),
        "gpt2-xl": ModelConfig.uniform(50257, 1024, 48, 1600, 25, 6400, **GPT2),
        # Touvron et al. 2023b (arXiv 2307.09288); meta-llama/Llama-2-7b-hf.
        "llama2-7b": ModelConfig.uniform(32000, 4096, 32, 4096, 32, 11008, tie_weights=False),
        # Grattafiori et al. 2024 (arXiv 2407.21783), table 3; meta-llama/Meta-Llama-3-8B.
        "llama3-8b": ModelConfig.uniform(
            128256, 8192, 32, 4096, 32, 14336, tie_weights=False, **LLAMA3
        ),
        # meta-llama/Llama-3.2-1B, whose context was stretched from 8,192 tokens.
        "llama3.2-1b": ModelConfig.uniform(
            128256, 131072, 16, 2048, 32, 8192, rope_scaling=Llama3Scaling(32.0, 8192), **LLAMA3
        ),
        # Jiang et al. 2023 (arXiv 2310.06825), table 1; mistralai/Mistral-7B-v0.1.
        "mistral-7b": ModelConfig.uniform(
            32000, 32768, 32, 4096, 32, 14336, n_kv_heads=8, window=4096, tie_weights=False
        ),
        # Jiang et al. 2024 (arXiv 2401.04088), table 1; mistralai/Mixtral-8x7B-v0.1.
        "mixtral-8x7b": ModelConfig.uniform(
            *(32000, 32768, 32, 4096, 32, 14336),
            n_kv_heads=8,
            rope_base=1_000_000.0,
            ffn="moe",
            tie_weights=False,
        ),
        # DeepSeek-AI 2024 (arXiv 2405.04434), section 3.1.2; deepseek-ai/DeepSeek-V2.
        "deepseek-v2": _deepseek(
            (102_400, 60, 5120, 128),
            *(12288, 1, 0.707),
            q_rank=1536,
            experts=MoEConfig(
                GatedMLPConfig(1536),
                160,
                RouterConfig(6, normalise=False, routed_scale=16.0, n_groups=8, top_groups=3),
                shared=GatedMLPConfig(2 * 1536),
            ),
        ),
        # The same, appendix B; deepseek-ai/DeepSeek-V2-Lite.
        "deepseek-v2-lite": _deepseek(
            (102_400, 27, 2048, 16),
            *(10944, 1, 0.707),
            q_rank=None,
            experts=MoEConfig(
                GatedMLPConfig(1408),
                64,
                RouterConfig(6, normalise=False),
                shared=GatedMLPConfig(2 * 1408),
            ),
        ),
        # DeepSeek-AI 2024 (arXiv 2412.19437), section 4.2; deepseek-ai/DeepSeek-V3.
        "deepseek-v3": _deepseek(
            (129_280, 61, 7168, 128),
            *(18432, 3, 1.0),
            q_rank=1536,
            experts=MoEConfig(
                GatedMLPConfig(2048),
                256,
                RouterConfig(
                    *(8, "sigmoid"),
                    routed_scale=2.5,
                    n_groups=8,
                    top_groups=4,
                    group_score="top-2",
                    bias_rate=0.0,
                ),
                shared=GatedMLPConfig(2048),
            ),
        ),
        # Qwen team 2024 (arXiv 2412.15115), table 1; Qwen/Qwen2.5-0.5B.
        "qwen2.5-0.5b": ModelConfig.uniform(
            *(151936, 32768, 24, 896, 14, 4864),
            eps=1e-6,
            mixer=AttentionConfig(14, 2, position=RopeConfig(1e6), bias=True, output_bias=False),
        ),
        # Yang et al. 2025 (arXiv 2505.09388), table 1; Qwen/Qwen3-0.6B.
        "qwen3-0.6b": ModelConfig.uniform(
            *(151936, 40960, 28, 1024, 16, 3072),
            **(QWEN | {"n_kv_heads": 8, "head_dim": 128, "qk_norm": "rmsnorm"}),
        ),
        # The same, table 2; Qwen/Qwen3-30B-A3B.
        "qwen3-30b-a3b": ModelConfig.uniform(
            *(151936, 40960, 48, 2048, 32, 768),
            **(QWEN | {"n_kv_heads": 4, "head_dim": 128, "qk_norm": "rmsnorm"}),
            ffn="moe",
            n_experts=128,
            top_k=8,
            tie_weights=False,
        ),
        # Qwen team 2025; Qwen/Qwen3-Next-80B-A3B-Instruct.
        "qwen3-next-80b-a3b": _three_to_one(
            ModelConfig.uniform(
                *(151936, 262144, 48, 2048, 16, 512),
                n_kv_heads=2,
                head_dim=256,
                qk_norm="rmsnorm",
                gate=True,
                rope_base=10_000_000.0,
                rope_fraction=0.25,
                offset=True,
                eps=1e-6,
                ffn=MoEConfig(
                    *(GatedMLPConfig(512), 512, RouterConfig(10, normalise=True)),
                    *(GatedMLPConfig(512), True),
                ),
                tie_weights=False,
            ),
            DeltaNetConfig(16, 32, head_dim=128, value_dim=128),
        ),
        # Riviere et al. 2024 (arXiv 2408.00118), table 1; google/gemma-2-2b.
        "gemma2-2b": _with_windows(
            ModelConfig.uniform(
                *(256_000, 8192, 26, 2304, 8, 9216),
                **(GEMMA | {"n_kv_heads": 4, "head_dim": 256, "window": 4096, "softcap": 50.0}),
                eps=1e-6,
                embedding_scale=2304**0.5,
                logit_softcap=30.0,
            ),
            every=2,
        ),
        # Gemma team 2025 (arXiv 2503.19786), table 1; google/gemma-3-1b-pt.
        "gemma3-1b": _with_windows(
            ModelConfig.uniform(
                *(262_144, 32768, 26, 1152, 4, 6912),
                **(GEMMA | {"n_kv_heads": 1, "head_dim": 256, "window": 512, "qk_norm": "rmsnorm"}),
                eps=1e-6,
                embedding_scale=1152**0.5,
            ),
            every=6,
            rope_base=1_000_000.0,
        ),
        # OpenAI 2025 (arXiv 2508.10925), table 1; openai/gpt-oss-20b.
        "gpt-oss-20b": _with_windows(
            ModelConfig.uniform(
                *(201_088, 131_072, 24, 2880, 64, 2880),
                n_kv_heads=8,
                head_dim=64,
                bias=True,
                sinks=True,
                window=128,
                rope_base=150_000.0,
                rope_scaling=YarnScaling(32.0, 4096, truncate=False),
                ffn=MoEConfig(ClampedGatedMLPConfig(2880), 32, RouterConfig(4, logit_bias=True)),
                tie_weights=False,
            ),
            every=2,
        ),
        # OLMo team 2025 (arXiv 2501.00656); allenai/OLMo-2-0425-1B.
        "olmo2-1b": ModelConfig.uniform(
            *(100_352, 4096, 16, 2048, 16, 8192),
            **(QWEN | {"rope_base": 500_000.0, "qk_norm": "rmsnorm", "qk_norm_over": "heads"}),
            norm_placement="res-post",
            tie_weights=False,
        ),
        # Gu and Dao 2023 (arXiv 2312.00752), table 12; state-spaces/mamba-130m-hf. A block has no
        # feed-forward part, and nothing bounds a text: 2,048 tokens are what it was trained on.
        "mamba-130m": ModelConfig.uniform(
            *(50280, 2048, 24, 768, 1, 1), mixer=MambaConfig(), ffn="no-ffn"
        ),
    }
)
"""By name and number of parameters, as their makers count them."""
