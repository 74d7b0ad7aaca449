"""Chapter 01, tokenizer: the vocabularies of the widget Cut, as scripts."""

import json
from typing import Any

from llmtutor.experiments.kept import load_kept
from llmtutor.tokenizer import BPETokenizer, Tokenizer
from llmtutor.web.pack import packed
from llmtutor.web.tokens import tokenizer_values

GPT2 = "tokenizer-gpt2"


def tokenizers_script(*, with_gpt2: bool) -> str:
    """The small vocabularies, and where to find GPT-2's."""
    own = load_kept()[1]
    bytes_ = BPETokenizer({bytes([byte]): byte for byte in range(256)}, [])
    shelf: dict[str, Any] = {
        "book": _entry(f"this book's: {own.vocab_size:,} pieces of Shakespeare", own),
        "bytes": _entry("bytes alone: 256", bytes_),
    }
    if with_gpt2:
        shelf["gpt2"] = {"title": "GPT-2's: 50,257", "script": GPT2}
    return f"LLMTutor.tokenizers = {_json(shelf)};\n"


def gpt2_script(tokenizer: BPETokenizer) -> str:
    """GPT-2's vocabulary, deflated: it has fifty times as many pieces."""
    data = packed(_json(tokenizer_values(tokenizer)).encode("utf-8"))
    return f'LLMTutor.tokenizers.gpt2.packed = "{data}";\n'


def _entry(title: str, tokenizer: Tokenizer) -> dict[str, Any]:
    return {"title": title, "values": tokenizer_values(tokenizer)}


def _json(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))
