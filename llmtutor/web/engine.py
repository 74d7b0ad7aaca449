"""Chapter 23, export: the engine as one script, from the sources in ``js``.

What a reader's browser is sent has no comments and no indentation; the sources have.
"""

import base64
import re
from functools import cache
from importlib.resources import files

SOURCES = ("model.js", "sample.js", "tokenizer.js", "worker.js")
OFFERS = "createTokenizer, draw, filtered, seeded, serve, unpackJson"
"""What a page calls of it."""
MOST_BYTES = 15_000
"""Of the script: less than a picture."""


def source(name: str) -> str:
    """One file of ``llmtutor/web/js``."""
    return (files("llmtutor.web") / "js" / name).read_text(encoding="utf-8")


def kernel() -> bytes:
    """The matrix product in WebAssembly, assembled from ``kernel.wat``."""
    return (files("llmtutor.web") / "js" / "kernel.wasm").read_bytes()


@cache
def engine_script() -> str:
    """Model, sampling, tokenizers and what a worker answers, as one function, and the kernel.

    A page makes its worker from the text of ``LLMTutor.engine``: a worker of its own file could
    not be started from a page that was opened as a file.
    """
    worker = "\n".join(shortened(source(name)) for name in SOURCES)
    bytes_ = base64.b64encode(kernel()).decode("ascii")
    return (
        "globalThis.LLMTutor ??= {};\n"
        f"LLMTutor.engine = () => {{\n{worker}\nreturn {{ {OFFERS} }};\n}};\n"
        f'LLMTutor.kernel = "{bytes_}";\n'
    )


def shortened(text: str) -> str:
    """Without lines that are comments, empty lines, indentation, and ends of line that say nothing.

    >>> shortened("f(\\n  // why\\n  x,\\n)\\n")
    'f(x,)'
    """
    lines = (line.strip() for line in text.splitlines())
    kept = "\n".join(line for line in lines if line and not line.startswith("//"))
    return re.sub(r"(?<=[;,{(\[])\n", "", kept)
