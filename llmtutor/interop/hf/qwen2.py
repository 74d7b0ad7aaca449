"""Chapter 09, the transformer: Qwen 2 and 2.5 (Yang et al. 2024)."""

from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import (
    FULL,
    SLIDING,
    Decoder,
    DecoderFamily,
    llama_parts,
    read_windows,
    write_windows,
)
from llmtutor.interop.hf.keys import Keys
from llmtutor.interop.hf.rope import read_rope, write_rope
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig

FIRST_WINDOW = 28
"""The library's default for the first layer that has a window, if any has."""


class Qwen2(DecoderFamily):
    """A Llama with biases of queries, keys and values alone; upper layers may have a window."""

    model_type: ClassVar[str] = "qwen2"
    architecture: ClassVar[str] = "Qwen2ForCausalLM"
    default_kv_heads: ClassVar[int | None] = 32

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        keys.only({"use_mrope": False})
        decoder = self.read_decoder(keys)
        return self.read_stack(keys, decoder, {"bias": True, "output_bias": False})

    def read_stack(self, keys: Keys, decoder: Decoder, options: dict[str, Any]) -> ModelConfig:
        """Blocks that differ in their window alone, with these ``options`` of attention."""
        options = {**decoder.heads, **options, "position": read_rope(keys, decoder.shape)}
        norm = RMSNormConfig(decoder.eps)
        return decoder.model(
            [
                BlockConfig(AttentionConfig(**options, window=window), decoder.ffn, norm)
                for window in _windows(keys, decoder.n_layers)
            ]
        )

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        window, types = write_windows(config)
        return {
            **self.write_decoder(config),
            "use_sliding_window": window is not None,
            "sliding_window": window,
            "max_window_layers": types.index(SLIDING) if SLIDING in types else len(types),
            "layer_types": types,
            "rope_parameters": write_rope(llama_parts(config, 0)[3]),
        }


def _windows(keys: Keys, n_layers: int) -> list[int | None]:
    """Of each layer; without ``use_sliding_window`` the size of the window says nothing."""
    window = keys.size_or_none("sliding_window", 4096)
    if not keys.flag("use_sliding_window", False):
        window = None
    first = keys.size("max_window_layers", FIRST_WINDOW, least=0)
    types = [SLIDING if window and i >= first else FULL for i in range(n_layers)]
    return read_windows(keys, window, types)
