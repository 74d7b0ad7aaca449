"""Chapter 14, gqa: real trained weights with grouped-query attention, in the files of llama2.c.

llama2.c (Karpathy 2023) keeps a Llama in one file: seven integers and then every matrix in
float32, in a fixed order and without names. Nothing in such a file says that it is whole, so
everything that can be checked is: the header, the size that follows from it, the rotary tables
that it carries along, that every weight is finite, and the checksum where one is known.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmtutor.data.fetch import RemoteFile, fetch_file
from llmtutor.data.places import require_checksum
from llmtutor.interop.llama2c_tokenizer import Llama2cTokenizer
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer

_HUB = "https://huggingface.co/karpathy/tinyllamas/resolve/main/stories260K"
WEIGHTS = RemoteFile(
    "stories260K/stories260K.bin",
    f"{_HUB}/stories260K.bin",
    size=1_056_540,
    sha256="b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696",
)
"""A Llama of 260,000 parameters, trained on TinyStories; 4 key/value heads for 8 query heads."""
TOKENIZER = RemoteFile(
    "stories260K/tok512.bin",
    f"{_HUB}/tok512.bin",
    size=6_227,
    sha256="037cb335abb25d1fa9e8ecae30ed2a3a8ace9302862ebcdc05d51a6bbb10c312",
)
"""Its 512 tokens."""

MAGIC = 0x616B3432  # "ak42": where files of version 1 and later begin
LARGEST = 1 << 24  # no size in a header is above this; it is noise, or another kind of file
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


def load_stories260k() -> tuple[Transformer, Llama2cTokenizer]:
    """stories260K with its tokenizer, from the data folder, the mirror or Hugging Face's hub.

    Raises:
        FetchError, ChecksumError: as ``data.fetch.fetch_file``.
    """
    model = load_llama2c(fetch_file(WEIGHTS))
    return model, Llama2cTokenizer.load(fetch_file(TOKENIZER), model.config.vocab_size)


def load_llama2c(path: str | Path, *, sha256: str | None = None) -> Transformer:
    """The model in a llama2.c file of version 0, float32, in evaluation mode.

    ``sha256`` (64 hex digits) is compared first, if given.

    Raises:
        ChecksumError: another file than ``sha256`` names.
        ValueError: a header that no model has, a size other than the header asks for, rotary
            tables of another RoPE, weights that are not finite.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if sha256 is not None:
        require_checksum(path, sha256)
    content = path.read_bytes()
    header = _read_header(path, content)
    state = _read_state(path, content, header)
    model = Transformer(header.config)
    model.load_state_dict(state)
    return model.eval()


def _read_header(path: Path, content: bytes) -> Header:
    """The first 28 bytes."""
    size = 4 * len(Header._fields)
    if len(content) < size:
        raise ValueError(f"{path}: expected a header of {size} bytes, the file has {len(content)}")
    header = Header(*struct.unpack_from("<7i", content))
    if header.dim == MAGIC:
        raise ValueError(
            f"{path}: a llama2.c file of version 1 or later, expected version 0; "
            "write it again with `export.py --version 0`"
        )
    for name, value in {**header._asdict(), "vocab_size": abs(header.vocab_size)}.items():
        if not 1 <= value <= LARGEST:
            raise ValueError(
                f"{path}: the header says {name} = {value}, expected 1 to {LARGEST:,}; "
                "is it a llama2.c file of version 0?"
            )
    if header.dim % (2 * header.n_heads) or header.n_heads % header.n_kv_heads:
        raise ValueError(
            f"{path}: the header says dim = {header.dim}, n_heads = {header.n_heads}, n_kv_heads = "
            f"{header.n_kv_heads}; n_kv_heads must divide n_heads, and heads have an even number "
            "of channels"
        )
    return header


def _parts(header: Header) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Our name and their shape of each part, in the order of the file; {} counts the layers."""
    n, d, d_ff = header.n_layers, header.dim, header.hidden_dim
    head_dim, vocab_size = d // header.n_heads, abs(header.vocab_size)
    d_kv = header.n_kv_heads * head_dim
    yield "embedding.weight", (vocab_size, d)
    yield "blocks.{}.norm_1.weight", (n, d)
    yield "blocks.{}.mixer.query.weight", (n, d, d)
    yield "blocks.{}.mixer.key.weight", (n, d_kv, d)
    yield "blocks.{}.mixer.value.weight", (n, d_kv, d)
    yield "blocks.{}.mixer.output.weight", (n, d, d)
    yield "blocks.{}.norm_2.weight", (n, d)
    yield "blocks.{}.ffn.gate.weight", (n, d_ff, d)
    yield "blocks.{}.ffn.down.weight", (n, d, d_ff)
    yield "blocks.{}.ffn.up.weight", (n, d_ff, d)
    yield "norm.weight", (d,)
    yield "cos", (header.seq_len, head_dim // 2)
    yield "sin", (header.seq_len, head_dim // 2)
    if header.vocab_size < 0:
        yield "head.weight", (vocab_size, d)


def _read_state(path: Path, content: bytes, header: Header) -> dict[str, Tensor]:
    start = 4 * len(Header._fields)
    wanted = start + 4 * sum(math.prod(shape) for _, shape in _parts(header))
    if len(content) != wanted:
        what = "cut short" if len(content) < wanted else "longer than that"
        raise ValueError(
            f"{path}: its header asks for {wanted:,} bytes, the file has {len(content):,} "
            f"({what}); fetch it again"
        )
    numbers = np.frombuffer(content, "<f4", offset=start).astype(np.float32)
    state: dict[str, Tensor] = {}
    at = 0
    for name, shape in _parts(header):
        part = torch.from_numpy(numbers[at : at + math.prod(shape)]).reshape(shape)
        at += part.numel()
        if not part.isfinite().all():
            raise ValueError(f"{path}: {name.format('N')} is not finite; fetch the file again")
        names = [name] if "{}" not in name else [name.format(i) for i in range(header.n_layers)]
        state |= dict(zip(names, part if "{}" in name else [part], strict=True))
    _check_rotary(path, state.pop("cos"), state.pop("sin"))
    if header.vocab_size > 0:
        state["head.weight"] = state["embedding.weight"]
    return state


def _check_rotary(path: Path, cos: Tensor, sin: Tensor) -> None:
    """The tables are computed here, not read; but those in the file must say the same."""
    seq, half = cos.shape
    frequencies = ROPE_BASE ** -(torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(seq, dtype=torch.float64)[:, None] * frequencies
    difference = max((cos - angles.cos()).abs().max(), (sin - angles.sin()).abs().max()).item()
    if difference > 1e-3:  # of float32 angles up to some thousands
        raise ValueError(
            f"{path}: its rotary tables differ by {difference:.2g} from RoPE with base "
            f"{ROPE_BASE:g}; the file is damaged, or of a model with another base"
        )
