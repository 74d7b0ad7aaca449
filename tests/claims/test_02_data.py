"""Chapter 02: what writing a corpus takes, what one epoch misses, what shows a leak or rubbish."""

import math
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from llmtutor.data import load_corpus
from llmtutor.data.batches import random_batches
from llmtutor.data.mixture import epochs
from llmtutor.model.language_modelling import NGram
from llmtutor.tokenizer import BPETokenizer, CharTokenizer

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


def test_an_epoch_of_random_windows_misses_one_id_in_e() -> None:
    size, seq_len = 100_000, 50
    generator = torch.Generator().manual_seed(1)
    drawn = random_batches(range(size), 200, seq_len, generator=generator)
    seen = torch.cat([next(drawn)[0].flatten() for _ in range(size // seq_len // 200)])
    assert len(seen) == size
    assert 1 - len(seen.unique()) / size == pytest.approx(math.exp(-1), abs=0.02)


def test_held_out_ends_of_works_promise_too_much_on_another_third_as_well() -> None:
    corpus = load_corpus()
    characters = CharTokenizer.from_text(corpus.train + corpus.valid)

    def encode(documents: list[str]) -> np.ndarray:
        return np.array(characters.encode("".join(documents)))

    works = corpus.train_documents[1::3]
    heads = [text[: len(text) * 7 // 8] for text in works]
    tails = [text[len(text) * 7 // 8 :] for text in works]
    model = NGram(5, characters.vocab_size).fit(encode(heads))
    gap = model.loss(encode(corpus.valid_documents)) - model.loss(encode(tails))
    assert 0.29 < gap < 0.35


def test_rounded_weights_do_not_explain_the_epochs_of_webtext() -> None:
    """22 % and 19 billion tokens, at their most favourable, against the 2.9 that are printed."""
    (least,) = epochs({"webtext": 195}, {"webtext": 1}, 0.215 * 3_000).values()
    assert least > 3.3


def test_text_through_the_wrong_encoding_can_be_told() -> None:
    def is_garbled(text: str) -> bool:
        for piece in set(re.findall(r"[^\x00-\x7f]+", text)):
            try:
                piece.encode("cp1252").decode("utf-8")
                return True
            except UnicodeError:
                continue
        return False

    fine = "don’t, café, naïve"
    assert is_garbled(fine.encode().decode("cp1252")) and not is_garbled(fine)
    assert "’".encode().decode("cp1252") == "â€™"  # three letters of rubbish
