"""The landing page's example is true: GPT-2's tokenizer gives the ids that it shows."""

import re
from pathlib import Path

import pytest

from llmtutor.data import FetchError, load_published

PAGE = Path(__file__).resolve().parents[1] / "book" / "intro.md"


def test_the_sentence_has_the_tokens_and_ids_on_the_page() -> None:
    try:
        tokenizer = load_published("gpt2")
    except FetchError as error:
        pytest.skip(str(error))
    text, tokens, ids, windows, probability, _ = re.findall(
        r"<code>(.*?)</code>", PAGE.read_text(encoding="utf-8").partition("</ol>")[0]
    )
    expected = tokenizer.encode(text)
    assert ids.split() == [str(i) for i in expected]
    assert tokens == "|".join(tokenizer.decode([i]) for i in expected)
    inputs, targets = (part.split() for part in windows.split("→"))
    assert inputs == ids.split()[:3] and targets == ids.split()[1:4]
    assert probability == f"q({expected[3]} | {', '.join(inputs)})"
