"""Chapter 15, mla: one small vector for each past token, from which all heads are made again."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_at_least
from llmtutor.layers.attention.cache import FilledFromLeft
from llmtutor.layers.mixer import check_room, check_starts

Rows = Float[Tensor, "batch k width"]
New = Float[Tensor, "batch new width"]


class LatentCache(FilledFromLeft):
    """Rows (batch, max_len, kv_rank + rope_dim): of each token the latent, then the shared key.

    Both are kept ready for use, the latent normalised and the key turned to its position, and
    neither has an axis of heads. Otherwise it is filled as ``KVCache`` is: memory set aside once,
    written in place, no gradient through it.

    >>> cache = LatentCache(1, 8, kv_rank=4, rope_dim=2)
    >>> cache.append(torch.ones(1, 3, 6)).shape, cache.length, cache.nbytes  # 8 · 6 numbers
    (torch.Size([1, 3, 6]), 3, 192)

    Raises:
        ValueError: sizes below 1 (``rope_dim`` may be 0); ``starts`` that are not one integer in
            0 … max_len − 1 a row.
    """

    def __init__(
        self,
        batch: int,
        max_len: int,
        *,
        kv_rank: int,
        rope_dim: int,
        starts: Int[Tensor, " batch"] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_at_least(1, batch=batch, max_len=max_len, kv_rank=kv_rank)
        check_at_least(0, rope_dim=rope_dim)
        self.kv_rank, self.rope_dim = kv_rank, rope_dim
        self.rows = torch.zeros(batch, max_len, kv_rank + rope_dim, device=device, dtype=dtype)
        starts = check_starts(starts, batch, max_len, self.rows.device)
        super().__init__(max_len, starts)

    def append(self, new: New) -> Rows:
        """All rows up to now, the new ones last: a view, valid until the next write.

        Raises:
            ValueError: another shape or dtype than the cache was made for, as from another model;
                more tokens than ``max_len``. Nothing is written then.
        """
        batch, _, width = self.rows.shape
        if new.shape != (batch, new.shape[1], width) or new.dtype != self.rows.dtype:
            raise ValueError(
                f"this cache is for latents and keys (batch = {batch}, new, kv_rank + rope_dim = "
                f"{self.kv_rank} + {self.rope_dim}) of {self.rows.dtype}, got {tuple(new.shape)} "
                f"of {new.dtype}; make one with this model's make_caches"
            )
        check_room(self.length, new.shape[1], self.max_len)
        end = self.length + new.shape[1]
        self.rows[:, self.length : end] = new.detach()
        self.length = end
        return self.rows[:, :end]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.rows.nbytes
