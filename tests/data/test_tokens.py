"""Token files: the ids of the documents, whole or not at all, in bounded memory."""

import hashlib
import json
import os
import re
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtutor.data import tokens
from llmtutor.data.tokens import HEADER_BYTES, open_tokens, prepare
from llmtutor.tokenizer import BPETokenizer, CharTokenizer

END = "<|endoftext|>"


@pytest.fixture(scope="module")
def bpe():
    text = "the cat sat on the mat and the cat ate the rat, naïve as ever. " * 5
    return BPETokenizer.train(text, 256 + 30 + 1, [END])


class Numbers:
    """A tokenizer of numbers: `"3 70000"` is the ids 3 and 70000."""

    special_tokens: ClassVar[dict[str, int]] = {}

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def encode(self, text):
        return [int(word) for word in text.split()]

    def fingerprint(self):
        return hashlib.sha256(f"numbers {self.vocab_size}".encode()).hexdigest()


def test_a_file_by_hand(tmp_path):
    file = prepare(["ab", "", "ca"], CharTokenizer("abc"), tmp_path / "t")
    assert file.ids.tolist() == [0, 1, 2, 0]
    data = (tmp_path / "t").read_bytes()
    assert data[HEADER_BYTES:] == b"\0\0\1\0\2\0\0\0"  # little-endian, two bytes each
    magic, header, *_ = data.split(b"\n")
    assert magic == b"llmtutor tokens 1"
    assert json.loads(header) == {
        "tokenizer": CharTokenizer("abc").fingerprint(),
        "corpus_sha256": hashlib.sha256(b"ab\xff\xffca\xff").hexdigest(),
        "dtype": "<u2",
        "count": 4,
        "vocab_size": 3,
        "n_documents": 3,
        "separator": None,
    }


@settings(max_examples=50, deadline=None)
@given(documents=st.lists(st.text(st.characters(codec="utf-8"), max_size=50), min_size=1))
def test_the_ids_are_the_tokenizer_s_and_numpy_reads_the_same(bpe, tmp_path_factory, documents):
    path = tmp_path_factory.mktemp("tokens") / "t"
    file = prepare(documents, bpe, path, separator=END)
    expected = []
    for document in documents:
        expected += [*bpe.encode(document), bpe.special_tokens[END]]
    assert file.ids.tolist() == expected
    assert np.fromfile(path, "<u2", offset=HEADER_BYTES).tolist() == expected
    assert file.header.n_documents == len(documents)
    assert len(file) == len(expected)


def test_documents_are_tokenised_apart(bpe, tmp_path):
    """No merge reaches from one document into the next, even without a separator."""
    file = prepare(["th", "e"], bpe, tmp_path / "t")
    assert file.ids.tolist() == bpe.encode("th") + bpe.encode("e")
    assert bpe.encode("th") + bpe.encode("e") != bpe.encode("the")


def test_a_long_document_is_tokenised_in_pieces_as_if_at_once(bpe, tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "PIECE_CHARS", 7)
    monkeypatch.setattr(tokens, "BUFFER_IDS", 5)
    document = f"the cat ate naïve rats{END} 😀 and the mat" * 3
    parts = (document[start : start + 10] for start in range(0, len(document), 10))
    in_parts = prepare([parts, "short"], bpe, tmp_path / "parts")
    file = prepare([document, "short"], bpe, tmp_path / "t")
    assert in_parts.header == file.header and (in_parts.ids == file.ids).all()
    assert file.ids.tolist() == bpe.encode(document) + bpe.encode("short")
    expected = hashlib.sha256(document.encode() + b"\xffshort\xff").hexdigest()
    assert file.header.corpus_sha256 == expected


@pytest.mark.parametrize(
    ("vocab_size", "dtype", "largest"),
    [(65_536, "<u2", 65_535), (65_537, "<u4", 65_536), (200_000, "<u4", 199_999)],
)
def test_the_vocabulary_chooses_the_width(tmp_path, vocab_size, dtype, largest):
    file = prepare([f"0 {largest}"], Numbers(vocab_size), tmp_path / "t")
    assert file.header.dtype == dtype
    assert file.ids.dtype == np.dtype(dtype)
    assert file.ids.tolist() == [0, largest]
    assert (tmp_path / "t").stat().st_size == HEADER_BYTES + 2 * file.ids.dtype.itemsize


def test_the_file_is_mapped_and_cannot_be_written(bpe, tmp_path):
    file = prepare(["the cat"], bpe, tmp_path / "t")
    assert isinstance(file.ids, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        file.ids[0] = 1


def test_two_corpora_differ_in_their_hash_even_if_their_letters_do_not(tmp_path):
    chars = CharTokenizer("abc")
    hashes = {
        prepare(documents, chars, tmp_path / "t").header.corpus_sha256
        for documents in (["abc"], ["ab", "c"], ["a", "bc"], ["abc", ""])
    }
    assert len(hashes) == 4


# Wrong input --------------------------------------------------------------------------------------


def test_another_tokenizer_is_refused(bpe, tmp_path):
    path = tmp_path / "t"
    prepare(["abc"], CharTokenizer("abc"), path)
    assert open_tokens(path, CharTokenizer("abc")).ids.tolist() == [0, 1, 2]
    for other in (CharTokenizer("acb"), bpe):
        with pytest.raises(ValueError, match=r"made with tokenizer .* but opened with") as error:
            open_tokens(path, other)
        assert "\n" not in str(error.value)
        assert "prepare it again" in str(error.value)


def test_a_file_that_is_none_or_is_cut_is_refused(tmp_path):
    path = tmp_path / "t"
    prepare(["abc"], CharTokenizer("abc"), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"expected 1,030 bytes for 3 tokens, found 1,029"):
        open_tokens(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="found 1,031"):
        open_tokens(path)
    path.write_bytes(whole[:40])
    with pytest.raises(ValueError, match="header is damaged"):
        open_tokens(path)
    path.write_bytes(whole.replace(b'"count"', b'"cuont"'))
    with pytest.raises(ValueError, match="header is damaged"):
        open_tokens(path)
    for was, now in (('t": 3', 't":-3'), ("<u2", "<f2"), ('"<u2"', "12345"), ('t": 3', 't":{}')):
        path.write_bytes(whole.replace(was.encode(), now.encode(), 1))
        with pytest.raises(ValueError, match=f"{path}: the header is damaged"):
            open_tokens(path)
    for other in (b"", b"some text"):
        path.write_bytes(other)
        with pytest.raises(ValueError, match="expected a token file"):
            open_tokens(path)
    with pytest.raises(FileNotFoundError):
        open_tokens(tmp_path / "missing")


def failing_documents():
    yield "abc"
    raise RuntimeError("the source broke")


@pytest.mark.parametrize(
    ("documents", "tokenizer", "separator", "error", "message"),
    [
        (["abx"], CharTokenizer("abc"), None, ValueError, "'x'"),
        (
            ["abc"],
            CharTokenizer("abc"),
            "<|end|>",
            ValueError,
            "unknown special token",
        ),
        ([], CharTokenizer("abc"), None, ValueError, "corpus is empty"),
        ([""], CharTokenizer("abc"), None, ValueError, "corpus is empty"),
        (["0 7"], Numbers(7), None, ValueError, "expected ids below vocab_size 7"),
        (["-1"], Numbers(7), None, ValueError, "ids from -1"),
        (failing_documents(), CharTokenizer("abc"), None, RuntimeError, "the source broke"),
    ],
)
def test_a_failure_leaves_nothing_new(
    tmp_path, listing, documents, tokenizer, separator, error, message
):
    (tmp_path / "t").write_bytes(b"what was there before")
    with pytest.raises(error, match=message):
        prepare(documents, tokenizer, tmp_path / "t", separator=separator)
    assert listing(tmp_path) == ["t"]
    assert (tmp_path / "t").read_bytes() == b"what was there before"


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, listing, monkeypatch):
    """A writer that fails as a full disk does, after the header and half of the first ids."""

    class FullDisk:
        left = HEADER_BYTES + 4

        def write(self, data):
            written = min(self.left, len(data))
            self.left -= written
            if not written:
                raise OSError(28, "No space left on device")
            return written

    disk = FullDisk()
    write = tokens._write
    monkeypatch.setattr(tokens, "_write", lambda out, data, path: write(disk, data, path))
    with pytest.raises(OSError, match=r"No space left on device; nothing is left") as error:
        prepare(["abcabc"], CharTokenizer("abc"), tmp_path / "t")
    assert error.value.errno == 28
    assert error.value.filename == str(tmp_path / "t")
    assert listing(tmp_path) == []


def test_a_system_that_writes_only_some_bytes_at_a_time_gets_them_all(tmp_path, monkeypatch):
    class Hesitant:
        def __init__(self, out):
            self.out = out

        def write(self, data):
            return self.out.write(data[:700])

    write = tokens._write
    monkeypatch.setattr(tokens, "_write", lambda out, data, path: write(Hesitant(out), data, path))
    file = prepare(["abc" * 1_000], CharTokenizer("abc"), tmp_path / "t")
    assert file.ids.tolist() == [0, 1, 2] * 1_000


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_real_limit_of_the_system_is_reported_and_leaves_nothing(tmp_path, listing):
    code = """
import resource, sys
from llmtutor.data.tokens import prepare
from llmtutor.tokenizer import CharTokenizer
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    prepare(["abc" * 100_000], CharTokenizer("abc"), sys.argv[1])
except OSError as error:
    print(error)
"""
    path = str(tmp_path / "t")
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert re.search(r"cannot write the tokens: .*; nothing is left behind", done.stdout)
    assert path in done.stdout
    assert listing(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="the peak of memory is read the POSIX way")
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Twelve times the documents, and one document of that length: the same peak."""
    code = """
import resource, sys
from llmtutor.data.tokens import prepare
from llmtutor.tokenizer import CharTokenizer
count, length, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
prepare(("ab c" * length for _ in range(count)), CharTokenizer(" abc"), path)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    unit = 1 if sys.platform == "darwin" else 1024

    def peak_megabytes(count: int, length: int) -> float:
        arguments = [str(count), str(length), str(tmp_path / "t")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        assert (tmp_path / "t").stat().st_size == HEADER_BYTES + 8 * count * length
        return int(done.stdout) * unit / 1e6

    small = peak_megabytes(200, 1_000)  # 0.8 MB of text, 1.6 MB of ids
    many = peak_megabytes(2_400, 1_000)  # 9.6 MB of text, 19 MB of ids, 77 MB as Python integers
    long = peak_megabytes(1, 2_400_000)
    assert many - small < 12
    assert long - small < 12 + 9.6  # the document itself
