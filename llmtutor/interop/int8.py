"""Chapter 12, scaling: a model in a quarter of the bytes, for the shelf and for the page.

Each row of a matrix is kept as whole numbers from −127 to 127 and one float32, the *scale* of the
row: ``w ≈ scale · n``. Nothing is off by more than half a scale. Vectors (gains, biases) stay as
they are. One safetensors file holds all of it, and the configuration beside the tensors.
"""

import json
import os
from pathlib import Path

import torch
from jaxtyping import Float, Int8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer

SCALE = ".scale"
CONFIG = "config"


def to_int8(
    matrix: Float[Tensor, "rows columns"],
) -> tuple[Int8[Tensor, "rows columns"], Float[Tensor, "rows"]]:
    """Whole numbers and the scale of each row; a row of zeros has the scale 1.

    >>> numbers, scale = to_int8(torch.tensor([[0.5, -1.27, 0.0]]))
    >>> numbers.tolist(), round(scale.item(), 6)
    ([[50, -127, 0]], 0.01)
    """
    largest = matrix.abs().amax(1)
    scale = torch.where(largest > 0, largest / 127, 1.0).float()
    return (matrix / scale[:, None]).round().to(torch.int8), scale


def save_int8(model: Transformer, path: Path) -> None:
    """Write a model of any dtype; the file is there whole or not at all."""
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if value.ndim == 2:
            tensors[name], tensors[name + SCALE] = to_int8(value)
        else:
            tensors[name] = value.float().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, temporary, metadata={CONFIG: json.dumps(model.config.to_dict())})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_int8(path: Path) -> Transformer:
    """The model in a file of ``save_int8``, its weights in float32.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, is no model of ours, or holds other weights than its
            configuration asks for.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: expected a model written by save_int8")
    try:
        with safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get(CONFIG)
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    if written is None:
        raise ValueError(f"{path} holds no configuration: expected a model written by save_int8")
    try:
        model = Transformer(ModelConfig.from_dict(json.loads(written)))
        state = {
            name: value.float() * found[name + SCALE][:, None] if name + SCALE in found else value
            for name, value in found.items()
            if not name.endswith(SCALE)
        }
        model.load_state_dict(state)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from None
    return model.eval()
