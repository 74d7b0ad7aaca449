"""Chapter 02: what writing a corpus from one list of ids takes."""

import tracemalloc
from pathlib import Path

import numpy as np

from llmtutor.tokenizer import BPETokenizer

TEXT = "Double, double toil and trouble; Fire burn and cauldron bubble.\n" * 2_000


def test_naive_writer_holds_18_bytes_for_each_id(tmp_path: Path) -> None:
    """8 for a pointer to a shared number, 8 in the array of int64, 2 in the copy for the file."""
    tokenizer = BPETokenizer.train(TEXT, vocab_size=300)
    tokenizer.encode(TEXT)  # so that what it remembers of words is not counted

    tracemalloc.start()
    try:
        ids = tokenizer.encode(TEXT)
        tracemalloc.reset_peak()
        np.array(ids).astype("<u2").tofile(tmp_path / "naive.bin")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 18 <= peak / len(ids) < 19.5
