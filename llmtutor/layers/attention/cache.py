"""Chapter 14, gqa: the keys and values of past tokens, kept instead of computed again.

A new token's query needs the keys and values of everything before it, and these do not change
when a text grows. A cache keeps them, so that each new token costs one row of work.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.layers.basic import INT_DTYPES


@runtime_checkable
class Cache(Protocol):
    """What any mixer keeps of the past; each makes its own with ``make_cache``."""

    @property
    def length(self) -> int:
        """How many tokens went in, padding included."""

    @property
    def nbytes(self) -> int:
        """Bytes set aside for the past, used or not yet."""

    always_rewinds: bool
    """Whether ``rewind`` goes back to every earlier length."""

    def reset(self) -> None:
        """Forget everything; the memory stays."""

    def can_rewind(self, length: int) -> bool:
        """Whether ``rewind`` can go there; to the present length it always can."""

    def rewind(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""

    def snapshot(self) -> Any:
        """What ``restore`` needs to come back here, which later tokens do not change."""

    def restore(self, snapshot: Any) -> None:
        """Be as when the snapshot was taken, for as long as the text before it is the same."""


class KVCache:
    """Keys and values (batch, n_kv_heads, max_len, head_dim), filled from the left.

    The memory is set aside once and written in place: appending copies the new rows and nothing
    else. ``starts`` is for a batch of prompts of several lengths, padded on the left: the slot of
    the first real token of each row; None when nothing is padded. Every slot is kept, also behind
    a sliding window, which only needs the last few: at most max_len / window times the bytes.

    No gradient goes through a cache.

    >>> cache = KVCache(1, 2, 8, 4)
    >>> keys, values = cache.append(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
    >>> keys.shape, cache.length, cache.nbytes  # 2 · 1 · 2 · 8 · 4 numbers of 4 bytes
    (torch.Size([1, 2, 3, 4]), 3, 512)

    Raises:
        ValueError: sizes below 1; ``starts`` that are not one integer in 0 … max_len − 1 a row.
    """

    always_rewinds = True

    def __init__(
        self,
        batch: int,
        n_kv_heads: int,
        max_len: int,
        head_dim: int,
        *,
        starts: Int[Tensor, " batch"] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape = (batch, n_kv_heads, max_len, head_dim)
        if min(shape) < 1:
            raise ValueError(
                "batch, n_kv_heads, max_len and head_dim must be at least 1, got "
                f"{', '.join(map(str, shape))}"
            )
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self.max_len = max_len
        self.starts = check_starts(starts, batch, max_len, self.keys.device)
        self.length = 0

    def append(
        self,
        k: Float[Tensor, "batch n_kv_heads new head_dim"],
        v: Float[Tensor, "batch n_kv_heads new head_dim"],
    ) -> tuple[
        Float[Tensor, "batch n_kv_heads k head_dim"], Float[Tensor, "batch n_kv_heads k head_dim"]
    ]:
        """All keys and all values up to now, the new ones last: views, valid until the next write.

        Raises:
            ValueError: other shapes or another dtype than the cache was made for, as from another
                model; more tokens than ``max_len``. Nothing is written then.
        """
        batch, heads, max_len, head_dim = self.keys.shape
        want = (batch, heads, k.shape[-2], head_dim)
        for name, x in (("keys", k), ("values", v)):
            if x.shape != want or x.dtype != self.keys.dtype:
                raise ValueError(
                    f"this cache is for {name} (batch = {batch}, n_kv_heads = {heads}, new, "
                    f"head_dim = {head_dim}) of {self.keys.dtype}, got {tuple(x.shape)} of "
                    f"{x.dtype}; make one with this model's make_caches"
                )
        end = self.length + k.shape[-2]
        check_room(self.length, k.shape[-2], max_len)
        self.keys[:, :, self.length : end] = k.detach()
        self.values[:, :, self.length : end] = v.detach()
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    @property
    def nbytes(self) -> int:
        """Bytes of both tensors, whole."""
        return self.keys.nbytes + self.values.nbytes

    def reset(self) -> None:
        """Forget everything; the memory and ``starts`` stay."""
        self.length = 0

    def can_rewind(self, length: int) -> bool:
        """Whether ``length`` lies in 0 … the present one."""
        return 0 <= length <= self.length

    def rewind(self, length: int) -> None:
        """Forget all but the first ``length`` tokens, such as a draft that was not accepted.

        Raises:
            ValueError: ``length`` outside 0 … the present one.
        """
        if not self.can_rewind(length):
            raise ValueError(f"can only go back to 0 … {self.length} tokens, got {length}")
        self.length = length

    def snapshot(self) -> int:
        """The length: what lies before it stays where it is."""
        return self.length

    def restore(self, snapshot: int) -> None:
        """Go back to the length of the snapshot."""
        self.rewind(snapshot)


def check_starts(
    starts: Tensor | None, batch: int, max_len: int, device: torch.device
) -> Tensor | None:
    """``starts`` as int64 on ``device``; None where no row is padded.

    Raises:
        ValueError: not one integer in 0 … max_len − 1 for each row.
    """
    if starts is None:
        return None
    if starts.shape != (batch,) or starts.dtype not in INT_DTYPES:
        raise ValueError(
            f"starts must be one integer for each of {batch} rows (the slot of its first real "
            f"token), got shape {tuple(starts.shape)} of {starts.dtype}"
        )
    if not 0 <= int(starts.min()) <= int(starts.max()) < max_len:
        raise ValueError(f"starts must lie in 0 … {max_len - 1}, got {starts.tolist()}")
    return starts.to(device, torch.int64) if starts.any() else None


def check_room(length: int, new: int, max_len: int) -> None:
    """Raise ``ValueError`` unless ``new`` tokens fit behind the ``length`` that are there."""
    if length + new > max_len:
        raise ValueError(
            f"{new} tokens more than the {length} in the cache are over its max_len = {max_len}; "
            "make it longer, or begin again with the last part of the text"
        )
