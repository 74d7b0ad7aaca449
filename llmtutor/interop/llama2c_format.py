"""Chapter 23, export: the form of llama2.c's files: a header, then parts in a fixed order.

Version 0 begins with seven integers. Version 1 begins with a mark and its number, has room in the
header, the norms in front, and no rotary tables.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from llmtutor.model.config import ModelConfig

MAGIC = 0x616B3432  # "ak42": where files of version 1 and later begin
ROOM = 256  # bytes of the header of version 1
ROPE_BASE = 10000.0


class Header(NamedTuple):
    """The seven integers at the beginning of a file."""

    dim: int
    """Width of the residual stream."""
    hidden_dim: int
    """Inner width of the feed-forward parts."""
    n_layers: int
    """Number of blocks."""
    n_heads: int
    """Heads of queries."""
    n_kv_heads: int
    """Heads of keys and values."""
    vocab_size: int
    """Number of tokens, negative where the output layer is a matrix of its own."""
    seq_len: int
    """Longest text."""

    @property
    def config(self) -> ModelConfig:
        """The same as a configuration."""
        return ModelConfig.uniform(
            vocab_size=abs(self.vocab_size),
            max_seq_len=self.seq_len,
            n_layers=self.n_layers,
            d_model=self.dim,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_ff=self.hidden_dim,
            rope_base=ROPE_BASE,
            rope_pairing="interleaved",
            tie_weights=self.vocab_size > 0,
        )


TABLES = "cos", "sin"
"""Cosines and sines of RoPE, (seq_len, head_dim / 2)."""
_ATTENTION = tuple(
    f"blocks.{{}}.mixer.{name}.weight" for name in ("query", "key", "value", "output")
)
_FFN = tuple(f"blocks.{{}}.ffn.{name}.weight" for name in ("gate", "down", "up"))
_NORM_1, _NORM_2 = "blocks.{}.norm_1.weight", "blocks.{}.norm_2.weight"
_EMBEDDING, _NORM, _HEAD = "embedding.weight", "norm.weight", "head.weight"
ORDERS = (
    (_EMBEDDING, _NORM_1, *_ATTENTION, _NORM_2, *_FFN, _NORM, *TABLES, _HEAD),
    (_NORM_1, _NORM_2, _NORM, _EMBEDDING, *_ATTENTION, *_FFN, _HEAD),
)
"""Our names in the order of a file, by version; {} counts the layers, which lie side by side."""


def parts(header: Header, version: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Our name and their shape of each part, in the order of the file."""
    n, d, d_ff = header.n_layers, header.dim, header.hidden_dim
    head_dim, vocab_size = d // header.n_heads, abs(header.vocab_size)
    query, key, value, output = _ATTENTION
    gate, down, up = _FFN
    d_kv = header.n_kv_heads * head_dim
    shapes = {
        **dict.fromkeys((_EMBEDDING, _HEAD), (vocab_size, d)),
        **dict.fromkeys((_NORM_1, _NORM_2), (n, d)),
        **dict.fromkeys((query, output), (n, d, d)),
        **dict.fromkeys((key, value), (n, d_kv, d)),
        **dict.fromkeys((gate, up), (n, d_ff, d)),
        **dict.fromkeys(TABLES, (header.seq_len, head_dim // 2)),
        down: (n, d, d_ff),
        _NORM: (d,),
    }
    for name in ORDERS[version]:
        if name != _HEAD or header.vocab_size < 0:
            yield name, shapes[name]


def header_bytes(header: Header, version: int) -> bytes:
    """The beginning of a file."""
    if version == 0:
        return struct.pack("<7i", *header)
    tied = header.vocab_size > 0
    sizes = header._replace(vocab_size=abs(header.vocab_size))
    return struct.pack("<Ii7iB", MAGIC, version, *sizes, tied).ljust(ROOM, b"\0")


def rotary_tables(shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The tables, in float32 as llama2.c computes them."""
    seq, half = shape
    frequencies = 1.0 / ROPE_BASE ** (torch.arange(0, 2 * half, 2).float() / (2 * half))
    angles = torch.outer(torch.arange(seq), frequencies).float()
    return {"cos": angles.cos(), "sin": angles.sin()}
