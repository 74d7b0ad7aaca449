"""Packing: nothing is lost, boundaries hold, and one row gives the losses of its documents."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from llmtutor.data.packing import (
    IGNORED,
    PADDING,
    Rows,
    best_fit,
    document_mask,
    end_to_end,
    packed_targets,
    places,
)

DOCUMENTS = st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=8)


def unpacked(rows: Rows, n: int) -> list[list[int]]:
    """What each document holds, row by row."""
    return [rows.ids[rows.document == d].tolist() for d in range(n)]


@given(documents=DOCUMENTS, width=st.integers(1, 8))
def test_every_token_is_in_one_row_and_documents_can_be_read_back(documents, width) -> None:
    together = end_to_end(documents, width)
    assert unpacked(together, len(documents)) == documents
    whole = best_fit(documents, width)
    # The last, shorter piece of a long document may lie in an earlier row than the others.
    assert [sorted(d) for d in unpacked(whole, len(documents))] == [sorted(d) for d in documents]
    n_tokens = sum(map(len, documents))
    for rows in (together, whole):
        assert (rows.document != PADDING).sum() == n_tokens
        assert (rows.ids[rows.document == PADDING] == 0).all()
    assert len(together.ids) == -(-n_tokens // width) <= len(whole.ids)
    assert whole.n_cut == sum(len(d) > width for d in documents)


def test_best_fit_by_hand() -> None:
    """5 and 3 fill a row of 8; the 2 finds the 6, whose row is fuller than that of the 4."""
    documents = [[d] * n for d, n in enumerate((2, 5, 6, 3, 4))]
    rows = best_fit(documents, 8)
    assert rows.document.tolist() == [
        [2, 2, 2, 2, 2, 2, 0, 0],
        [1, 1, 1, 1, 1, 3, 3, 3],
        [4, 4, 4, 4, -1, -1, -1, -1],
    ]
    assert rows.padding_share == 4 / 24 and rows.n_cut == 0
    cut = end_to_end(documents, 8)
    assert cut.padding_share == 4 / 24 and cut.n_cut == 1  # the 6


def test_a_mask_for_documents_is_causal_and_in_blocks() -> None:
    mask = document_mask(Rows(np.zeros((1, 5), int), np.array([[7, 7, 4, 4, PADDING]])))
    expected = torch.block_diag(torch.ones(2, 2).tril(), torch.ones(2, 2).tril(), torch.zeros(1, 1))
    assert mask[0].tolist() == expected.bool().tolist()
    assert places(best_fit([[1, 1], [2, 2, 2]], 6)).tolist() == [[0, 1, 2, 0, 1, 0]]


def test_under_the_mask_a_packed_row_has_the_losses_of_its_documents() -> None:
    """One layer of attention over a row, by torch, against each document by itself."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(10, 8, generator=generator, dtype=torch.float64)
    output = torch.randn(8, 10, generator=generator, dtype=torch.float64)
    documents = [[1, 2, 3, 9], [4, 5, 9], [6, 7, 8, 1, 9]]

    def losses(ids: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = table[ids]
        read = F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
        return F.cross_entropy(read @ output, targets, ignore_index=IGNORED, reduction="none")

    alone = []
    for document in documents:
        ids = torch.tensor(document)
        causal = torch.ones(len(ids) - 1, len(ids) - 1, dtype=torch.bool).tril()
        alone += losses(ids[:-1], ids[1:], causal).tolist()
    rows = best_fit(documents, 12)
    inputs, targets = (torch.from_numpy(part)[0] for part in packed_targets(rows))
    together = losses(inputs, targets, torch.from_numpy(document_mask(rows))[0, :-1, :-1])
    found = together[targets != IGNORED]
    assert sorted(found.tolist()) == pytest.approx(sorted(alone), abs=1e-12)


@pytest.mark.parametrize("pack", [end_to_end, best_fit])
def test_a_row_has_a_place_at_least(pack) -> None:
    with pytest.raises(ValueError, match="width"):
        pack([[1]], 0)
