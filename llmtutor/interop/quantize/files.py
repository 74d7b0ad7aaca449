"""Chapter 23, export: a quantised model as a file, and back.

One safetensors file holds codes, scales and what was left as it was. Its metadata says which model
it is and in which format each matrix is written.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from llmtutor.checks import check_name
from llmtutor.interop.quantize.apply import distinct, place
from llmtutor.interop.quantize.format import Format
from llmtutor.interop.quantize.integers import Integers
from llmtutor.interop.quantize.linear import (
    Int8Linear,
    PackedWeight,
    QuantizedEmbedding,
    QuantizedLinear,
    empty,
)
from llmtutor.interop.quantize.nf4 import NF4
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer

QUANTIZED = "quantized.safetensors"
"""How the file is called in a folder of ``llmtutor quantize``."""
CONFIG, WEIGHTS = "config", "quantized"
KINDS = {format.kind: format for format in (Integers, NF4)}


def save_quantized(model: Transformer, path: Path) -> None:
    """Write a model with packed layers; the file is there whole or not at all.

    Raises:
        ValueError: nothing in it is packed.
    """
    found = _packed_weights(model)
    if not found:
        raise ValueError("expected a model with packed layers, found none: quantise it first")
    metadata = {CONFIG: json.dumps(model.config.to_dict()), WEIGHTS: json.dumps(found)}
    tensors = {name: tensor.contiguous() for name, tensor in distinct(model).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, temporary, metadata=metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_quantized(path: Path) -> Transformer:
    """The model in a file of ``save_quantized``, its layers packed as they were.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged or something else, that holds other tensors than it says.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: expected a model written by save_quantized")
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    if CONFIG not in said or WEIGHTS not in said:
        raise ValueError(f"{path}: expected a model written by save_quantized, found another file")
    try:
        model = Transformer(ModelConfig.from_dict(json.loads(said[CONFIG])))
        for one in json.loads(said[WEIGHTS]):
            rows, columns = one["shape"]
            format, dtype = format_from_dict(one["format"]), getattr(torch, one["dtype"])
            weight = empty(format, rows, columns, dtype)
            place(model, one["users"], weight, dynamic=one["dynamic"])
        _fill(model, found)
    except (ValueError, RuntimeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    return model.eval()


def _fill(model: Transformer, found: dict[str, torch.Tensor]) -> None:
    """Copy the tensors of a file into a model that has the same."""
    own = distinct(model)
    if own.keys() != found.keys():
        off = sorted(own.keys() ^ found.keys())
        raise ValueError(f"its tensors are not those of its configuration: {', '.join(off[:5])}")
    for name, tensor in own.items():
        if tensor.shape != found[name].shape or (
            tensor.dtype != found[name].dtype and not tensor.is_floating_point()
        ):
            raise ValueError(
                f"{name}: expected {tuple(tensor.shape)} of {tensor.dtype}, got "
                f"{tuple(found[name].shape)} of {found[name].dtype}"
            )
    model.load_state_dict(found, strict=False)  # a name that is missing shares its tensor


def format_from_dict(values: dict[str, Any]) -> Format:
    """The inverse of a format's ``to_dict``.

    Raises:
        ValueError: an unknown kind (with the nearest), bad values.
    """
    rest = dict(values)
    kind = check_name("format", rest.pop("kind", None), KINDS)
    return KINDS[kind](**rest)


def _packed_weights(model: Transformer) -> list[dict[str, Any]]:
    """Users, format and shape of each packed matrix."""
    found: dict[int, dict[str, Any]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, QuantizedLinear | QuantizedEmbedding):
            continue
        weight: PackedWeight = module.packed
        one = found.setdefault(
            id(weight),
            {
                "users": [],
                "format": weight.format.to_dict(),
                "shape": weight.shape,
                "dtype": str(weight.dtype).removeprefix("torch."),
                "dynamic": False,
            },
        )
        one["users"].append(name)
        one["dynamic"] |= isinstance(module, Int8Linear)
    return list(found.values())
