"""Chapter 02, step 4: where documents come from. A source is one class with three methods."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

from llmtutor.data.fetch import RemoteFile, fetch_file
from llmtutor.data.places import find_local
from llmtutor.data.readers import read_pieces, separated_pieces

SPLITS = ("train", "valid")


class Source(Protocol):
    """Where documents come from."""

    def fetch(self) -> list[Path]:
        """Make the files present and verified, and name them; a second call does nothing."""

    def location(self) -> str | None:
        """Where the files are now; None if they would have to be downloaded."""

    def read(self, split: str) -> Iterator[str]:
        """The documents of `train` or `valid`, lazily; fetches what is missing."""


@dataclass(frozen=True)
class Files:
    """Files that the publisher has parted already."""

    train: tuple[RemoteFile, ...]
    valid: tuple[RemoteFile, ...]
    reader: Callable[[Path], Iterator[str]]

    def fetch(self) -> list[Path]:
        """Fetch both splits."""
        return [fetch_file(file) for file in (*self.train, *self.valid)]

    def location(self) -> str | None:
        """The folder of the last file, if all are here."""
        found = [find_local(file.name) for file in (*self.train, *self.valid)]
        return str(found[-1].parent) if found[-1] and all(found) else None

    def read(self, split: str) -> Iterator[str]:
        """The documents of the split's files, fetched one by one."""
        for file in self.train if split == "train" else self.valid:
            yield from self.reader(fetch_file(file))


@dataclass(frozen=True)
class OneText:
    """A single text, the first 90 % of whose characters train."""

    file: RemoteFile

    def fetch(self) -> list[Path]:
        """Fetch the file."""
        return [fetch_file(self.file)]

    def location(self) -> str | None:
        """The file, if it is here."""
        found = find_local(self.file.name)
        return str(found) if found else None

    def read(self, split: str) -> Iterator[str]:
        """The part of the text that belongs to the split."""
        text = "".join(read_pieces(fetch_file(self.file)))
        cut = int(0.9 * len(text))
        yield text[:cut] if split == "train" else text[cut:]


@dataclass(frozen=True)
class OwnFile:
    """A text file of the caller's; documents end at `<|endoftext|>`, if there are any."""

    path: Path

    def fetch(self) -> list[Path]:
        """Nothing to fetch."""
        return [self.path]

    def location(self) -> str | None:
        """The file."""
        return str(self.path)

    def read(self, split: str) -> Iterator[str]:
        """The first 90 % of the documents train; of a single document, of its characters."""
        return map("".join, self.pieces(split))

    def pieces(self, split: str) -> Iterator[Iterator[str]]:
        """The same documents, each in pieces, so that none has to fit into memory."""
        n_documents = n_chars = 0
        for document in separated_pieces(self.path):
            n_documents += 1
            n_chars += sum(map(len, document))
        whole = n_documents if n_documents > 1 else n_chars
        cut = min(int(0.9 * whole), max(whole - 1, 0))
        start, stop = (0, cut) if split == "train" else (cut, whole)
        documents = separated_pieces(self.path)
        if n_documents > 1:
            yield from islice(documents, start, stop)
        else:
            yield _stretch(chain.from_iterable(documents), start, stop)


def _stretch(pieces: Iterable[str], start: int, stop: int) -> Iterator[str]:
    """The characters from `start` to `stop` of the joined pieces."""
    done = 0
    for piece in pieces:
        if text := piece[max(start - done, 0) : max(stop - done, 0)]:
            yield text
        done += len(piece)


@dataclass(frozen=True)
class Generated:
    """Documents made on the spot; training and validation have seeds of their own."""

    generate: Callable[[int, int], list[str]]
    """`generate(n, seed)` gives n documents."""
    n_train: int
    n_valid: int
    seeds: tuple[int, int] = (1, 2)

    def fetch(self) -> list[Path]:
        """Nothing to fetch."""
        return []

    def location(self) -> str | None:
        """Never missing."""
        return "(generated)"

    def read(self, split: str) -> Iterator[str]:
        """`n_train` documents, or those of `n_valid` that are not among the training documents."""
        train = self.generate(self.n_train, self.seeds[0])
        if split == "train":
            yield from train
            return
        known = set(train)
        valid = self.generate(self.n_valid, self.seeds[1])
        yield from (document for document in valid if document not in known)
