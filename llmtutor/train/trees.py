"""Chapter 11, training: nested states as JSON beside a flat table of tensors.

An optimizer's state is dictionaries in dictionaries, with tensors here and there. Pickle would run
whatever code it finds when it reads that back; safetensors stores named tensors and nothing else.
So the tensors are taken out, and what is left is JSON.
"""

from typing import Any

from torch import Tensor


def unique(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor once, and the further names of those that have several (tied weights)."""
    names: dict[tuple, str] = {}
    aliases = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and names.setdefault(key, name) != name:
            aliases[name] = names[key]
    kept = {name: value for name, value in state.items() if name not in aliases}
    return {name: _own(value) for name, value in kept.items()}, aliases


def _own(tensor: Tensor) -> Tensor:
    """A tensor that fills memory of its own, as safetensors wants it."""
    tensor = tensor.detach().cpu().contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone()


def take_tensors(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """The value as JSON can hold it, its tensors copied into ``tensors`` under their paths.

    JSON knows neither tuples nor keys that are numbers, so these are written down as such.

    >>> import torch
    >>> tensors = {}
    >>> take_tensors({0: torch.ones(2), "betas": (0.9, 0.95)}, tensors, "state")
    {'dict': [[0, {'tensor': 'state/0'}], ['betas', {'tuple': [0.9, 0.95]}]]}
    >>> tensors
    {'state/0': tensor([1., 1.])}

    Raises:
        TypeError: something that is neither a tensor, a container nor plain.
    """
    if isinstance(value, Tensor):
        tensors[name] = _own(value).clone()
        return {"tensor": name}
    if isinstance(value, dict):
        parts = [[k, take_tensors(v, tensors, f"{name}/{k}")] for k, v in value.items()]
        return {"dict": parts}
    if isinstance(value, list | tuple):
        parts = [take_tensors(v, tensors, f"{name}/{i}") for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: a checkpoint cannot hold a {type(value).__name__}")


def put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of ``take_tensors``."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: put_tensors(part, tensors) for key, part in content}
    parts = (put_tensors(part, tensors) for part in content)
    return tuple(parts) if kind == "tuple" else list(parts)
