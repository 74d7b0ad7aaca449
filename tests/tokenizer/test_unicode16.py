"""The characters of Unicode 16 are those that the Rust library knows, for any `regex`."""

import regex
from tokenizers import Regex, pre_tokenizers

from llmtutor.tokenizer import BPETokenizer
from llmtutor.tokenizer.fast import to_tokenizers
from llmtutor.tokenizer.unicode16 import NO_CHARACTER, as_of_unicode_16, younger

CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def test_letters_numbers_and_spaces_of_all_code_points_are_those_of_the_rust_library() -> None:
    text = "".join(CHARACTERS)
    known = as_of_unicode_16(text)
    for kind in (r"\p{L}+", r"\p{N}+", r"\s+"):
        rust = pre_tokenizers.Split(Regex(kind), behavior="removed")
        left = "".join(piece for piece, _ in rust.pre_tokenize_str(text))
        ours = [(match.start(), match.end()) for match in regex.finditer(kind, known)]
        ends = [0, *(place for pair in ours for place in pair), len(text)]
        assert left == "".join(text[a:b] for a, b in zip(ends[::2], ends[1::2], strict=True)), kind


def test_only_younger_characters_are_replaced() -> None:
    old = "naïve 中文 𝔘 \uffff"
    assert as_of_unicode_16(old) is old
    for character in younger():
        assert as_of_unicode_16(f"é{character}!") == f"é{NO_CHARACTER}!"


def test_a_letter_of_unicode_17_gets_the_ids_of_the_rust_library() -> None:
    text = "a\U000323b0 " * 50
    tokenizer = BPETokenizer.train(text, 270)
    rust = to_tokenizers(tokenizer)
    for probe in (text, "a\U000323b01\U000323b0.\U000323b0 \U000323b0b"):
        assert tokenizer.encode(probe) == rust.encode(probe).ids
        assert list(tokenizer.encode_iterable(probe)) == rust.encode(probe).ids
        assert tokenizer.decode(tokenizer.encode(probe)) == probe
