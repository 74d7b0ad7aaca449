"""From the name of a corpus to token files: made once, checked against the run."""

from pathlib import Path

import pytest

from llmtutor.data import load_corpus
from llmtutor.data.readers import END_OF_TEXT
from llmtutor.tokenizer import CharTokenizer
from llmtutor.train.text import load_or_train_tokenizer, load_text


def test_characters_are_the_corpus_word_for_word(tiny) -> None:
    config = tiny()
    text = load_text(config)
    corpus = load_corpus(config.corpus)
    assert text.tokenizer.decode(text.train.ids.tolist()) == corpus.train
    assert text.tokenizer.decode(text.valid.ids.tolist()) == corpus.valid
    assert text.tokenizer.vocab_size == len(set(corpus.train + corpus.valid))


def test_tokens_are_made_once(tiny, monkeypatch) -> None:
    first = load_text(tiny())
    when = first.train.path.stat().st_mtime_ns
    monkeypatch.setattr("llmtutor.train.text.prepare", lambda *_, **__: pytest.fail("made again"))
    assert load_text(tiny(seed=5)).train.path.stat().st_mtime_ns == when


def test_a_file_that_changed_is_tokenised_again(tiny) -> None:
    config = tiny()
    before = load_text(config).train
    path = Path(config.corpus)
    path.write_text(path.read_text(encoding="utf-8").replace("a", "o"), encoding="utf-8")
    after = load_text(config).train
    assert after.path != before.path and after.header.corpus_sha256 != before.header.corpus_sha256


def test_byte_pairs_end_each_document_and_are_learned_once(tiny, monkeypatch) -> None:
    config = tiny(tokenizer="bpe-300", batch_size=2, seq_len=8)
    text = load_text(config)
    end = text.tokenizer.special_tokens[END_OF_TEXT]
    documents = load_corpus(config.corpus).train_documents
    assert (text.train.ids == end).sum() == len(documents)
    assert text.tokenizer.vocab_size == 300
    monkeypatch.setattr("llmtutor.train.text.BPETokenizer", None)
    again = load_or_train_tokenizer("bpe-300", config.corpus)
    assert again.fingerprint() == text.tokenizer.fingerprint()


def test_a_prepared_folder_needs_its_tokenizer(tiny, tmp_path) -> None:
    config = tiny()
    text = load_text(config)
    folder = str(text.train.path.parent)
    text.tokenizer.save(tmp_path / "tok")
    prepared = load_text(tiny(corpus=folder, tokenizer=str(tmp_path / "tok")))
    assert prepared.train.path == text.train.path
    with pytest.raises(ValueError, match="is prepared, so give its tokenizer"):
        load_text(tiny(corpus=folder))
    CharTokenizer("ab").save(tmp_path / "other")
    with pytest.raises(ValueError, match="made with tokenizer"):
        load_text(tiny(corpus=folder, tokenizer=str(tmp_path / "other")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": "shakespear"}, "did you mean 'shakespeare'"),
        ({"tokenizer": "bpe"}, "char, bpe-N .* got 'bpe'"),
        ({"tokenizer": "chars"}, "char, bpe-N .* got 'chars'"),
        ({"tokenizer": "bpe-many"}, "whole number after bpe-"),
        ({"seq_len": 4000}, "4,000 tokens and its next token do not fit into the validation text"),
        ({"seq_len": 400_000}, "do not fit into the training text of"),
        ({"batch_size": 5000}, "batch of 5,000 sequences of 16 tokens is larger than the training"),
    ],
)
def test_what_does_not_fit_is_refused(tiny, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        load_text(tiny(**changes))
