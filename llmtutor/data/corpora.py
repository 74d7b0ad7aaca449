"""Chapter 02, step 5: the corpora by name, each parted once into training and validation.

`load_corpus()` gives a small corpus in memory; `stream_documents(name, split)` gives any corpus
one document after the other, however large, and `stream_pieces` gives each of these in pieces.
`data/README.md` says where each comes from and how it is parted.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

from llmtutor.checks import check_name
from llmtutor.data.fetch import RemoteFile
from llmtutor.data.readers import read_parquet, read_separated
from llmtutor.data.shakespeare import HELD_OUT, Shakespeare
from llmtutor.data.sources import SPLITS, Files, Generated, OneText, OwnFile, Source

DEFAULT = "shakespeare"
DOCUMENT_BREAK = "\n\n"

_CHAR_RNN = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
)
_HUB = "https://huggingface.co/datasets"
_STORIES = f"{_HUB}/roneneldan/TinyStories/resolve/f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"
_V2 = "TinyStoriesV2-GPT4"
_WEBTEXT = f"{_HUB}/stanford-cs336/owt-sample/resolve/86886dcee6d92159ca7538222a8c7ff4c79aa336"
_FINEWEB = f"{_HUB}/karpathy/fineweb-edu-100b-shuffle/resolve/main"


@dataclass(frozen=True)
class CorpusInfo:
    """What the registry knows about a corpus without opening it."""

    name: str
    what: str
    """What the text is, in one line."""
    licence: str
    size: int | None
    """Bytes to fetch, about; None if nothing is."""
    source: Source
    held_out: tuple[str, ...] = ()
    """Names of the validation documents, where documents have names."""
    in_memory: bool = True
    """Whether `load_corpus` may hold it whole; else it can only be streamed."""


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


def _tales(n: int, seed: int) -> list[str]:
    # imported late: reading the grammar takes longer than all other imports of this package
    documents: list[str] = import_module("llmtutor.data.tales").generate(n, seed)
    return documents


def _shard(index: int) -> RemoteFile:
    name = f"shard_{index:05d}.parquet"
    return RemoteFile(f"fineweb-edu/{name}", f"{_FINEWEB}/{name}")


_REGISTRY = (
    CorpusInfo(
        name="shakespeare",
        what="Shakespeare's works: 37 plays and 5 poems, modern spelling",
        licence="public domain",
        size=5_416_192,
        source=Shakespeare(),
        held_out=HELD_OUT,
    ),
    CorpusInfo(
        name="tales",
        what="made-up stories whose exact probability, hence the lowest possible loss, is known",
        licence="MIT (made by this package)",
        size=None,
        source=Generated(_tales, n_train=6_000, n_valid=600),
    ),
    CorpusInfo(
        name="tinyshakespeare",
        what="one megabyte of Shakespeare, the usual first corpus of character models",
        licence="public domain",
        size=1_115_394,
        source=OneText(
            RemoteFile(
                "tinyshakespeare.txt",
                f"{_CHAR_RNN}/data/tinyshakespeare/input.txt",
                size=1_115_394,
                sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            )
        ),
    ),
    CorpusInfo(
        name="tinystories",
        what="TinyStoriesV2-GPT4: 2.7 million short stories written by GPT-4 in simple words",
        licence="CDLA-Sharing-1.0",
        size=2_250_000_000,
        source=Files(
            train=(RemoteFile(f"{_V2}-train.txt", f"{_STORIES}/{_V2}-train.txt"),),
            valid=(RemoteFile(f"{_V2}-valid.txt", f"{_STORIES}/{_V2}-valid.txt"),),
            reader=read_separated,
        ),
        in_memory=False,
    ),
    CorpusInfo(
        name="tinystories-sample",
        what="6,233 of the stories, decoded from a public copy of their GPT-2 tokens",
        licence="CDLA-Sharing-1.0",
        size=5_075_210,
        source=Files(
            train=(
                RemoteFile(
                    "tinystories_train.txt",
                    url=None,
                    size=4_563_676,
                    sha256="11ac8ae5b54d276bacad4a0a08a6365b2b942ee25f18286e09e1826d881c7686",
                ),
            ),
            valid=(
                RemoteFile(
                    "tinystories_valid.txt",
                    url=None,
                    size=511_534,
                    sha256="5260c6e094dc81b0f31247ba077add7e346767f97a0e8c6c223ef61be7d660de",
                ),
            ),
            reader=read_separated,
        ),
    ),
    CorpusInfo(
        name="openwebtext",
        what="a sample of OpenWebText, pages that people linked to: the one used by CS336",
        licence="CC0 (the collection; pages keep their authors' rights)",
        size=4_703_026_219,
        source=Files(
            train=(
                RemoteFile(
                    "owt_train.txt.gz",
                    f"{_WEBTEXT}/owt_train.txt.gz",
                    size=4_591_240_837,
                    sha256="b19ae88cfbc4016b304c348522455fe38ebac48fffed955adcc7191a89e38ccf",
                ),
            ),
            valid=(
                RemoteFile(
                    "owt_valid.txt.gz",
                    f"{_WEBTEXT}/owt_valid.txt.gz",
                    size=111_785_382,
                    sha256="bc73db5da2f19c360836b9c8a88094e13346ec83798c2f40060be39135768c80",
                ),
            ),
            reader=read_separated,
        ),
        in_memory=False,
    ),
    CorpusInfo(
        name="fineweb-edu",
        what="educational web pages: 5 of the 1,823 shuffled shards of a FineWeb-Edu sample",
        licence="ODC-By 1.0",
        size=500_000_000,
        source=Files(
            train=tuple(_shard(index) for index in range(4)),
            valid=(_shard(1822),),
            reader=read_parquet,
        ),
        in_memory=False,
    ),
)

CORPORA: dict[str, CorpusInfo] = {info.name: info for info in _REGISTRY}


def corpus_info(name: str) -> CorpusInfo:
    """The registry entry, or an entry for the text file that `name` is the path of.

    Any other name raises `ValueError` that suggests the nearest one.

    >>> corpus_info("shakespear")
    Traceback (most recent call last):
    ValueError: unknown corpus or text file 'shakespear'; did you mean 'shakespeare'? There are ...
    """
    path = Path(name)
    if name not in CORPORA and os.path.isdir(path):
        raise ValueError(f"{name} is a folder; give the name of a corpus or of a text file")
    # `os.path.isfile`, for which a name that is too long is no file either
    if name not in CORPORA and os.path.isfile(path):
        return CorpusInfo(
            name=path.stem,
            what=f"the file {path}",
            licence="not known",
            size=path.stat().st_size,
            source=OwnFile(path),
        )
    return CORPORA[check_name("corpus or text file", name, CORPORA)]


def fetch(name: str) -> list[Path]:
    """Make the corpus' files present and verified, and name them; a second call does nothing.

    Raises `FetchError` (an `OSError`) or `ChecksumError` (a `ValueError`), each one clear line.
    """
    return corpus_info(name).source.fetch()


def stream_documents(name: str, split: str) -> Iterator[str]:
    """The documents of `train` or `valid` one after the other, in memory for one of them."""
    return corpus_info(name).source.read(check_name("split", split, SPLITS))


def stream_pieces(name: str, split: str) -> Iterator[Iterable[str]]:
    """The same documents, each in pieces: also a file that is one long document fits in memory."""
    source = corpus_info(name).source
    if isinstance(source, OwnFile):
        return source.pieces(check_name("split", split, SPLITS))
    return ([document] for document in stream_documents(name, split))


def load_corpus(name: str | None = None) -> Corpus:
    """The corpus `name`, or `LLMTUTOR_CORPUS`, or `shakespeare`; fetched first if need be.

    A corpus too large for memory raises `ValueError`: stream it.
    """
    info = corpus_info(name or os.environ.get("LLMTUTOR_CORPUS") or DEFAULT)
    if not info.in_memory:
        raise ValueError(
            f"corpus {info.name!r} is too large to hold in memory: iterate over "
            f"stream_documents({info.name!r}, 'train'), or run `llmtutor data prepare {info.name}`"
        )
    train, valid = list(info.source.read("train")), list(info.source.read("valid"))
    if not any(train) or not any(valid):
        raise ValueError(f"corpus {info.name!r} is too small to part into training and validation")
    return Corpus(info.name, train, valid, info)
