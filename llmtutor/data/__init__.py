"""Corpus → batches: registry and download, memory-mapped tokens, batches, inspection."""

from llmtutor.data.corpora import (
    CORPORA,
    Corpus,
    corpus_info,
    load_corpus,
    stream_documents,
)
from llmtutor.data.places import ChecksumError, FetchError, data_dir
from llmtutor.data.tokenizers import load_published

__all__ = [
    "CORPORA",
    "ChecksumError",
    "Corpus",
    "FetchError",
    "corpus_info",
    "data_dir",
    "load_corpus",
    "load_published",
    "stream_documents",
]
