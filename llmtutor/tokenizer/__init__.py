"""Chapter 01: text to ids and back, without loss. Nothing here imports torch."""

from llmtutor.tokenizer.base import Tokenizer
from llmtutor.tokenizer.bpe import BPETokenizer
from llmtutor.tokenizer.char import CharTokenizer
from llmtutor.tokenizer.load import load_tokenizer

__all__ = ["BPETokenizer", "CharTokenizer", "Tokenizer", "load_tokenizer"]
