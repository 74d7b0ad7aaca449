"""Chapter 11, training: from the name of a corpus to ids in memory-mapped files.

Tokenizing is done once: what is made lies in the data folder under the tokenizer's fingerprint. Of
several processes one makes it while the others wait. No text is held in memory whole.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from llmtutor.data.corpora import CORPORA, DOCUMENT_BREAK, corpus_info, stream_pieces
from llmtutor.data.locks import alone
from llmtutor.data.places import data_dir, sha256_file, work_dir
from llmtutor.data.readers import END_OF_TEXT
from llmtutor.data.sources import SPLITS, OwnFile
from llmtutor.data.tokens import TokenFile, open_tokens, prepare
from llmtutor.tokenizer import BPETokenizer, CharTokenizer, Tokenizer, load_tokenizer
from llmtutor.tokenizer.files import MERGES_FILE, VOCAB_FILE
from llmtutor.tokenizer.pretokenize import safe_pieces
from llmtutor.train.config import TrainConfig

TOKEN_FILES = tuple(f"{split}.tokens" for split in SPLITS)


@dataclass(frozen=True)
class Text:
    """What a run reads."""

    tokenizer: Tokenizer
    train: TokenFile
    valid: TokenFile


def load_text(config: TrainConfig) -> Text:
    """Tokenizer and token files of a run, made if they are not there.

    Raises:
        ValueError: an unknown corpus or tokenizer, a folder that is not prepared, a batch larger
            than the training text, a sequence longer than one of the two texts.
    """
    prepared = _prepared_folder(config.corpus)
    tokenizer = load_or_train_tokenizer(config.tokenizer, config.corpus)
    folder = prepared or _tokens_folder(config.corpus, tokenizer)
    text = Text(tokenizer, *(open_tokens(folder / file, tokenizer) for file in TOKEN_FILES))
    _check_sizes(text, config)
    return text


def load_or_train_tokenizer(name: str, corpus: str) -> Tokenizer:
    """``char`` and ``bpe-N`` are learned from the corpus, anything else is a tokenizer's folder.

    Characters are those of both splits, so that no held-out text is refused; byte pairs are counted
    in the training split alone, and kept in the data folder.
    """
    if os.path.isdir(name):
        return load_tokenizer(Path(name))
    prepared = _prepared_folder(corpus)
    known = re.fullmatch(r"char|bpe-(\d+)", name)
    if prepared or not known:
        raise ValueError(
            f"expected the tokenizer to be char, bpe-N (such as bpe-1024) or a folder, got {name!r}"
            + (f"; {corpus} is prepared, so give its tokenizer" if prepared else "")
        )
    if name == "char":
        letters = set(DOCUMENT_BREAK)
        for split in SPLITS:
            for document in stream_pieces(corpus, split):
                for piece in document:
                    letters.update(piece)
        return CharTokenizer("".join(sorted(letters)))

    def learn(folder: Path) -> None:
        documents = stream_pieces(corpus, "train")
        texts = chain.from_iterable(safe_pieces(d, [END_OF_TEXT]) for d in documents)
        BPETokenizer.train(texts, int(known[1]), [END_OF_TEXT]).save(folder)

    place = f"tokenizers/{_key(corpus)}-{name}"
    return load_tokenizer(_made(place, (VOCAB_FILE, MERGES_FILE), learn))


def _prepared_folder(corpus: str) -> Path | None:
    """The folder that ``corpus`` is, with the two token files; None for a name or a text file."""
    if corpus in CORPORA or not os.path.isdir(corpus):
        return None
    folder = Path(corpus)
    if not _has(folder, *TOKEN_FILES):
        raise ValueError(
            f"{corpus} is a folder, but not one of `llmtutor data prepare`, which holds "
            f"{' and '.join(TOKEN_FILES)}; prepare it, or give the path of a text file"
        )
    return folder


def _tokens_folder(corpus: str, tokenizer: Tokenizer) -> Path:
    """The folder of the corpus' token files, which are made unless they are there."""
    separator = END_OF_TEXT if END_OF_TEXT in tokenizer.special_tokens else None

    def tokenise(folder: Path) -> None:
        for split, file in zip(SPLITS, TOKEN_FILES, strict=True):
            documents = stream_pieces(corpus, split)
            if separator is None:
                documents = _with_breaks(documents)
            prepare(documents, tokenizer, folder / file, separator=separator)

    return _made(f"tokens/{_key(corpus)}-{tokenizer.fingerprint()[:12]}", TOKEN_FILES, tokenise)


def _made(place: str, files: Sequence[str], make: Callable[[Path], None]) -> Path:
    """The folder ``place`` with these files, which one process makes unless they are there."""
    if _has(folder := data_dir() / place, *files):
        return folder
    folder = work_dir() / place
    folder.parent.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        if not _has(folder, *files):
            make(folder)
    return folder


def _has(folder: Path, *files: str) -> bool:
    return all((folder / file).is_file() for file in files)


def _key(corpus: str) -> str:
    """A corpus' name; a file of one's own is known by its content, which may change."""
    info = corpus_info(corpus)
    if isinstance(info.source, OwnFile):
        name = info.name[:40]  # names of files may be as long as the system allows, this one longer
        return f"{name}-{sha256_file(info.source.path)[:12]}"
    return info.name


def _with_breaks(documents: Iterator[Iterable[str]]) -> Iterator[Iterable[str]]:
    """A blank line between documents, as in ``Corpus.train``, where no token can part them."""
    for i, document in enumerate(documents):
        yield chain([DOCUMENT_BREAK], document) if i else document


def _check_sizes(text: Text, config: TrainConfig) -> None:
    for split, file in (("training", text.train), ("validation", text.valid)):
        if len(file) <= config.seq_len:
            raise ValueError(
                f"a sequence of {config.seq_len:,} tokens and its next token do not fit into the "
                f"{split} text of {len(file):,} tokens; take a shorter seq_len or more text"
            )
    wanted = config.batch_size * config.seq_len
    if wanted > len(text.train):
        raise ValueError(
            f"a batch of {config.batch_size:,} sequences of {config.seq_len:,} tokens is larger "
            f"than the training text of {len(text.train):,} tokens; take a smaller batch_size"
        )
