"""The study of published tokenizers: its texts, and that its record is what they give today."""

import re

import pytest

from llmtutor.data.places import find_local
from llmtutor.data.tokenizers import FOLDER, load_published
from llmtutor.experiments.tokenizers_today import (
    LANGUAGES,
    OURS,
    STRINGS,
    bytes_per_token,
    declaration,
    pieces_of,
    sums,
    token_counts,
    vocabularies,
)
from llmtutor.tokenizer.published import PUBLISHED


def test_sums_are_right_and_of_all_lengths() -> None:
    lines = [re.fullmatch(r"(\d+) \+ (\d+) = (\d+)", line) for line in sums().splitlines()]
    numbers = [[int(number) for number in line.groups()] for line in lines if line]
    assert len(numbers) == len(lines) == 2000
    assert all(a + b == c for a, b, c in numbers)
    assert {len(str(a)) for a, _, _ in numbers} == set(range(1, 8))


def test_a_declaration_is_its_headings_and_paragraphs() -> None:
    html = "<head><title>no</title></head><body><h1>One</h1><p>a <i>b</i> &amp; c</p></body>"
    assert declaration(html) == "One\na b & c\n"


def test_the_record_has_every_tokenizer_and_every_text() -> None:
    names = [OURS, *PUBLISHED]
    for found in (token_counts(), bytes_per_token()):
        assert list(found) == names
        assert all(set(LANGUAGES) < set(texts) for texts in found.values())
    for string, text in STRINGS.items():
        assert all(b"".join(p) == text.encode("utf-8") for p in pieces_of(string).values())
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        pieces_of("digit")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recorded_tokenizer_is_the_one_that_is_here(name: str) -> None:
    if find_local(f"{FOLDER}/{PUBLISHED[name].file}") is None:
        pytest.skip(f"{PUBLISHED[name].file} is not here: `llmtutor tokenizer fetch` brings it")
    tokenizer = load_published(name)
    assert tokenizer.vocab_size == vocabularies()[name]["ids"]
    assert len(tokenizer.encode(sums(), allow_special=False)) == token_counts()[name]["sums"]
    for string, text in STRINGS.items():
        tokens = [tokenizer.token_bytes(id) for id in tokenizer.encode(text)]
        assert tokens == pieces_of(string)[name]
