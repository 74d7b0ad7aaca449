"""The model so far, every chapter from 03 on: the last rung, kept for later chapters and the page.

``data/models/staircase`` holds its weights in int8, its tokenizer and a card that says what it is.
"""

from pathlib import Path
from typing import Any

from llmtutor.data.places import data_dir
from llmtutor.data.shipped import checkout, shipped
from llmtutor.interop.int8 import load_int8, save_int8
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import Tokenizer, load_tokenizer

WEIGHTS, CARD, TOKENIZER = "model.safetensors", "README.md", "tokenizer"
MOST_BYTES = 4_000_000


def kept_dir() -> Path:
    """Where the model of the book is: beside the records of the studies."""
    return shipped("models") / "staircase"


def own_kept_dir() -> Path:
    """Where it is written: the same folder of a checkout, else one in the data folder."""
    return kept_dir() if checkout() else data_dir() / "models" / "staircase"


def keep(model: Transformer, tokenizer: Tokenizer, folder: Path | None = None) -> None:
    """Write weights and tokenizer.

    Raises:
        ValueError: weights of more than MOST_BYTES, which no page should fetch.
    """
    folder = own_kept_dir() if folder is None else folder
    save_int8(model, folder / WEIGHTS)
    if (size := (folder / WEIGHTS).stat().st_size) > MOST_BYTES:
        (folder / WEIGHTS).unlink()
        raise ValueError(f"the model has {size:,} bytes in int8: at most {MOST_BYTES:,} are kept")
    tokenizer.save(folder / TOKENIZER)


def load_kept(folder: Path | None = None) -> tuple[Transformer, Tokenizer]:
    """The last rung of the staircase, in float32, and its tokenizer.

    Raises:
        FileNotFoundError: it is not there; ``llmtutor experiment run staircase`` makes it.
        ValueError: a damaged file.
    """
    folder = kept_dir() if folder is None else folder
    return load_int8(folder / WEIGHTS), load_tokenizer(folder / TOKENIZER)


def write_card(found: dict[str, Any], folder: Path | None = None) -> None:
    """The card: data, recipe, loss, licence; ``found`` are its entries, in order."""
    folder = own_kept_dir() if folder is None else folder
    rows = "".join(f"| {name} | {value} |\n" for name, value in found.items())
    text = f"# The last rung of the staircase\n\n|   |   |\n| --- | --- |\n{rows}"
    (folder / CARD).write_text(text, encoding="utf-8", newline="\n")
