"""Chapter 23, export: a model as scripts that any page can load, also one opened as a file."""

import json
from pathlib import Path

from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import Tokenizer
from llmtutor.tokenizer.files import write_files
from llmtutor.web.boxes import box
from llmtutor.web.decoder import sizes, tensors
from llmtutor.web.engine import engine_script
from llmtutor.web.pack import pack
from llmtutor.web.page_files import page_files, standalone
from llmtutor.web.tokens import tokenizer_values

MODEL, PAGE = "model", "index.html"


def model_script(
    model: Transformer, tokenizer: Tokenizer, *, dtype: str = "int8", name: str = MODEL
) -> str:
    """A script that lays configuration, weights and tokenizer under a name in ``LLMTutor.models``.

    Raises:
        ValueError: what the engine cannot run, by its name; a vocabulary larger than the model's.
    """
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model only "
            f"{model.config.vocab_size}: they do not belong together"
        )
    n_ids = tokenizer.vocab_size  # rows behind belong to no token, and are not sent
    values = {"sizes": sizes(model.config) | {"vocab_size": n_ids}}
    values |= pack(tensors(model, n_ids), dtype) | {"tokenizer": tokenizer_values(tokenizer)}
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return f"((globalThis.LLMTutor ??= {{}}).models ??= {{}})[{json.dumps(name)}] = {text};\n"


def save_web(model: Transformer, tokenizer: Tokenizer, folder: Path, dtype: str = "int8") -> None:
    """Write the scripts of a model and of the engine, and a page that tries them.

    Raises:
        ValueError: as ``model_script``; nothing is written then.
        OSError: the folder cannot be written.
    """
    example = box("write", {"model": MODEL, "prompt": ""}, "")
    scripts = {
        f"{MODEL}.js": model_script(model, tokenizer, dtype=dtype),
        "engine.js": engine_script(),
    }
    page = {PAGE: standalone("A model in a page", example)}
    write_files(folder, {**page_files(), **scripts, **page})
