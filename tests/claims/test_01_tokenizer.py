"""Chapter 01: what its page says of tokenizers that it does not build, and of its own record."""

import math
from collections import Counter
from collections.abc import Collection

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from llmtutor.data import load_corpus
from llmtutor.experiments.rungs import D_MODEL, RUNGS
from llmtutor.experiments.tokenizers_today import (
    OURS,
    STRINGS,
    VOCAB_SIZE,
    bytes_per_token,
    pieces_of,
    token_counts,
    vocabularies,
)
from llmtutor.model.presets import preset
from llmtutor.tokenizer import BPETokenizer
from llmtutor.tokenizer.pretokenize import split
from llmtutor.viz.staircase import staircase

BLANK = "▁"


@pytest.fixture(scope="module")
def large() -> BPETokenizer:
    """The page's tokenizer of 16,384 tokens."""
    return BPETokenizer.train(load_corpus().train, VOCAB_SIZE)


def cut_to(tokenizer: BPETokenizer, size: int) -> BPETokenizer:
    """The same with fewer merges."""
    vocab = {token: id for token, id in tokenizer.vocab.items() if id < size}
    return BPETokenizer(vocab, tokenizer.merges[: size - 256])


def fewest(word: bytes, vocab: Collection[bytes]) -> int:
    """Tokens of the shortest split, by dynamic programming."""
    best = [0]
    for end in range(1, len(word) + 1):
        best.append(1 + min(best[i] for i in range(end) if word[i:end] in vocab))
    return best[-1]


def longest_first(word: bytes, vocab: Collection[bytes]) -> int:
    """Tokens if the longest one that fits is taken, from left to right."""
    n, start = 0, 0
    while start < len(word):
        start = next(end for end in range(len(word), start, -1) if word[start:end] in vocab)
        n += 1
    return n


def test_greed_costs_less_than_one_token_in_a_hundred(large: BPETokenizer) -> None:
    """The sketch of the open exercise."""
    small = cut_to(large, 4096)
    pieces = Counter(split(load_corpus().valid))
    bpe = {p: len(small.encode(p)) for p in pieces}
    best = {p: fewest(p.encode(), small.vocab) for p in pieces}
    longest = {p: longest_first(p.encode(), small.vocab) for p in pieces}
    totals = [sum(n * of[p] for p, n in pieces.items()) for of in (bpe, best, longest)]
    assert totals == [164_639, 163_527, 164_219]
    assert f"{1 - totals[1] / totals[0]:.1%}" == "0.7%"
    differ = sum(n for p, n in pieces.items() if bpe[p] > best[p])
    assert f"{differ / pieces.total():.3f}" == "0.008"
    assert (bpe["DESDEMONA"], best["DESDEMONA"]) == (6, 5)


def test_the_record_holds_the_tokenizer_of_the_page(large: BPETokenizer) -> None:
    assert len(large.encode(load_corpus().valid)) == token_counts()[OURS]["Shakespeare"]
    for string, text in STRINGS.items():
        tokens = [large.token_bytes(id) for id in large.encode(text)]
        assert tokens == pieces_of(string)[OURS]


def test_late_merges_spell_names_of_the_training_text_alone(large: BPETokenizer) -> None:
    assert b" Cleopatra" in large.vocab and "Cleopatra" not in load_corpus().valid


def test_published_tokenizers_differ_as_the_page_says() -> None:
    rates, counts = bytes_per_token(), token_counts()
    assert rates[OURS]["Shakespeare"] > rates["gpt2"]["Shakespeare"]
    assert rates[OURS]["English"] < 0.8 * rates["gpt2"]["English"]
    assert min(rates, key=lambda name: rates[name]["Python"]) == "gpt2"
    hindi = {name: round(n["Hindi"] / n["English"], 1) for name, n in counts.items()}
    assert (hindi["gpt2"], hindi["cl100k"], hindi["o200k"]) == (8.3, 5.3, 1.6)
    assert abs(counts["cl100k"]["English"] - counts["o200k"]["English"]) == 1
    assert 1.99 < vocabularies()["o200k"]["ids"] / vocabularies()["cl100k"]["ids"] < 2.01
    assert all(rates[OURS][name] < 1.01 for name in ("Greek", "Russian", "Hindi", "Chinese"))
    assert pieces_of("strawberry")["gpt2"] == [b"st", b"raw", b"berry"]
    assert {len(pieces) for pieces in pieces_of("emoji").values()} == {2, 3, 4}
    name = {name: len(pieces) for name, pieces in pieces_of("name").items()}
    assert (name["gpt2"], name[OURS], name["o200k"]) == (1, 11, 5)


def test_the_lowest_rung_is_a_model_that_knows_nothing_over_1024_tokens(
    large: BPETokenizer,
) -> None:
    (uniform,) = staircase("uniform").shown
    text = load_corpus().valid
    rate = len(text.encode("utf-8")) / len(cut_to(large, 1024).encode(text))
    assert uniform.bits_per_byte == pytest.approx(math.log2(1024) / rate, abs=0.01)


def test_tables_for_16384_tokens_are_several_times_the_four_blocks() -> None:
    build = RUNGS["modern"].build
    assert build is not None and D_MODEL == 128
    blocks = sum(p.numel() for p in build(1024).get_submodule("blocks").parameters())
    assert 4 < 2 * VOCAB_SIZE * D_MODEL / blocks < 7


@pytest.mark.parametrize(
    ("name", "ids"),
    [("gpt2", 50_257), ("llama2-7b", 32_000), ("llama3-8b", 128_256), ("gemma2-2b", 256_000)],
)
def test_vocabularies_of_todays_models_are_those_of_the_gallery(name: str, ids: int) -> None:
    assert preset(name).vocab_size == ids


@pytest.mark.parametrize("may_cross", [False, True])
def test_a_token_of_sentencepiece_begins_with_a_blank_but_does_not_cross_one(
    may_cross: bool,
) -> None:
    """Cut at blanks is the default, here as there; only who switches it off sees tokens cross."""
    tokenizer = Tokenizer(models.BPE())
    options = {"split": False} if may_cross else {}
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(**options)
    trainer = trainers.BpeTrainer(vocab_size=60, show_progress=False)
    tokenizer.train_from_iterator(["in the house of the king, in the house of the queen"], trainer)
    tokens = list(tokenizer.get_vocab())
    assert any(token.startswith(BLANK) and len(token) > 1 for token in tokens)
    assert any(BLANK in token[1:] for token in tokens) is may_cross
