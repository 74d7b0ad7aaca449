"""Chapter 23, export: a tokenizer as plain values, for the page to give the same ids.

Which characters are letters and digits is written out, as of Unicode 16: browsers know other
versions of it, and a tokenizer must give the same ids in all of them.
"""

from functools import cache
from itertools import pairwise
from typing import Any

import regex

from llmtutor.interop.llama2c_tokenizer import FIRST_BYTE, Llama2cTokenizer
from llmtutor.tokenizer import BPETokenizer, CharTokenizer, Tokenizer
from llmtutor.tokenizer.files import printable
from llmtutor.tokenizer.pretokenize import GPT2_PATTERN
from llmtutor.tokenizer.unicode16 import as_of_unicode_16

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def tokenizer_values(tokenizer: Tokenizer) -> dict[str, Any]:
    """What ``createTokenizer`` of the page takes.

    Raises:
        ValueError: a kind of tokenizer, or a pattern of words, that the page does not know.
    """
    tokens = [printable(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)]
    if isinstance(tokenizer, BPETokenizer):
        if tokenizer.pattern != GPT2_PATTERN:
            raise ValueError(
                f"the page splits words by GPT-2's pattern, not by {tokenizer.pattern!r}"
            )
        merges = [(printable(left), printable(right)) for left, right in tokenizer.merges]
        if tokens[256 : 256 + len(merges)] != [left + right for left, right in merges]:
            raise ValueError("the page expects ids in order: 256 bytes, the merges, special tokens")
        return {
            "kind": "bpe",
            "tokens": tokens[:256],
            "merges": "\n".join(f"{left} {right}" for left, right in merges),
            "special": tokens[256 + len(merges) :],
            "letters": runs(r"\p{L}"),
            "numbers": runs(r"\p{N}"),
        }
    if isinstance(tokenizer, Llama2cTokenizer):
        values = [round(score, 6) for _, score in tokenizer.pieces]
        first = len(Llama2cTokenizer.FIXED)
        pieces: dict[str, int] = {}
        for id, (piece, _) in enumerate(tokenizer.pieces[first:], first):
            pieces.setdefault(piece.decode("utf-8"), id)
        return {
            "kind": "scores",
            "tokens": tokens,
            "pieces": pieces,
            "values": values,
            "firstByte": FIRST_BYTE,
        }
    if isinstance(tokenizer, CharTokenizer):
        return {"kind": "chars", "tokens": tokens}
    raise ValueError(
        f"the page knows the tokenizers of this book (BPE, characters, llama2.c), "
        f"not {type(tokenizer).__name__}"
    )


@cache
def runs(kind: str) -> str:
    r"""How many code points in a row are not of a kind, then how many are, and so on, in base 36.

    >>> runs(r"[a-z]")
    '2p q'
    """
    everything = as_of_unicode_16("".join(map(chr, range(0x110000))))
    borders = [0, *(at for run in regex.finditer(f"{kind}+", everything) for at in run.span())]
    return " ".join(_base_36(after - before) for before, after in pairwise(borders))


def _base_36(number: int) -> str:
    high, low = divmod(number, 36)
    return (_base_36(high) if high else "") + DIGITS[low]
