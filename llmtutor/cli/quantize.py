"""``llmtutor quantize``: a trained model in fewer bits, with what that costs."""

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import cyclopts
import torch
from torch import Tensor

from llmtutor.checks import check_at_least, check_name
from llmtutor.cli.generate import Source, source
from llmtutor.evaluate.sliding import sliding_loss
from llmtutor.interop.hf.folder import CONFIG
from llmtutor.interop.hf.tokenizer import GENERATION, TOKENIZER
from llmtutor.interop.quantize import (
    CALIBRATED,
    SCHEMES,
    bits_per_weight,
    gptq_model,
    packed,
    round_model,
    save_quantized,
    stored_bytes,
)
from llmtutor.interop.quantize.files import QUANTIZED
from llmtutor.interop.quantize.format import Rounded
from llmtutor.interop.quantize.integers import Integers
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer.files import read_text

app = cyclopts.App(
    name="quantize",
    help_epilogue="Example: llmtutor quantize runs/first --scheme int4 --out runs/first-int4",
)
LONGEST = 512
"""Tokens of a text to calibrate on, at most."""
PART = 10
"""The loss is measured on the last tenth of the text, and calibrated on the rest."""


@app.default
def quantize(
    model: Path,
    /,
    *,
    scheme: str,
    out: Path,
    text: Path | None = None,
    windows: int = 64,
    seed: int = 0,
) -> None:
    """Write a model with its matrices in fewer bits; `llmtutor generate` reads what comes out.

    Parameters
    ----------
    model
        Folder of a training run, of one of its checkpoints, or of Hugging Face.
    scheme
        int8 (a scale for each row), int8-tensor, int4 (groups of 32), int4-asymmetric, int4-row,
        int3, nf4 (groups of 64), nf4-double, gptq (int4 in groups of 32) or gptq-3.
    out
        Folder to write, which must not be there.
    text
        A text like those that the model is for. gptq rounds for it and cannot do without; the loss
        before and after is measured on its last tenth, which gptq does not see.
    windows
        Pieces of it that gptq reads.
    seed
        Which pieces.
    """
    check_name("scheme", scheme, SCHEMES)
    check_at_least(1, windows=windows)
    if out.exists():
        raise ValueError(f"{out} is there already: give a folder that is not")
    if scheme in CALIBRATED and text is None:
        raise ValueError(f"{scheme} rounds for a text: give one with --text FILE")
    if not model.is_dir():
        raise ValueError(f"{model}: expected the folder of a run or of Hugging Face, found none")
    published = (model / CONFIG).is_file()
    found = source(None, model) if published else source(model, None)
    parts = None if text is None else _parts(text, found)
    rounded = _rounded(scheme, found, parts, windows, seed)
    small = packed(found.model, rounded)
    _write(small, found, model if published else None, out)
    before, after = stored_bytes(found.model), stored_bytes(small)
    print(f"{scheme}: {len(rounded)} matrices, {bits_per_weight(rounded):.2f} bits a weight")
    print(f"tensors: {before:,} bytes, now {after:,} ({after / before:.0%})")
    if parts is not None:
        losses = [_bits_per_byte(one, found, parts.measured) for one in (found.model, small)]
        print(f"bits per byte: {losses[0]:.4f}, now {losses[1]:.4f}, on the last tenth of {text}")
    print(f"written to {out}")


class Parts(NamedTuple):
    """A text in ids."""

    calibrated: Tensor
    measured: Tensor


def _parts(text: Path, found: Source) -> Parts:
    """The first nine tenths of a text and the last.

    Raises:
        ValueError: too short for one window each.
    """
    content = read_text(text)
    cut = len(content) - len(content) // PART
    ids = [torch.tensor(found.tokenizer.encode(part)) for part in (content[:cut], content[cut:])]
    need = _window(found) + 1
    if len(ids[0]) < need or len(ids[1]) < 2:
        raise ValueError(
            f"{text} has {len(ids[0])} and {len(ids[1])} tokens in its first nine tenths and its "
            f"last: expected at least {need} and 2"
        )
    return Parts(*ids)


def _window(found: Source) -> int:
    return min(LONGEST, found.model.config.max_seq_len)


def _rounded(
    scheme: str, found: Source, parts: Parts | None, windows: int, seed: int
) -> dict[str, Rounded]:
    format = SCHEMES[scheme]
    if scheme not in CALIBRATED:
        return round_model(found.model, format)
    assert parts is not None and isinstance(format, Integers)
    generator = torch.Generator().manual_seed(seed)
    ids, length = parts.calibrated, _window(found)
    starts = torch.randint(len(ids) - length, (windows, 1), generator=generator)
    return gptq_model(found.model, ids[starts + torch.arange(length)], format)


def _bits_per_byte(model: Transformer, found: Source, ids: Tensor) -> float:
    n_bytes = sum(len(found.tokenizer.token_bytes(id)) for id in ids[1:].tolist())
    return sliding_loss(model, ids, _window(found)).bits_per_byte(n_bytes)


def _write(model: Transformer, found: Source, published: Path | None, out: Path) -> None:
    """All files into a folder beside, which is moved to its place when it is whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
        folder = Path(beside) / out.name
        save_quantized(model, folder / QUANTIZED)
        if published is None:
            found.tokenizer.save(folder / "tokenizer")
        else:
            for name in (TOKENIZER, CONFIG, GENERATION):
                if (published / name).is_file():
                    shutil.copyfile(published / name, folder / name)
        folder.rename(out)
