"""Chapter 02, step 0: where corpora live on this machine.

Three places are looked at, in this order: the data folder (fetched files), the mirror folder
(files that somebody put at hand), and then the network.
"""

import atexit
import hashlib
import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from llmtutor.data.shipped import checkout

CHUNK = 1 << 20  # bytes read or written at a time

log = logging.getLogger("llmtutor.data")


class FetchError(OSError):
    """A corpus could not be fetched; the message says which file, its checksum and the way out."""


class ChecksumError(ValueError):
    """A file is there, but it is not the file that the registry names."""


def data_dir() -> Path:
    """The folder that holds fetched corpora (it need not exist yet).

    `LLMTUTOR_DATA` if set; else `data/` of the checkout this package runs from; else the
    user's cache folder, which is where an installed package may write.
    """
    if named := os.environ.get("LLMTUTOR_DATA"):
        return Path(named).expanduser()
    if (root := checkout()) is not None and (root / "data").is_dir():
        return root / "data"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmtutor"


def can_write(folder: Path) -> bool:
    """Whether files can be made in a folder; it is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def work_dir() -> Path:
    """The data folder; if it cannot be written, a folder that goes when this process ends.

    The place of what is made from the corpora, which can be made again.
    """
    return data_dir() if can_write(data_dir()) else _temporary_dir()


@cache
def _temporary_dir() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="llmtutor-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def mirror_dir() -> Path | None:
    """The folder named by `LLMTUTOR_MIRROR`, or None; it is only ever read.

    Raises `FileNotFoundError` if there is no such folder.
    """
    named = os.environ.get("LLMTUTOR_MIRROR")
    if not named:
        return None
    if not (folder := Path(named).expanduser()).is_dir():
        raise FileNotFoundError(
            f"LLMTUTOR_MIRROR names {folder}, where no folder is; name one that holds corpora, or "
            "unset it"
        )
    return folder


def find_local(file_name: str) -> Path | None:
    """`file_name` in the data folder or else in the mirror folder, or None if in neither."""
    for place in (data_dir, mirror_dir):
        if (folder := place()) is not None and (folder / file_name).is_file():
            return folder / file_name
    return None


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_checksum(path: Path, sha256: str) -> None:
    """Raise `ChecksumError` unless the file at `path` has this sha256."""
    found = sha256_file(path)
    if found != sha256:
        raise ChecksumError(
            f"{path}: expected sha256 {sha256}, found {found}; "
            "delete the file, or put the right one in its place, and fetch again"
        )
