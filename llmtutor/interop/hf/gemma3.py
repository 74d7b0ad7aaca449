"""Chapter 09, the transformer: Gemma 3 (Gemma team 2025), the part that reads and writes text."""

from typing import Any, ClassVar

from llmtutor.interop.hf.decoder import FULL, SLIDING, llama_parts, read_windows
from llmtutor.interop.hf.gemma2 import WINDOW, GemmaFamily
from llmtutor.interop.hf.keys import Keys
from llmtutor.interop.hf.rope import Shape, one_rope, same_again, write_rope
from llmtutor.layers.positions import RopeConfig
from llmtutor.model.config import ModelConfig

GLOBAL, LOCAL = 1_000_000.0, 10_000.0
"""Bases of RoPE in layers without and with a window."""
PATTERN = 6
"""Every sixth layer sees everything."""


class Gemma3(GemmaFamily):
    """Five layers with a window to one without, each kind with its own RoPE; norms of q and k."""

    model_type: ClassVar[str] = "gemma3_text"
    architecture: ClassVar[str] = "Gemma3ForCausalLM"

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        # The library keeps this key and does not use it.
        keys.only({"attn_logit_softcapping": None})
        gemma = self.read_gemma(keys)
        decoder = gemma.decoder
        window = keys.size_or_none("sliding_window", WINDOW)
        full, sliding = _ropes(keys, decoder.shape)
        return gemma.model(
            [
                gemma.block(window, sliding if window else full, qk_norm=gemma.norm)
                for window in _windows(keys, decoder.n_layers, window)
            ]
        )

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys; a kind of layer that the model does not have gets the library's default."""
        values = self.write_gemma(config)
        ropes = {FULL: RopeConfig(GLOBAL), SLIDING: RopeConfig(LOCAL)}
        for i, kind in reversed(list(enumerate(values["layer_types"]))):
            ropes[kind] = llama_parts(config, i)[3]
        return {
            **values,
            "rope_parameters": {kind: write_rope(rope) for kind, rope in ropes.items()},
        }


def _windows(keys: Keys, n_layers: int, window: int | None) -> list[int | None]:
    """Of each layer; a pattern may stand beside ``layer_types`` if it says the same."""
    stated = "sliding_window_pattern" in keys
    pattern = keys.size("sliding_window_pattern", PATTERN)
    if keys.left.get("layer_types") is None:
        keys.only({"_sliding_window_pattern": pattern})
    keys.take("_sliding_window_pattern", None)  # the library writes it, and never reads it
    types = _types(pattern, n_layers)
    windows = read_windows(keys, window, types)
    if stated and types != [FULL if window is None else SLIDING for window in windows]:
        raise keys.refused("sliding_window_pattern", pattern, "what layer_types says, or nothing")
    return windows


def _types(pattern: int, n_layers: int) -> list[str]:
    return [SLIDING if (i + 1) % pattern else FULL for i in range(n_layers)]


def _ropes(keys: Keys, shape: Shape) -> tuple[RopeConfig, RopeConfig]:
    """RoPE of layers without and with a window."""
    bases = {
        FULL: keys.number("rope_theta", above=1) if "rope_theta" in keys else None,
        SLIDING: (
            keys.number("rope_local_base_freq", above=1) if "rope_local_base_freq" in keys else None
        ),
    }
    defaults = {FULL: GLOBAL, SLIDING: LOCAL}
    new, old = keys.inside("rope_parameters"), keys.inside("rope_scaling")
    if new is None:
        sliding = RopeConfig(bases[SLIDING] or LOCAL)
        if old is None:
            return RopeConfig(bases[FULL] or GLOBAL), sliding
        return one_rope(old, bases[FULL], shape, GLOBAL), sliding
    found = {}
    for kind, default in defaults.items():
        options = new.inside(kind)
        if options is None:
            found[kind] = RopeConfig(bases[kind] or default)
            continue
        # The library looks for it beside the two kinds of layers, where it does not stand.
        options.only({"truncate": True})
        found[kind] = one_rope(options, bases[kind], shape, default)
    new.finish()
    if old is not None:
        same_again(old, found[FULL], bases[FULL], shape, GLOBAL)
    return found[FULL], found[SLIDING]
