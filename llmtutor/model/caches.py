"""Chapter 14, gqa: what a whole model keeps of the past, one cache for each of its layers."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from llmtutor.layers.mixer import Cache, check_room, check_starts


class Caches:
    """The caches of a model's layers, made by ``Transformer.make_caches``; they grow together.

    ``starts`` is the place of the first real token of each row, None where no row is padded.

    Raises:
        ValueError: ``starts`` that are not one integer in 0 … max_len − 1 for each row.
    """

    def __init__(
        self,
        layers: Sequence[Cache],
        batch: int,
        max_len: int,
        starts: Int[Tensor, " batch"] | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.batch, self.max_len = batch, max_len
        self.starts = check_starts(starts, batch, max_len, torch.device("cpu"))

    def __iter__(self) -> Iterator[Cache]:
        return iter(self.layers)

    @property
    def length(self) -> int:
        """How many tokens each row holds, padding included."""
        return self.layers[0].length

    @property
    def nbytes(self) -> int:
        """Bytes set aside in all layers."""
        return sum(layer.nbytes for layer in self.layers)

    def reset(self) -> None:
        """Forget everything, to begin again with prompts padded alike."""
        for layer in self.layers:
            layer.reset()

    @property
    def always_crops(self) -> bool:
        """Whether all layers can go back to every earlier length."""
        return all(layer.always_crops for layer in self.layers)

    def can_crop(self, length: int) -> bool:
        """Whether all layers can go back to ``length``."""
        return all(layer.can_crop(length) for layer in self.layers)

    def crop(self, length: int) -> None:
        """Forget all but the first ``length`` tokens of each row.

        Raises:
            ValueError: ``length`` outside 0 … the present one, or a layer that cannot go there;
                then nothing is forgotten.
        """
        for layer in self.layers:
            if not layer.can_crop(length):
                layer.crop(length)  # which says why not
        for layer in self.layers:
            layer.crop(length)

    def snapshot(self) -> tuple[Any, ...]:
        """What ``restore`` needs to come back here, of each layer."""
        return tuple(layer.snapshot() for layer in self.layers)

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        """Be as when the snapshot was taken, for as long as the text before it is the same."""
        for layer, kept in zip(self.layers, snapshot, strict=True):
            layer.restore(kept)

    def positions(self, seq: int, device: torch.device) -> Int[Tensor, "batch seq"]:
        """Where the next ``seq`` tokens stand, counted from the first real one; 0 for padding."""
        slots = torch.arange(self.length, self.length + seq, device=device)
        if self.starts is None:
            return slots.expand(self.batch, seq)
        return (slots - self.starts.to(device)[:, None]).clamp(min=0)

    def check(self, n_layers: int, batch: int, seq: int) -> None:
        """Raise ``ValueError`` unless a model of ``n_layers`` can add (batch, seq) tokens."""
        if len(self.layers) != n_layers or self.batch != batch:
            raise ValueError(
                f"this cache is for {len(self.layers)} layers and batch {self.batch}, the model "
                f"has {n_layers} layers and ids have batch {batch}; make one with make_caches"
            )
        check_room(self.length, seq, self.max_len)
