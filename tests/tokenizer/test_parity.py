"""The same ids and the same text as the Rust library, with GPT-2's files and with our own."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from llmtutor.tokenizer import BPETokenizer
from llmtutor.tokenizer.fast import to_tokenizers
from llmtutor.tokenizer.pretokenize import split
from llmtutor.tokenizer.unicode16 import younger

BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)


def rust_split(text: str) -> list[str]:
    return [text[start:end] for _, (start, end) in BYTE_LEVEL.pre_tokenize_str(text)]


tricky = st.sampled_from("aAlsrvetdm'’ 1²½!?_-\n\r\t\x1c\x85\xa0\u2028\u3000éß中😀\u0301\u200d")
any_character = st.characters(exclude_categories=["Cs"]) | st.sampled_from(
    [*sorted(younger()), "\U000323b0"]
)
unicode_text = st.text(any_character, max_size=40) | st.text(tricky | any_character, max_size=40)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def examples(n: int) -> settings:
    return settings(max_examples=n, deadline=None, suppress_health_check=list(HealthCheck))


def test_gpt2_reproduces_recorded_ids(mirror: Path, gpt2) -> None:
    recorded = np.fromfile(mirror / "gpt2" / "tinystories_50.uint16.bin", dtype="<u2").tolist()
    text = (mirror / "gpt2" / "tinystories_50.txt").read_bytes().decode("utf-8")
    assert len(recorded) == 10_757
    assert gpt2.ours.encode(text) == recorded
    assert gpt2.ours.decode(recorded) == text
    assert gpt2.ours.vocab_size == 50_257
    assert gpt2.ours.special_tokens == {"<|endoftext|>": 50_256}


@pytest.mark.parametrize("name", ["gpt2", "trained"])
def test_prose_code_numbers_and_languages(name: str, mixed: str, request) -> None:
    pair = request.getfixturevalue(name)
    ids = pair.ours.encode(mixed)
    assert ids == pair.rust.encode(mixed).ids
    assert pair.ours.decode(ids) == mixed


@examples(2500)
@given(text=unicode_text)
def test_unicode_with_gpt2(gpt2, text: str) -> None:
    ids = gpt2.ours.encode(text)
    assert ids == gpt2.rust.encode(text).ids
    assert gpt2.ours.decode(ids) == text == gpt2.rust.decode(ids, skip_special_tokens=False)


@examples(1000)
@given(text=unicode_text)
def test_unicode_with_our_own(trained, text: str) -> None:
    ids = trained.ours.encode(text)
    assert ids == trained.rust.encode(text).ids
    assert trained.ours.decode(ids) == text == trained.rust.decode(ids, skip_special_tokens=False)


@examples(1000)
@given(text=any_text)
def test_any_text_comes_back(trained, text: str) -> None:
    assert trained.ours.decode(trained.ours.encode(text)) == text


@pytest.mark.parametrize("name", ["gpt2", "trained"])
def test_malformed_bytes_become_replacement_characters(name: str, request) -> None:
    pair = request.getfixturevalue(name)
    rng = random.Random(0)
    assert pair.ours.decode([pair.ours.vocab[b"\xff"]]) == "\ufffd"
    for _ in range(500):
        ids = [rng.randrange(pair.ours.vocab_size) for _ in range(rng.randrange(20))]
        ids += [pair.ours.vocab[bytes([rng.randrange(256)])] for _ in range(rng.randrange(20))]
        rng.shuffle(ids)
        assert pair.ours.decode(ids) == pair.rust.decode(ids, skip_special_tokens=False)


def test_characters_younger_than_unicode_16_are_cut_alike() -> None:
    text = "".join(f"a{character}1{character}! {character}" for character in sorted(younger()))
    assert split(text) == rust_split(text)


SPECIALS = ["<a>", "<a><b>", "<b>", "a>", "> <", "<|<", "a<", " the", "<the", "\n\n", "é!", "'s>"]


@examples(600)
@given(
    special=st.lists(st.sampled_from(SPECIALS), unique=True, min_size=1),
    parts=st.lists(st.sampled_from([*SPECIALS, "<", ">", "a", "b", " ", "\n", "é", "s", "'"])),
    allow_special=st.booleans(),
)
def test_overlapping_special_tokens(
    trained, special: list[str], parts: list[str], allow_special: bool
) -> None:
    """Longest first, as in the Rust library; and as ordinary text where they are not allowed."""
    base = trained.ours
    ids = {token: len(base.vocab) + i for i, token in enumerate(special)}
    ours = BPETokenizer(base.vocab, base.merges, ids)
    rust = to_tokenizers(ours)
    rust.encode_special_tokens = not allow_special
    text = "".join(parts)
    encoded = ours.encode(text, allow_special=allow_special)
    assert encoded == rust.encode(text).ids
    assert ours.decode(encoded) == text
