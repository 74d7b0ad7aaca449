"""Chapter 16, efficient-attention: the square of scores, cut into tiles.

A tile is a few queries beside a few keys. Only one has to exist at a time, and one in which no
query may look at any key need not exist at all.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from llmtutor.checks import check_at_least


@dataclass(frozen=True)
class Tiles:
    """Where the tiles of a square lie, and which of its pairs may meet.

    As in ``causal_mask`` the queries are the last ``seq_q`` of ``seq_k`` positions.

    >>> tiles = Tiles(6, 6, height=2, width=3, causal=True)
    >>> for rows in tiles.rows():
    ...     print((rows.start, rows.stop), [(c.start, c.stop) for c in tiles.columns(rows)])
    (0, 2) [(0, 3)]
    (2, 4) [(0, 3), (3, 6)]
    (4, 6) [(0, 3), (3, 6)]

    Raises:
        ValueError: a size below 1, causal queries that are more than the keys, a window without
            ``causal``.
    """

    seq_q: int
    """Queries, the rows of the square."""
    seq_k: int
    """Keys, its columns."""
    height: int = 64
    """Queries in a tile."""
    width: int = 64
    """Keys in a tile."""
    causal: bool = False
    """Whether a query sees only itself and what came before."""
    window: int | None = None
    """How many keys a causal query looks back at, its own included; None for all."""

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("seq_q", "seq_k", "height", "width")}
        check_at_least(1, **sizes, window=self.window)
        if self.causal and self.seq_q > self.seq_k:
            raise ValueError(
                "causal queries are the last seq_q of seq_k positions, "
                f"got seq_q = {self.seq_q}, seq_k = {self.seq_k}"
            )
        if self.window is not None and not self.causal:
            raise ValueError("a window needs causal=True: it looks back from each token")

    @property
    def before(self) -> int:
        """Positions before the first query."""
        return self.seq_k - self.seq_q

    def rows(self) -> list[slice]:
        """The queries of each row of tiles, from top to bottom."""
        return _cut(0, self.seq_q, self.height)

    def columns(self, rows: slice) -> list[slice]:
        """The keys of the tiles beside ``rows`` in which some query may look at some key."""
        end = self.seq_k if not self.causal else self.before + rows.stop
        first = 0
        if self.window is not None:
            first = max(0, self.before + rows.start - self.window + 1)
        return [
            slice(c.start, min(c.stop, self.seq_k))
            for c in _cut(first // self.width * self.width, end, self.width, whole=True)
        ]

    def allowed(
        self, rows: slice, columns: slice, device: torch.device | str | None = None
    ) -> Bool[Tensor, "q k"] | None:
        """Which pairs of a tile may meet; None for all of them.

        >>> Tiles(4, 4, height=2, width=2, causal=True).allowed(slice(2, 4), slice(2, 4)).int()
        tensor([[1, 0],
                [1, 1]], dtype=torch.int32)
        """
        last, first = self.before + rows.stop - 1, self.before + rows.start
        in_the_past = not self.causal or columns.stop - 1 <= first
        if in_the_past and (self.window is None or last - columns.start < self.window):
            return None
        queries = torch.arange(first, last + 1, device=device)
        behind = queries[:, None] - torch.arange(columns.start, columns.stop, device=device)
        seen = behind >= 0
        return seen if self.window is None else seen & (behind < self.window)


def _cut(start: int, stop: int, size: int, whole: bool = False) -> list[slice]:
    """From ``start`` to ``stop`` in pieces; the last is shorter unless it is to be ``whole``."""
    return [slice(a, a + size if whole else min(a + size, stop)) for a in range(start, stop, size)]
