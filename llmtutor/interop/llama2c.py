"""Chapter 14, gqa: real trained weights with grouped-query attention, in the files of llama2.c.

llama2.c (Karpathy 2023) keeps a Llama in one file: seven integers and then every matrix in
float32, in a fixed order and without names. Nothing in such a file says that it is whole, so
everything that can be checked is: the header, the size that follows from it, the rotary tables
that it carries along, that every weight is finite, and the checksum where one is known.
"""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmtutor.data.fetch import RemoteFile, fetch_file
from llmtutor.data.places import require_checksum
from llmtutor.interop.hf.decoder import llama_parts
from llmtutor.interop.hf.families import first_way
from llmtutor.interop.llama2c_format import (
    MAGIC,
    ROOM,
    ROPE_BASE,
    TABLES,
    Header,
    header_bytes,
    parts,
    rotary_tables,
)
from llmtutor.interop.llama2c_tokenizer import Llama2cTokenizer
from llmtutor.layers.positions import RopeConfig, convert_pairing
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer.files import written_whole

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

LARGEST = 1 << 24  # no size in a header is above this; it is noise, or another kind of file


def load_stories260k() -> tuple[Transformer, Llama2cTokenizer]:
    """stories260K with its tokenizer, from the data folder, the mirror or Hugging Face's hub.

    Raises:
        FetchError, ChecksumError: as ``data.fetch.fetch_file``.
    """
    model = load_llama2c(fetch_file(WEIGHTS))
    return model, Llama2cTokenizer.load(fetch_file(TOKENIZER), model.config.vocab_size)


def load_llama2c(path: str | Path, *, sha256: str | None = None) -> Transformer:
    """The model in a llama2.c file of version 0 or 1, float32, in evaluation mode.

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
    version, header = _read_header(path, content)
    state = _read_state(path, content, version, header)
    model = Transformer(header.config)
    model.load_state_dict(state)
    return model.eval()


def save_llama2c(model: Transformer, path: str | Path, *, version: int = 0) -> None:
    """Write a file for llama2.c: version 0, which ``run.c`` reads, or 1, in float32.

    Pairs of RoPE become neighbours there, whatever they are in the model.

    Raises:
        ValueError: a model that is no Llama as llama2.c has it, named by the part; another version;
            weights that are not finite. Nothing is written then.
        OSError: the file cannot be written; one of before is left whole.
    """
    if version not in (0, 1):
        raise ValueError(f"version must be 0 or 1, got {version}; 2 is quantised, and not ours")
    _, header = first_way(model.config, {"llama2.c": _there_and_back}, "form of llama2.c")
    state = _for_file(model)
    data = [header_bytes(header, version)]
    for name, shape in parts(header, version):
        if name in TABLES:
            value = rotary_tables(shape)[name]
        elif "{}" in name:
            value = torch.stack([state[name.format(i)] for i in range(header.n_layers)])
        else:
            value = state[name]
        if not value.isfinite().all():
            raise ValueError(f"{name.format('N')} is not finite: llama2.c's file cannot say so")
        data.append(value.numpy().astype("<f4").tobytes())
    with written_whole(Path(path)) as temporary:
        temporary.write_bytes(b"".join(data))


def _there_and_back(config: ModelConfig) -> tuple[Header, ModelConfig]:
    mixer, ffn, *_ = llama_parts(config, 0)
    header = Header(
        dim=config.d_model,
        hidden_dim=ffn.d_ff,
        n_layers=config.n_layers,
        n_heads=mixer.n_heads,
        n_kv_heads=mixer.kv_heads,
        vocab_size=config.vocab_size if config.tie_weights else -config.vocab_size,
        seq_len=config.max_seq_len,
    )
    return header, header.config


def _for_file(model: Transformer) -> dict[str, Tensor]:
    """The weights in float32, queries and keys for pairs of neighbours."""
    mixer: Any = model.config.blocks[0].mixer
    heads = {"query": mixer.n_heads, "key": mixer.kv_heads}
    state = {}
    for name, value in model.state_dict().items():
        state[name] = value.float().cpu()
        if (part := name.split(".")[-2]) in heads and isinstance(mixer.position, RopeConfig):
            pairing = mixer.position.pairing
            state[name] = convert_pairing(state[name], heads[part], pairing, "interleaved")
    return state


def _read_header(path: Path, content: bytes) -> tuple[int, Header]:
    """Version and sizes; a vocabulary is negative where the output layer is a matrix of its own."""
    marked = content[:4] == struct.pack("<I", MAGIC)
    size = ROOM if marked else 4 * len(Header._fields)
    if len(content) < size:
        raise ValueError(f"{path}: expected a header of {size} bytes, the file has {len(content)}")
    if not marked:
        version, header = 0, Header(*struct.unpack_from("<7i", content))
    else:
        _, version, *sizes, tied = struct.unpack_from("<Ii7iB", content)
        header = Header(*sizes)
        if not tied:
            header = header._replace(vocab_size=-header.vocab_size)
    if version not in (0, 1):
        raise ValueError(
            f"{path}: a llama2.c file of version {version}, expected version 0 or 1; "
            "write it again with `export.py --version 1`"
        )
    for name, value in {**header._asdict(), "vocab_size": abs(header.vocab_size)}.items():
        if not 1 <= value <= LARGEST:
            raise ValueError(
                f"{path}: the header says {name} = {value}, expected 1 to {LARGEST:,}; "
                "is it a llama2.c file?"
            )
    if header.dim % (2 * header.n_heads) or header.n_heads % header.n_kv_heads:
        raise ValueError(
            f"{path}: the header says dim = {header.dim}, n_heads = {header.n_heads}, n_kv_heads = "
            f"{header.n_kv_heads}; n_kv_heads must divide n_heads, and heads have an even number "
            "of channels"
        )
    return version, header


def _read_state(path: Path, content: bytes, version: int, header: Header) -> dict[str, Tensor]:
    start = len(header_bytes(header, version))
    wanted = start + 4 * sum(math.prod(shape) for _, shape in parts(header, version))
    if len(content) != wanted:
        what = "cut short" if len(content) < wanted else "longer than that"
        raise ValueError(
            f"{path}: its header asks for {wanted:,} bytes, the file has {len(content):,} "
            f"({what}); fetch it again"
        )
    numbers = np.frombuffer(content, "<f4", offset=start).astype(np.float32)
    state: dict[str, Tensor] = {}
    at = 0
    for name, shape in parts(header, version):
        part = torch.from_numpy(numbers[at : at + math.prod(shape)]).reshape(shape)
        at += part.numel()
        if not part.isfinite().all():
            raise ValueError(f"{path}: {name.format('N')} is not finite; fetch the file again")
        names = [name] if "{}" not in name else [name.format(i) for i in range(header.n_layers)]
        state |= dict(zip(names, part if "{}" in name else [part], strict=True))
    if version == 0:
        _check_rotary(path, *(state.pop(name) for name in TABLES))
    if header.vocab_size > 0:
        state["head.weight"] = state["embedding.weight"]
    return state


def _check_rotary(path: Path, cos: Tensor, sin: Tensor) -> None:
    """The tables are computed here, not read; but those in the file must say the same."""
    tables = rotary_tables(tuple(cos.shape))
    difference = max(
        (cos - tables["cos"]).abs().max().item(), (sin - tables["sin"]).abs().max().item()
    )
    if difference > 1e-3:  # of float32 angles up to some thousands
        raise ValueError(
            f"{path}: its rotary tables differ by {difference:.2g} from RoPE with base "
            f"{ROPE_BASE:g}; the file is damaged, or of a model with another base"
        )
