"""The bytes of a file: the `gguf` package's, and refused wherever they are cut or changed."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from llmtutor.interop.gguf.container import Stored, read_container, write_container
from llmtutor.interop.gguf.quants import pack

NUMBERS = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
FACTS = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.tokens": ["a", "é", "🙂"],
    "tokenizer.ggml.scores": [0.0, -1.5, 3.25],
    "tokenizer.ggml.token_type": [1, 3, 6],
}
TENSORS = {
    "norm.weight": Stored((3,), "f32", pack(NUMBERS[0, :3], "f32")),
    "a.weight": Stored((3, 64), "q4_0", pack(NUMBERS, "q4_0")),
    "b.weight": Stored((3, 64), "f16", pack(NUMBERS, "f16")),
}


@pytest.fixture
def path(tmp_path) -> Path:
    write_container(tmp_path / "model.gguf", FACTS, TENSORS)
    return tmp_path / "model.gguf"


def test_the_gguf_package_writes_the_same_bytes(path, tmp_path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    for name in ("tokens", "scores", "token_type"):
        writer.add_array(f"tokenizer.ggml.{name}", FACTS[f"tokenizer.ggml.{name}"])
    for name, (shape, dtype, data) in TENSORS.items():
        rows = data.reshape(*shape[:-1], -1)
        writer.add_tensor(name, rows, raw_dtype=gguf.GGMLQuantizationType[dtype.upper()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert path.read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


def test_what_is_read_is_what_was_written(path) -> None:
    facts, tensors = read_container(path)
    assert facts == FACTS and list(facts) == list(FACTS)
    for name, (shape, dtype, data) in TENSORS.items():
        assert tensors[name][:2] == (shape, dtype)
        np.testing.assert_array_equal(tensors[name].data, data)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert [list(theirs[name].shape) for name in TENSORS] == [[3], [64, 3], [64, 3]]


def test_a_decimal_is_the_one_that_was_meant(path) -> None:
    """A number of 32 bits comes back as the shortest decimal of it."""
    write_container(path, {"eps": 1e-6, "base": 10000.0, "tenth": 0.1}, {})
    assert read_container(path).facts == {"eps": 1e-6, "base": 10000.0, "tenth": 0.1}


def test_a_file_cut_anywhere_is_refused(path) -> None:
    content = path.read_bytes()
    last = content.rstrip(b"\0")
    for n in range(0, len(last), 3):
        path.write_bytes(content[:n])
        with pytest.raises(ValueError, match=r"ends at byte|begins with") as raised:
            read_container(path)
        assert str(path) in str(raised.value)


def test_a_file_of_another_kind_is_refused(path, tmp_path) -> None:
    content = path.read_bytes()
    changed = {
        r"it begins with b'PK.*', a GGUF file with b'GGUF'": b"PK\x03\x04" + content[4:],
        r"version 1; expected 3, little-endian": b"GGUF" + struct.pack("<I", 1) + content[8:],
        r"version 50331648 \(big-endian\); expected 3": b"GGUF"
        + struct.pack(">I", 3)
        + content[8:],
        r"'a.weight' comes twice": content.replace(b"b.weight", b"a.weight"),
        r"a.weight is stored as q4_k; we read f32, f16, q8_0, q4_0": content.replace(
            b"a.weight" + struct.pack("<IQQI", 2, 64, 3, 2),
            b"a.weight" + struct.pack("<IQQI", 2, 64, 3, 12),
        ),
        r"rows are no blocks of 32": content.replace(
            b"a.weight" + struct.pack("<IQQI", 2, 64, 3, 2),
            b"a.weight" + struct.pack("<IQQI", 2, 60, 3, 2),
        ),
        r"a.weight has 9 dimensions": content.replace(
            b"a.weight" + struct.pack("<I", 2), b"a.weight" + struct.pack("<I", 9)
        ),
        r"the data of a.weight ends at byte 39,": content.replace(
            b"a.weight" + struct.pack("<IQQI", 2, 64, 3, 2),
            b"a.weight" + struct.pack("<IQQI", 2, 64, 2**40, 2),
        ),
        r"llama.block_count has a value of type 77": content.replace(
            b"block_count\4", b"block_count\x4d"
        ),
        r"general.architecture is no UTF-8": content.replace(
            b"\0llama", b"\0\xff\xfe\xfd\xfc\xfb", 1
        ),
        r"tensor 1 of 3 ends at byte": content.replace(
            struct.pack("<Q", 11) + b"norm.weight", struct.pack("<Q", 2**63) + b"norm.weight"
        ),
    }
    for message, bad in changed.items():
        assert bad != content, message
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=message) as raised:
            read_container(path)
        assert str(path) in str(raised.value)
    write_container(path, {**FACTS, "general.alignment": 24}, TENSORS)
    with pytest.raises(ValueError, match=r"general.alignment is 24; expected a power of two"):
        read_container(path)
    with pytest.raises(FileNotFoundError):
        read_container(tmp_path / "nothing.gguf")


def test_a_write_that_fails_leaves_what_was_there(path) -> None:
    before = path.read_bytes()
    with pytest.raises(struct.error):
        write_container(path, {"a": 2**40}, {})
    assert path.read_bytes() == before and [path] == list(path.parent.iterdir())
