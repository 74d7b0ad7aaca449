"""Corpus → batches: registry and download, memory-mapped tokens, batches, inspection."""

from llmtutor.data.corpora import CORPORA, Corpus, CorpusInfo, fetch, load_corpus
from llmtutor.data.places import data_dir

__all__ = ["CORPORA", "Corpus", "CorpusInfo", "data_dir", "fetch", "load_corpus"]
