"""Chapter 01, tokenizer: the vocabularies of the widget Cut, as scripts."""

import json
from typing import Any

from llmtutor.experiments.kept import load_kept
from llmtutor.tokenizer import BPETokenizer
from llmtutor.web.pack import packed
from llmtutor.web.tokens import tokenizer_values

GPT2 = "tokenizer-gpt2"


def tokenizers_script(gpt2: BPETokenizer | None) -> dict[str, str]:
    """File names and contents: the small vocabularies, and GPT-2's where it was fetched."""
    _, own = load_kept()
    bytes_ = BPETokenizer({bytes([byte]): byte for byte in range(256)}, [])
    shelf: dict[str, Any] = {
        "book": _entry(f"this book's: {own.vocab_size:,} pieces of Shakespeare", own),
        "bytes": _entry("bytes alone: 256", bytes_),
    }
    files = {}
    if gpt2 is not None:
        shelf["gpt2"] = {"title": f"GPT-2's: {gpt2.vocab_size:,}", "script": GPT2}
        values = json.dumps(tokenizer_values(gpt2), ensure_ascii=False, separators=(",", ":"))
        files[f"{GPT2}.js"] = f'LLMTutor.tokenizers.gpt2.packed = "{packed(values.encode())}";\n'
    text = json.dumps(shelf, ensure_ascii=False, separators=(",", ":"))
    return {"tokenizers.js": f"LLMTutor.tokenizers = {text};\n", **files}


def _entry(title: str, tokenizer: Any) -> dict[str, Any]:
    return {"title": title, "values": tokenizer_values(tokenizer)}
