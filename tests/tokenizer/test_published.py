"""Published tokenizers: the same ids as tiktoken, from the same files and patterns of its own."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
import tiktoken
import tiktoken.load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from llmtutor.data.tokenizers import fetch_published
from llmtutor.tokenizer import BPETokenizer
from llmtutor.tokenizer.fast import to_tokenizers
from llmtutor.tokenizer.pieces import pieces
from llmtutor.tokenizer.pretokenize import split
from llmtutor.tokenizer.published import O200K_PATTERN, PUBLISHED, Published
from llmtutor.tokenizer.ranks import read_tekken
from llmtutor.tokenizer.unicode16 import younger

CONSTRUCTORS = {
    "gpt2": openai_public.r50k_base,
    "cl100k": openai_public.cl100k_base,
    "o200k": openai_public.o200k_base,
}
NAMES = list(PUBLISHED)


def oracle(name: str, monkeypatch: pytest.MonkeyPatch) -> tiktoken.Encoding:
    """tiktoken's own tokenizer; only the download is ours."""
    path = fetch_published(name)
    if name == "tekken":
        table = json.loads(path.read_bytes())
        ranks = {
            b64decode(entry["token_bytes"]): 1000 + entry["rank"]
            for entry in table["vocab"][: 131_072 - 1000]
        }
        special = {"<s>": 1, "</s>": 2, "[INST]": 3}
        return tiktoken.Encoding(
            "tekken",
            pat_str=table["config"]["pattern"],
            mergeable_ranks=ranks,
            special_tokens=special,
        )
    read = tiktoken.load.load_tiktoken_bpe
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # its word for no cache
    monkeypatch.setattr(
        openai_public,
        "load_tiktoken_bpe",
        lambda _url, expected_hash: read(str(path), expected_hash),
    )
    return tiktoken.Encoding(**CONSTRUCTORS[name]())


@pytest.fixture(scope="module", params=NAMES)
def pair(request, published: Callable[[str], BPETokenizer]):
    ours = published(request.param)
    with pytest.MonkeyPatch.context() as monkeypatch:
        return ours, oracle(request.param, monkeypatch)


def test_a_megabyte_of_prose_code_numbers_and_languages(pair, mixed: str) -> None:
    ours, theirs = pair
    assert len(mixed.encode("utf-8")) == 1_000_000
    ids = ours.encode(mixed)
    assert ids == theirs.encode(mixed)
    assert ours.decode(ids) == mixed


# What the patterns tell apart, in pieces long enough to meet.
fragments = [*"aAǅſ'’1²½١!?/_ \n\r\t\x1c\x85\xa0\u3000éßн中क\u093f\u0301\u200d"]
fragments += ["'s", "'S", "'ll", "'LL", "the", "The", "THE", "//", ";\n", "\n/", "  ", "123"]
tricky = st.lists(st.sampled_from(fragments), max_size=20).map("".join)
any_character = st.characters(exclude_categories=["Cs"])


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=tricky | st.text(any_character, max_size=30))
def test_any_text(pair, text: str) -> None:
    ours, theirs = pair
    ids = ours.encode(text, allow_special=False)
    assert ids == theirs.encode(text, disallowed_special=())
    assert ours.decode(ids) == text


def test_special_tokens_and_the_size_of_the_vocabulary(pair) -> None:
    ours, theirs = pair
    assert ours.vocab_size == theirs.n_vocab
    named = sorted(theirs.special_tokens_set)
    assert {token: ours.special_tokens[token] for token in named} == theirs._special_tokens
    text = "a ".join(named) + "\n" + "".join(named)
    assert ours.encode(text) == theirs.encode(text, allowed_special="all")
    assert ours.encode(text, allow_special=False) == theirs.encode(text, disallowed_special=())


def test_characters_younger_than_unicode_16(pair) -> None:
    ours, theirs = pair
    text = "".join(f"a{character}1{character}! {character}" for character in sorted(younger()))
    assert ours.encode(text) == theirs.encode(text)


def test_the_rust_library_takes_a_pattern_of_today(published, mixed: str) -> None:
    ours = published("cl100k")
    text = mixed[-200_000:]
    assert to_tokenizers(ours).encode(text).ids == ours.encode(text)


TEXT = "I'LL pay 12345 crowns,\n\n  foo_barBaz;\n// L'Été"


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "gpt2": "I|'|LL| pay| 12345| crowns|,|\n\n | foo|_|barBaz|;|\n|//| L|'|Été",
        "cl100k": "I|'LL| pay| |123|45| crowns|,\n\n| | foo|_barBaz|;\n|//| L|'Été",
        "o200k": "I'LL| pay| |123|45| crowns|,\n\n| | foo|_bar|Baz|;\n//| L|'Été",
        "tekken": "I|'LL| pay| |1|2|3|4|5| crowns|,\n\n| | foo|_bar|Baz|;\n//| L|'Été",
    }.items(),
)
def test_words_by_hand(name: str, words: str) -> None:
    """Contractions in capitals, groups of digits, line ends after a sign, words in camel case."""
    assert "|".join(split(TEXT, PUBLISHED[name].pattern)) == words


def test_from_file_to_ids_by_hand(tmp_path: Path) -> None:
    """In rank order ` l`, `ow`, ` low`: so `low` alone is two tokens; id 259 is free."""
    tokens = [*(bytes([byte]) for byte in range(256)), b" l", b"ow", b" low"]
    lines = [f"{b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    path = tmp_path / "small.tiktoken"
    path.write_text("".join(lines), encoding="ascii")
    recipe = Published("a test's", path.name, O200K_PATTERN, {"<|end|>": 260})
    small = recipe.load(path)
    assert small.merges == [(b" ", b"l"), (b"o", b"w"), (b" l", b"ow")]
    assert small.special_tokens == {"<|end|>": 260, "<|reserved_259|>": 259}
    assert small.encode("low low<|end|>") == [ord("l"), 257, 258, 260]
    assert pieces(small, "low\n low é") == ["l", "ow", "⏎", "␣low", "␣", "\\xc3", "\\xa9"]

    path.write_text("".join(lines[:256] + lines[257:]), encoding="ascii")
    with pytest.raises(
        ValueError, match=r"small.tiktoken, line 257: .* rank 256, found 'b3c= 257'"
    ):
        recipe.load(path)
    tokens[256:258] = [b" low", b"low"]
    lines = [f"{b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    path.write_text("".join(lines), encoding="ascii")
    with pytest.raises(ValueError, match=r"small.tiktoken: .*b' low', of rank 256.*order of rank"):
        recipe.load(path)
    path.write_text("!!! 0\n", encoding="ascii")
    with pytest.raises(ValueError, match=r"small.tiktoken, line 1: .*base64, found '!!!'"):
        recipe.load(path)
    path.write_text("AA== 0\n", encoding="ascii")
    with pytest.raises(ValueError, match=r"small.tiktoken: expected all 256 bytes"):
        recipe.load(path)


def test_a_file_that_is_not_mistrals(tmp_path: Path) -> None:
    path = tmp_path / "tekken.json"
    path.write_text('{"config": {"default_vocab_size": 9}, "vocab": []}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"tekken.json: .*default_num_special_tokens"):
        read_tekken(path)
