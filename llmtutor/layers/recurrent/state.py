"""Chapter 25, linear_attention: a past of fixed size, which each token writes over.

Keys and values of a long text fill a cache that grows. A recurrent layer keeps what it made of
them: the same few tensors after ten tokens as after ten thousand.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.layers.mixer import check_room, check_starts


class StateCache:
    """Named tensors that hold the past, each with a row for every text; they start as given.

    ``starts`` is the place of the first real token of each row, where rows are padded on the left:
    ``real`` says which tokens count, and the layer keeps the others out of its state. A state
    does not go back by length, only to a snapshot, a copy.

    >>> cache = StateCache(8, total=torch.zeros(1, 2))
    >>> cache.keep(3, total=torch.ones(1, 2))
    >>> cache["total"], cache.length, cache.nbytes
    (tensor([[1., 1.]]), 3, 8)

    Raises:
        ValueError: ``starts`` that are not one integer in 0 … max_len − 1 for each row.
    """

    always_crops = False

    def __init__(
        self, max_len: int, *, starts: Int[Tensor, " batch"] | None = None, **tensors: Tensor
    ) -> None:
        self.tensors = tensors
        self.first = {name: tensor.clone() for name, tensor in tensors.items() if tensor.any()}
        self.max_len, self.length = max_len, 0
        one = next(iter(tensors.values()))
        self.starts = check_starts(starts, len(one), max_len, one.device)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def real(self, new: int) -> Float[Tensor, "batch new 1"] | None:
        """1 for each of the next ``new`` tokens that is real, 0 for padding; None if all are.

        Raises:
            ValueError: more tokens than ``max_len``.
        """
        check_room(self.length, new, self.max_len)
        if self.starts is None:
            return None
        slots = torch.arange(self.length, self.length + new, device=self.starts.device)
        dtype = next(iter(self.tensors.values())).dtype
        return (slots >= self.starts[:, None]).to(dtype)[..., None]

    def check_sizes(self, sizes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise ``ValueError`` unless it keeps tensors of these names and shapes."""
        for name, size in sizes.items():
            if name not in self.tensors or self.tensors[name].shape != size:
                kept = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
                raise ValueError(
                    f"this cache keeps {kept}, not {name} {tuple(size)}; make one with this "
                    "model's make_caches"
                )

    def keep(self, new: int, **tensors: Tensor) -> None:
        """The tensors as they are ``new`` tokens later.

        Raises:
            ValueError: as ``check_sizes``.
        """
        self.check_sizes({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor.detach())
        self.length = self.length + new

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors; the text's length is not in it."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def reset(self) -> None:
        """Be as at first; ``starts`` stay."""
        self.length = 0
        for name, tensor in self.tensors.items():
            tensor.copy_(self.first[name]) if name in self.first else tensor.zero_()

    def can_crop(self, length: int) -> bool:
        """To where it stands; what was written over does not come back."""
        return length == self.length

    def crop(self, length: int) -> None:
        """Nothing, where it stands.

        Raises:
            ValueError: ``can_crop`` says no.
        """
        if not self.can_crop(length):
            raise ValueError(
                f"this cache cannot go back from {self.length} to {length} tokens: later ones "
                "wrote over its state; reset it, or restore a snapshot"
            )

    def snapshot(self) -> Any:
        """A copy of all tensors."""
        return self.length, {name: tensor.clone() for name, tensor in self.tensors.items()}

    def restore(self, snapshot: Any) -> None:
        """Put the copy back."""
        self.length, tensors = snapshot
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)
