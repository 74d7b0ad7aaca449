"""Chapter 09, the transformer: what a family of models on Hugging Face's hub is made of.

A family has a ``model_type``, a form of ``config.json`` and names for its weights. Each is one file
here, which reads and writes both.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from llmtutor.interop.hf.keys import Keys
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.part import Part
from llmtutor.layers.positions import RopeConfig, convert_pairing
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer

P = TypeVar("P", bound=Part)
TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
"""Our model knows no tokens by name; the library's defaults would be outside a small vocabulary."""


class Entry(NamedTuple):
    """One tensor of theirs."""

    ours: tuple[str, ...]
    """Our names; several are laid one below the other, in each of the ``heads``."""
    theirs: str
    """Their name."""
    turned: bool = False
    """Whether theirs is (d_in, d_out)."""
    rows: tuple[int, ...] = ()
    """Rows of each of ours in a head; empty where all have as many."""
    heads: int = 1
    """Pieces of theirs in which each of ours has its part."""

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Theirs, of ours."""
        if len(parts) == 1:
            return parts[0]
        cut = [part.unflatten(0, (self.heads, -1)) for part in parts]
        return torch.cat(cut, dim=1).flatten(0, 1)

    def cut(self, value: Tensor) -> list[Tensor]:
        """Ours, of theirs.

        Raises:
            ValueError: rows that do not divide so.
        """
        rows = list(self.rows)
        if value.ndim and not rows and len(value) % (self.heads * len(self.ours)) == 0:
            rows = len(self.ours) * [len(value) // (self.heads * len(self.ours))]
        if value.ndim == 0 or len(value) != self.heads * sum(rows):
            shape = tuple(value.shape)
            raise ValueError(f"{self.theirs} has shape {shape}, it holds {', '.join(self.ours)}")
        parts = value.unflatten(0, (self.heads, -1)).split(rows, dim=1)
        return [part.flatten(0, 1).contiguous() for part in parts]


class Family(ABC):
    """A model type, there and back."""

    model_type: ClassVar[str]
    """Its name in ``config.json``."""
    architecture: ClassVar[str]
    """The class of ``transformers`` that opens it."""
    prefix: ClassVar[str] = "model."
    """In front of all names but the output layer's."""
    layer: ClassVar[str] = "layers"
    """The list of blocks."""
    outside: ClassVar[Mapping[str, str]] = {"embedding": "embed_tokens", "norm": "norm"}
    """Our module outside of the blocks → theirs."""
    inside: ClassVar[Mapping[str, str]]
    """Our module in a block → theirs; "*" stands for a number in both."""
    buffers: ClassVar[tuple[str, ...]] = (".rotary_emb.inv_freq",)
    """How names end of what older files carry along although it is computed, not learned."""

    @abstractmethod
    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration; takes all keys that it knows.

        Raises:
            KeyRefusedError: a value that we cannot use, or a key that is missing.
        """

    @abstractmethod
    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys for a configuration, as far as the family can say it.

        What it cannot say is found by reading them again (``families.config_to_hf``).

        Raises:
            ValueError: parts of another kind than the family's.
        """

    def write_sizes(self, config: ModelConfig) -> dict[str, Any]:
        """The keys that most families call alike."""
        return {
            "model_type": self.model_type,
            "architectures": [self.architecture],
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.max_seq_len,
            "hidden_size": config.d_model,
            "num_hidden_layers": config.n_layers,
            "tie_word_embeddings": config.tie_weights,
            **TOKENS,
        }

    def entries(self, config: ModelConfig) -> Iterator[Entry]:
        """Every tensor of a model with this configuration."""
        for name in our_names(config):
            if name == "head.weight":
                if not config.tie_weights:
                    yield Entry((name,), "lm_head.weight")
            elif name.startswith("blocks."):
                _, i, rest = name.split(".", 2)
                module, _, kind = rest.rpartition(".")
                theirs = f"{self.prefix}{self.layer}.{i}.{self._inside(module)}.{kind}"
                yield Entry((name,), theirs)
            else:
                module, _, kind = name.rpartition(".")
                yield Entry((name,), f"{self.prefix}{self.outside[module]}.{kind}")

    def _inside(self, module: str) -> str:
        """Their name of our module in a block; "*" stands for a number, as of an expert."""
        words = module.split(".")
        numbers = [word for word in words if word.isdigit()]
        theirs = self.inside[".".join("*" if word.isdigit() else word for word in words)]
        for number in numbers:
            theirs = theirs.replace("*", number, 1)
        return theirs


def of_kind(kind: type[P], part: Part | None, place: str) -> P:
    """The part that stands at a place of a configuration, which must be of this kind.

    Raises:
        ValueError: another kind, or nothing.
    """
    if not isinstance(part, kind):
        got = "nothing" if part is None else repr(part.kind)
        raise ValueError(f"{place} must be of kind {kind.kind!r}, got {got}")
    return part


def our_names(config: ModelConfig) -> Iterator[str]:
    """The names in the state dict of a model; blocks that are alike are looked at once."""
    kinds = list(dict.fromkeys(config.blocks))
    with torch.device("meta"):  # takes no memory
        state = Transformer(replace(config, blocks=tuple(kinds))).state_dict()
    inside: list[list[str]] = [[] for _ in kinds]
    for name in state:
        if name.startswith("blocks."):
            _, i, rest = name.split(".", 2)
            inside[int(i)].append(rest)
        else:
            yield name
    for layer, block in enumerate(config.blocks):
        yield from (f"blocks.{layer}.{rest}" for rest in inside[kinds.index(block)])


def state_out(
    state: Mapping[str, Tensor], config: ModelConfig, family: Family
) -> dict[str, Tensor]:
    """Their names and layouts for our state dict; tied weights are there once, as the embedding."""
    result = {}
    for entry in family.entries(config):
        value = entry.joined([_in_halves(name, state[name], config) for name in entry.ours])
        result[entry.theirs] = (value.T if entry.turned else value).detach().contiguous()
    return result


def state_in(state: Mapping[str, Tensor], config: ModelConfig, family: Family) -> dict[str, Tensor]:
    """Our names and layouts for their state dict.

    Raises:
        ValueError: names missing or left over, a tensor that cannot be cut into its parts; a tied
            output layer that differs from the embedding.
    """
    given = {name: x for name, x in state.items() if not name.endswith(family.buffers)}
    if not any(name.startswith(family.prefix) for name in given):  # a body saved without a head
        given = {n if n == "lm_head.weight" else family.prefix + n: x for n, x in given.items()}
    head = given.pop("lm_head.weight", None) if config.tie_weights else None
    result: dict[str, Tensor] = {}
    missing = []
    for entry in family.entries(config):
        if entry.theirs not in given:
            missing.append(entry.theirs)
            continue
        value = given.pop(entry.theirs)
        value = value.T if entry.turned and value.ndim == 2 else value
        result |= dict(zip(entry.ours, entry.cut(value), strict=True))
    if missing or given:
        raise ValueError(
            f"the weights do not fit the configuration: missing {few(missing)}, "
            f"unexpected {few(given)}"
        )
    if config.tie_weights:
        if head is not None and not torch.equal(head, result["embedding.weight"]):
            raise ValueError("tie_word_embeddings is true but lm_head.weight is not the embedding")
        result["head.weight"] = result["embedding.weight"]
    return result


def _in_halves(name: str, value: Tensor, config: ModelConfig) -> Tensor:
    """Rows of queries and keys that turn with their neighbours, in pairs half a head apart."""
    parts = name.split(".")
    if parts[0] != "blocks" or parts[2] != "mixer":
        return value
    mixer = config.blocks[int(parts[1])].mixer
    if not isinstance(mixer, AttentionConfig) or not isinstance(mixer.position, RopeConfig):
        return value
    rope = mixer.position
    heads = {"query": mixer.n_heads, "key": mixer.kv_heads}
    if mixer.qk_norm_over == "head":
        heads |= {"query_norm": 1, "key_norm": 1}
    else:
        heads |= {"query_norm": mixer.n_heads, "key_norm": mixer.kv_heads}
    if parts[3] not in heads:
        return value
    n = heads[parts[3]]
    return convert_pairing(value, n, rope.pairing, "half", fraction=rope.fraction)


def few(names: Any) -> str:
    """In a message: the first names of many."""
    names = sorted(names)
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "") if names else "nothing"
