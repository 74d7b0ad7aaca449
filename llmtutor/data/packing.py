"""Chapter 02, packing: short documents side by side in rows of one width, with boundaries.

A row of width w gives w − 1 pairs of input and target. `end_to_end` fills every row and cuts
documents where a row ends; `best_fit` :cite:p:`ding2024` leaves documents whole wherever they
fit and fills the rest of a row with padding.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmtutor.checks import check_at_least

PADDING = -1
"""The number of the document at a place that holds none."""
IGNORED = -100
"""As a target: no loss here. It is what torch's cross-entropy leaves out."""

Piece = tuple[list[int], list[int]]
"""Of a document: its number at each place, and the ids."""


@dataclass(frozen=True)
class Rows:
    """Token ids in rows, and whose they are."""

    ids: np.ndarray
    """(rows, width) of int64; 0 where there is padding."""
    document: np.ndarray
    """(rows, width): the position of the document in the list that was packed, or `PADDING`."""

    @property
    def padding_share(self) -> float:
        """Places without a token, as a share of all."""
        return float((self.document == PADDING).mean())

    @property
    def n_cut(self) -> int:
        """Documents that lie in more than one row."""
        places = {(row, d) for row, some in enumerate(self.document.tolist()) for d in some}
        found = [d for _, d in places if d != PADDING]
        return sum(found.count(d) > 1 for d in set(found))


def end_to_end(documents: Sequence[Sequence[int]], width: int) -> Rows:
    """One document behind the other, cut every `width` tokens; only the last row has padding.

    >>> end_to_end([[5, 6, 7], [8, 9]], 4).ids.tolist()
    [[5, 6, 7, 8], [9, 0, 0, 0]]
    """
    check_at_least(1, width=width)
    ids = [id for document in documents for id in document]
    owners = [d for d, document in enumerate(documents) for _ in document]
    starts = range(0, len(ids), width)
    pieces = [(owners[i : i + width], ids[i : i + width]) for i in starts]
    return _filled([[piece] for piece in pieces], width)


def best_fit(documents: Sequence[Sequence[int]], width: int) -> Rows:
    """Documents whole where they fit: the longest first, each into the fullest row with room.

    A document longer than a row is first cut into pieces, all but the last as long as a row.

    >>> best_fit([[1, 1], [2, 2, 2], [3, 3]], 5).document.tolist()
    [[1, 1, 1, 0, 0], [2, 2, -1, -1, -1]]
    """
    check_at_least(1, width=width)
    pieces: list[Piece] = []
    for d, document in enumerate(documents):
        for start in range(0, len(document), width):
            ids = list(document[start : start + width])
            pieces.append(([d] * len(ids), ids))
    rows: list[list[Piece]] = []
    room: list[tuple[int, int]] = []  # (places left, row), the fullest first
    for piece in sorted(pieces, key=lambda piece: -len(piece[1])):
        at = bisect_left(room, (len(piece[1]), 0))
        left, row = room.pop(at) if at < len(room) else (width, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(piece)
        insort(room, (left - len(piece[1]), row))
    return _filled(rows, width)


def packed_targets(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, each (rows, width − 1); `IGNORED` where the next id is another's.

    >>> rows = best_fit([[1, 2], [3, 4, 5]], 6)
    >>> [part.tolist() for part in packed_targets(rows)]
    [[[3, 4, 5, 1, 2]], [[4, 5, -100, 2, -100]]]
    """
    here, following = rows.document[:, :-1], rows.document[:, 1:]
    same = (here == following) & (following != PADDING)
    return rows.ids[:, :-1], np.where(same, rows.ids[:, 1:], IGNORED)


def document_mask(rows: Rows) -> np.ndarray:
    """Who may look at whom, (rows, width, width) of bool: what came before in one's own document.

    A place of padding sees nothing.
    """
    document = rows.document
    same = document[:, :, None] == document[:, None, :]
    order = np.arange(document.shape[1])
    return same & (order[:, None] >= order) & (document != PADDING)[:, :, None]


def places(rows: Rows) -> np.ndarray:
    """For each token its place in its piece of a document, from 0; (rows, width)."""
    return np.maximum(document_mask(rows).sum(axis=2) - 1, 0)


def _filled(rows: Sequence[Sequence[Piece]], width: int) -> Rows:
    ids = np.zeros((len(rows), width), dtype=np.int64)
    document = np.full((len(rows), width), PADDING)
    for r, pieces in enumerate(rows):
        owners = [d for some, _ in pieces for d in some]
        document[r, : len(owners)] = owners
        ids[r, : len(owners)] = [id for _, some in pieces for id in some]
    return Rows(ids, document)
