"""The bytes that some work allocates, counted operation by operation."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def allocated_bytes(work: Callable[[], object]) -> int:
    """Bytes of all tensors that operations make during ``work``, also of those freed by its end.

    A view shares the memory of what it looks at and counts nothing. What a kernel sets aside inside
    itself and frees again is not seen. Unlike a time, the count is the same on every machine.

    >>> import torch
    >>> x = torch.zeros(10)
    >>> allocated_bytes(lambda: x.view(5, 2).T), allocated_bytes(lambda: x.clone())
    (0, 40)
    """
    with _Made() as watch:
        work()
    return watch.nbytes


T = TypeVar("T")


def kept_bytes(model: nn.Module, work: Callable[[], T]) -> tuple[int, T]:
    """Bytes that autograd keeps of ``work`` for its backward pass, and what ``work`` returns.

    Parameters of ``model`` are there anyway and are not counted; memory that several tensors share
    counts once. The result has to be kept, too: with it goes all that was counted.

    >>> import torch
    >>> layer, x = nn.Linear(3, 2), torch.ones(5, 3)
    >>> kept_bytes(layer, lambda: layer(x).sum())[0]
    60
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = work()
    return sum(kept.values()), result


class _Made(TorchDispatchMode):
    """Sees every operation with what goes in and what comes out."""

    nbytes = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        known = {_memory(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and _memory(made) not in known:
                self.nbytes += made.untyped_storage().nbytes()
        return result


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
