"""Chapter 14, gqa: the keys and values of past tokens, kept instead of computed again.

Those of the past do not change when a text grows, so each new token costs one row of work. Behind
a sliding window only the last few are needed, and ``WindowCache`` keeps no others.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_at_least
from llmtutor.layers.mixer import check_room, check_starts

Keys = Float[Tensor, "batch n_kv_heads k head_dim"]
New = Float[Tensor, "batch n_kv_heads new head_dim"]


class FilledFromLeft:
    """A cache of ``max_len`` slots of which the first ``length`` are used: going back is a number.

    ``starts`` is the slot of the first real token of each row; None when nothing is padded.
    """

    always_crops = True
    no_way = "only to fewer, or to none"

    def __init__(self, max_len: int, starts: Tensor | None) -> None:
        self.max_len, self.starts = max_len, starts
        self.length = 0

    def reset(self) -> None:
        """Forget everything; the memory and ``starts`` stay."""
        self.length = 0

    def can_crop(self, length: int) -> bool:
        """Whether ``length`` lies in 0 … the present one."""
        return 0 <= length <= self.length

    def crop(self, length: int) -> None:
        """Forget all but the first ``length`` tokens, such as a draft that was not accepted.

        Raises:
            ValueError: ``can_crop`` says no.
        """
        if not self.can_crop(length):
            raise ValueError(
                f"this cache cannot go back from {self.length} to {length} tokens: {self.no_way}"
            )
        self.length = length

    def snapshot(self) -> Any:
        """The length: what lies before it stays where it is."""
        return self.length

    def restore(self, snapshot: Any) -> None:
        """Go back to the length of the snapshot."""
        self.crop(snapshot)


class KVCache(FilledFromLeft):
    """Keys and values (batch, n_kv_heads, max_len, head_dim), filled from the left.

    The memory is set aside once and written in place: appending copies the new rows and nothing
    else, and no gradient goes through it. ``starts`` is for prompts of several lengths, padded on
    the left: the slot of the first real token of each row; None when nothing is padded.

    >>> cache = KVCache(1, 2, 8, 4)
    >>> keys, values = cache.append(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
    >>> keys.shape, cache.length, cache.nbytes  # 2 · 1 · 2 · 8 · 4 numbers of 4 bytes
    (torch.Size([1, 2, 3, 4]), 3, 512)

    Raises:
        ValueError: sizes below 1; ``starts`` that are not one integer in 0 … max_len − 1 a row.
    """

    def __init__(
        self,
        batch: int,
        n_kv_heads: int,
        max_len: int,
        head_dim: int,
        *,
        slots: int | None = None,
        starts: Int[Tensor, " batch"] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_at_least(1, batch=batch, n_kv_heads=n_kv_heads, max_len=max_len, head_dim=head_dim)
        shape = (batch, n_kv_heads, max_len if slots is None else slots, head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        super().__init__(max_len, check_starts(starts, batch, max_len, self.keys.device))

    def append(self, k: New, v: New) -> tuple[Keys, Keys]:
        """All keys and all values up to now, the new ones last: views, valid until the next write.

        Raises:
            ValueError: other shapes or another dtype than the cache was made for, as from another
                model; more tokens than ``max_len``. Nothing is written then.
        """
        self._check(k, v)
        end = self.length + k.shape[-2]
        self.keys[:, :, self.length : end] = k.detach()
        self.values[:, :, self.length : end] = v.detach()
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _check(self, k: Tensor, v: Tensor) -> None:
        batch, heads, _, head_dim = self.keys.shape
        want = (batch, heads, k.shape[-2], head_dim)
        for name, x in (("keys", k), ("values", v)):
            if x.shape != want or x.dtype != self.keys.dtype:
                raise ValueError(
                    f"this cache is for {name} (batch = {batch}, n_kv_heads = {heads}, new, "
                    f"head_dim = {head_dim}) of {self.keys.dtype}, got {tuple(x.shape)} of "
                    f"{x.dtype}; make one with this model's make_caches"
                )
        check_room(self.length, k.shape[-2], self.max_len)

    @property
    def nbytes(self) -> int:
        """Bytes of both tensors, whole."""
        return self.keys.nbytes + self.values.nbytes


class WindowCache(KVCache):
    """The keys and values of the last ``window`` tokens, in ``window`` slots, the newest last.

    What was pushed out is gone: there is no way back by length, only to a snapshot, a copy.

    >>> cache = WindowCache(1, 1, 8, 1, window=2)
    >>> rows = torch.arange(3.0).view(1, 1, 3, 1)
    >>> cache.append(rows, rows)[0].flatten(), cache.keys.flatten()
    (tensor([0., 1., 2.]), tensor([1., 2.]))
    >>> cache.append(rows[:, :, :1], rows[:, :, :1])[0].flatten()
    tensor([2., 0.])

    Raises:
        ValueError: as ``KVCache``; a window below 1.
    """

    always_crops = False
    no_way = "older ones were pushed out of its window; reset it, or restore a snapshot"

    def __init__(
        self, batch: int, n_kv_heads: int, max_len: int, head_dim: int, *, window: int, **rest: Any
    ) -> None:
        check_at_least(1, window=window)
        super().__init__(batch, n_kv_heads, max_len, head_dim, slots=window, **rest)
        self.window = window

    def append(self, k: New, v: New) -> tuple[Keys, Keys]:
        """What the new queries may see: up to window − 1 of the past, then the new."""
        self._check(k, v)
        seen = min(self.length, self.window - 1)
        self.length = self.length + k.shape[-2]
        return self._shift(self.keys, k, seen), self._shift(self.values, v, seen)

    def _shift(self, slots: Tensor, new: Tensor, seen: int) -> Tensor:
        """``seen`` old rows and the new ones; the last of all rows move into the slots."""
        rows = torch.cat((slots[:, :, self.window - seen :], new.detach()), dim=2)
        kept = rows[:, :, -self.window :]
        slots[:, :, self.window - kept.shape[2] :] = kept
        return rows

    def can_crop(self, length: int) -> bool:
        """To where it stands; what was pushed out does not come back."""
        return length == self.length

    def snapshot(self) -> Any:
        """A copy of all slots."""
        return self.length, self.keys.clone(), self.values.clone()

    def restore(self, snapshot: Any) -> None:
        """Put the copy back."""
        self.length, keys, values = snapshot
        self.keys.copy_(keys)
        self.values.copy_(values)
