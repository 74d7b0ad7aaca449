"""The registry: names, splits, where things are, and what happens to a name that is none."""

import difflib
import hashlib
import re
import tracemalloc
from pathlib import Path

import pytest

from llmtutor.data import (
    CORPORA,
    corpus_info,
    load_corpus,
    readers,
    sources,
    stream_documents,
    tales,
)
from llmtutor.data.corpora import fetch, stream_pieces
from llmtutor.data.fetch import RemoteFile
from llmtutor.data.places import data_dir
from llmtutor.data.readers import read_separated
from llmtutor.data.sources import Files, Generated, OneText, OwnFile

README = Path(__file__).resolve().parents[2] / "data" / "README.md"


def remote_files() -> list[RemoteFile]:
    found = []
    for info in CORPORA.values():
        if isinstance(info.source, Files):
            found += [*info.source.train, *info.source.valid]
        elif isinstance(info.source, OneText):
            found.append(info.source.file)
    return found


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("shakespear", "shakespeare"),
        ("Shakespeare", "shakespeare"),
        ("tinystorys", "tinystories"),
        ("fineweb", "fineweb-edu"),
        ("open-web-text", "openwebtext"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(typed, meant):
    with pytest.raises(ValueError, match=f"text file '{typed}'; did you mean '{meant}'") as e:
        load_corpus(typed)
    assert "\n" not in str(e.value)
    assert difflib.get_close_matches(typed.lower(), CORPORA, n=1) == [meant]


def test_a_folder_and_a_name_that_is_too_long_are_no_corpus(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} is a folder; give the name of a corpus"):
        corpus_info(str(tmp_path))
    with pytest.raises(ValueError, match="unknown corpus or text file 'xxx"):
        corpus_info("x" * 5_000)


def test_the_environment_names_the_default_corpus(tmp_path, monkeypatch):
    own = tmp_path / "mine.txt"
    own.write_bytes(b"abcdefghij" * 10)
    monkeypatch.setenv("LLMTUTOR_CORPUS", str(own))
    assert load_corpus().name == "mine"
    monkeypatch.delenv("LLMTUTOR_CORPUS")
    assert load_corpus().name == "shakespeare"
    monkeypatch.setenv("LLMTUTOR_CORPUS", "nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        load_corpus()


# The registry itself ------------------------------------------------------------------------------


def test_every_file_has_a_safe_name_and_an_address_over_https():
    names = [file.name for file in remote_files()]
    assert len(names) == len(set(names)) > 9
    for file in remote_files():
        assert re.fullmatch(r"([\w.-]+/)?\w[\w.-]*", file.name)
        assert file.url is None or file.url.startswith("https://")
        assert file.url or file.sha256  # only a checksum can tell what a file by hand is
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)


def test_the_readme_gives_the_names_sizes_and_checksums_of_the_registry():
    text = README.read_text(encoding="utf-8")
    for name in CORPORA:
        assert f"| `{name}` |" in text
    for file in remote_files():
        assert file.name in text or file.name.startswith("fineweb-edu/")
        assert (file.sha256 or "") in text
        assert (f"{file.size:,}" if file.size else "") in text


def test_a_corpus_for_memory_is_small_and_a_large_one_is_streamed():
    for info in CORPORA.values():
        assert info.in_memory == ((info.size or 0) < 100_000_000)
    with pytest.raises(ValueError, match=r"stream_documents\('openwebtext', 'train'\)"):
        load_corpus("openwebtext")


def test_an_unknown_split_is_an_error():
    for read in (stream_documents, stream_pieces):
        with pytest.raises(ValueError, match=r"unknown split 'test'; .* train, valid"):
            read("tales", "test")


# Sources ------------------------------------------------------------------------------------------


def put(folder: Path, name: str, text: str, url: str | None = None) -> RemoteFile:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
    return RemoteFile(name, url, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_published_files_are_read_as_their_splits(data_folder):
    one = put(data_folder, "a/one.txt", "A<|endoftext|>B")
    two = put(data_folder, "a/two.txt", "C")
    three = put(data_folder, "three.txt", "D<|endoftext|>E")
    source = Files((one, two), (three,), read_separated)
    assert list(source.read("train")) == ["A", "B", "C"]
    assert list(source.read("valid")) == ["D", "E"]
    assert source.location() == str(data_folder)
    (data_folder / "three.txt").unlink()
    assert source.location() is None


def test_files_are_fetched_only_when_their_turn_comes(server, data_folder):
    server.body = b"A<|endoftext|>B"
    here = put(data_folder, "one.txt", "first")
    away = RemoteFile("two.txt", server.url)
    documents = Files((here, away), (), read_separated).read("train")
    assert next(documents) == "first"
    assert server.requests == []
    assert list(documents) == ["A", "B"]


def test_one_text_is_cut_at_nine_tenths(data_folder):
    source = OneText(put(data_folder, "text.txt", "0123456789" * 3 + "é"))
    assert list(source.read("train")) == ["0123456789" * 2 + "0123456"]
    assert list(source.read("valid")) == ["789é"]


def test_tinyshakespeare_is_cut_where_everybody_cuts_it(data_folder, monkeypatch):
    """Only where a mirror has the file; 1,003,854 and 111,540 are nanoGPT's numbers."""
    monkeypatch.undo()
    info = CORPORA["tinyshakespeare"]
    if info.source.location() is None:
        pytest.skip("tinyshakespeare is neither fetched nor in a mirror folder")
    corpus = load_corpus("tinyshakespeare")
    assert (len(corpus.train), len(corpus.valid)) == (1_003_854, 111_540)
    assert corpus.train.startswith("First Citizen:")


def test_the_sample_of_tinystories_has_no_story_on_both_sides(monkeypatch):
    if CORPORA["tinystories-sample"].source.location() is None:
        pytest.skip("the sample is not in a mirror folder")
    corpus = load_corpus("tinystories-sample")
    assert (len(corpus.train_documents), len(corpus.valid_documents)) == (5_610, 623)
    assert not set(corpus.train_documents) & set(corpus.valid_documents)


def test_a_sample_is_never_taken_for_the_published_file(data_folder):
    """TinyStories' own file name with other content: accepted once, never again with another."""
    data_folder.mkdir()
    for name in ("TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"):
        (data_folder / name).write_bytes(b"Once.<|endoftext|>")
    assert next(stream_documents("tinystories", "train")) == "Once."
    (data_folder / "TinyStoriesV2-GPT4-train.txt").write_bytes(b"Twice.<|endoftext|>")
    with pytest.raises(ValueError, match="recorded at the first fetch"):
        next(stream_documents("tinystories", "train"))


def test_own_file_with_documents_is_split_by_documents(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes("<|endoftext|>".join(f"doc {n}" for n in range(20)).encode())
    corpus = load_corpus(str(path))
    assert corpus.train_documents == [f"doc {n}" for n in range(18)]
    assert corpus.valid_documents == ["doc 18", "doc 19"]
    path.write_bytes(b"one<|endoftext|>two")
    assert load_corpus(str(path)).valid_documents == ["two"]


@pytest.mark.parametrize("separator", ["", "<|endoftext|>"])
def test_own_file_is_streamed_in_bounded_memory(tmp_path, monkeypatch, separator):
    """Peaks far below the 6 MB of text, whether it is one document or many."""
    monkeypatch.setattr(readers, "CHUNK", 1 << 14)
    path = tmp_path / "mine.txt"
    path.write_bytes(f"{'To be, or not to be. ' * 100}{separator}".encode() * 3_000)
    tracemalloc.start()
    counts = {
        split: sum(len(piece) for document in stream_pieces(str(path), split) for piece in document)
        for split in ("train", "valid")
    }
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000
    corpus = load_corpus(str(path))
    assert counts["train"] == sum(map(len, corpus.train_documents))
    assert counts["valid"] == sum(map(len, corpus.valid_documents))


def test_own_file_without_separator_is_cut_by_characters(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"0123456789")
    corpus = load_corpus(str(path))
    assert (corpus.train, corpus.valid) == ("012345678", "9")
    assert corpus_info(str(path)).source == OwnFile(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"\x00\x01\x02", "binary"),
        ("naïve".encode("latin-1"), "expected UTF-8"),
        (b"\n\n", "too small"),
    ],
)
def test_own_file_that_is_no_text_is_an_error(tmp_path, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_corpus(str(path))
    assert "\n" not in str(error.value)


def test_fetch_of_tales_has_nothing_to_do(data_folder):
    assert fetch("tales") == []
    assert not data_folder.exists()


# Tales --------------------------------------------------------------------------------------------


def test_tales_are_the_generator_s_stories():
    corpus = load_corpus("tales")
    source = CORPORA["tales"].source
    assert corpus.train_documents == tales.generate(source.n_train, source.seeds[0])
    assert set(corpus.valid_documents) <= set(tales.generate(source.n_valid, source.seeds[1]))
    assert not set(corpus.valid_documents) & set(corpus.train_documents)
    assert load_corpus("tales").valid_documents == corpus.valid_documents


def test_a_generated_document_on_both_sides_is_left_out_of_validation():
    def stories(n: int, seed: int) -> list[str]:
        return [str(number) for number in range(seed, seed + n)]

    source = Generated(stories, n_train=5, n_valid=4, seeds=(1, 4))
    assert list(source.read("train")) == ["1", "2", "3", "4", "5"]
    assert list(source.read("valid")) == ["6", "7"]


# Places -------------------------------------------------------------------------------------------


def test_data_folder_is_the_named_one_or_the_checkout_s_or_the_user_s(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "x"))
    assert data_dir() == tmp_path / "x"
    monkeypatch.delenv("LLMTUTOR_DATA")
    assert data_dir() == README.parent
    monkeypatch.setattr("llmtutor.data.places.checkout", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_dir() == tmp_path / "cache" / "llmtutor"


def test_every_source_keeps_the_protocol():
    for info in CORPORA.values():
        for method in ("fetch", "location", "read"):
            assert callable(getattr(info.source, method))
    assert sources.SPLITS == ("train", "valid")
