"""The tokenizer by hand, as a stream, through its files, and fed with bad input."""

import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtutor.tokenizer import BPETokenizer, CharTokenizer, Tokenizer, load_tokenizer

END = "<|endoftext|>"
BYTES = {bytes([byte]): byte for byte in range(256)}
# The example of the CS336 assignment, with ids of our own: bytes, merges, special tokens.
MERGES = [(b"t", b"h"), (b" ", b"c"), (b" ", b"a"), (b"th", b"e"), (b" a", b"t")]
VOCAB = BYTES | {left + right: 256 + i for i, (left, right) in enumerate(MERGES)}


@pytest.fixture
def tokenizer() -> BPETokenizer:
    return BPETokenizer(VOCAB, MERGES, {END: 261})


def test_by_hand(tokenizer: BPETokenizer) -> None:
    """the | cat | ate: th+e; ␣c+a+t; ␣a+t first makes ␣a (258), then ␣at (260)."""
    assert tokenizer.encode("the cat ate") == [259, 257, 97, 116, 260, 101]
    assert tokenizer.encode("") == []
    assert tokenizer.encode("é") == [0xC3, 0xA9]
    assert tokenizer.decode([259, 257, 97, 116]) == "the cat"
    assert tokenizer.decode([]) == ""
    assert tokenizer.token_bytes(260) == b" at"
    assert tokenizer.vocab_size == 262


def test_special_tokens_by_hand(tokenizer: BPETokenizer) -> None:
    text = f"the{END} cat"
    assert tokenizer.encode(text) == [259, 261, 257, 97, 116]
    assert tokenizer.decode([259, 261]) == f"the{END}"
    assert tokenizer.token_bytes(261) == END.encode()
    ordinary = tokenizer.encode(text, allow_special=False)
    assert 261 not in ordinary and tokenizer.decode(ordinary) == text
    longest = BPETokenizer(VOCAB, MERGES, {END: 261, END + END: 262})
    assert longest.encode(END * 3) == [262, 261]


def test_malformed_bytes(tokenizer: BPETokenizer) -> None:
    assert tokenizer.decode([0xC3]) == "\ufffd"
    assert tokenizer.decode([0xC3, 0xC3, 0xA9]) == "\ufffdé"
    assert tokenizer.decode([0xFF, 97, 0xE4, 0xB8]) == "\ufffda\ufffd"


def test_ids_may_be_numpy_numbers(tokenizer: BPETokenizer) -> None:
    ids = np.array([259, 257], dtype=np.uint16)
    assert tokenizer.decode(ids) == "the c"
    assert tokenizer.token_bytes(ids[0]) == b"the"


@pytest.mark.parametrize("id", [-1, 262, 10**9])
def test_unknown_ids(tokenizer: BPETokenizer, id: int) -> None:
    with pytest.raises(ValueError, match=f"ids from 0 to 261, found {id}"):
        tokenizer.decode([259, id])
    with pytest.raises(ValueError, match=f"found {id}"):
        tokenizer.token_bytes(id)


def test_lone_surrogates(tokenizer: BPETokenizer) -> None:
    for allow_special in (True, False):
        with pytest.raises(ValueError, match=r"surrogate U\+D83D at character 4") as error:
            tokenizer.encode("the \ud83d", allow_special=allow_special)
        assert type(error.value) is ValueError
    with pytest.raises(ValueError, match="surrogate"):
        list(tokenizer.encode_iterable(["the ", "\ude00"]))


def test_both_kinds_keep_the_protocol(tokenizer: BPETokenizer) -> None:
    assert isinstance(tokenizer, Tokenizer)
    assert isinstance(CharTokenizer("ab"), Tokenizer)


def test_a_tokenizer_can_be_sent_to_another_process(tokenizer: BPETokenizer) -> None:
    before = tokenizer.encode("the cat ate")
    back = pickle.loads(pickle.dumps(tokenizer))
    assert back.fingerprint() == tokenizer.fingerprint()
    assert back.encode("the cat ate") == before and back.encode("that") == tokenizer.encode("that")


def test_nothing_here_imports_torch() -> None:
    code = "import sys, llmtutor.tokenizer.fast; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Streams


@settings(max_examples=25, deadline=None)
@given(seed=st.randoms(use_true_random=False), pieces=st.integers(1, 200))
def test_any_chunks_give_the_ids_of_the_whole(trained, code, seed, pieces: int) -> None:
    """More than two of the pieces that the stream is encoded in, cut anywhere into chunks."""
    start = seed.randrange(len(code) - 150_000)
    text = code[start : start + 150_000].replace("\n\n", f"\n{END}")
    cuts = [0, *sorted(seed.randrange(len(text) + 1) for _ in range(pieces)), len(text)]
    chunks = [text[a:b] for a, b in pairwise(cuts)]
    ours = trained.ours
    assert list(ours.encode_iterable(chunks)) == ours.encode(text)


def test_chunks_of_one_character(trained, code: str) -> None:
    text = code[:70_000].replace("\n\n", END)
    assert list(trained.ours.encode_iterable(text)) == trained.ours.encode(text)


def test_an_endless_stream_in_bounded_memory(trained) -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "To be, or not to be, that is the question:\n"

    list(islice(trained.ours.encode_iterable(endless()), 100_000))  # warm up the words
    tracemalloc.start()
    read = sum(1 for _ in islice(trained.ours.encode_iterable(endless()), 500_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == 500_000 and peak < 4_000_000


def test_an_endless_word_is_refused(trained) -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "a" * 1000

    with pytest.raises(ValueError, match=r"found no end of a word in .* Encode it as one string"):
        next(trained.ours.encode_iterable(endless()))


@pytest.mark.parametrize("word", ["\n", "a", "\U000323b0"])
def test_a_long_word_of_a_stream_is_encoded_as_in_one_string(trained, word: str) -> None:
    text = "to be" + word * 400_000 + " or not"
    assert list(trained.ours.encode_iterable([text])) == trained.ours.encode(text)


# Files


def test_files_come_back(tokenizer: BPETokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "new" / "folder")
    back = load_tokenizer(tmp_path / "new" / "folder")
    assert isinstance(back, BPETokenizer)
    assert (back.vocab, back.merges) == (tokenizer.vocab, tokenizer.merges)
    assert back.special_tokens == {END: 261}
    assert back.fingerprint() == tokenizer.fingerprint()
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == ["merges.txt", "vocab.json"]


def test_files_are_those_of_gpt2(gpt2, mirror: Path, tmp_path: Path) -> None:
    """Whose merges came from the ranks of its tokens alone."""
    gpt2.ours.save(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        ours = (tmp_path / name).read_text(encoding="utf-8")
        theirs = (mirror / "gpt2" / name).read_text(encoding="utf-8")
        if name == "vocab.json":
            assert json.loads(ours) == json.loads(theirs)
        else:
            assert ours.split("\n") == theirs.split("\n")


def test_files_are_those_of_the_rust_library(trained, tmp_path: Path) -> None:
    (tmp_path / "rust").mkdir()
    trained.rust.model.save(str(tmp_path / "rust"))
    trained.ours.save(tmp_path / "ours")
    for name in ("vocab.json", "merges.txt"):
        ours = (tmp_path / "ours" / name).read_text(encoding="utf-8")
        theirs = (tmp_path / "rust" / name).read_text(encoding="utf-8")
        assert ours.strip() == theirs.strip() or json.loads(ours) == json.loads(theirs)


def test_more_special_tokens_at_loading(tokenizer: BPETokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    more = BPETokenizer.load(tmp_path, special_tokens=["<pad>", END])
    assert more.special_tokens == {END: 261, "<pad>": 262}
    assert more.fingerprint() != tokenizer.fingerprint()


def test_merges_written_on_windows(tokenizer: BPETokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / "merges.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert BPETokenizer.load(tmp_path).merges == tokenizer.merges


def test_merges_of_number_signs(tmp_path: Path) -> None:
    tokenizer = BPETokenizer.train("## ## ##", 258)
    tokenizer.save(tmp_path)
    assert tokenizer.merges[0] == (b"#", b"#")
    assert BPETokenizer.load(tmp_path).merges == tokenizer.merges


def test_fingerprints_tell_tokenizers_apart(tokenizer: BPETokenizer) -> None:
    swapped = dict(VOCAB)
    swapped[b"th"], swapped[b" c"] = swapped[b" c"], swapped[b"th"]
    others = [
        BPETokenizer(VOCAB, MERGES),
        BPETokenizer(VOCAB, MERGES, {"<|end|>": 261}),
        BPETokenizer(swapped, MERGES, {END: 261}),
        BPETokenizer(VOCAB, [MERGES[1], MERGES[0], *MERGES[2:]], {END: 261}),
        BPETokenizer(VOCAB, MERGES, {END: 261}, pattern=r"\s|\S+"),
    ]
    prints = {other.fingerprint() for other in [tokenizer, *others]}
    assert len(prints) == len(others) + 1
    assert BPETokenizer(VOCAB, MERGES, {END: 261}).fingerprint() == tokenizer.fingerprint()
    assert all(len(digits) == 64 and int(digits, 16) for digits in prints)


def test_another_pattern_is_not_lost_in_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to_tokenizers"):
        BPETokenizer(VOCAB, MERGES, pattern=r"\s|\S+").save(tmp_path)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("failing", ["write", "replace"])
def test_a_full_disk_leaves_the_old_files(
    failing: str, tokenizer: BPETokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if data.startswith(b"#version"):
            write(self, data[:10])
            raise OSError(28, "No space left on device")
        return write(self, data)

    def refuse(*args: object) -> None:
        raise PermissionError(13, "in use")

    if failing == "write":
        monkeypatch.setattr(Path, "write_bytes", full)
    else:
        monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=r"No space left|in use"):
        BPETokenizer.train("other text", 260).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_error_of_the_system_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").mkdir()
    with pytest.raises(OSError) as error:
        BPETokenizer.train("text", 257).save(tmp_path)
    assert error.value.filename == str(tmp_path / "vocab.json")
    with pytest.raises(NotADirectoryError, match=r"found a file, .* another folder"):
        BPETokenizer.train("text", 257).save(tmp_path / "merges.txt" / "folder")


# Bad parts and bad files


@pytest.mark.parametrize(
    ("vocab", "merges", "special", "said"),
    [
        ({b"a": 0}, [], {}, r"all 256 bytes in the vocabulary, found 1 of them; b'\\x00'"),
        (VOCAB, [*MERGES, (b"x", b"y")], {}, r"b'xy' of the merge b'x' \+ b'y' is missing"),
        (VOCAB, [*MERGES, MERGES[0]], {}, "each merge once"),
        (VOCAB, MERGES[:-1], {}, "found b' at', which no merge makes"),
        (VOCAB, MERGES, {END: 262}, "the ids 0 to 261, each once"),
        (VOCAB, MERGES, {END: 260}, "the ids 0 to 261, each once"),
        (VOCAB, MERGES, {"": 261}, "at least one character"),
        (VOCAB, MERGES, {"the": 261}, "'the' is the name of b'the'"),
        (VOCAB, MERGES, {"Ġa": 261}, "'Ġa' is the name of b' a'"),
        (VOCAB, MERGES, {"\ud800": 261}, "surrogate"),
    ],
)
def test_parts_that_do_not_fit(vocab: dict, merges: list, special: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BPETokenizer(vocab, merges, special)


def test_a_bad_pattern() -> None:
    with pytest.raises(ValueError, match="expected a pattern"):
        BPETokenizer(VOCAB, MERGES, pattern="(")


def named(change: dict[str, object]) -> bytes:
    names = {"Ġ" if byte == 32 else chr(byte): byte for byte in range(33, 127)}
    return json.dumps(names | change).encode()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("vocab.json", b"", "vocab.json: expected a JSON object"),
        ("vocab.json", b'{"a": 1', "vocab.json: expected a JSON object"),
        ("vocab.json", b"[1, 2]", "found list"),
        ("vocab.json", b'{"a": 1, "a": 2}', "the key 'a' comes twice"),
        ("vocab.json", b"\xff\xfe", "expected UTF-8 text, found byte 0xff at 0"),
        ("vocab.json", named({"!": "one"}), "whole number as id of '!', found 'one'"),
        ("vocab.json", named({"!": True}), "whole number as id of '!', found True"),
        ("vocab.json", named({}), "all 256 bytes in the vocabulary"),
        ("vocab.json", b"[" * 100_000, "expected a JSON object"),
        ("merges.txt", b"#version: 0.2\nt h e\n", "merges.txt, line 2: expected two tokens"),
        ("merges.txt", b"#version: 0.2\nt h\nth\n", "line 3: expected two tokens and one space"),
        ("merges.txt", b"t \n", "line 1: expected two tokens"),
        ("merges.txt", "t h\n中 e\n".encode(), "line 2: .*'中' stands for no byte"),
        ("merges.txt", b"q q\n", r"merge b'q' \+ b'q' is missing"),
        ("merges.txt", b"\x80", "expected UTF-8 text, found byte 0x80 at 0"),
    ],
)
def test_malformed_files(
    file: str, content: bytes, said: str, tokenizer: BPETokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_missing_files(tokenizer: BPETokenizer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="llmtutor tokenizer train"):
        load_tokenizer(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"merges\.txt"):
        load_tokenizer(tmp_path)
    (tmp_path / "chars.json").write_text('{"chars": "ab"}', encoding="utf-8")
    with pytest.raises(ValueError, match="holds both"):
        load_tokenizer(tmp_path)
