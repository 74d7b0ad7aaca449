"""`llmtutor tokenizer` as a caller sees it: files in, files out, one line for a mistake."""

import io
import os
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from llmtutor import cli
from llmtutor.cli import tokenizer as tokenizer_cli
from llmtutor.tokenizer import BPETokenizer, CharTokenizer, load_tokenizer

END = "<|endoftext|>"
TEXT = f"To be, or not to be: that is the question.\r\n{END}\nWhether 'tis nobler… é\n" * 40


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode("utf-8"))
    return path


@pytest.fixture
def folder(tmp_path: Path, text_file: Path) -> Path:
    out = tmp_path / "tokenizer"
    arguments = [str(text_file), "--out", str(out), "--vocab-size", "290"]
    assert cli.main(["tokenizer", "train", *arguments, "--special-token", END]) == 0
    return out


def failure(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.main(["tokenizer", *map(str, arguments)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))


def test_train_is_the_library(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert capsys.readouterr().out == f"{folder}: 290 tokens, 1 of them special\n"
    expected = BPETokenizer.train(TEXT, 290, [END])
    assert load_tokenizer(folder).fingerprint() == expected.fingerprint()


def test_train_on_a_corpus_reads_the_training_part(tmp_path: Path) -> None:
    from llmtutor.data import load_corpus

    corpus = load_corpus("tales")
    assert cli.main(["tokenizer", "train", "tales", "--out", str(tmp_path), "--kind", "char"]) == 0
    expected = CharTokenizer.from_text("".join(corpus.train_documents))
    assert load_tokenizer(tmp_path).fingerprint() == expected.fingerprint()


def test_several_special_tokens(tmp_path: Path, text_file: Path) -> None:
    options = ["--special-token", END, "--special-token", "<pad>", "--vocab-size", "280"]
    assert cli.main(["tokenizer", "train", str(text_file), "--out", str(tmp_path), *options]) == 0
    assert dict(load_tokenizer(tmp_path).special_tokens) == {END: 278, "<pad>": 279}


@pytest.mark.parametrize("suffix", [".npy", ".bin", ".txt"])
def test_files_of_ids_come_back(
    suffix: str, folder: Path, text_file: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    ids = text_file.with_suffix(f".ids{suffix}")
    assert cli.main(["tokenizer", "encode", str(folder), str(text_file), "--out", str(ids)]) == 0
    expected = load_tokenizer(folder).encode(TEXT)
    if suffix == ".npy":
        assert np.load(ids).dtype == np.uint16 and np.load(ids).tolist() == expected
    elif suffix == ".bin":
        assert np.fromfile(ids, "<u2").tolist() == expected
    capfdbinary.readouterr()
    assert cli.main(["tokenizer", "decode", str(folder), str(ids)]) == 0
    assert capfdbinary.readouterr().out == TEXT.encode("utf-8")


def test_ids_are_written_a_few_at_a_time(
    folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the file may be as long as the system allows."""
    monkeypatch.setattr(tokenizer_cli, "IDS_AT_A_TIME", 100)
    ids = load_tokenizer(folder).encode(TEXT)
    assert len(ids) > 1000
    written = {}
    for suffix in (".npy", ".bin", ".txt"):
        out = tmp_path / f"{'n' * 236}{suffix}"
        arguments = ["encode", str(folder), str(text_file), "--out", str(out)]
        assert cli.main(["tokenizer", *arguments]) == 0
        written[suffix] = out.read_bytes()
    assert np.load(io.BytesIO(written[".npy"])).tolist() == ids
    assert written[".bin"] == np.array(ids, "<u2").tobytes()
    assert written[".txt"] == (" ".join(map(str, ids)) + "\n").encode()


@pytest.mark.parametrize("word", ["\n", "a"])
def test_a_file_with_a_very_long_word(word: str, folder: Path, text_file: Path) -> None:
    text_file.write_bytes((f"to be{word * 400_000} or not").encode())
    out = text_file.with_suffix(".bin")
    assert cli.main(["tokenizer", "encode", str(folder), str(text_file), "--out", str(out)]) == 0
    ids = np.fromfile(out, "<u2").tolist()
    assert load_tokenizer(folder).decode(ids) == text_file.read_text(encoding="utf-8")


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    every_byte = [bytes([byte]) for byte in range(256)]
    merges = list(product(every_byte, repeat=2))
    tokens = every_byte + [left + right for left, right in merges]
    vocab = {token: id for id, token in enumerate(tokens)}
    BPETokenizer(vocab, merges).save(tmp_path)
    out = tmp_path / "ids.bin"
    arguments = ["encode", str(tmp_path), "--text", "é", "--out", str(out)]
    assert cli.main(["tokenizer", *arguments]) == 0
    assert np.fromfile(out, "<u4").tolist() == [256 + 0xC3 * 256 + 0xA9]


def test_text_and_standard_input(
    folder: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"Whether é\r\n{END}"
    ids = load_tokenizer(folder).encode(text)
    printed = " ".join(map(str, ids)).encode() + b"\n"
    capfdbinary.readouterr()
    assert cli.main(["tokenizer", "encode", str(folder), "--text", text]) == 0
    assert capfdbinary.readouterr().out.splitlines() == printed.splitlines()
    stdin(monkeypatch, text.encode("utf-8"))
    assert cli.main(["tokenizer", "encode", str(folder)]) == 0
    assert capfdbinary.readouterr().out.splitlines() == printed.splitlines()
    stdin(monkeypatch, printed)
    assert cli.main(["tokenizer", "decode", str(folder)]) == 0
    assert capfdbinary.readouterr().out == text.encode("utf-8")
    assert cli.main(["tokenizer", "decode", str(folder), "--ids", printed.decode()]) == 0
    assert capfdbinary.readouterr().out == text.encode("utf-8")


def test_text_may_begin_with_a_dash(
    tmp_path: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "made")
    special = ["--special-token", "--x--"]
    words = ["train", str(text_file), "--vocab-size", "300", *special, "--out", out]
    assert cli.main(["tokenizer", *words]) == 0
    capsys.readouterr()
    assert cli.main(["tokenizer", "encode", out, "--text", "- So --x--"]) == 0
    ids = capsys.readouterr().out.split()
    assert ids[0] == str(ord("-")) and ids[-1] == "299"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file"),
        (b"caf\xe9 au lait", "expected UTF-8 text, found byte 0xe9 at 3"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "expected"),
        (b"ELF\x00\x01\x02", "binary file"),
        (b"fine until the last character \xe4\xb8", "expected UTF-8 text"),
    ],
)
def test_bad_training_files(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    for kind in ("bpe", "char"):
        out = tmp_path / "tokenizer"
        error = failure(["train", path, "--out", out, "--kind", kind], capsys)
        assert said in error and str(path) in error
        assert not out.exists()


def test_bad_requests_to_train(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tokenizer"
    train = ["train", text_file, "--out", out]
    special = ["--special-token", "<a>"]
    assert "at least 257" in failure([*train, *special, "--vocab-size", 256], capsys)
    assert "'<a>' twice" in failure([*train, *special, *special], capsys)
    assert "num_processes must be at least 1, got 0" in failure([*train, "--processes", 0], capsys)
    assert "no special tokens" in failure([*train, *special, "--kind", "char"], capsys)
    assert "found neither" in failure(["train", "--out", out], capsys)
    assert "shakespeare" in failure(["train", "shakespear", "--out", out], capsys)
    assert not out.exists()


def test_bad_requests_to_encode(
    folder: Path, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(os.listdir(tmp_path))
    ids = tmp_path / "ids.npy"
    assert "found both" in failure(["encode", folder, text_file, "--text", "a"], capsys)
    assert ".npy, .bin or .txt" in failure(
        ["encode", folder, text_file, "--out", "ids.zip"], capsys
    )
    assert "train" in failure(["encode", tmp_path / "none", "--text", "a"], capsys)
    assert "none.txt" in failure(["encode", folder, tmp_path / "none.txt"], capsys)
    assert "found a folder" in failure(["encode", folder, tmp_path], capsys)
    inside = text_file / "ids.npy"
    encode = ["encode", folder, "--text", "a", "--out", inside]
    assert f"{text_file}: expected a folder" in failure(encode, capsys)
    text_file.write_bytes(b"good text, and then \xff")
    assert "0xff at 20" in failure(["encode", folder, text_file, "--out", ids], capsys)
    assert sorted(os.listdir(tmp_path)) == before


def test_bad_requests_to_decode(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "found both" in failure(["decode", folder, "x.npy", "--ids", "1"], capsys)
    assert "from 0 to 289, found 300" in failure(["decode", folder, "--ids", "1 300"], capsys)
    assert "'two'" in failure(["decode", folder, "--ids", "1 two"], capsys)
    path = tmp_path / "ids.bin"
    path.write_bytes(b"abc")
    assert "2 bytes an id, found 3 bytes" in failure(["decode", folder, path], capsys)
    path = tmp_path / "ids.npy"
    path.write_bytes(b"")
    assert "expected a NumPy array" in failure(["decode", folder, path], capsys)
    np.save(path, np.array([1.5]))
    assert "found float64" in failure(["decode", folder, path], capsys)
    np.save(path, np.array([[1]]))
    assert "shape (1, 1)" in failure(["decode", folder, path], capsys)
    np.save(path, np.array([None]))
    assert "expected a NumPy array" in failure(["decode", folder, path], capsys)
    np.savez(tmp_path / "ids", np.array([1]))
    (tmp_path / "ids.npz").rename(path)
    assert f"{path}: expected a NumPy array" in failure(["decode", folder, path], capsys)
    path = tmp_path / "ids.txt"
    path.write_bytes(b"1 two")
    assert f"{path}: expected ids" in failure(["decode", folder, path], capsys)


def test_standard_input_that_is_not_text(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"\xff\xfe")
    assert "standard input: expected UTF-8" in failure(["encode", folder], capsys)


def test_help_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    for command, words in {
        "train": "never merged",
        "encode": "standard input",
        "decode": "",
    }.items():
        assert cli.main(["tokenizer", command, "--help"]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert "Example: llmtutor tokenizer train shakespeare" in printed and words in printed


def test_a_published_one_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    from llmtutor.data import FetchError, load_published

    try:
        ours = load_published("gpt2")
    except FetchError as error:
        pytest.skip(str(error))
    capsys.readouterr()
    assert cli.main(["tokenizer", "fetch", "gpt2"]) == 0
    assert "835,554 bytes, verified" in capsys.readouterr().out
    assert cli.main(["tokenizer", "encode", "gpt2", "--text", "To be, or not"]) == 0
    ids = capsys.readouterr().out
    assert [int(id) for id in ids.split()] == ours.encode("To be, or not")
    assert cli.main(["tokenizer", "decode", "gpt2", "--ids", ids]) == 0
    assert capsys.readouterr().out == "To be, or not"
    assert "did you mean 'gpt2'" in failure(["fetch", "gtp2"], capsys)
