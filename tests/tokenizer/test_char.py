"""One id a character: by hand, there and back, bad input."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtutor.tokenizer import CharTokenizer, load_tokenizer


def test_by_hand() -> None:
    tokenizer = CharTokenizer.from_text("banana é\n")
    assert tokenizer.chars == "\n abné"
    assert tokenizer.vocab_size == 6
    assert tokenizer.encode("né b") == [4, 5, 1, 3]
    assert tokenizer.decode([4, 5, 1, 3]) == "né b"
    assert tokenizer.token_bytes(5) == b"\xc3\xa9"
    assert dict(tokenizer.special_tokens) == {}
    assert CharTokenizer("zyx").encode("xyz") == [2, 1, 0]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_there_and_back(text: str) -> None:
    tokenizer = CharTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert list(tokenizer.encode_iterable(text)) == ids
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert set(ids) == set(range(tokenizer.vocab_size))


def test_files_come_back(tmp_path: Path) -> None:
    tokenizer = CharTokenizer.from_text('The cat, 中 and "é"\r\n\u2028')
    tokenizer.save(tmp_path)
    back = load_tokenizer(tmp_path)
    assert isinstance(back, CharTokenizer) and back.chars == tokenizer.chars
    assert back.fingerprint() == tokenizer.fingerprint()
    assert back.fingerprint() != CharTokenizer("abc").fingerprint()


def test_unknown_characters_and_ids() -> None:
    tokenizer = CharTokenizer("abc")
    with pytest.raises(
        ValueError, match=r"the 3 characters .* found 'é' \(U\+00E9\) at character 2"
    ):
        tokenizer.encode("abé")
    for id in (-1, 3):
        with pytest.raises(ValueError, match=f"ids from 0 to 2, found {id}"):
            tokenizer.decode([0, id])
        with pytest.raises(ValueError, match=f"found {id}"):
            tokenizer.token_bytes(id)


@pytest.mark.parametrize(
    ("chars", "said"),
    [("", "is the text empty"), ("aba", "'a' twice"), ("a\udc80", "surrogate")],
)
def test_bad_characters(chars: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CharTokenizer(chars)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"chars": 5}', '{"chars": ""}', '{"chars": "aa"}']
)
def test_malformed_files(content: str, tmp_path: Path) -> None:
    (tmp_path / "chars.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"chars\.json: expected"):
        load_tokenizer(tmp_path)
