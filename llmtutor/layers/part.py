"""Chapter 09, the transformer: what every part of a block says about itself.

A part is one file with three things: the layer, a small frozen configuration that builds it, and
what it costs. So nobody else asks which part it is; ``layers.registry`` knows them by ``kind``.
"""

from collections.abc import Hashable
from dataclasses import astuple, dataclass, field, fields, replace
from operator import add
from typing import Any, ClassVar, Self, get_type_hints

from llmtutor.checks import check_types


@dataclass(frozen=True)
class Site:
    """Where in a model a part stands."""

    d_model: int
    """Width of the residual stream."""
    max_seq_len: int
    """Longest text, in tokens."""
    n_layers: int = 1
    """Number of blocks."""
    layer: int = 0
    """Number of the part's own block, from 0."""
    shared: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)
    """Modules that several layers use, such as one table of biases for all."""

    def at(self, layer: int) -> Self:
        """The same place in another block."""
        return replace(self, layer=layer)


@dataclass(frozen=True)
class Load:
    """What a part is asked to do."""

    batch: int
    """Texts side by side."""
    seq: int
    """Tokens of each."""
    itemsize: int = 4
    """Bytes of a number."""
    at_once: bool = False
    """Whether all tokens are read in one pass; else the last one follows a cache."""

    @property
    def tokens_bytes(self) -> int:
        """Bytes of one number for each token."""
        return self.batch * self.seq * self.itemsize


@dataclass(frozen=True)
class Costs:
    """What a part costs under a load. Costs add up, field by field."""

    parameters: int = 0
    """Numbers that are learned."""
    active: int = 0
    """Those of them that one token uses."""
    flops: int = 0
    """Operations in matrix products for the last token of a text, what came before it known."""
    cache_bytes: int = 0
    """What decoding keeps of the texts."""
    activation_bytes: int = 0
    """What the backward pass needs of the forward pass over the texts."""

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(*map(add, astuple(self), astuple(other)))


class Part:
    """The configuration of a part: a frozen dataclass of plain values, and of other parts.

    Subclasses set ``kind`` and are named in the registry. When it is made, ``ValueError`` names the
    field whose value is of another type.
    """

    kind: ClassVar[str]
    """The name in JSON."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        check_types(self, {name: hints[name] for name in field_names(type(self))})

    def values(self) -> dict[str, Any]:
        """The fields by name."""
        return {name: getattr(self, name) for name in field_names(type(self))}

    def to_dict(self) -> dict[str, Any]:
        """Plain values as in JSON, ``kind`` first; ``registry.part_from_dict`` inverts it."""
        plain = {n: v.to_dict() if isinstance(v, Part) else v for n, v in self.values().items()}
        return {"kind": self.kind, **plain}


def field_names(part: type) -> list[str]:
    """The names of a dataclass' fields, in order; none of a class that has no fields."""
    return [f.name for f in fields(part)] if hasattr(part, "__dataclass_fields__") else []
