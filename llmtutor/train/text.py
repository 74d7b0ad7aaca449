"""Chapter 11, training: from the name of a corpus to ids in memory-mapped files.

Tokenizing is done once: what is made lies in the data folder under the tokenizer's fingerprint,
and every later run with the same text and tokenizer opens it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmtutor.data.corpora import DOCUMENT_BREAK, corpus_info, stream_documents
from llmtutor.data.places import data_dir
from llmtutor.data.readers import END_OF_TEXT
from llmtutor.data.sources import SPLITS
from llmtutor.data.tokens import TokenFile, open_tokens, prepare
from llmtutor.tokenizer import BPETokenizer, CharTokenizer, Tokenizer, load_tokenizer
from llmtutor.tokenizer.files import MERGES_FILE, VOCAB_FILE
from llmtutor.train.config import TrainConfig


@dataclass(frozen=True)
class Text:
    """What a run reads."""

    tokenizer: Tokenizer
    train: TokenFile
    valid: TokenFile


def load_text(config: TrainConfig) -> Text:
    """Tokenizer and token files of a run, made if they are not there.

    Raises:
        ValueError: an unknown corpus or tokenizer, a batch larger than the training text, a
            sequence longer than one of the two texts.
    """
    tokenizer = load_or_train_tokenizer(config.tokenizer, config.corpus)
    if (prepared := Path(config.corpus)).is_dir():
        folder = prepared
    else:
        folder = _tokens_folder(config.corpus, tokenizer)
    files = []
    for split in SPLITS:
        path = folder / f"{split}.tokens"
        if folder != prepared and not path.exists():
            separator = END_OF_TEXT if END_OF_TEXT in tokenizer.special_tokens else None
            documents = stream_documents(config.corpus, split)
            if separator is None:
                documents = _with_breaks(documents)
            prepare(documents, tokenizer, path, separator=separator)
        files.append(open_tokens(path, tokenizer))
    text = Text(tokenizer, *files)
    _check_sizes(text, config)
    return text


def load_or_train_tokenizer(name: str, corpus: str) -> Tokenizer:
    """``char`` and ``bpe-N`` are learned from the corpus, anything else is a tokenizer's folder.

    The characters are those of both splits, so that no held-out text is refused; byte pairs are
    counted in the training split alone. Learned byte pairs are kept in the data folder.
    """
    if Path(name).is_dir():
        return load_tokenizer(Path(name))
    kind, _, size = name.partition("-")
    if Path(corpus).is_dir() or (kind, bool(size)) not in (("char", False), ("bpe", True)):
        raise ValueError(
            f"expected the tokenizer to be char, bpe-N (such as bpe-1024) or a folder, got {name!r}"
            + (f"; {corpus} is prepared, so give its tokenizer" if Path(corpus).is_dir() else "")
        )
    if kind == "char":
        letters = set(DOCUMENT_BREAK)
        for split in SPLITS:
            letters = letters.union(*stream_documents(corpus, split))
        return CharTokenizer("".join(sorted(letters)))
    if not size.isdecimal():
        raise ValueError(f"expected a whole number after bpe-, such as bpe-1024, got {name!r}")
    folder = data_dir() / "tokenizers" / f"{_key(corpus)}-{name}"
    if not all((folder / name).is_file() for name in (VOCAB_FILE, MERGES_FILE)):
        BPETokenizer.train(stream_documents(corpus, "train"), int(size), [END_OF_TEXT]).save(folder)
    return load_tokenizer(folder)


def _tokens_folder(corpus: str, tokenizer: Tokenizer) -> Path:
    return data_dir() / "tokens" / f"{_key(corpus)}-{tokenizer.fingerprint()[:12]}"


def _key(corpus: str) -> str:
    """A corpus' name; a file of one's own is known by its content, which may change."""
    info = corpus_info(corpus)
    if (path := Path(corpus)).is_file() and info.what == f"the file {path}":
        return f"{info.name}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    return info.name


def _with_breaks(documents: Iterator[str]) -> Iterator[str]:
    """A blank line between documents, as in ``Corpus.train``, where no token can part them."""
    for i, document in enumerate(documents):
        yield DOCUMENT_BREAK + document if i else document


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
