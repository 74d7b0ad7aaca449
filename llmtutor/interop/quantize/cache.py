"""Chapter 23, export: keys and values of the past in few bits.

At a long context it is the cache that fills the memory, not the weights. Each head of each token
has its own grid: a vector of head_dim numbers, a scale in float16 and the code of 0.
"""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from llmtutor.interop.quantize.integers import IntegerGrid, Integers
from llmtutor.interop.quantize.packing import pack, packed_bytes, unpack
from llmtutor.layers.attention.cache import FilledFromLeft, Keys, KVCache, New
from llmtutor.layers.mixer import check_room, check_starts
from llmtutor.model.caches import Caches
from llmtutor.model.transformer import Transformer


class PackedVectors:
    """Room for (batch, heads, max_len) vectors in few bits."""

    def __init__(self, shape: tuple[int, int, int, int], bits: int) -> None:
        *places, self.head_dim = shape
        # Groups, whose scales are float16: there is one for each vector.
        self.format = Integers(bits, symmetric=False, share=self.head_dim)
        width = packed_bytes(self.head_dim, bits)
        self.codes = torch.zeros(*places, width, dtype=torch.uint8)
        self.scale = torch.ones(*places, 1, dtype=torch.float16)
        self.zero = torch.zeros(*places, 1, dtype=torch.uint8)

    def write(self, first: int, x: Tensor) -> None:
        """Put the vectors of new tokens behind the ``first`` ones."""
        grid = self.format.fit(x.detach().float())
        place = slice(first, first + x.shape[2])
        self.codes[:, :, place] = pack(grid.codes(x.detach().float()), self.format.bits)
        self.scale[:, :, place], self.zero[:, :, place] = grid.scale, grid.zero

    def read(self, length: int, dtype: torch.dtype) -> Tensor:
        """The first ``length`` vectors of each row and head."""
        codes = unpack(self.codes[:, :, :length], self.format.bits, self.head_dim)
        scale, zero = self.scale[:, :, :length], self.zero[:, :, :length]
        return IntegerGrid(self.format.bits, scale, zero, False).values(codes).to(dtype)

    @property
    def nbytes(self) -> int:
        """Of all vectors, used or not."""
        return self.codes.nbytes + self.scale.nbytes + self.zero.nbytes


class QuantizedKVCache(FilledFromLeft):
    """``KVCache`` with ``bits`` bits for each number of a key or value.

    What is read is what was stored, rounded; the keys of the newest tokens too, so that a text read
    at once and token by token sees the same.

    >>> cache = QuantizedKVCache(1, 2, 8, 32, bits=4)
    >>> keys, values = cache.append(torch.ones(1, 2, 3, 32), torch.ones(1, 2, 3, 32))
    >>> keys.shape, cache.nbytes  # 2 · 2 · 8 vectors of 16 + 2 + 1 bytes
    (torch.Size([1, 2, 3, 32]), 608)

    Raises:
        ValueError: sizes below 1, bits outside 2 … 8, ``starts`` as in ``KVCache``.
    """

    def __init__(
        self,
        batch: int,
        n_kv_heads: int,
        max_len: int,
        head_dim: int,
        *,
        bits: int = 8,
        starts: Int[Tensor, " batch"] | None = None,
    ) -> None:
        shape = (batch, n_kv_heads, max_len, head_dim)
        self.keys, self.values = PackedVectors(shape, bits), PackedVectors(shape, bits)
        self.shape = shape
        super().__init__(max_len, check_starts(starts, batch, max_len, torch.device("cpu")))

    def append(self, k: New, v: New) -> tuple[Keys, Keys]:
        """All keys and all values up to now, the new ones last, as they are stored.

        Raises:
            ValueError: other shapes than the cache was made for, more tokens than ``max_len``.
                Nothing is written then.
        """
        batch, heads, _, head_dim = self.shape
        for name, x in (("keys", k), ("values", v)):
            if x.shape != (batch, heads, k.shape[2], head_dim):
                raise ValueError(
                    f"this cache is for {name} (batch = {batch}, n_kv_heads = {heads}, new, "
                    f"head_dim = {head_dim}), got {tuple(x.shape)}"
                )
        check_room(self.length, k.shape[2], self.max_len)
        self.keys.write(self.length, k)
        self.values.write(self.length, v)
        self.length += k.shape[2]
        return self.keys.read(self.length, k.dtype), self.values.read(self.length, v.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of both, whole."""
        return self.keys.nbytes + self.values.nbytes


def quantized_caches(
    model: Transformer, batch: int, max_len: int, bits: int, **rest: Any
) -> Caches:
    """``model.make_caches`` with quantised keys and values in every layer.

    Raises:
        ValueError: a layer that keeps something else than the keys and values of all tokens, such
            as a window, a latent or a state.
    """
    plain = model.make_caches(batch, max_len, **rest)
    layers = []
    for i, cache in enumerate(plain):
        if type(cache) is not KVCache:
            raise ValueError(
                f"block {i} keeps a {type(cache).__name__}: only keys and values of all tokens "
                "(KVCache) are quantised here"
            )
        layers.append(QuantizedKVCache(*cache.keys.shape, bits=bits, starts=cache.starts))
    return Caches(layers, batch, max_len, plain.starts)
