"""From the name of a corpus to token files: made once, checked against the run."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from llmtutor.data import load_corpus, places, readers, tokens
from llmtutor.data.readers import END_OF_TEXT
from llmtutor.tokenizer import CharTokenizer, pretokenize
from llmtutor.train import text as text_module
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


@pytest.mark.parametrize("separator", ["", END_OF_TEXT])
@pytest.mark.parametrize("tokenizer", ["char", "bpe-300"])
def test_memory_does_not_grow_with_a_file_of_one_s_own(
    tiny, tmp_path, monkeypatch, tokenizer: str, separator: str
) -> None:
    """Pieces are made small for this test; what is held at a time is far below the 2 MB of text."""
    for module in (places, readers):
        monkeypatch.setattr(module, "CHUNK", 1 << 14)
    monkeypatch.setattr(tokens, "BUFFER_IDS", 1 << 14)
    monkeypatch.setattr(pretokenize, "JOB", 1 << 14)
    monkeypatch.setattr(pretokenize, "safe_pieces", partial(pretokenize.safe_pieces, size=1 << 12))
    path = tmp_path / "large.txt"
    path.write_bytes(f"{'To be, or not to be. ' * 100}{separator}".encode() * 1_000)
    config = tiny(corpus=str(path), tokenizer=tokenizer)
    load_text(tiny(tokenizer=tokenizer))  # what is imported and remembered once
    tracemalloc.start()
    text = load_text(config)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(text.train) > 100_000
    assert peak < 1_000_000


def test_several_at_once_make_each_thing_once(tiny, monkeypatch) -> None:
    made = []
    for name in ("prepare", "BPETokenizer.train"):
        place, _, method = name.rpartition(".")
        owner = getattr(text_module, place) if place else text_module
        make = getattr(owner, method)

        def counted(*args, make=make, name=name, **options):
            made.append(name)
            return make(*args, **options)

        monkeypatch.setattr(owner, method, counted)
    config = tiny(tokenizer="bpe-300", batch_size=2, seq_len=8)
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(load_text, [config] * 4))
    assert len({text.tokenizer.fingerprint() for text in texts}) == 1
    assert {text.train.path for text in texts} == {texts[0].train.path}
    assert sorted(made) == ["BPETokenizer.train", "prepare", "prepare"]
    assert not list(places.data_dir().rglob("*.lock"))


@pytest.mark.parametrize("tokenizer", ["char", "bpe-300"])
def test_a_data_folder_that_cannot_be_written_stops_no_run(
    tiny, tmp_path, monkeypatch, tokenizer: str
) -> None:
    config = tiny(tokenizer=tokenizer, batch_size=2, seq_len=8)
    kept = load_text(config)
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "mine.txt" / "data"))  # below a file
    passing = load_text(config)
    assert passing.train.header == kept.train.header
    assert load_text(config).train.path == passing.train.path != kept.train.path


def test_the_name_of_a_file_may_be_as_long_as_the_system_allows(tiny, tmp_path) -> None:
    path = Path(tiny().corpus).rename(tmp_path / ("é" * 118 + ".txt"))  # 240 bytes
    for tokenizer in ("char", "bpe-300"):
        load_text(tiny(corpus=str(path), tokenizer=tokenizer, batch_size=2, seq_len=8))


def test_a_folder_that_is_not_prepared_is_no_corpus(tiny, tmp_path, monkeypatch) -> None:
    (tmp_path / "tales").mkdir()
    with pytest.raises(ValueError, match=r"tales is a folder, .* train.tokens and valid.tokens"):
        load_text(tiny(corpus=str(tmp_path / "tales")))
    monkeypatch.chdir(tmp_path)
    assert load_text(tiny(corpus="tales")).train.header.n_documents == 6_000  # not the folder


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
        ({"corpus": "x" * 300}, "unknown corpus or text file"),
        ({"tokenizer": "x" * 300}, "char, bpe-N"),
        ({"tokenizer": "bpe"}, "char, bpe-N .* got 'bpe'"),
        ({"tokenizer": "chars"}, "char, bpe-N .* got 'chars'"),
        ({"tokenizer": "bpe-many"}, "char, bpe-N .* got 'bpe-many'"),
        ({"seq_len": 4000}, "4,000 tokens and its next token do not fit into the validation text"),
        ({"seq_len": 400_000}, "do not fit into the training text of"),
        ({"batch_size": 5000}, "batch of 5,000 sequences of 16 tokens is larger than the training"),
    ],
)
def test_what_does_not_fit_is_refused(tiny, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        load_text(tiny(**changes))
