"""What is committed of the model in the page, made anew: `python book/tools/web_files.py`.

The kernel is assembled from kernel.wat, so that nobody else needs an assembler; the examples that
stand where there is no JavaScript are computed by the kept model, so that a page does not depend on
the processor that built it. Tests hold both to what they were made from.
"""

import json
from pathlib import Path

import wasmtime

from llmtutor.experiments.kept import load_kept
from llmtutor.tokenizer.files import write_files
from llmtutor.web.examples import compute

WEB = Path(__file__).resolve().parents[2] / "llmtutor" / "web"


def assembled() -> bytes:
    """The module of kernel.wat; `wasmtime.WasmtimeError` says where the text is wrong."""
    text = (WEB / "js" / "kernel.wat").read_text(encoding="utf-8")
    return without_names(bytes(wasmtime.wat2wasm(text)))


def without_names(module: bytes) -> bytes:
    """A module without the names that its variables have in the text: a third of its bytes.

    Behind eight bytes of magic and version, a section is its kind, its length (in groups of seven
    bits, the lowest first, the last one below 128) and its content; names are of kind 0.
    """
    kept, at = module[:8], 8
    while at < len(module):
        start, kind, length, shift = at, module[at], 0, 0
        more = True
        while more:
            at += 1
            length |= (module[at] & 127) << shift
            more, shift = module[at] > 127, shift + 7
        at += 1 + length
        kept += module[start:at] if kind else b""
    return kept


if __name__ == "__main__":
    examples = json.dumps(compute(*load_kept()), ensure_ascii=False, indent=1) + "\n"
    write_files(WEB, {"js/kernel.wasm": assembled(), "recorded.json": examples})
