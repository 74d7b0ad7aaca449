"""The tokenizers of the page give Python's ids: thousands of strings, all borders of Unicode."""

import random
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest

from llmtutor.data.places import find_local
from llmtutor.data.tokenizers import load_published
from llmtutor.experiments.kept import load_kept
from llmtutor.interop.llama2c import TOKENIZER
from llmtutor.interop.llama2c_tokenizer import Llama2cTokenizer
from llmtutor.tokenizer import BPETokenizer, CharTokenizer, Tokenizer
from llmtutor.tokenizer.pretokenize import split
from llmtutor.web.tokens import runs, tokenizer_values

Run = Callable[..., Any]
CODE = """
const tokenizer = engine.createTokenizer(given.values);
const ids = given.texts.map((text) => tokenizer.encode(text));
const back = ids.map((one) => {
  const decode = tokenizer.decoder();
  return one.map(decode).join("");
});
return { ids, back };
"""
PIECES = [
    *"aZ 9'\n\t.,-_é漢字ß🙂\u200d\u0301\xa0\u0085\ufeff\u2028\x00\x1f\u3000",
    *[
        "  ",
        "'ll",
        "'S",
        "don't",
        " the",
        "1234",
        "\r\n",
        "नमस्ते",
        "مرحبا",
        "👩‍👩‍👧",
        "<|end|>",
        "İ",
        "ſ",
    ],
    *["ʼn", "\U0001d7d8", "Ⅷ", "½", "\ud7ff", "\ue000", "constructor", "__proto__"],
]


def strings(count: int) -> list[str]:
    random_ = random.Random(0)
    made = ["".join(random_.choices(PIECES, k=random_.randint(0, 12))) for _ in range(count)]
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    planes = map(chr, random_.choices(points, k=400))
    return [*made, *planes, "a" * 500, " " * 50, ""]


def check(js: Run, tokenizer: Tokenizer, texts: list[str]) -> None:
    found = js(CODE, {"values": tokenizer_values(tokenizer), "texts": texts})
    for text, ids, back in zip(texts, found["ids"], found["back"], strict=True):
        assert ids == tokenizer.encode(text), repr(text)
        assert back.removeprefix(" " * isinstance(tokenizer, Llama2cTokenizer)) == text, repr(text)


def test_2000_strings_of_the_books_vocabulary(js: Run) -> None:
    check(js, load_kept()[1], strings(2000))


def test_gpt2s_vocabulary(js: Run) -> None:
    if find_local("tokenizers/r50k_base.tiktoken") is None:
        pytest.skip("GPT-2's vocabulary is not here: `make data` fetches it")
    texts = strings(2000)
    check(js, load_published("gpt2"), [*texts, "a<|endoftext|>b<|endoftext|>", "<|endoftex|>"])


def test_scored_pieces(js: Run) -> None:
    if (path := find_local(TOKENIZER.name)) is None:
        pytest.skip("stories260K is not here: set LLMTUTOR_MIRROR to a folder that holds it")
    check(js, Llama2cTokenizer.load(path, 512), strings(2000))


def test_characters_and_one_that_is_unknown(js: Run) -> None:
    tokenizer = CharTokenizer("abc é🙂")
    check(js, tokenizer, ["", "abc", "🙂é a"])
    found = js(CODE, {"values": tokenizer_values(tokenizer), "texts": ["abz"]})
    assert found == {"error": "no token for z"}


def test_special_tokens_the_longest_first(js: Run) -> None:
    special = ["<e>", "<e>>", " low", "a|b", "[x]"]
    tokenizer = BPETokenizer.train("low low lower lowest", 270, special)
    texts = ["low<e>>low", "<e><e>>", " low low", "xa|b[x]a", "lower<e", "[x][x]"]
    check(js, tokenizer, texts)


def test_every_border_between_kinds_of_characters(js: Run) -> None:
    texts = []
    for kind in (r"\p{L}", r"\p{N}", r"\s"):
        borders = accumulate(int(run, 36) for run in runs(kind).split())
        around = {point + step for point in borders for step in (-1, 0)}
        good = [point for point in sorted(around) if not 0xD800 <= point < 0xE000]
        texts += [f"a{chr(point)}1{chr(point)}!{chr(point)} " for point in good if point < 0x110000]
    assert len(texts) > 1500
    code = "return given.texts.map(engine.createTokenizer(given.values).words);"
    found = js(code, {"values": tokenizer_values(load_kept()[1]), "texts": texts})
    for text, words in zip(texts, found, strict=True):
        assert words == split(text), ascii(text)


def test_half_a_character_is_refused(js: Run) -> None:
    values = tokenizer_values(CharTokenizer("ab"))
    code = 'return engine.createTokenizer(given).encode("a\\ud800");'
    assert js(code, values) == {"error": "half a character"}


def test_what_the_page_does_not_know_is_refused() -> None:
    vocab = {bytes([byte]): byte for byte in range(256)}
    with pytest.raises(ValueError, match="splits words by GPT-2's pattern"):
        tokenizer_values(BPETokenizer(vocab, [], pattern=r"\s+|\S+"))
    mixed = {bytes([byte]): (byte + 1) % 257 for byte in range(256)} | {b"ab": 0}
    with pytest.raises(ValueError, match="ids in order"):
        tokenizer_values(BPETokenizer(mixed, [(b"a", b"b")]))

    class Other:
        vocab_size = 0

    with pytest.raises(ValueError, match=r"knows the tokenizers of this book .* not Other"):
        tokenizer_values(Other())  # type: ignore[arg-type]
