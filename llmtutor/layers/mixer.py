"""Chapter 09, the transformer: what mixes positions, and what it keeps of the past.

Any layer that follows ``Mixer`` can stand in a block, and any object that follows ``Cache`` can
hold its past: keys and values of all tokens, of the last few, or a state that never grows.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.layers.basic import check_rows
from llmtutor.layers.part import Costs, Load, Part, Site


@runtime_checkable
class Cache(Protocol):
    """What a mixer keeps of the past; each makes its own with ``make_cache``.

    A past grows by what the mixer reads. It goes back by length where that is possible
    (``can_crop``), and to a ``snapshot`` always.
    """

    @property
    def length(self) -> int:
        """How many tokens went in, padding included."""

    @property
    def nbytes(self) -> int:
        """Bytes set aside for the past, used or not yet."""

    always_crops: bool
    """Whether ``crop`` goes back to every earlier length."""

    def reset(self) -> None:
        """Forget everything; the memory stays."""

    def can_crop(self, length: int) -> bool:
        """Whether ``crop`` can go there; to the present length it always can."""

    def crop(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""

    def snapshot(self) -> Any:
        """What ``restore`` needs to come back here, which later tokens do not change."""

    def restore(self, snapshot: Any) -> None:
        """Be as when the snapshot was taken, for as long as the text before it is the same."""


@runtime_checkable
class Mixer(Protocol):
    """A layer that moves information between positions, from the past into the present only."""

    def __call__(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: Any = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """What each position takes from those before it; with a ``cache``, x goes on with it."""

    def make_cache(
        self, batch: int, max_len: int, *, starts: Int[Tensor, " batch"] | None = None
    ) -> Cache:
        """An empty past for ``batch`` texts of up to ``max_len`` tokens.

        ``starts`` is the place of the first real token of each row, where rows are padded on the
        left. ``ValueError`` from a mixer that cannot decode: it says so here and when it is built.
        """


class MixerConfig(Part, ABC):
    """The configuration of a mixer."""

    @abstractmethod
    def build(self, site: Site) -> nn.Module:
        """The layer, which is a ``Mixer``, at its place."""

    @abstractmethod
    def costs(self, site: Site, load: Load) -> Costs:
        """At its place under a load; without what ``position_table`` counts."""

    def position_table(self, site: Site) -> tuple[Hashable, int]:
        """What tells its table of positions apart from those of other layers, and its size."""
        return site.layer, 0


def check_starts(
    starts: Tensor | None, batch: int, max_len: int, device: torch.device
) -> Tensor | None:
    """``starts``, the slot of each row's first real token, on ``device``; None if none is padded.

    Raises:
        ValueError: not one integer in 0 … max_len − 1 for each row.
    """
    if starts is None:
        return None
    check_rows("starts (slots of the first real tokens)", starts, batch, most=max_len - 1)
    return starts.to(device, torch.int64) if starts.any() else None


def check_room(length: int, new: int, max_len: int) -> None:
    """Raise ``ValueError`` unless ``new`` tokens fit behind the ``length`` that are there."""
    if length + new > max_len:
        raise ValueError(
            f"{new} tokens more than the {length} in the cache are over its max_len = {max_len}; "
            "make it longer, or begin again with the last part of the text"
        )
