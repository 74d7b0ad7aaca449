"""Chapter 01, step 9: what the tokens of a text look like."""

from llmtutor.tokenizer.base import Tokenizer

SIGNS = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})
"""White space, made visible."""


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    r"""The tokens of a text, each as its characters, white space as a sign.

    Bytes that are no whole character stand as Python writes them; a character may be parted.

    >>> from llmtutor.tokenizer import BPETokenizer
    >>> print(*pieces(BPETokenizer.train("to be", 259), "to be é"))
    to ␣be ␣ \xc3 \xa9
    """
    tokens = map(tokenizer.token_bytes, tokenizer.encode(text))
    return [token.decode("utf-8", "backslashreplace").translate(SIGNS) for token in tokens]
