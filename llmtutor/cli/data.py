"""`llmtutor data`: list, fetch, tokenise and inspect the corpora."""

import logging
from itertools import islice
from pathlib import Path

import cyclopts
from tqdm import tqdm

from llmtutor.checks import check_at_least, check_name
from llmtutor.cli import Text
from llmtutor.data import CORPORA, corpus_info, stream_documents
from llmtutor.data.corpora import fetch as fetch_corpus
from llmtutor.data.corpora import stream_pieces
from llmtutor.data.readers import END_OF_TEXT
from llmtutor.data.sources import SPLITS
from llmtutor.data.tokens import prepare as prepare_tokens
from llmtutor.tokenizer import CharTokenizer, load_tokenizer

app = cyclopts.App(
    name="data",
    help="List, fetch, tokenise and inspect the corpora of the book.",
    help_epilogue=(
        "NAME is a name from `llmtutor data list`, or the path of a UTF-8 text file of your own "
        f"(its documents end at {END_OF_TEXT}, if it has several).\n\n"
        "Corpora are kept in the folder LLMTUTOR_DATA, else in data/ of the checkout, else in your "
        "cache folder. A folder named in LLMTUTOR_MIRROR is searched by file name before anything "
        "is downloaded."
    ),
)

STREAMED_DOCUMENTS = 10_000


@app.command(name="list")
def list_corpora() -> None:
    """Show the corpora: what they are, how large, under which licence, and where they are now."""
    print(f"{'NAME':20} {'SIZE':>7}  {'LICENCE':56} WHERE IT IS NOW")
    for info in CORPORA.values():
        size = "-" if info.size is None else tqdm.format_sizeof(info.size, "B")
        where = info.source.location() or "not fetched"
        print(f"{info.name:20} {size:>7}  {info.licence:56} {where}\n    {info.what}")


@app.command
def fetch(name: str, /) -> None:
    """Bring a corpus here and verify it; a second call does nothing.

    An interrupted download goes on where it stopped. Every file is checked against a sha256; where
    none is published, the first fetch is trusted, recorded beside the file, and held to that.

    Parameters
    ----------
    name
        The corpus, such as `shakespeare`.
    """
    logging.basicConfig(format="llmtutor: %(message)s")
    paths = fetch_corpus(name)
    size = sum(path.stat().st_size for path in paths)
    files = f"{len(paths):,} file{'s' * (len(paths) != 1)}, {size:,} bytes, verified"
    where = corpus_info(name).source.location()
    print(f"{name} is here: {where} ({files if paths else 'nothing to fetch'})")


@app.command
def prepare(name: str, /, *, tokenizer: Path, out: Path, separator: Text | None = None) -> None:
    """Tokenise a corpus into OUT/train.tokens and OUT/valid.tokens, to be memory-mapped.

    Memory stays bounded however large the corpus is, and a file appears whole or not at all. The
    header names the tokenizer, so that opening the file with another one is an error.

    Example: llmtutor data prepare shakespeare --tokenizer bpe-4096 --out data/tokens

    Parameters
    ----------
    name
        The corpus, such as `shakespeare`.
    tokenizer
        Folder of a saved tokenizer (see `llmtutor tokenizer train`).
    out
        Folder for the two files; made if it is not there.
    separator
        Special token to put after each document. Without this option it is <|endoftext|> if the
        tokenizer has that, and else nothing.
    """
    loaded = load_tokenizer(tokenizer)
    if separator is None and END_OF_TEXT in loaded.special_tokens:
        separator = END_OF_TEXT
    for split in SPLITS:
        documents = stream_pieces(name, split)
        file = prepare_tokens(documents, loaded, out / f"{split}.tokens", separator=separator)
        header = file.header
        width = f"{file.ids.dtype.itemsize} bytes each"
        print(f"{file.path}: {len(file):,} tokens, {header.n_documents:,} documents, {width}")


@app.command
def inspect(
    name: str,
    /,
    *,
    tokenizer: Path | None = None,
    plot: Path | None = None,
    documents: int | None = None,
) -> None:
    """Show what is in a corpus and what is wrong with it.

    Token frequencies, special tokens, document lengths, exact and near repeats, validation text
    that is also in the training text, and how much of a random batch is new.

    Parameters
    ----------
    name
        The corpus, such as `shakespeare`.
    tokenizer
        Folder of a saved tokenizer; without it a token is a character.
    plot
        Also draw rank against frequency into this file (.png, .svg or .pdf).
    documents
        Look only at the first so many documents of each split. Without this option all are read,
        but of a corpus too large for memory only the first 10,000.
    """
    from llmtutor.data.inspect import inspect_corpus  # noqa: PLC0415

    if documents is not None:
        check_at_least(1, documents=documents)
    if plot is not None:
        check_name("kind of picture", plot.suffix, (".png", ".svg", ".pdf"))
    if documents is None and not corpus_info(name).in_memory:
        documents = STREAMED_DOCUMENTS
    train, valid = (list(islice(stream_documents(name, split), documents)) for split in SPLITS)
    letters = "".join(sorted(set().union(*train, *valid)))
    loaded = load_tokenizer(tokenizer) if tokenizer else CharTokenizer(letters)
    report = inspect_corpus(train, valid, loaded)
    print(report.table())
    if plot is not None:
        from llmtutor.viz.plots import rank_frequency  # noqa: PLC0415

        counts = {"train": report.train.frequencies, "valid": report.valid.frequencies}
        figure = rank_frequency(counts, title=f"Tokens of {name}")
        figure.savefig(plot)
        print(f"\nwrote {plot}")
