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
    return bytes(wasmtime.wat2wasm((WEB / "js" / "kernel.wat").read_text(encoding="utf-8")))


if __name__ == "__main__":
    examples = json.dumps(compute(*load_kept()), ensure_ascii=False, indent=1) + "\n"
    write_files(WEB, {"js/kernel.wasm": assembled(), "recorded.json": examples})
