"""Reading files as documents: whatever the file, in pieces, and never silently wrong."""

import gzip
import sys
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtutor.data import readers
from llmtutor.data.readers import END_OF_TEXT, read_parquet, read_pieces, read_separated


@pytest.fixture
def small_chunks(monkeypatch):
    """Three bytes at a time, so that every character and separator is cut somewhere."""
    monkeypatch.setattr(readers, "CHUNK", 3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("readers") / "corpus.txt"


def test_documents_end_at_the_separator(path):
    path.write_text(
        "One.\n<|endoftext|>\nTwo,\nmore.\n<|endoftext|>\n\n<|endoftext|>Three", "utf-8"
    )
    assert list(read_separated(path)) == ["One.", "Two,\nmore.", "Three"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=30)),
    st.integers(1, 40),
)
def test_the_cut_between_pieces_never_shows(path, documents, chunk):
    text = END_OF_TEXT.join(documents)
    path.write_bytes(text.encode("utf-8") or b"\n")
    expected = [document for document in text.split(END_OF_TEXT) if document]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "CHUNK", chunk)
        assert list(read_separated(path)) == expected
        assert "".join(read_pieces(path)) == (text or "\n")


def test_a_gzip_file_reads_as_its_text(path, tmp_path):
    zipped = tmp_path / "corpus.txt.gz"
    zipped.write_bytes(gzip.compress("Ein Bär.<|endoftext|>Två björnar.".encode()))
    assert list(read_separated(zipped)) == ["Ein Bär.", "Två björnar."]


def test_a_gzip_file_cut_short_is_an_error(tmp_path):
    zipped = tmp_path / "corpus.txt.gz"
    zipped.write_bytes(gzip.compress(bytes(range(1, 128)) * 5000)[:-20])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        list(read_separated(zipped))
    zipped.write_bytes(b"plain text")
    with pytest.raises(ValueError, match="not a whole gzip file"):
        list(read_separated(zipped))


@pytest.mark.parametrize("read", [read_pieces, read_separated])
def test_an_empty_file_is_an_error(path, read):
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="empty file"):
        list(read(path))


@pytest.mark.parametrize("read", [read_pieces, read_separated])
def test_a_binary_file_is_an_error_that_names_the_place(path, read, small_chunks):
    path.write_bytes(b"abcdefg\0hij")
    with pytest.raises(ValueError, match=r"zero byte at 7.*binary"):
        list(read(path))


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("abcdé".encode("latin-1"), "0xe9 at 4"),
        (b"abcdefgh\xc3", "0xc3 at 8"),  # ends inside a character
        ("ab€".encode()[:-1] + b"x", "0xe2 at 2"),  # cut across the chunk, then no continuation
        (b"\xfftext", "0xff at 0"),
    ],
)
def test_text_that_is_not_utf8_is_an_error_that_names_the_place(path, content, place, small_chunks):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"expected UTF-8 text, found byte {place}"):
        list(read_pieces(path))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_text_of_another_encoding_is_called_by_its_name(path, encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes(f"{mark}Ein Bär.".encode(encoding))
    name = encoding[:6].upper()
    with pytest.raises(ValueError, match=f"found {name}; convert .* `iconv -f {name} -t UTF-8`"):
        list(read_pieces(path))


def test_a_folder_is_no_text(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: expected a text file, found a folder"):
        list(read_pieces(tmp_path))


def test_parquet_without_pyarrow_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        list(read_parquet(tmp_path / "shard.parquet"))


def test_parquet_rows_are_documents(tmp_path, monkeypatch):
    """With pyarrow if it is installed, else with a stand-in for the two calls that are used."""
    pytest.importorskip("pyarrow", reason="pyarrow is optional")
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "shard.parquet"
    parquet.write_table(pyarrow.table({"text": ["One.", "Zwei."], "url": ["a", "b"]}), path)
    assert list(read_parquet(path)) == ["One.", "Zwei."]
    parquet.write_table(pyarrow.table({"body": ["One."], "url": ["a"]}), path)
    with pytest.raises(ValueError, match=r"expected a column 'text', found body, url"):
        list(read_parquet(path))


def test_parquet_is_read_a_batch_at_a_time(tmp_path, monkeypatch):
    """The stand-in counts how many batches were asked for when the first document arrived."""
    asked = []

    class Column(list):
        def to_pylist(self):
            return list(self)

    class ParquetFile:
        schema_arrow = types.SimpleNamespace(names=["text"])

        def __init__(self, path):
            self.path = path

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def iter_batches(self, batch_size, columns):
            for number in range(3):
                asked.append(number)
                yield types.SimpleNamespace(column=lambda _, n=number: Column([f"doc {n}"]))

    module = types.ModuleType("pyarrow.parquet")
    module.ParquetFile = ParquetFile
    monkeypatch.setitem(sys.modules, "pyarrow", types.ModuleType("pyarrow"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", module)
    documents = read_parquet(tmp_path / "shard.parquet")
    assert next(documents) == "doc 0"
    assert asked == [0]
    assert list(documents) == ["doc 1", "doc 2"]
