"""Chapter 23, export: what the engine of the page can run, and by which name it refuses the rest.

The engine knows the modern block and nothing else: RMSNorm before each part, RoPE, grouped-query
attention (with or without QK-norm), SwiGLU, a head of its own or the embedding's.
"""

from collections.abc import Collection
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

from torch import Tensor

from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.layers.part import Part
from llmtutor.layers.positions import RopeConfig, convert_pairing
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer

RUNS = "the engine of the page runs RMSNorm, RoPE, grouped-query attention and SwiGLU"
P = TypeVar("P", bound=Part)


def sizes(config: ModelConfig) -> dict[str, Any]:
    """All that the engine has to know of a model besides its weights.

    >>> config = ModelConfig.uniform(65, 32, n_layers=2, d_model=16, n_heads=4, d_ff=64)
    >>> sizes(config)["head_dim"], sizes(config)["qk_norm"]
    (4, False)

    Raises:
        ValueError: a model with something else in it, named by its place.
    """
    _default(
        config,
        "",
        free=("vocab_size", "max_seq_len", "d_model", "blocks", "norm", "tie_weights", "init"),
    )
    block = config.blocks[0]
    for i, other in enumerate(config.blocks):
        if other != block:
            raise ValueError(
                f"blocks[{i}] is not like blocks[0]: {RUNS}, in blocks that are all alike"
            )
    mixer, ffn, norm, rope = _parts(block)
    if config.norm != norm or (mixer.qk_norm is not None and mixer.qk_norm != norm):
        raise ValueError(f"norms differ in the model: {RUNS}, with one eps for all norms")
    return {
        "vocab_size": config.vocab_size,
        "max_seq_len": config.max_seq_len,
        "d_model": config.d_model,
        "n_layers": config.n_layers,
        "n_heads": mixer.n_heads,
        "n_kv_heads": mixer.kv_heads,
        "head_dim": mixer.width(config.d_model),
        "d_ff": ffn.d_ff,
        "rope_base": rope.base,
        "eps": norm.eps,
        "qk_norm": mixer.qk_norm is not None,
        "tie_weights": config.tie_weights,
    }


def tensors(model: Transformer, n_ids: int) -> list[Tensor]:
    """The weights in the order in which the engine lays them out, RoPE's pairs half a head apart.

    Of embedding and head the first ``n_ids`` rows are taken.

    Raises:
        ValueError: as ``sizes``; a weight that is not finite, by its name.
    """
    known = sizes(model.config)
    state = {name: value.detach().float().cpu() for name, value in model.state_dict().items()}
    if bad := [name for name, value in state.items() if not value.isfinite().all()]:
        raise ValueError(f"{bad[0]} is not finite: a page could show nothing but nan")
    mixer: Any = model.config.blocks[0].mixer
    pairing, heads = mixer.position.pairing, {"query": known["n_heads"], "key": known["n_kv_heads"]}
    norms = ("query_norm", "key_norm") if known["qk_norm"] else ()
    names = ["embedding.weight"]
    for i in range(known["n_layers"]):
        inside = [
            "norm_1",
            *(f"mixer.{name}" for name in ("query", "key", "value", *norms, "output")),
        ]
        inside += ["norm_2", "ffn.gate", "ffn.up", "ffn.down"]
        names += [f"blocks.{i}.{name}.weight" for name in inside]
    names += ["norm.weight", *([] if known["tie_weights"] else ["head.weight"])]
    found = []
    for name in names:
        part, value = name.split(".")[-2], state[name]
        if part in ("embedding", "head"):
            value = value[:n_ids]
        count = 1 if part in norms else heads.get(part)
        found.append(value if count is None else convert_pairing(value, count, pairing, "half"))
    return found


def _parts(block: BlockConfig) -> tuple[AttentionConfig, GatedMLPConfig, RMSNormConfig, RopeConfig]:
    """The parts of a block, each with nothing but what the engine can do."""
    mixer, ffn, norm = block.mixer, block.ffn, block.norm
    _default(block, "blocks[0].", free=("mixer", "ffn", "norm"))
    mixer = _of(mixer, AttentionConfig, "blocks[0].mixer")
    _default(
        mixer, "blocks[0].mixer.", free=("n_heads", "n_kv_heads", "head_dim", "position", "qk_norm")
    )
    rope = _of(mixer.position, RopeConfig, "blocks[0].mixer.position")
    _default(rope, "blocks[0].mixer.position.", free=("base", "pairing"))
    ffn = _of(ffn, GatedMLPConfig, "blocks[0].ffn")
    _default(ffn, "blocks[0].ffn.", free=("d_ff",))
    norm = _of(norm, RMSNormConfig, "blocks[0].norm")
    _default(norm, "blocks[0].norm.", free=("eps",))
    return mixer, ffn, norm, rope


def _of(part: Any, kind: type[P], place: str) -> P:
    if type(part) is not kind:
        found = part.kind if isinstance(part, Part) else part
        raise ValueError(f"{place} is {found!r}, expected {kind.kind!r}: {RUNS}")
    return part


def _default(config: Any, place: str, free: Collection[str]) -> None:
    """Raise ``ValueError`` unless all fields but the free ones have their default."""
    for field in fields(config):
        value, usual = getattr(config, field.name), _usual(field)
        if field.name not in free and value != usual:
            raise ValueError(f"{place}{field.name} is {value!r}, expected {usual!r}: {RUNS}")


def _usual(field: Field[Any]) -> Any:
    return None if field.default is MISSING else field.default
