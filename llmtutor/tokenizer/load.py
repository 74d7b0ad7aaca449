"""Chapter 01, step 7: read a tokenizer of either kind from its folder."""

from pathlib import Path

from llmtutor.tokenizer.base import Tokenizer
from llmtutor.tokenizer.bpe import BPETokenizer
from llmtutor.tokenizer.char import CHARS_FILE, CharTokenizer
from llmtutor.tokenizer.files import MERGES_FILE, VOCAB_FILE


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """The tokenizer saved in a folder, told by its files.

    `FileNotFoundError` if there is none, `ValueError` if there are two or a file is malformed.
    """
    folder = Path(folder)
    has_chars, has_vocab = (folder / CHARS_FILE).is_file(), (folder / VOCAB_FILE).is_file()
    if has_chars and has_vocab:
        raise ValueError(f"{folder} holds both {CHARS_FILE} and {VOCAB_FILE}: remove one of them")
    if has_chars:
        return CharTokenizer.load(folder)
    if has_vocab:
        return BPETokenizer.load(folder)
    raise FileNotFoundError(
        f"{folder}: expected a tokenizer, {VOCAB_FILE} and {MERGES_FILE} or {CHARS_FILE}; "
        "make one with `llmtutor tokenizer train`"
    )
