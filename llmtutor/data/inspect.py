"""Chapter 02, step 10: what is in a corpus, and what is wrong with it, as numbers and as a table.

The report answers: which tokens, how often, how long are documents; what repeats; what of the
validation text is in the training text; how much of a batch is new. Plots are in `llmtutor.viz`.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch

from llmtutor.data.batches import random_batches
from llmtutor.data.duplicates import NearIndex, find_repeats, ngram_overlap
from llmtutor.data.report import NEAR, BatchDiversity, Leakage, Report, SplitReport, TokenCount
from llmtutor.tokenizer import Tokenizer

BATCH_SIZE, SEQ_LEN = 32, 128  # of the batches that are looked at


def inspect_corpus(
    train_documents: Sequence[str],
    valid_documents: Sequence[str],
    tokenizer: Tokenizer,
    *,
    n_words: int = 8,
    n_top: int = 10,
) -> Report:
    """Look at both splits of a corpus through a tokenizer.

    Near duplicates share at least half of their 5-grams of words; leakage is also measured in
    `n_words`-grams. The `n_top` most frequent tokens are listed. The batches are 20 random ones of
    32 windows of 128 ids (the same 20 at every call).

    Raises `ValueError` if the training documents hold no token.
    """
    train_ids = [np.array(tokenizer.encode(text), dtype=np.int64) for text in train_documents]
    valid_ids = [np.array(tokenizer.encode(text), dtype=np.int64) for text in valid_documents]
    if not any(map(len, train_ids)):
        raise ValueError("expected training documents with at least one token, found none")
    index = NearIndex(NEAR)
    train = _split(train_documents, train_ids, tokenizer, index, n_top)
    valid = _split(valid_documents, valid_ids, tokenizer, NearIndex(NEAR), n_top)
    exact, near = find_repeats(valid_documents, index, add=False)
    seen = np.bincount(np.concatenate(train_ids), minlength=tokenizer.vocab_size) > 0
    asked = np.concatenate([np.zeros(0, np.int64), *valid_ids])
    leakage = Leakage(
        exact=exact,
        near=near,
        n_words=n_words,
        ngram_share=ngram_overlap(train_documents, valid_documents, n_words),
        unseen_share=float(1 - seen[asked].mean()) if len(asked) else 0.0,
    )
    batches = batch_diversity(np.concatenate(train_ids), BATCH_SIZE, SEQ_LEN)
    return Report(tokenizer.vocab_size, train, valid, leakage, batches)


def _split(
    documents: Sequence[str],
    ids: Sequence[np.ndarray],
    tokenizer: Tokenizer,
    index: NearIndex,
    n_top: int,
) -> SplitReport:
    everything = np.concatenate([np.zeros(0, np.int64), *ids])
    counts = np.bincount(everything, minlength=tokenizer.vocab_size)
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    top = []
    for id in map(int, order[:n_top]):
        text = tokenizer.token_bytes(id).decode("utf-8", errors="replace")
        top.append(TokenCount(id, text, int(counts[id]), float(counts[id] / len(everything))))
    exact, near = find_repeats(documents, index, add=True)
    return SplitReport(
        n_chars=sum(map(len, documents)),
        n_bytes=sum(len(text.encode("utf-8")) for text in documents),
        n_tokens=len(everything),
        lengths=[len(row) for row in ids],
        frequencies=counts[order].tolist(),
        top=top,
        special={name: int(counts[token]) for name, token in tokenizer.special_tokens.items()},
        exact=exact,
        near=near,
    )


def batch_diversity(
    ids: np.ndarray, batch_size: int, seq_len: int, n_batches: int = 20
) -> BatchDiversity | None:
    """Shares over the first `n_batches` random batches of seed 0; None if `ids` is too short.

    Batches of the positions 0, 1, 2, … instead of the ids show which places a batch takes.
    """
    if len(ids) <= seq_len:
        return None
    generator = torch.Generator().manual_seed(0)
    places = random_batches(np.arange(len(ids)), batch_size, seq_len, generator=generator)
    tokens, windows, twice = [], [], []
    for taken, _ in islice(places, n_batches):
        batch = ids[taken.numpy()]
        _, times = np.unique(taken.numpy(), return_counts=True)
        tokens.append(len(np.unique(batch)) / batch.size)
        windows.append(len(np.unique(batch, axis=0)) / batch_size)
        twice.append(float(times[times > 1].sum()) / batch.size)
    shares = (float(np.mean(values)) for values in (tokens, windows, twice))
    return BatchDiversity(batch_size, seq_len, *shares)
