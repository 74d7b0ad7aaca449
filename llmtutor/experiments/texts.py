"""Chapter 12, scaling: documents in three parts, and a tokenizer that has seen the first alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmtutor.data.corpora import DOCUMENT_BREAK
from llmtutor.tokenizer import BPETokenizer


@dataclass(frozen=True)
class Texts:
    """A corpus in three parts, as ids of one tokenizer that has seen the first part alone."""

    tokenizer: BPETokenizer
    train: np.ndarray
    tuning: np.ndarray
    held_out: np.ndarray

    @property
    def n_bytes(self) -> int:
        """Bytes of the training part."""
        return bytes_of(self.tokenizer, self.train)


def in_parts(
    train: Sequence[str], tuning: Sequence[str], held_out: Sequence[str], vocab_size: int
) -> Texts:
    """The documents of each part joined, in ``vocab_size`` byte pairs learned from ``train``.

    >>> texts = in_parts(["low", "lower"], ["slow"], ["new", "newer"], 258)
    >>> texts.n_bytes, texts.tokenizer.decode(texts.held_out.tolist())
    (10, 'new\\n\\nnewer')
    """
    tokenizer = BPETokenizer.train(train, vocab_size)
    joined = (DOCUMENT_BREAK.join(part) for part in (train, tuning, held_out))
    return Texts(tokenizer, *(np.array(tokenizer.encode(text), np.uint16) for text in joined))


def bytes_of(tokenizer: BPETokenizer, ids: np.ndarray) -> int:
    """Bytes of the text that these ids stand for."""
    lengths = np.array([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])
    return int(lengths[ids].sum())
