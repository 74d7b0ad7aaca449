"""Chapter 09, the transformer: weights traded with the outside world.

A folder of Hugging Face holds ``config.json`` and its weights, in ``model.safetensors`` or in
several such files with an index. ``save_hf`` writes one that the ``transformers`` library opens,
``load_hf`` reads one that it wrote; both keep every bit. Only safetensors: a pickle can run any
program when it is opened.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmtutor.interop.hf.families import config_from_hf, config_to_hf, family_named, state_to_hf
from llmtutor.interop.hf.family import few, state_in
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer.files import read_json

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def load_hf(folder: str | Path, dtype: torch.dtype | None = None) -> Transformer:
    """The model in a folder that ``transformers`` or ``save_hf`` wrote.

    ``dtype`` converts the weights; None keeps the one of the file.

    Raises:
        FileNotFoundError: no ``config.json`` or no safetensors in the folder, or a file missing
            that the index names.
        ValueError: a feature that we do not have, weights that do not fit, a damaged file.
    """
    folder = Path(folder)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {few(map(str, DTYPES))}, got {dtype!r}")
    values = _read_values(folder)
    config = config_from_hf(values, where=str(folder / CONFIG))
    family = family_named(values["model_type"])
    weights = _read_weights(folder)
    try:
        state = state_in(weights, config, family)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    _check_dtypes(folder, weights, dtype)
    with torch.device("meta"):  # no weights are drawn only to be thrown away
        model = Transformer(config)
    for name, value in model.state_dict().items():
        if value.shape != state[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(state[name].shape)} in {folder}, but {CONFIG} asks for "
                f"{tuple(value.shape)}"
            )
    # Copies: the tensors of a file are a view of it, and the file may change.
    copies = {n: x.to(dtype or x.dtype, copy=True) for n, x in state.items()}
    model.load_state_dict(copies, assign=True)
    if config.tie_weights:
        model.embedding.weight = model.head.weight
    return model


def read_config(folder: str | Path) -> ModelConfig:
    """The configuration of the model in a folder; its weights need not be there.

    Raises:
        FileNotFoundError: no such folder, or no ``config.json`` in it.
        ValueError: a file that is no JSON object, a feature that we do not have.
    """
    return config_from_hf(_read_values(Path(folder)), where=str(Path(folder) / CONFIG))


def _read_values(folder: Path) -> dict[str, object]:
    path = folder / CONFIG
    if not path.is_file():
        found = f"no {CONFIG} in it" if path.parent.is_dir() else "no such folder"
        raise FileNotFoundError(
            f"{folder}: expected a folder as the transformers library writes it, found {found}; "
            "a model of the hub has to be downloaded first"
        )
    return read_json(path)


def save_hf(model: Transformer, folder: str | Path, *, max_file_bytes: int | None = None) -> None:
    """Write ``config.json`` and the weights into ``folder``, in the model's dtype.

    The weights are one file, or several with an index if they take more than ``max_file_bytes``.
    A tensor that is larger by itself has a file of its own.

    Raises:
        ValueError: a model that no family has; nothing is written then.
        OSError: the folder cannot be written; files of before are left whole.
    """
    folder = Path(folder)
    values = config_to_hf(model.config)
    values["dtype"] = str(model.embedding.weight.dtype).removeprefix("torch.")
    files = _cut(state_to_hf(model.state_dict(), model.config), max_file_bytes)
    writers: dict[str, Callable[[Path], object]] = {
        name: partial(save_file, part, metadata={"format": "pt"}) for name, part in files.items()
    }
    if len(files) > 1:
        index = {
            "metadata": {
                "total_size": sum(x.nbytes for part in files.values() for x in part.values())
            },
            "weight_map": {name: file for file, part in files.items() for name in part},
        }
        writers[INDEX] = lambda path: path.write_text(json.dumps(index, indent=2), "utf-8")
    content = json.dumps(values, indent=2) + "\n"
    writers[CONFIG] = lambda path: path.write_text(content, "utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    _write_all(folder, writers)
    if len(files) > 1:
        (folder / WEIGHTS).unlink(missing_ok=True)  # of before; readers would take it


def _cut(state: Mapping[str, Tensor], most: int | None) -> dict[str, dict[str, Tensor]]:
    """Tensors by file, in their order."""
    if most is not None and most < 1:
        raise ValueError(f"max_file_bytes must be at least 1, got {most}")
    parts: list[dict[str, Tensor]] = [{}]
    room = most
    for name, value in state.items():
        if room is not None and most is not None:
            if parts[-1] and value.nbytes > room:
                parts.append({})
                room = most
            room -= value.nbytes
        parts[-1][name] = value
    if len(parts) == 1:
        return {WEIGHTS: parts[0]}
    return {f"model-{i:05}-of-{len(parts):05}.safetensors": p for i, p in enumerate(parts, 1)}


def _write_all(folder: Path, writers: Mapping[str, Callable[[Path], object]]) -> None:
    """Write all files beside their places, and move them there when all are whole."""
    beside = {name: folder / f"{name}.part" for name in writers}
    try:
        for name, write in writers.items():
            write(beside[name])
        for name, path in beside.items():
            os.replace(path, folder / name)
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of all files.

    Raises:
        FileNotFoundError: there are none, or not all that the index names.
        ValueError: a damaged file, an index that says something else than its files.
    """
    if (folder / WEIGHTS).exists():
        return _read_file(folder / WEIGHTS)
    if not (folder / INDEX).exists():
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"; {pickles[0]} is a pickle, convert it where you trust it" if pickles else ""
        raise FileNotFoundError(f"no {WEIGHTS} and no {INDEX} in {folder}{hint}")
    state: dict[str, Tensor] = {}
    for file, names in _read_index(folder / INDEX):
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"{folder / INDEX} names {file}, which is not there: fetch it again"
            )
        part = _read_file(folder / file)
        if absent := names - part.keys():
            raise ValueError(
                f"{folder / INDEX} says that {few(absent)} is in {file}, which it is not: fetch "
                "both again"
            )
        if twice := state.keys() & part.keys():
            raise ValueError(f"{folder} has {few(twice)} in {file} and in a file before it")
        state |= part
    return state


def _read_index(path: Path) -> Iterator[tuple[str, set[str]]]:
    """Each file that an index names, with the tensors that it says are in it."""
    files: dict[str, set[str]] = {}
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict):
        raise ValueError(f"{path} has weight_map = {names!r:.60}; expected an object of file names")
    for name, file in names.items():
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or not file:
            raise ValueError(
                f"{path} has {name} = {file!r:.60}; expected the name of a file in its folder"
            )
        files.setdefault(file, set()).add(name)
    yield from sorted(files.items())


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file: {error}; fetch it again"
        ) from None


def _check_dtypes(folder: Path, weights: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
    """Refuse weights that are no numbers to compute with, or of several types without a choice."""
    for name, value in weights.items():
        if value.dtype not in DTYPES:
            raise ValueError(
                f"{folder}: {name} is {value.dtype}, expected one of {few(map(str, DTYPES))}; "
                "quantised weights have to be converted first"
            )
    found = {str(value.dtype) for value in weights.values()}
    if dtype is None and len(found) > 1:
        raise ValueError(f"{folder} mixes {few(found)}; say which dtype to load as")
