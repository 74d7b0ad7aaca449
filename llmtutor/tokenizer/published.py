"""Chapter 01, step 9: four tokenizers of today, each a pattern, a list of tokens and special ones.

They differ in little: how words are cut (digits above all), how many tokens there are, and what
text these were learnt from. The algorithm has been GPT-2's all along.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmtutor.tokenizer.bpe import BPETokenizer
from llmtutor.tokenizer.pretokenize import GPT2_PATTERN
from llmtutor.tokenizer.ranks import merges_of, read_tekken, read_tiktoken

END = "<|endoftext|>"

CL100K_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Digits in groups of three at most; any sign, not only a space, may lead a word of letters; the
line ends after a sign stay with it, and those after white space end a word."""

# A word of letters has its capitals first, so `camelCase` is cut where the second word begins.
_CAPITALS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_SMALL = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LETTERS = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*",
)
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

O200K_PATTERN = "|".join([*(words + _CONTRACTION for words in _LETTERS), r"\p{N}{1,3}", _REST])
"""Words are cut before a capital that follows a small letter; accents that are characters of their
own belong to the letters, which scripts such as Hindi's need; a contraction ends its word."""

TEKKEN_PATTERN = "|".join([*_LETTERS, r"\p{N}", _REST])
"""As o200k's, but each digit is a word, and there are no contractions."""

# Mistral's names for the first of its special tokens; the others have numbers.
# fmt: off
_TEKKEN_SPECIAL = [
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]",
    "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
]
# fmt: on


@dataclass(frozen=True)
class Published:
    """A published tokenizer, all but its list of tokens, which is in a file."""

    what: str
    """Whose it is, and where it is used."""
    file: str
    """The name that its publisher gave the file."""
    pattern: str
    special_tokens: Mapping[str, int]
    read: Callable[[Path], list[bytes]] = field(default=read_tiktoken)
    """The reader of the file: its tokens in order of rank."""
    first_id: int = 0
    """The id of the token of rank 0."""
    reserved: str = "<|reserved_{}|>"
    """Name of the ids that are kept free, so that each id up to the last has a token."""

    def load(self, path: Path) -> BPETokenizer:
        """The tokenizer, from its file at `path`; takes a few seconds.

        `ValueError` for a file that is malformed.
        """
        tokens = self.read(path)
        try:
            merges = merges_of(tokens)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        vocab = {token: self.first_id + rank for rank, token in enumerate(tokens)}
        taken = {*vocab.values(), *self.special_tokens.values()}
        free = sorted(set(range(max(taken))) - taken)
        special = {**self.special_tokens, **{self.reserved.format(id): id for id in free}}
        return BPETokenizer(vocab, merges, special, self.pattern)


PUBLISHED: Mapping[str, Published] = {
    "gpt2": Published(
        "OpenAI's r50k_base, 2019: GPT-2 and GPT-3",
        "r50k_base.tiktoken",
        GPT2_PATTERN,
        {END: 50_256},
    ),
    "cl100k": Published(
        "OpenAI's cl100k_base, 2022: GPT-3.5 and GPT-4",
        "cl100k_base.tiktoken",
        CL100K_PATTERN,
        {
            END: 100_257,
            "<|fim_prefix|>": 100_258,
            "<|fim_middle|>": 100_259,
            "<|fim_suffix|>": 100_260,
            "<|endofprompt|>": 100_276,
        },
    ),
    "o200k": Published(
        "OpenAI's o200k_base, 2024: GPT-4o and gpt-oss",
        "o200k_base.tiktoken",
        O200K_PATTERN,
        {END: 199_999, "<|endofprompt|>": 200_018},
    ),
    "tekken": Published(
        "Mistral's Tekken, 2024: Mistral NeMo and later models",
        "tekken_240718.json",
        TEKKEN_PATTERN,
        {name: id for id, name in enumerate(_TEKKEN_SPECIAL)},
        read=read_tekken,
        first_id=1000,
        reserved="<SPECIAL_{}>",
    ),
}
