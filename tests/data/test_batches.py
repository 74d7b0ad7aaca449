"""Batches: every token once where that is promised, uniformly at random where that is."""

from itertools import islice, product

import numpy as np
import pytest
import torch
from beartype import beartype
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Int64, TypeCheckError, jaxtyped
from torch import Tensor

from llmtutor.data.batches import batch_at, random_batches, sequential_batches, shard
from llmtutor.data.tokens import prepare
from llmtutor.tokenizer import CharTokenizer

sizes = st.integers(1, 9)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Sequential ---------------------------------------------------------------------------------------


def test_sequential_batches_by_hand():
    batches = [
        (inputs.tolist(), targets.tolist())
        for inputs, targets in sequential_batches(range(10, 19), batch_size=2, seq_len=3)
    ]
    assert batches == [
        ([[10, 11, 12], [13, 14, 15]], [[11, 12, 13], [14, 15, 16]]),
        ([[16, 17]], [[17, 18]]),
    ]


@given(n=st.integers(2, 60), batch_size=sizes, seq_len=sizes)
def test_every_id_but_the_first_is_a_target_exactly_once(n, batch_size, seq_len):
    ids = np.arange(100, 100 + n)
    batches = list(sequential_batches(ids, batch_size, seq_len))
    targets = [t for _, target in batches for t in target.flatten().tolist()]
    inputs = [i for given, _ in batches for i in given.flatten().tolist()]
    assert targets == ids[1:].tolist()
    assert inputs == ids[:-1].tolist()
    for given_ids, target in batches[:-1]:
        assert given_ids.shape == target.shape == given_ids.shape
        assert target.shape[1] == seq_len and target.shape[0] <= batch_size
    n_whole, rest = divmod(n - 1, seq_len)
    assert len(batches) == -(-n_whole // batch_size) + (rest > 0)


def test_changing_the_inputs_in_place_leaves_the_targets():
    for inputs, targets in (
        next(sequential_batches(range(5), 1, 4)),
        batch_at(range(5), 1, 4, seed=0, step=0),
    ):
        inputs.zero_()
        assert targets.tolist() == [[1, 2, 3, 4]]


# Random -------------------------------------------------------------------------------------------


@given(n=st.integers(1, 40), batch_size=sizes, seq_len=sizes, seed=st.integers(0, 5))
def test_random_windows_are_stretches_of_the_ids_shifted_by_one(n, batch_size, seq_len, seed):
    ids = np.arange(n + seq_len) * 3
    inputs, targets = next(random_batches(ids, batch_size, seq_len, generator=seeded(seed)))
    assert inputs.shape == targets.shape == (batch_size, seq_len)
    assert inputs.dtype == targets.dtype == torch.int64
    starts = inputs[:, 0].numpy() // 3
    for row, start in enumerate(starts):
        assert inputs[row].tolist() == ids[start : start + seq_len].tolist()
        assert targets[row].tolist() == ids[start + 1 : start + seq_len + 1].tolist()


def test_every_start_is_equally_likely():
    """Chi-squared: 10 starts, 20,000 draws; the bound is the 99.9 % quantile for 9 degrees."""
    batches = random_batches(np.arange(14), 100, 4, generator=seeded())
    starts = np.concatenate([inputs[:, 0].numpy() for inputs, _ in islice(batches, 200)])
    counts = np.bincount(starts, minlength=11)
    assert counts[10:].tolist() == [0]  # the last start is 9: windows 9..13
    expected = len(starts) / 10
    assert float(((counts[:10] - expected) ** 2 / expected).sum()) < 27.88
    assert counts[:10].min() > 0


def test_windows_are_drawn_independently():
    """Neighbours in a batch and batches after each other agree as often as chance says: 1/10."""
    batches = random_batches(np.arange(14), 2, 4, generator=seeded(1))
    starts = np.array([inputs[:, 0].tolist() for inputs, _ in islice(batches, 20_000)])
    for equal in (starts[:, 0] == starts[:, 1], starts[1:, 0] == starts[:-1, 0]):
        assert abs(equal.mean() - 0.1) < 4 * (0.1 * 0.9 / len(equal)) ** 0.5


def test_the_generator_decides_alone():
    def first(generator, n=3):
        return torch.stack(
            [inputs for inputs, _ in islice(random_batches(ids, 4, 5, generator=generator), n)]
        )

    ids = np.arange(1000)
    torch.manual_seed(1)
    one = first(seeded(7))
    torch.manual_seed(2)
    np.random.seed(3)
    assert torch.equal(first(seeded(7)), one)
    assert not torch.equal(first(seeded(8)), one)
    generator = seeded(7)
    first(generator, 1)
    state = generator.get_state()
    second = first(generator, 1)
    generator.set_state(state)
    assert torch.equal(first(generator, 1), second)
    assert torch.equal(one[1], second[0])


def test_a_window_may_reach_both_ends():
    ids = np.arange(6)
    seen = {
        int(place)
        for inputs, targets in islice(random_batches(ids, 8, 2, generator=seeded()), 20)
        for place in torch.cat([inputs.flatten(), targets.flatten()])
    }
    assert seen == set(range(6))


def test_rows_of_a_memory_map_become_ordinary_tensors(tmp_path):
    file = prepare(["abcabcab"], CharTokenizer("abc"), tmp_path / "t")
    for batches in (
        random_batches(file.ids, 2, 3, generator=seeded()),
        sequential_batches(file.ids, 2, 3),
    ):
        for tensor in next(batches):
            assert tensor.dtype == torch.int64
            assert tensor.is_contiguous()
            tensor.add_(1)  # writable: not the file
    assert file.ids.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_the_same_ids_as_list_array_tensor_and_map_give_the_same_batches(tmp_path):
    file = prepare(["abcabcab"], CharTokenizer("abc"), tmp_path / "t")
    kinds = [file.ids, file.ids.tolist(), torch.tensor(file.ids.tolist()), np.array(file.ids)]
    batches = [next(random_batches(ids, 2, 3, generator=seeded()))[0] for ids in kinds]
    assert all(torch.equal(batch, batches[0]) for batch in batches)


# Shards -------------------------------------------------------------------------------------------


@given(n=st.integers(0, 50), world_size=st.integers(1, 12))
def test_shards_are_a_partition_in_order_and_of_equal_size(n, world_size):
    ids = np.arange(n)
    shards = [shard(ids, rank, world_size) for rank in range(world_size)]
    assert np.concatenate(shards).tolist() == ids.tolist()
    lengths = [len(part) for part in shards]
    assert max(lengths) - min(lengths) <= 1


def test_a_shard_of_a_memory_map_is_no_copy(tmp_path):
    file = prepare(["abcabcab"], CharTokenizer("abc"), tmp_path / "t")
    assert np.shares_memory(shard(file.ids, 1, 2), file.ids)


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 2), (2, 2), (0, 0)])
def test_a_rank_outside_the_world_is_an_error(rank, world_size):
    with pytest.raises(ValueError, match="0 <= rank < world_size"):
        shard(range(5), rank, world_size)


# Wrong input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "seq_len"), [(0, 3), (3, 0), (-1, 1)])
def test_empty_batches_are_refused_at_the_call(batch_size, seq_len):
    with pytest.raises(ValueError, match="at least 1"):
        sequential_batches(range(9), batch_size, seq_len)
    with pytest.raises(ValueError, match="at least 1"):
        random_batches(range(9), batch_size, seq_len, generator=seeded())


def test_too_few_ids_are_refused_at_the_call():
    with pytest.raises(ValueError, match=r"at least seq_len \+ 1 = 5 ids for one window, got 4"):
        random_batches(range(4), 1, 4, generator=seeded())
    with pytest.raises(ValueError, match="at least 2 ids"):
        sequential_batches([1], 1, 4)


@pytest.mark.parametrize("ids", [[[1, 2], [3, 4]], [0.5, 1.5, 2.5], ["a", "b", "c"], [True] * 9])
def test_what_is_no_row_of_ids_is_refused(ids):
    with pytest.raises(ValueError, match="one row of integer ids"):
        sequential_batches(ids, 1, 1)


def test_shapes_in_the_signatures_hold():
    @jaxtyped(typechecker=beartype)
    def same_shape(a: Int64[Tensor, "batch seq"], b: Int64[Tensor, "batch seq"]) -> None:
        pass

    for batch_size, seq_len in product((1, 3), (1, 4)):
        for batch in sequential_batches(range(11), batch_size, seq_len):
            same_shape(*batch)
        same_shape(*next(random_batches(range(11), batch_size, seq_len, generator=seeded())))
    with pytest.raises(TypeCheckError):
        same_shape(torch.zeros(2, 3).long(), torch.zeros(3, 2).long())


# At a step ----------------------------------------------------------------------------------------


@given(n=st.integers(1, 40), batch_size=sizes, seq_len=sizes, step=st.integers(0, 2**63))
def test_the_batch_of_a_step_is_stretches_shifted_by_one(n, batch_size, seq_len, step):
    ids = np.arange(n + seq_len) * 3
    inputs, targets = batch_at(ids, batch_size, seq_len, seed=1, step=step)
    assert inputs.shape == targets.shape == (batch_size, seq_len)
    assert inputs.dtype == targets.dtype == torch.int64
    assert bool((targets == inputs + 3).all())
    assert bool((inputs.diff(dim=1) == 3).all()) and inputs.min() >= 0 and targets.max() <= ids[-1]


def test_the_batch_of_a_step_needs_no_step_before_it():
    """And no global state: any order, any process, any time."""
    ids = np.arange(1000)
    forward = [batch_at(ids, 4, 5, seed=7, step=s)[0] for s in range(20)]
    torch.manual_seed(3)
    np.random.seed(3)
    backward = [batch_at(ids, 4, 5, seed=7, step=s)[0] for s in reversed(range(20))]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    assert len({tuple(b.flatten().tolist()) for b in forward}) == 20
    assert not torch.equal(batch_at(ids, 4, 5, seed=8, step=0)[0], forward[0])
    rows = batch_at(ids, 4, 5, seed=7, step=3)[0]
    assert torch.equal(rows[:2], batch_at(ids, 2, 5, seed=7, step=3)[0])


def test_starts_of_a_run_are_uniform_and_independent_of_the_step():
    """Chi-squared as above over 200 steps, and neighbours agree as often as chance says."""
    batches = [batch_at(np.arange(14), 100, 4, seed=0, step=s)[0][:, 0] for s in range(200)]
    starts = torch.stack(batches).numpy()
    counts = np.bincount(starts.flatten(), minlength=11)
    assert counts[10:].tolist() == [0]
    assert float(((counts[:10] - 2000) ** 2 / 2000).sum()) < 27.88
    for equal in (starts[:, 1:] == starts[:, :-1], starts[1:] == starts[:-1]):
        assert abs(equal.mean() - 0.1) < 4 * (0.1 * 0.9 / equal.size) ** 0.5


def test_the_batch_of_a_step_is_the_same_everywhere():
    """Philox is exact integer arithmetic: these starts hold on every machine and version."""
    starts = [batch_at(np.arange(10**6), 4, 1, seed=3, step=s)[0][:, 0].tolist() for s in (0, 9)]
    assert starts == [[618034, 674314, 138435, 405595], [325582, 808886, 473165, 893276]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seq_len": 10}, "at least seq_len \\+ 1 = 11 ids"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"step": -2}, "step must be at least 0, got -2"),
    ],
)
def test_the_batch_of_a_step_refuses_what_cannot_be(changes, message):
    given_values = {"batch_size": 2, "seq_len": 3, "seed": 0, "step": 0} | changes
    with pytest.raises(ValueError, match=message):
        batch_at(np.arange(10), **given_values)
