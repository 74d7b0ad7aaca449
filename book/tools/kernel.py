"""Assemble the kernel of the page: `python book/tools/kernel.py` after a change of kernel.wat.

The bytes are committed, so that nobody needs an assembler to use them; a test assembles them anew.
"""

from pathlib import Path

import wasmtime

JS = Path(__file__).resolve().parents[2] / "llmtutor" / "web" / "js"


def assembled() -> bytes:
    """The module of kernel.wat; `wasmtime.WasmtimeError` says where the text is wrong."""
    return bytes(wasmtime.wat2wasm((JS / "kernel.wat").read_text(encoding="utf-8")))


if __name__ == "__main__":
    (JS / "kernel.wasm").write_bytes(assembled())
