"""Chapter 09, the transformer: everything that decides a model's shape, in one frozen record.

It is checked when it is made, so that what cannot be built is refused at once, and goes to plain
values, as in JSON, and back without loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Self, get_type_hints

import torch

from llmtutor.checks import check_at_least, check_name, check_number, check_types
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.norms import NormConfig
from llmtutor.layers.part import Part, Site, field_names
from llmtutor.layers.positions import EmbeddingPositionConfig, RopeConfig
from llmtutor.model.block import BlockConfig, fields_from_dict
from llmtutor.model.changes import change_blocks, check_blocks, pick_position
from llmtutor.model.init import INITS


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The sizes of a decoder and a block for each of its layers.

    >>> block = BlockConfig(AttentionConfig(n_heads=4), GatedMLPConfig(d_ff=44))
    >>> config = ModelConfig(vocab_size=65, max_seq_len=32, d_model=16, blocks=2 * (block,))
    >>> ModelConfig.from_dict(config.to_dict()) == config, config.n_layers
    (True, 2)

    ``uniform`` writes a stack of equal blocks in one line, ``replace`` changes one thing in every
    block.

    Raises:
        ValueError: a size below 1, no block, a name that nobody registered (with the nearest one),
            a value of another type, parts that cannot be built at these sizes.
    """

    vocab_size: int
    """Number of tokens; ids are 0 … vocab_size − 1."""
    max_seq_len: int
    """Longest sequence the model accepts, in tokens."""
    d_model: int
    """Width of the residual stream."""
    blocks: tuple[BlockConfig, ...]
    """The layers, first to last."""
    norm: NormConfig | None = None
    """The norm before the logits; None for none, as after "post" blocks."""
    position: EmbeddingPositionConfig | None = None
    """Positions that are added to the embeddings; None where attention knows them, or nobody."""
    tie_weights: bool = True
    """The logits are taken with the embedding matrix instead of one of their own."""
    embedding_scale: float = 1.0
    """Factor on the embeddings, such as √d_model (Vaswani et al. 2017; Gemma)."""
    logit_softcap: float | None = None
    """Bound of the logits, ``c tanh(logit / c)`` (Gemma 2)."""
    init: str = "gpt2"
    """Initialisation: "gpt2", "glorot" or "glorot-embedding" (see ``model.init``)."""

    def __post_init__(self) -> None:
        if isinstance(self.blocks, list):
            object.__setattr__(self, "blocks", tuple(self.blocks))
        check_types(self, HINTS)
        check_blocks(self.blocks)
        sizes = {name: getattr(self, name) for name in ("vocab_size", "max_seq_len", "d_model")}
        check_at_least(1, **sizes)
        check_name("init", self.init, INITS)
        check_number("embedding_scale", self.embedding_scale, above=0)
        if self.logit_softcap is not None:
            check_number("logit_softcap", self.logit_softcap, above=0)
        for part in dict.fromkeys((*self.blocks, self.position)):
            _check_builds(part, self.d_model, self.max_seq_len)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def site(self) -> Site:
        """The place of a part in the first block."""
        return Site(self.d_model, self.max_seq_len, self.n_layers)

    @classmethod
    def uniform(
        cls,
        vocab_size: int,
        max_seq_len: int,
        n_layers: int,
        d_model: int,
        n_heads: int,
        d_ff: int,
        **changes: Any,
    ) -> Self:
        """A stack of equal blocks, Llama's unless ``changes`` (as in ``replace``) say otherwise.

        >>> ModelConfig.uniform(65, 32, n_layers=2, d_model=16, n_heads=4, d_ff=64).blocks[0].ffn
        GatedMLPConfig(d_ff=64, activation='silu', bias=False)

        Raises:
            ValueError: as ``ModelConfig`` and ``replace``.
        """
        block = BlockConfig(AttentionConfig(1, position=RopeConfig()), GatedMLPConfig(1))
        start = cls(vocab_size=1, max_seq_len=1, d_model=2, blocks=(block,), norm=block.norm)
        sizes = {"vocab_size": vocab_size, "max_seq_len": max_seq_len, "n_layers": n_layers}
        sizes |= {"d_model": d_model, "n_heads": n_heads, "d_ff": d_ff}
        return start.replace(**sizes, **changes)

    def replace(self, **changes: Any) -> Self:
        """The same configuration with some things changed, in every block that has them.

        Names are the fields of this class and of all parts (``d_ff``, ``n_kv_heads``, ``rope_base``
        for the ``base`` of RoPE), ``n_layers``, and parts given whole or by name: ``mixer``,
        ``ffn="swiglu"``, ``norm="layernorm"`` (all norms), ``position="alibi"`` (wherever it acts).

        >>> from llmtutor.model.presets import preset
        >>> config = preset("gpt2").replace(n_layers=2, norm="rmsnorm")
        >>> config.n_layers, config.norm
        (2, RMSNormConfig(eps=1e-05, offset=False))

        Raises:
            ValueError: an unknown name (with the nearest one) or a bad value.
        """
        places = ("blocks", "norm", "position")
        own = {n: v for n, v in changes.items() if n in FIELDS and n not in places}
        inner = {n: v for n, v in changes.items() if n not in own and n != "blocks"}
        own["blocks"] = change_blocks(changes.get("blocks", self.blocks), inner, also=FIELDS)
        own |= self._outside(inner, own["blocks"][0])
        return replace(self, **own)

    def _outside(self, changes: Mapping[str, Any], first: BlockConfig) -> dict[str, Any]:
        """What the changes mean outside of the blocks: the last norm, positions on embeddings."""
        found: dict[str, Any] = {}
        if "norm_placement" in changes:
            found["norm"] = None if changes["norm_placement"] == "post" else first.norm
        elif self.norm is not None and changes.keys() & {"norm", *field_names(type(self.norm))}:
            found["norm"] = first.norm
        if "position" in changes:
            scheme = pick_position(changes["position"], self.blocks[0])
            found["position"] = scheme if isinstance(scheme, EmbeddingPositionConfig) else None
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, as in JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {n: v.to_dict() if isinstance(v, Part) else v for n, v in values.items()}
        return plain | {"blocks": [block.to_dict() for block in self.blocks]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``.

        Raises:
            ValueError: unknown or missing fields, or bad values.
        """
        roles: dict[str, type[Part]] = {"norm": NormConfig, "position": EmbeddingPositionConfig}
        read = fields_from_dict(cls, values, roles)
        if not isinstance(read["blocks"], list | tuple):
            raise ValueError(f"blocks must be a list, got {read['blocks']!r:.60}")
        blocks = enumerate(read["blocks"])
        read["blocks"] = tuple(BlockConfig.from_dict(one, f"blocks[{i}]") for i, one in blocks)
        return cls(**read)


HINTS = get_type_hints(ModelConfig)
FIELDS = field_names(ModelConfig)


@lru_cache(maxsize=256)
def _check_builds(
    part: BlockConfig | EmbeddingPositionConfig | None, d_model: int, max_seq_len: int
) -> None:
    """Build the part without memory: whatever it refuses is refused here."""
    with torch.device("meta"):
        if part is not None:
            part.build(Site(d_model, max_seq_len))
