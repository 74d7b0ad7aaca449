"""Chapter 09, the transformer: which family of Hugging Face a model belongs to.

A ``config.json`` says it. Our own configuration does not: a model belongs to the first family of
the list that can say all of it, which is found by writing and reading back.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from llmtutor.checks import nearest
from llmtutor.interop.hf.deepseek_v2 import DeepseekV2
from llmtutor.interop.hf.deepseek_v3 import DeepseekV3
from llmtutor.interop.hf.diffllama import DiffLlama
from llmtutor.interop.hf.experts import plain_experts
from llmtutor.interop.hf.family import Family, state_in, state_out
from llmtutor.interop.hf.gemma2 import Gemma2
from llmtutor.interop.hf.gemma3 import Gemma3
from llmtutor.interop.hf.gpt2 import GPT2
from llmtutor.interop.hf.gpt_oss import GptOss
from llmtutor.interop.hf.keys import HARMLESS, ONLY, KeyRefusedError, Keys
from llmtutor.interop.hf.llama import Llama
from llmtutor.interop.hf.mamba import Mamba
from llmtutor.interop.hf.mistral import Mistral
from llmtutor.interop.hf.mixtral import Mixtral
from llmtutor.interop.hf.olmo2 import Olmo2
from llmtutor.interop.hf.qwen2 import Qwen2
from llmtutor.interop.hf.qwen3 import Qwen3
from llmtutor.interop.hf.qwen3_moe import Qwen3Moe
from llmtutor.interop.hf.qwen3_next import Qwen3Next
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.attention.latent import LatentAttentionConfig
from llmtutor.layers.moe import MoEConfig
from llmtutor.layers.positions import RopeConfig
from llmtutor.layers.recurrent.delta_net import DeltaNetConfig
from llmtutor.layers.recurrent.mamba import MambaConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig

T = TypeVar("T")
FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        GPT2(),
        Llama(),
        Mistral(),
        Qwen2(),
        Qwen3(),
        Olmo2(),
        Gemma2(),
        Gemma3(),
        DiffLlama(),
        Mamba(),
        Mixtral(),
        Qwen3Moe(),
        DeepseekV2(),
        DeepseekV3(),
        GptOss(),
        Qwen3Next(),
    )
}
"""By ``model_type``, the simplest first."""


def family_named(model_type: object, where: str = "config.json") -> Family:
    """The family that a file names.

    Raises:
        KeyRefusedError: none, or one that we do not have.
    """
    if isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type]
    near = nearest(model_type, FAMILIES, cutoff=0.6)
    hint = f"; did you mean {near!r}?" if near else ""
    if f"{model_type}_text" in FAMILIES:
        hint = f"; its text part alone is {model_type}_text"
    raise Keys({}, where).refused("model_type", model_type, ", ".join(FAMILIES) + hint)


def config_from_hf(values: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """Our configuration for the content of a ``config.json``; ``where`` names it in messages.

    Raises:
        ValueError: another model type, a missing size, or any key whose value asks for something
            that we do not have, by its name.
    """
    family = family_named(values.get("model_type"), where)
    keys = Keys(values, where)
    keys.only(ONLY)
    try:
        config = family.read(keys)
    except KeyRefusedError:
        raise
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    keys.finish(HARMLESS)
    return config


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The content of ``config.json``, for the first family that can say all of ``config``.

    How the weights were drawn at first is not said, and pairs of RoPE are halves there.

    Raises:
        ValueError: no family can; the message names fields that the nearest one cannot say.
    """
    return _family_and_values(config)[1]


def family_of(config: ModelConfig) -> Family:
    """The first family that can say all of ``config``.

    Raises:
        ValueError: as ``config_to_hf``.
    """
    return _family_and_values(config)[0]


def state_to_hf(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Their names and layouts for our state dict; tied weights are there once, as the embedding.

    Raises:
        ValueError: as ``config_to_hf``.
    """
    return state_out(state, config, family_of(config))


def state_from_hf(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our names and layouts for their state dict: the inverse of ``state_to_hf`` for pairing half.

    Raises:
        ValueError: names missing or left over; a tied output layer that differs from the embedding;
            what ``config_to_hf`` refuses.
    """
    return state_in(state, config, family_of(config))


def _family_and_values(config: ModelConfig) -> tuple[Family, dict[str, Any]]:
    ways = {name: partial(_there_and_back, family) for name, family in FAMILIES.items()}
    name, values = first_way(config, ways, "family of Hugging Face")
    return FAMILIES[name], values


def _there_and_back(family: Family, config: ModelConfig) -> tuple[dict[str, Any], ModelConfig]:
    values = family.write(config)
    return values, config_from_hf(values, where=family.model_type)


Way = Callable[[ModelConfig], tuple[T, ModelConfig]]
"""What is written of a configuration, and what it says when it is read again."""


def first_way(config: ModelConfig, ways: Mapping[str, Way[T]], what: str) -> tuple[str, T]:
    """The first way that loses nothing of ``config``, and what it writes; ``what`` is its kind.

    Raises:
        ValueError: every way loses something; the message names what the nearest one cannot say.
    """
    wanted = plain(config)
    reasons: dict[str, list[str]] = {}
    for name, way in ways.items():
        try:
            values, said = way(wanted)
        except ValueError as error:
            reasons[name] = [str(error)]
            continue
        reasons[name] = list(_differences(wanted, plain(said)))
        if not reasons[name]:
            return name, values
    raise ValueError(_no_way(reasons, what))


def _no_way(reasons: Mapping[str, list[str]], what: str) -> str:
    """What stands in the way, of the one that comes nearest."""
    said = {name: lost for name, lost in reasons.items() if " only, got " in lost[0]}
    start = f"no {what} that we write ({', '.join(reasons)}) has such a model"
    if not said:
        errors = [lost[0] for lost in reasons.values()]
        return f"{start}: {max(errors, key=errors.count)}"
    name = min(said, key=lambda name: len(said[name]))
    return f"{start}; {name}, which is the nearest, has {'; '.join(said[name][:6])}"


def plain(config: ModelConfig) -> ModelConfig:
    """The same model, with None for what it would be anyway, as ``config_from_hf`` gives it."""
    blocks = {block: _plain_block(block, config.d_model) for block in dict.fromkeys(config.blocks)}
    return replace(config, blocks=tuple(blocks[block] for block in config.blocks), init="gpt2")


def _plain_block(block: BlockConfig, d_model: int) -> BlockConfig:
    if isinstance(block.ffn, MoEConfig):
        block = replace(block, ffn=plain_experts(block.ffn))
    mixer = block.mixer
    if isinstance(mixer, LatentAttentionConfig):
        return replace(block, mixer=_plain_latent(mixer, d_model))
    if isinstance(mixer, MambaConfig) and mixer.dt_rank == MambaConfig().rank(d_model):
        return replace(block, mixer=replace(mixer, dt_rank=None))
    if isinstance(mixer, DeltaNetConfig):
        return replace(block, mixer=mixer.in_full(d_model))
    if not isinstance(mixer, AttentionConfig):
        return block
    changes: dict[str, Any] = {}
    if mixer.n_kv_heads == mixer.n_heads:
        changes["n_kv_heads"] = None
    if mixer.head_dim is not None and mixer.head_dim * mixer.n_heads == d_model:
        changes["head_dim"] = None
    if mixer.output_bias == mixer.bias:
        changes["output_bias"] = None
    if mixer.scale is not None and _close(mixer.scale, mixer.width(d_model) ** -0.5):
        changes["scale"] = None
    if isinstance(mixer.position, RopeConfig):
        changes["position"] = replace(mixer.position, pairing="half")
    return replace(block, mixer=replace(mixer, **changes))


def _plain_latent(mixer: LatentAttentionConfig, d_model: int) -> LatentAttentionConfig:
    """With all its widths, which a file says."""
    w = mixer.widths(d_model)
    usual = mixer.scale is not None and _close(mixer.scale, (w.nope + w.rope) ** -0.5)
    return replace(
        mixer,
        kv_rank=w.kv_rank,
        nope_dim=w.nope,
        rope_dim=w.rope,
        v_dim=w.v,
        scale=None if usual else mixer.scale,
    )


def _differences(wanted: ModelConfig, said: ModelConfig) -> Iterator[str]:
    """Each field that was lost on the way, in blocks that are alike only once."""
    ours, theirs = wanted.to_dict(), said.to_dict()
    for name in ours:
        if name != "blocks":
            yield from _lost(ours[name], theirs[name], name)
    pairs = list(zip(wanted.blocks, said.blocks, strict=True))
    for pair in dict.fromkeys(pairs):
        mine, other = (block.to_dict() for block in pair)
        yield from _lost(mine, other, f"blocks[{pairs.index(pair)}]")


def _lost(ours: Any, theirs: Any, place: str) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        for name in ours:
            yield from _lost(ours[name], theirs[name], f"{place}.{name}")
    elif not _close(ours, theirs):
        yield f"{place} = {_shown(theirs)} only, got {_shown(ours)}"


def _close(a: Any, b: Any) -> bool:
    """Equal, or numbers whose difference is one of rounding."""
    numbers = isinstance(a, float) and isinstance(b, float)
    return math.isclose(a, b, rel_tol=1e-12) if numbers else a == b


def _shown(value: Any) -> str:
    return repr(value["kind"] if isinstance(value, dict) else value)
