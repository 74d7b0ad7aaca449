"""Chapter 09, the transformer: configurations with a name.

The nano sizes train in minutes on two cores; their vocabulary is 1,024 tokens, what a small BPE
tokenizer of this book learns, and is meant to be overridden together with the tokenizer.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from llmtutor.checks import check_name
from llmtutor.layers.ffn import swiglu_width
from llmtutor.model.config import ModelConfig
from llmtutor.model.published import PUBLISHED
from llmtutor.model.transformer import Transformer

_GPT2 = PUBLISHED["gpt2"]
_LLAMA = ModelConfig.uniform(32000, 2048, 12, 768, 12, swiglu_width(768), tie_weights=False)
_BASELINE = ModelConfig.uniform(
    *(16000, 512, 8, 512, 16, 2048),
    ffn="gelu",
    position="sinusoidal",
    tie_weights=False,
    init="glorot",  # untied: the embedding has deviation 1 and needs no √d beside sinusoids
)
_NANO = {"vocab_size": 1024, "max_seq_len": 256, "n_layers": 4, "d_model": 128, "n_heads": 4}

PRESETS: Mapping[str, ModelConfig] = MappingProxyType(
    {
        "gpt2": _GPT2,
        "gpt2-nano": _GPT2.replace(**_NANO, d_ff=512),
        "llama": _LLAMA,
        "llama-nano": _LLAMA.replace(**_NANO, d_ff=swiglu_width(128, multiple_of=8)),
        "baseline": _BASELINE,
        "baseline-nano": _BASELINE.replace(**_NANO, d_ff=512),
    }
)
"""Those of the book's own studies: ``gpt2`` is the smallest model of Radford et al. (2019),
``llama`` has the parts of Touvron et al. (2023) at the same depth and width, with Llama's
vocabulary size, ``baseline`` has sinusoidal positions, pre-RMSNorm, plain attention and a
two-matrix feed-forward part."""


def preset(name: str, **overrides: Any) -> ModelConfig:
    """The configuration called ``name``, the book's own or a published one, with fields changed.

    >>> preset("gpt2").n_layers, preset("gpt2", n_layers=2).n_layers
    (12, 2)

    Raises:
        ValueError: an unknown name or field (with the nearest one), or a bad value.
    """
    known = {**PRESETS, **PUBLISHED}
    return known[check_name("preset", name, known)].replace(**overrides)


def build(config: ModelConfig) -> Transformer:
    """The model of a configuration, weights drawn from torch's global generator."""
    return Transformer(config)
