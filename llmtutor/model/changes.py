"""Chapter 09, the transformer: one thing changed in every block of a model.

A change has the name of a field: of a part (``d_ff=64`` reaches every part that has a ``d_ff``), of
the block, or a part itself, given whole or by name (``ffn="swiglu"``). A part by name takes over
what the parts before it have in common with it, such as their widths.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from types import MappingProxyType
from typing import Any, TypeVar

from llmtutor.checks import check_at_least, check_integer, check_name
from llmtutor.layers.ffn import ACTIVATIONS, FeedForwardConfig, GatedMLPConfig, MLPConfig
from llmtutor.layers.norms import NormConfig
from llmtutor.layers.part import Part, field_names
from llmtutor.layers.positions import (
    AttentionPositionConfig,
    EmbeddingPositionConfig,
    NoPositionConfig,
    RopeConfig,
)
from llmtutor.layers.registry import kinds
from llmtutor.model.block import ROLES, BlockConfig

P = TypeVar("P", bound=Part)
BLOCK_FIELDS = (*ROLES, "norm_placement")
ROPE = "rope_"
"""In front of a field of ``RopeConfig``: its own names say little outside of it."""
GATED = {"swiglu": "silu", "geglu": "gelu", "geglu_tanh": "gelu_tanh", "reglu": "relu"}
FFNS: dict[str, tuple[type[FeedForwardConfig], str]] = {
    **{name: (MLPConfig, name) for name in ACTIVATIONS},
    **{name: (GatedMLPConfig, gate) for name, gate in {**GATED, "glu": "sigmoid"}.items()},
}
"""Usual names of feed-forward parts: two matrices with an activation, or three with a gate."""


def change_blocks(
    blocks: Sequence[BlockConfig], changes: Mapping[str, Any], also: Iterable[str] = ()
) -> tuple[BlockConfig, ...]:
    """All blocks with all changes; ``n_layers`` repeats their pattern, or cuts it.

    ``also`` are names that somebody else takes, to be offered where one is misspelt.

    Raises:
        ValueError: a name that no block has a use for (with the nearest one), or a bad value.
    """
    changes = dict(changes)
    check_blocks(blocks)
    n = check_integer("n_layers", changes.pop("n_layers", len(blocks)), least=1)
    done = {block: _change_block(block, changes) for block in dict.fromkeys(blocks)}
    known = {*also, "n_layers", "position", *BLOCK_FIELDS}
    for block in (*done, *done.values()):
        known |= _names(block.mixer) | _names(block.ffn) | _names(block.norm)
    for name in changes:
        check_name("field", name, sorted(known))
    return tuple(done[blocks[i % len(blocks)]] for i in range(n))


def check_blocks(blocks: Sequence[BlockConfig]) -> None:
    """Raise ``ValueError`` unless there is at least one block, and nothing else."""
    check_at_least(1, n_layers=len(blocks))
    for i, block in enumerate(blocks):
        if not isinstance(block, BlockConfig):
            raise ValueError(f"blocks[{i}] must be a BlockConfig, got {block!r}")


def pick(
    what: str,
    value: Any,
    role: type[P],
    block: BlockConfig,
    old: Any = None,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """A part for a block: ``value`` itself, or the part that it names.

    What that needs and the block's parts do not have, ``given`` has to say.
    """
    if not isinstance(value, str):
        return value
    known: dict[str, tuple[type[Part], dict[str, str]]] = {
        kind: (part, {}) for kind, part in kinds(role).items()
    }
    if role is FeedForwardConfig:
        known |= {name: (part, {"activation": act}) for name, (part, act) in FFNS.items()}
    part, fixed = known[check_name(what, value, known)]
    common: dict[str, Any] = {}
    inside = getattr(old, getattr(old, "around", ""), None)  # an expert gives its width, too
    for other in (block.mixer, block.ffn, block.norm, inside, old):
        if other is not None:
            common |= {name: getattr(other, name) for name in field_names(type(other))}
    if (place := getattr(part, "around", None)) is not None:
        common.setdefault(place, old)
    known_values = {**common, **given, **fixed}
    values = {n: v for n, v in known_values.items() if n in field_names(part)}
    needed = [f.name for f in fields(part) if f.default is MISSING]  # type: ignore[arg-type]
    if missing := [name for name in needed if name not in values]:
        raise ValueError(
            f"{what} {value!r} needs {', '.join(missing)}, and no part of the block has one to "
            "take over: say it beside the name"
        )
    return part(**values)


def pick_position(value: Any, block: BlockConfig) -> Any:
    """The scheme that ``value`` is or names, whichever of the two places it acts in."""
    schemes = {**kinds(AttentionPositionConfig), **kinds(EmbeddingPositionConfig)}
    if isinstance(value, str):
        check_name("position", value, schemes)
    return pick("position", value, Part, block, getattr(block.mixer, "position", None))


def _change_block(block: BlockConfig, changes: Mapping[str, Any]) -> BlockConfig:
    changes = dict(changes)
    if "position" in changes:
        scheme = pick_position(changes["position"], block)
        outside = scheme is None or isinstance(scheme, EmbeddingPositionConfig)
        changes["position"] = NoPositionConfig() if outside else scheme
    if "qk_norm" in changes:
        changes["qk_norm"] = pick("qk_norm", changes["qk_norm"], NormConfig, block)
    inner = {name: value for name, value in changes.items() if name not in BLOCK_FIELDS}
    parts: dict[str, Any] = {}
    for name, role in ROLES.items():
        part = getattr(block, name)
        if name in changes:
            part = pick(name, changes[name], role, block, part, inner)
        parts[name] = _change_part(part, inner) if isinstance(part, Part) else part
    return BlockConfig(**parts, norm_placement=changes.get("norm_placement", block.norm_placement))


def _change_part(part: Part, changes: Mapping[str, Any]) -> Part:
    """The part with those of the changes that are its own, and so on inside it."""
    values: dict[str, Any] = {}
    for name, field in _fields(part).items():
        value = changes.get(name, getattr(part, field))
        values[field] = _change_part(value, changes) if isinstance(value, Part) else value
    return replace(part, **values) if values else part  # type: ignore[type-var]


def _names(part: Part) -> set[str]:
    """The names of all changes that ``_change_part`` makes."""
    fields = _fields(part)
    inner = (getattr(part, field) for field in fields.values())
    return set(fields).union(*(_names(value) for value in inner if isinstance(value, Part)))


def _fields(part: Part) -> dict[str, str]:
    """The fields of a part by the names that they have for a change."""
    prefix = ROPE if isinstance(part, RopeConfig) else ""
    return {prefix + field: field for field in field_names(type(part))}
