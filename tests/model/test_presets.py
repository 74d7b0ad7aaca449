"""Published sizes: parameters as their makers and `transformers` count them, caches as measured."""

from dataclasses import replace

import pytest
import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from llmtutor.interop.hf import config_to_hf
from llmtutor.layers.attention import AttentionConfig, LatentAttentionConfig
from llmtutor.model.accounting import cache_bytes, parameters
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import PRESETS, build, preset
from llmtutor.model.published import PUBLISHED

COUNTS = {
    "deepseek-v2": 235_741_434_880,
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v3": 671_026_404_352,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama2-7b": 6_738_415_616,
    "llama3-8b": 8_030_261_248,
    "llama3.2-1b": 1_235_814_400,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-0.5b": 494_032_768,
    "qwen3-0.6b": 596_049_920,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-next-80b-a3b": 79_674_391_296,
    "gemma2-2b": 2_614_341_888,
    "gemma3-1b": 999_885_952,
    "gpt-oss-20b": 20_914_757_184,
    "olmo2-1b": 1_484_916_736,
    "mamba-130m": 129_135_360,
}
"""Numbers in the published weights, a tied matrix once."""
ACTIVE = {
    "mixtral-8x7b": 12.9e9,
    "qwen3-30b-a3b": 3.3e9,
    "qwen3-next-80b-a3b": 3.25e9 + 2 * 151_936 * 2048,  # its card says 3B, of blocks we take it
    "deepseek-v2": 21e9,
    "deepseek-v2-lite": 2.4e9 + 102_400 * 2048,  # the paper counts no embedding here
    "deepseek-v3": 37e9,
    "gpt-oss-20b": 3.61e9 + 0.58e9,  # its model card counts no embedding
}
"""For one token, as table 1 of the paper on Mixtral and the model cards have them."""
NON_EMBEDDING = {"qwen2.5-0.5b": 0.36e9, "qwen3-0.6b": 0.44e9, "gemma2-2b": 2_024_517_888}
"""As the model cards of Qwen and table 1 of the paper on Gemma 2 have them."""
THEIRS = {
    "deepseek_v2": (DeepseekV2Config, DeepseekV2ForCausalLM),
    "deepseek_v3": (DeepseekV3Config, DeepseekV3ForCausalLM),
    "gpt2": (GPT2Config, GPT2LMHeadModel),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
    "gemma3_text": (Gemma3TextConfig, Gemma3ForCausalLM),
    "mixtral": (MixtralConfig, MixtralForCausalLM),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM),
    "qwen3_next": (Qwen3NextConfig, Qwen3NextForCausalLM),
    "mamba": (MambaConfig, MambaForCausalLM),
    "gpt_oss": (GptOssConfig, GptOssForCausalLM),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones_and_those_of_the_library(name) -> None:
    counted = parameters(PUBLISHED[name])
    assert counted.total == COUNTS[name]
    assert counted.active == pytest.approx(ACTIVE.get(name, counted.total), rel=0.02)
    if name in NON_EMBEDDING:
        assert counted.non_embedding == pytest.approx(NON_EMBEDDING[name], rel=0.02)
    values = config_to_hf(PUBLISHED[name])
    kind, model = THEIRS[values["model_type"]]
    with torch.device("meta"):
        theirs = model(kind(**values))
    assert sum(p.numel() for p in theirs.parameters()) == COUNTS[name]


def twin(config: ModelConfig) -> ModelConfig:
    """The same pattern with small sizes; windows as short beside the context as they are large."""
    n_layers = min(config.n_layers, 7)
    mixer = config.blocks[0].mixer
    if isinstance(mixer, LatentAttentionConfig):
        few = {"n_heads": 4, "kv_rank": 5, "nope_dim": 4, "rope_dim": 2, "v_dim": 3, "d_ff": 20}
        few |= {} if mixer.q_rank is None else {"q_rank": 6}
        return config.replace(
            vocab_size=17, max_seq_len=24, d_model=16, n_layers=min(n_layers, 2), **few
        )
    if not isinstance(mixer, AttentionConfig):
        return config.replace(vocab_size=17, max_seq_len=24, d_model=16, n_layers=n_layers)
    heads = {
        "n_heads": 4,
        "n_kv_heads": 4 if mixer.n_kv_heads is None else mixer.n_kv_heads // 2 or 1,
    }
    if mixer.head_dim is not None:
        heads["head_dim"] = 6
    sizes = {"vocab_size": 17, "max_seq_len": 24, "d_model": 16, "d_ff": 20, "n_layers": n_layers}
    small = config.replace(**sizes, **heads)
    blocks = [
        replace(block, mixer=replace(block.mixer, window=block.mixer.window and 5))
        for block in small.blocks
    ]
    return replace(small, blocks=tuple(blocks))


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_the_cache_of_a_twin_holds_what_is_counted(name) -> None:
    config = twin(PUBLISHED[name])
    model = build(config)
    for length in (1, 5, 6, 24):
        caches = model.make_caches(2, length)
        model(torch.zeros(2, length, dtype=torch.int64), cache=caches)
        assert caches.nbytes == cache_bytes(config, 2, length)
        if isinstance(config.blocks[0].mixer, AttentionConfig):
            assert caches.nbytes == sum(c.keys.nbytes + c.values.nbytes for c in caches)
    windows = {getattr(block.mixer, "window", None) for block in config.blocks}
    assert (len(windows) == 2) == name.startswith(("gemma", "gpt-oss"))


def test_names_of_both_kinds_are_known_and_the_nearest_is_offered() -> None:
    assert preset("gpt2") == PRESETS["gpt2"] == PUBLISHED["gpt2"]
    assert preset("gemma3-1b", n_layers=12).blocks[5].mixer.window is None
    with pytest.raises(ValueError, match="unknown preset 'gemma-3-1b'; did you mean 'gemma3-1b'"):
        preset("gemma-3-1b")


def test_the_embedding_of_the_baseline_is_as_large_as_its_sinusoids() -> None:
    """Untied, it starts with deviation 1: a factor √d_model would drown the positions."""
    config = preset("baseline-nano", n_layers=1)
    assert config.position.kind == "sinusoidal" and config.embedding_scale == 1
    assert build(config).embedding.weight.std().item() == pytest.approx(1, abs=0.05)
    assert build(config.replace(tie_weights=True)).embedding.weight.std() < 0.1
