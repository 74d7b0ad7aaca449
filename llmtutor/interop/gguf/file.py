"""Chapter 23, export: a whole model in one file of llama.cpp, there and back.

``save_gguf(model, tokenizer, path)`` writes what llama.cpp and all that stands on it can run;
``load_gguf(path)`` reads it again.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llmtutor.checks import check_name
from llmtutor.interop.gguf.architectures import (
    ARCHITECTURE,
    architecture,
    config_from_facts,
    config_to_facts,
    state_from_tensors,
    state_to_tensors,
)
from llmtutor.interop.gguf.container import Stored, Value, read_container, write_container
from llmtutor.interop.gguf.quants import KINDS, pack, unpack
from llmtutor.interop.gguf.tokens import tokenizer_from_facts, tokenizer_to_facts
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import Tokenizer

QUANTIZATION_VERSION = 2
"""Of the layout of blocks, the only one in use."""


def save_gguf(
    model: Transformer, tokenizer: Tokenizer, path: str | Path, dtype: str = "f32"
) -> None:
    """Write a model with its tokenizer; matrices as ``dtype``: f32, f16, q8_0 or q4_0.

    What is no matrix (gains, biases) and the table of positions stay in float32, as llama.cpp's
    own programs have it; so do they keep a matrix in half precision whose rows are not a multiple
    of 32, which blocks would not divide. All other matrices get the same ``dtype``, the embedding
    and the output layer too (what llama.cpp calls *pure*).

    Raises:
        ValueError: an unknown ``dtype``; a model or a tokenizer that llama.cpp does not have,
            named by the part; weights that are not finite or too large for ``dtype``. Nothing is
            written then.
        OSError: the file cannot be written; one of before is left whole.
    """
    check_name("dtype", dtype, KINDS)
    config = model.config
    facts = config_to_facts(config)
    name = str(facts[ARCHITECTURE])
    words = tokenizer_to_facts(tokenizer, config.vocab_size)
    general: dict[str, Value] = {
        "general.type": "model",
        "general.file_type": KINDS[dtype].file_type,
    }
    if KINDS[dtype].block > 1:
        general["general.quantization_version"] = QUANTIZATION_VERSION
    state = state_to_tensors(model.state_dict(), config, name)
    tensors = {key: stored(key, value, dtype) for key, value in state.items()}
    write_container(Path(path), {**facts, **general, **words}, tensors)


def stored(name: str, value: Tensor, dtype: str) -> Stored:
    """A tensor as it is written.

    Raises:
        ValueError: numbers that do not fit.
    """
    if value.ndim < 2 or name == "position_embd.weight":
        dtype = "f32"
    elif value.shape[-1] % KINDS[dtype].block:
        dtype = "f16"
    numbers = value.detach().float().cpu().numpy()
    try:
        return Stored(tuple(value.shape), dtype, pack(numbers, dtype))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def load_gguf(path: str | Path) -> Transformer:
    """The model in a file, its weights in float32, in evaluation mode.

    Raises:
        OSError: it cannot be read.
        ValueError: no GGUF file or a damaged one; an architecture, a fact or a way of storing
            numbers that we do not have; tensors that are missing or of another shape.
    """
    path = Path(path)
    facts, tensors = read_container(path)
    config = config_from_facts(facts, tensors, str(path))
    numbers = {name: torch.from_numpy(unpack(*_of(one))) for name, one in tensors.items()}
    try:
        state = state_from_tensors(numbers, config, architecture(facts, str(path)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    with torch.device("meta"):  # no weights are drawn only to be thrown away
        model = Transformer(config)
    _check_shapes(path, model.state_dict(), state)
    model.load_state_dict(state, assign=True)
    if config.tie_weights:
        model.embedding.weight = model.head.weight
    return model.eval()


def load_gguf_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a file.

    Raises:
        OSError, ValueError: as ``load_gguf``; a tokenizer that we do not have.
    """
    return tokenizer_from_facts(read_container(Path(path)).facts, str(path))


def _of(stored: Stored) -> tuple[np.ndarray, tuple[int, ...], str]:
    return stored.data, stored.shape, stored.dtype


def _check_shapes(path: Path, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    for name, value in wanted.items():
        if value.shape != state[name].shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, its facts ask for "
                f"{tuple(value.shape)}"
            )
