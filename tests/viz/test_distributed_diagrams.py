"""Drawings of chapter 13: every number is where the ring puts it, every rank holds its share."""

import numpy as np
import pytest

from llmtutor.viz.diagrams import shapes
from llmtutor.viz.diagrams.distributed import draw_hop, draw_steps, draw_tensor_cut
from llmtutor.viz.diagrams.parallel import STATE, WAYS, draw_map, draw_shards, held


def tables(n: int = 4) -> list[list[list[int]]]:
    """All states of an all-reduce of 10^r, worked out from what each rank has contributed."""
    # In step s a part has been added up by s + 2 ranks, from the one with its own number on.
    found = [[[10**rank] * n for rank in range(n)]]
    for step in range(2 * (n - 1)):
        table = [row[:] for row in found[-1]]
        for rank in range(n):
            part = (rank - step - 1) % n
            stops = min(step + 2, n)
            table[rank][part] = sum(10 ** ((part + i) % n) for i in range(stops))
        found.append(table)
    return found


def test_a_hop_shows_who_sends_what_to_whom() -> None:
    drawing = draw_hop(tables()[1], step=1)
    assert drawing.shape.body.count('class="lt-new"') == 4  # one part a rank
    assert drawing.shape.body.count("lt-bold") == 4  # and not by its colour alone
    assert drawing.shape.body.count("<polygon") == 4  # arrows
    assert "rank 1 holds 11, 10, 10, 10 and sends part 0, 11, to rank 2" in drawing.description
    assert "sends part 3, 1001, to rank 1" in drawing.description
    with pytest.raises(ValueError, match="four ranks with four parts"):
        draw_hop([[1, 2], [3, 4]])


def test_steps_mark_what_was_received_and_end_with_the_sum() -> None:
    drawing = draw_steps(tables())
    assert drawing.shape.body.count('class="lt-new"') == 6 * 4
    assert drawing.shape.body.count("lt-bold") == 6 * 4 + 2  # and two headings
    assert "after step 2: rank 0 1, 1111, 1101, 1001" in drawing.description
    assert drawing.description.endswith("rank 3 1111, 1111, 1111, 1111.")
    assert drawing.shape.width <= shapes.WIDEST
    with pytest.raises(ValueError, match="expected 7 tables for 4 ranks, got 2"):
        draw_steps(tables()[:2])


def test_the_shares_of_a_cut_part_add_up() -> None:
    x, up, down = [1, 2], [[1, 0, 2, -1], [1, -1, 0, 1]], [[1, 0], [2, 1], [0, 1], [1, 1]]
    hidden = np.maximum(np.array(x) @ up, 0)
    drawing = draw_tensor_cut(x, up, hidden, down)
    assert "share 3, 0; rank 1" in drawing.description
    assert drawing.description.endswith("the share 1, 3. Their sum is 4, 3.")
    assert (hidden @ down).tolist() == [4, 3]


def test_stages_by_hand() -> None:
    assert [held(stage, 8) for stage in range(4)] == [16, 5.5, 3.75, 2]
    assert sum(n_bytes for _, n_bytes, _ in STATE) == 16
    drawing = draw_shards(1_000_000_000, n_ranks=4)
    for words in ("nothing cut, 16 GB", "optimizer cut, 7 GB", "weights and gradients and"):
        assert words in drawing.description
    # Of one, two, three kinds, the empty part of each rank.
    assert drawing.shape.body.count("lt-dashed") == 4 * (1 + 2 + 3)
    assert drawing.shape.width <= shapes.WIDEST


def test_between_them_two_ranks_hold_everything_of_what_is_cut() -> None:
    for way in WAYS:
        for shares in (way.batch, way.layers):
            (*_, w0, h0), (*_, w1, h1) = shares
            assert w0 * h0 + w1 * h1 in (1, 2)  # two halves, or two copies
        assert sorted({*way.stages[0], *way.stages[1]}) == list(range(4))
    drawing = draw_map()
    assert "pipeline: a rank has the whole batch and half of the layers" in drawing.description
    assert "context: a rank has half of each sequence and all weights" in drawing.description
    tokens = drawing.shape.body.count('class="lt-token"')
    assert tokens == 4 * 8 + 2 * 16 + 1  # four ways cut the batch, two do not; the legend
    assert drawing.shape.width <= shapes.WIDEST
