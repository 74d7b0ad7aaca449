"""The inspector: finds what was planted in a corpus, and counts what can be counted by hand."""

from collections import Counter

import numpy as np
import pytest

from llmtutor.data import tales
from llmtutor.data.duplicates import Repeat
from llmtutor.data.inspect import batch_diversity, inspect_corpus
from llmtutor.data.report import Report
from llmtutor.tokenizer import BPETokenizer, CharTokenizer

END = "<|endoftext|>"


@pytest.fixture(scope="module")
def spoiled():
    """200 + 40 tales with one flaw of each kind planted at a known place."""
    train, valid = tales.generate(200, 1), tales.generate(40, 2)
    train[50] = train[7]  # a repeat
    train[60] = train[9].replace("the", "that", 3)  # an edited repeat
    train[70] = ""
    valid[3] = train[20]  # a leak
    valid[5] = train[30].replace("the", "that", 2)  # an edited leak
    valid[8] = valid[8] + " Ω"  # a character that training never shows
    train[80] = train[80] + END
    return train, valid


@pytest.fixture(scope="module")
def report(spoiled):
    train, valid = spoiled
    tokenizer = BPETokenizer.train("\n".join(train[:20]), 400, [END])
    return inspect_corpus(train, valid, tokenizer)


def test_planted_repeats_are_found_and_no_others(report):
    assert report.train.exact == [Repeat(50, 7, 1.0)]
    assert [(repeat.later, repeat.earlier) for repeat in report.train.near] == [(60, 9)]
    assert report.train.n_empty == 1
    assert report.valid.exact == report.valid.near == []


def test_planted_leaks_are_found_and_no_others(report):
    assert report.leakage.exact == [Repeat(3, 20, 1.0)]
    assert [(repeat.later, repeat.earlier) for repeat in report.leakage.near] == [(5, 30)]
    assert 0.5 < report.leakage.near[0].similarity < 1


def test_leaked_documents_show_in_the_ngrams(spoiled):
    train, valid = spoiled
    chars = CharTokenizer.from_text("".join(train + valid))
    shares = [
        inspect_corpus(train, documents, chars, n_words=40).leakage.ngram_share
        for documents in (valid[10:20], [valid[3]], [*valid[10:20], valid[3]])
    ]
    assert shares[0] < 0.01
    assert shares[1] == 1.0
    assert 0.05 < shares[2] < 0.2


def test_an_id_that_training_never_shows_is_counted():
    report = inspect_corpus(["aaab"], ["abcc", "c"], CharTokenizer("abc"))
    assert report.leakage.unseen_share == pytest.approx(3 / 5)


def test_special_tokens_inside_the_text_are_counted(report):
    assert report.train.special == {END: 1}
    assert report.valid.special == {END: 0}


def test_counts_are_the_counts(spoiled):
    train, valid = spoiled
    chars = CharTokenizer.from_text("".join(train + valid))
    report = inspect_corpus(train, valid, chars, n_top=5)
    counts = Counter("".join(train))
    total = sum(counts.values())
    assert report.train.n_tokens == report.train.n_chars == total
    assert report.train.frequencies == sorted(counts.values(), reverse=True)
    assert [(t.text, t.count, t.share) for t in report.train.top] == [
        (char, count, count / total) for char, count in counts.most_common(5)
    ]
    assert report.train.lengths == [len(text) for text in train]
    assert report.valid.n_bytes == report.valid.n_chars + 1  # Ω takes two
    assert report.train.bytes_per_token == 1.0
    assert report.vocab_size == chars.vocab_size


def test_bytes_per_token_is_bytes_over_tokens(report, spoiled):
    train, _ = spoiled
    assert report.train.bytes_per_token == len("".join(train).encode()) / report.train.n_tokens


def test_the_table_says_it_all_and_says_it_again(report, spoiled):
    table = report.table()
    for line in (
        "documents                             200           40",
        "empty documents                         1            0",
        "exact repeats                           1            0",
        "near repeats                            1            0",
        "special token <|endoftext|>             1            0",
        "   2.50%  documents, exactly",
        "   2.50%  documents, nearly (Jaccard ≥ 0.5)",
    ):
        assert line in table.splitlines()
    train, valid = spoiled
    tokenizer = BPETokenizer.train("\n".join(train[:20]), 400, [END])
    assert inspect_corpus(train, valid, tokenizer).table() == table


def test_a_token_that_is_half_a_character_still_prints():
    tokenizer = BPETokenizer.train("abc", 256)
    report = inspect_corpus(["ééé"], ["é"], tokenizer)
    assert [t.text for t in report.train.top] == ["\ufffd", "\ufffd"]
    assert "50.00%" in report.table()


def test_a_report_without_validation_or_with_little_text():
    report = inspect_corpus(["abc"], [], CharTokenizer("abc"))
    assert isinstance(report, Report) and report.batches is None
    assert (report.leakage.ngram_share, report.leakage.unseen_share) == (0.0, 0.0)
    assert "too short for a batch" in report.table()
    for nothing in ([], [""]):
        with pytest.raises(ValueError, match="at least one token"):
            inspect_corpus(nothing, ["abc"], CharTokenizer("abc"))


# Diversity of batches -----------------------------------------------------------------------------


def test_diversity_of_texts_whose_batches_are_known():
    same = batch_diversity(np.zeros(1_000, dtype=np.int64), batch_size=8, seq_len=16)
    assert same.distinct_tokens == 1 / (8 * 16)
    assert same.distinct_windows == 1 / 8
    counting = batch_diversity(np.arange(1_000_000), batch_size=8, seq_len=16)
    assert counting.distinct_windows == 1.0
    assert counting.distinct_tokens > 0.98
    one_window = batch_diversity(np.arange(17), batch_size=8, seq_len=16)
    assert (one_window.distinct_tokens, one_window.distinct_windows) == (1 / 8, 1 / 8)
    assert one_window.seen_twice == 1.0
    single = batch_diversity(np.arange(17), batch_size=1, seq_len=16)
    assert (single.distinct_tokens, single.seen_twice) == (1.0, 0.0)


def test_overlap_is_what_the_theory_of_random_windows_says():
    """A place is in a window with probability about L/n, so it is in two or more of B windows
    with the share 1 - (1 - L/n)^(B-1) of the tokens taken."""
    n, batch_size, seq_len = 4_000, 16, 50
    found = batch_diversity(np.arange(n), batch_size, seq_len, n_batches=400)
    expected = 1 - (1 - seq_len / (n - seq_len)) ** (batch_size - 1)
    assert found.seen_twice == pytest.approx(expected, abs=0.02)


def test_diversity_of_a_text_shorter_than_a_window_is_unknown():
    assert batch_diversity(np.arange(16), batch_size=2, seq_len=16) is None
