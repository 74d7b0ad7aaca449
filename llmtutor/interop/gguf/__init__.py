"""Chapter 23, export: models in the files of llama.cpp, written and read.

``save_gguf(model, tokenizer, path)`` and ``load_gguf(path)`` are the two names to know.
"""

from llmtutor.interop.gguf.container import read_container
from llmtutor.interop.gguf.file import load_gguf, load_gguf_tokenizer, save_gguf
from llmtutor.interop.gguf.quants import KINDS, pack, unpack

__all__ = [
    "KINDS",
    "load_gguf",
    "load_gguf_tokenizer",
    "pack",
    "read_container",
    "save_gguf",
    "unpack",
]
