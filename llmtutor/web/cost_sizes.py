"""Chapter 09, the transformer: the sizes of a model as plain numbers, on which a page can count.

``page/costs.js`` does there what ``model.accounting`` does on a configuration, and knows less:
attention with heads or of latents, dense layers or experts, and no more. The rest is refused.
"""

from collections.abc import Sequence
from typing import Any

from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.attention.latent import LatentAttentionConfig
from llmtutor.layers.clamped import ClampedGatedMLPConfig
from llmtutor.layers.ffn import GatedMLPConfig, MLPConfig
from llmtutor.layers.moe import MoEConfig
from llmtutor.layers.norms import LayerNormConfig, NormConfig, RMSNormConfig
from llmtutor.layers.positions import LearnedPositionConfig, NoPositionConfig, RopeConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig

KNOWS = "the widget counts attention with heads or of latents, and dense layers or experts"
GATED: dict[type, bool] = {MLPConfig: False, GatedMLPConfig: True, ClampedGatedMLPConfig: True}
Sizes = dict[str, Any]


def cost_sizes(config: ModelConfig) -> Sizes:
    """Numbers and words by the names of a configuration's fields, as JSON has them.

    0 is "none" (``window``, ``full_every``, ``q_rank``, ``n_shared``, ``n_dense``), or what
    follows: ``head_dim`` from d_model / n_heads, ``n_kv_heads`` from n_heads. Each
    ``full_every``-th block sees past the window; the first ``n_dense`` blocks have no experts.
    What the model does not have is there all the same, in plain sizes, so that a reader can switch
    to it: latents beside heads, experts beside a dense layer.

    >>> from llmtutor.model.presets import preset
    >>> sizes = cost_sizes(preset("gemma3-1b"))
    >>> sizes["window"], sizes["full_every"], sizes["norms"], sizes["kv_rank"]
    (512, 6, 4, 288)

    Raises:
        ValueError: a part that ``page/costs.js`` cannot count, named by its place.
    """
    learned = config.position is not None
    if learned and type(config.position) is not LearnedPositionConfig:
        raise _unknown("position", config.position)
    places = [f"blocks[{i}]" for i in range(config.n_layers)]
    blocks = list(zip(config.blocks, places, strict=True))
    mixers = [_mixer(b.mixer, config.d_model, learned, f"{p}.mixer") for b, p in blocks]
    norms = [_norms(b, p) for b, p in blocks]
    if config.norm is not None and _biased(config.norm, "norm") != norms[0]["norm_bias"]:
        raise ValueError(f"the last norm is not like those of the blocks: {KNOWS}")
    return {
        "vocab_size": config.vocab_size,
        "max_seq_len": config.max_seq_len,
        "d_model": config.d_model,
        "n_layers": config.n_layers,
        "tie_weights": config.tie_weights,
        "learned_positions": learned,
        **_alike(mixers, ".mixer"),
        **_windows([getattr(b.mixer, "window", None) for b in config.blocks]),
        **_feed_forward(config.blocks),
        **_alike(norms, ""),
        "last_norm": config.norm is not None,
    }


def _mixer(mixer: Any, d_model: int, learned: bool, place: str) -> Sizes:
    """Sizes of both kinds of attention; those of the other kind are what a plain one would have."""
    latent = type(mixer) is LatentAttentionConfig
    if not latent and type(mixer) is not AttentionConfig:
        raise _unknown(place, mixer)
    scheme = NoPositionConfig if learned and not latent else RopeConfig
    if type(mixer.position) is not scheme:
        raise _unknown(f"{place}.position", mixer.position)
    if latent:
        return _latent(mixer, d_model, place)
    if mixer.gate:
        raise _unknown(f"{place}.gate", True)
    if mixer.qk_norm is not None and type(mixer.qk_norm) is not RMSNormConfig:
        raise _unknown(f"{place}.qk_norm", mixer.qk_norm)
    width = mixer.width(d_model)
    rank = max(1, min(d_model // 4, 2 * mixer.n_heads * width))
    other = LatentAttentionConfig(mixer.n_heads, rank, nope_dim=width)
    return _latent(other, d_model, place) | {
        "attention": "heads",
        "n_kv_heads": mixer.n_kv_heads or 0,
        "head_dim": mixer.head_dim or 0,
        "bias": mixer.bias,
        "output_bias": mixer.biased_output,
        "qk_norm": "none" if mixer.qk_norm is None else mixer.qk_norm_over,
        "sinks": mixer.sinks,
    }


def _latent(mixer: LatentAttentionConfig, d_model: int, place: str) -> Sizes:
    if type(mixer.latent_norm) is not RMSNormConfig:
        raise _unknown(f"{place}.latent_norm", mixer.latent_norm)
    widths = mixer.widths(d_model)
    return {
        "attention": "latent",
        "n_heads": mixer.n_heads,
        "n_kv_heads": 0,
        "head_dim": widths.nope,
        "bias": False,
        "output_bias": False,
        "qk_norm": "none",
        "sinks": False,
        "kv_rank": widths.kv_rank,
        "q_rank": widths.q_rank or 0,
        "nope_dim": widths.nope,
        "rope_dim": widths.rope,
        "v_dim": widths.v,
    }


def _windows(windows: Sequence[int | None]) -> Sizes:
    """One window for all blocks but each k-th, which sees everything."""
    window = next(filter(None, windows), 0)
    every = windows.index(None) + 1 if window and None in windows else 0
    for i, own in enumerate(windows, 1):
        if (own or 0) != (0 if every and i % every == 0 else window):
            raise ValueError(
                f"blocks[{i - 1}].mixer.window is {own!r}: {KNOWS}, with one window for all blocks "
                "but each k-th, which has none"
            )
    return {"window": window, "full_every": every}


def _feed_forward(blocks: Sequence[BlockConfig]) -> Sizes:
    """Some dense layers, then experts alone; or dense layers alone."""
    ffns = [block.ffn for block in blocks]
    n_dense = next((i for i, ffn in enumerate(ffns) if type(ffn) is MoEConfig), len(ffns))
    for i, ffn in enumerate(ffns):
        if ffn != ffns[0 if i < n_dense else n_dense]:
            raise ValueError(f"blocks[{i}].ffn is not like those before it: {KNOWS}")
    if n_dense == len(ffns):
        style, width = _dense(ffns[0], "blocks[0].ffn")
        plain = {"n_experts": 8, "top_k": 2, "d_expert": width, "n_shared": 0, "router_bias": False}
        return {"ffn": "dense", **style, "d_ff": width, "n_dense": 0, **plain}
    style, experts = _experts(ffns[n_dense], f"blocks[{n_dense}].ffn")
    width = experts["d_expert"] * (experts["top_k"] + experts["n_shared"])  # what a token uses
    if n_dense:
        dense_style, width = _dense(ffns[0], "blocks[0].ffn")
        _alike([dense_style, style], ".ffn")
    return {"ffn": "experts", **style, "d_ff": width, "n_dense": n_dense, **experts}


def _experts(ffn: Any, place: str) -> tuple[Sizes, Sizes]:
    if ffn.shared_gate:
        raise _unknown(f"{place}.shared_gate", True)
    style, width = _dense(ffn.expert, f"{place}.expert")
    shared_style, shared = style, 0
    if ffn.shared is not None:
        shared_style, shared = _dense(ffn.shared, f"{place}.shared")
    if shared % width or shared_style != style:
        raise ValueError(
            f"{place}.shared is {shared} wide, expected a multiple of an expert's {width}, and "
            f"the same kind of layer: {KNOWS}"
        )
    return style, {
        "n_experts": ffn.n_experts,
        "top_k": ffn.router.top_k,
        "d_expert": width,
        "n_shared": shared // width,
        "router_bias": ffn.router.logit_bias,
    }


def _dense(ffn: Any, place: str) -> tuple[Sizes, int]:
    """Whether there are a gate and biases, and the width."""
    if type(ffn) not in GATED:
        raise _unknown(place, ffn)
    return {"gated": GATED[type(ffn)], "ffn_bias": ffn.bias}, ffn.d_ff


def _norms(block: BlockConfig, place: str) -> Sizes:
    return {"norms": block.n_norms, "norm_bias": _biased(block.norm, f"{place}.norm")}


def _biased(norm: NormConfig, place: str) -> bool:
    if type(norm) not in (RMSNormConfig, LayerNormConfig):
        raise _unknown(place, norm)
    return isinstance(norm, LayerNormConfig) and norm.bias


def _alike(found: Sequence[Sizes], place: str) -> Sizes:
    """What all blocks have."""
    first = found[0]
    for own in found:
        if own != first:
            name = next(name for name in own if own[name] != first[name])
            raise ValueError(
                f"{name} of the blocks{place} is {first[name]!r} here and {own[name]!r} there: "
                f"{KNOWS}, and one {name} in all blocks"
            )
    return first


def _unknown(place: str, part: Any) -> ValueError:
    name = getattr(part, "kind", part)
    return ValueError(f"{place} is {name!r}, which the widget cannot count: {KNOWS}")
