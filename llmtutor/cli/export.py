"""``llmtutor export``: a trained model in the files of other programs."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple
from uuid import uuid4

import cyclopts
import torch
from cyclopts import Parameter

from llmtutor.checks import check_name
from llmtutor.cli.generate import load
from llmtutor.interop.gguf import KINDS, load_gguf, load_gguf_tokenizer, save_gguf
from llmtutor.interop.hf import HFTokenizer, load_hf, save_hf_with_tokenizer
from llmtutor.interop.hf.folder import CONFIG
from llmtutor.interop.hf.tokenizer import TOKENIZER, save_tokenizer
from llmtutor.interop.llama2c import save_llama2c
from llmtutor.interop.llama2c_tokenizer import Llama2cTokenizer
from llmtutor.interop.onnx import export_onnx, export_onnx_decoder, no_decoder
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import Tokenizer, load_tokenizer
from llmtutor.web.export import save_web
from llmtutor.web.pack import DTYPES

app = cyclopts.App(
    name="export",
    help_epilogue="Example: llmtutor export runs/first --to gguf --out first.gguf --dtype q8_0",
)


def _hf(model: Transformer, tokenizer: Tokenizer, out: Path, dtype: str) -> None:
    half = torch.float16 if dtype == "f16" else torch.float32
    save_hf_with_tokenizer(model.to(half), tokenizer, out)


def _llama2c(model: Transformer, tokenizer: Tokenizer, out: Path, dtype: str) -> None:
    save_llama2c(model, out / "model.bin")
    tokenizer.save(out)
    if not isinstance(tokenizer, Llama2cTokenizer):
        print("llama2.c has no tokenizer of this kind: its run.c gives ids, and no text, of it")


def _onnx(model: Transformer, tokenizer: Tokenizer, out: Path, dtype: str) -> None:
    if reason := no_decoder(model):
        print(f"only the pass over whole texts, without a cache: {reason}")
        export_onnx(model, out / "model.onnx")
    else:
        export_onnx_decoder(model, out / "model.onnx")
    save_tokenizer(tokenizer, out)


def _web(model: Transformer, tokenizer: Tokenizer, out: Path, dtype: str) -> None:
    save_web(model, tokenizer, out, dtype)


class Format(NamedTuple):
    """What a model can be written as."""

    write: Callable[[Transformer, Tokenizer, Path, str], None]
    """Writes model and tokenizer to a path, with numbers of a dtype."""
    dtypes: tuple[str, ...]
    """How it keeps numbers, the usual way first."""
    folder: bool = True
    """Whether the path becomes a folder, or a file."""


FORMATS = {
    "hf": Format(_hf, ("f32", "f16")),
    "gguf": Format(save_gguf, tuple(KINDS), folder=False),
    "onnx": Format(_onnx, ("f32",)),
    "llama2c": Format(_llama2c, ("f32",)),
    "web": Format(_web, DTYPES),
}
"""The formats by name: one line each."""


@app.default
def export(
    source: Path,
    /,
    *,
    to: str,
    out: Path,
    dtype: str | None = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Write a model, with its tokenizer, in a form that other programs read.

    What a form cannot hold is refused by the name of the part, and then nothing is written.

    Parameters
    ----------
    source
        Folder of a training run, or of one of its checkpoints; a folder of Hugging Face; a .gguf
        file.
    to
        hf: a folder for transformers. gguf: one file for llama.cpp. onnx: a folder for
        onnxruntime. llama2c: a folder with the model.bin of llama2.c. web: a folder whose
        index.html runs the model in a browser, without a server.
    out
        The file or folder to write.
    dtype
        How numbers are kept: f32, which is the default, or f16; in gguf also in blocks with a
        scale, q8_0 or q4_0; in web int8, which is the default there, or f32.
    overwrite
        Replace what is at --out.
    """
    form = FORMATS[check_name("format", to, FORMATS)]
    dtype = check_name(f"dtype of {to}", dtype or form.dtypes[0], form.dtypes)
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise ValueError(f"{out} is there already: name another --out, or say --overwrite")
    if out.exists() and out.is_dir() != form.folder:
        kind, found = ("folder", "file") if form.folder else ("file", "folder")
        raise ValueError(f"{out}: {to} is written as a {kind}, found a {found} there")
    model, tokenizer = read(source)
    if form.folder:
        with whole_folder(out) as folder:
            form.write(model, tokenizer, folder, dtype)
    else:
        form.write(model, tokenizer, out, dtype)
    for path in sorted(out.iterdir()) if form.folder else [out]:
        print(f"{path}: {path.stat().st_size:,} bytes")


def read(source: Path) -> tuple[Transformer, Tokenizer]:
    """The model and the tokenizer of a run, of a folder of Hugging Face, or of a GGUF file.

    Raises:
        ValueError, OSError: neither; what the readers of each refuse.
    """
    if source.is_file():
        return load_gguf(source), load_gguf_tokenizer(source)
    if (source / CONFIG).is_file():
        # Files of our own tokenizers may lie there in place of the usual one.
        published = (source / TOKENIZER).is_file()
        tokenizer = HFTokenizer.load(source) if published else load_tokenizer(source)
        return load_hf(source, torch.float32).eval(), tokenizer
    run = load(source)
    return run.model, run.tokenizer


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, whose files come to ``out`` when the block ends well."""
    beside = out.with_name(f".{uuid4().hex}")
    beside.mkdir(parents=True)
    try:
        yield beside
        out.mkdir(exist_ok=True)
        for path in beside.iterdir():
            os.replace(path, out / path.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
