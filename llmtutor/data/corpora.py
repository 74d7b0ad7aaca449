"""Chapter 02, step 2: the corpora by name, each with its documents split once and for all."""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llmtutor.data import shakespeare
from llmtutor.data.places import data_dir

DEFAULT = "shakespeare"
DOCUMENT_BREAK = "\n\n"

Split = tuple[list[str], list[str]]


@dataclass(frozen=True)
class CorpusInfo:
    """What the registry knows about a corpus without opening it."""

    name: str
    what: str
    """One line: what the text is."""
    licence: str
    size: int | None
    """Bytes of text; None when generated."""
    split: str
    """How training and validation documents were parted, and why so."""
    fetch: Callable[[], list[Path]]
    read: Callable[[], Split]
    is_fetched: Callable[[], bool]
    held_out: tuple[str, ...] = ()
    """Names of the validation documents, where documents have names."""


@dataclass(frozen=True)
class Corpus:
    """Training and validation text; a document is what the source calls one (a play, a story)."""

    name: str
    train_documents: list[str]
    valid_documents: list[str]
    info: CorpusInfo

    @cached_property
    def train(self) -> str:
        """The training documents joined by a blank line."""
        return DOCUMENT_BREAK.join(self.train_documents)

    @cached_property
    def valid(self) -> str:
        """The validation documents joined by a blank line."""
        return DOCUMENT_BREAK.join(self.valid_documents)


def _shakespeare() -> Split:
    works = shakespeare.read_shakespeare()
    held_out = set(shakespeare.HELD_OUT)
    train = [text for work, text in works.items() if work not in held_out]
    return train, [works[work] for work in shakespeare.HELD_OUT]


CORPORA: dict[str, CorpusInfo] = {
    "shakespeare": CorpusInfo(
        name="shakespeare",
        what="Shakespeare's works, 37 plays and 5 poems, modern spelling",
        licence="public domain",
        size=5_057_198,
        split="by whole works: one of each kind held out, none of them part of a cycle",
        fetch=shakespeare.fetch_shakespeare,
        read=_shakespeare,
        is_fetched=shakespeare.is_fetched,
        held_out=shakespeare.HELD_OUT,
    ),
}


def corpus_info(name: str) -> CorpusInfo:
    """The registry entry; an unknown name raises `ValueError` that suggests the nearest one."""
    if name in CORPORA:
        return CORPORA[name]
    nearest = difflib.get_close_matches(name, CORPORA, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ValueError(f"unknown corpus {name!r}: {hint}the corpora are {', '.join(CORPORA)}")


def fetch(name: str) -> list[Path]:
    """Make the corpus' files present and verified; a second call does nothing."""
    return corpus_info(name).fetch()


def load_corpus(name: str | None = None, *, download: bool = True) -> Corpus:
    """The corpus `name`, or `LLMTUTOR_CORPUS`, or `shakespeare`; fetched first if need be.

    With `download=False` a corpus that is not there raises `FileNotFoundError` instead.
    """
    info = corpus_info(name or os.environ.get("LLMTUTOR_CORPUS") or DEFAULT)
    if not download and not info.is_fetched():
        raise FileNotFoundError(
            f"corpus {info.name!r} is not in {data_dir()}: run `llmtutor data fetch {info.name}`"
        )
    train, valid = info.read()
    return Corpus(info.name, train, valid, info)
