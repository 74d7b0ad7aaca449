"""A ring of three real processes, against torch's own all-reduce and against sums by hand."""

import pytest
import torch
import torch.distributed as dist

from llmtutor.train.ranks import RankError, Ranks, pack, unpack
from llmtutor.train.ring import (
    ring_all_gather,
    ring_all_reduce,
    ring_reduce_scatter,
)

SCALE = 10


@pytest.fixture(scope="module")
def three():
    with Ranks(3, timeout=60) as ranks:
        yield ranks


def draw(rank, n):
    return torch.randn(n, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)


def two_ways(world, n):
    x = draw(world.rank, n)
    before = x.clone()
    ring = ring_all_reduce(x, world.rank, world.world_size)
    assert torch.equal(x, before)  # the input is left alone
    dist.all_reduce(x)
    return [ring, x]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 1000])
def test_the_ring_and_torch_agree(three, n):
    want = sum(draw(rank, n) for rank in range(3))
    results = three.run(two_ways, n)
    for ways in results:
        for total in ways:
            assert total.shape == (n,)
            torch.testing.assert_close(total, want)
    for ring, _ in results[1:]:
        assert torch.equal(ring, results[0][0])  # every rank has the same bits


def by_hand(world):
    parts = [torch.tensor([float(SCALE**world.rank * (i + 1))]) for i in range(world.world_size)]
    ring_reduce_scatter(parts, world.rank, world.world_size)
    scattered = [part.item() for part in parts]
    ring_all_gather(parts, world.rank, world.world_size)
    return scattered, [part.item() for part in parts]


def test_ring_by_hand(three):
    """Rank r has (i + 1) · 10^r in part i; the sums are 111, 222, 333."""
    scattered, gathered = zip(*three.run(by_hand), strict=True)
    assert [scattered[rank][(rank + 1) % 3] for rank in range(3)] == [222, 333, 111]
    assert gathered == ([111.0, 222.0, 333.0],) * 3


def sent(world, n):
    """Numbers that each rank sends in a ring all-reduce."""
    count, isend = 0, dist.isend

    def counting(tensor, target):
        nonlocal count
        count += tensor.numel()
        return isend(tensor, target)

    dist.isend = counting
    ring_all_reduce(torch.ones(n), world.rank, world.world_size)
    dist.isend = isend
    return count


def test_each_rank_sends_two_thirds_twice(three):
    assert three.run(sent, 300) == [2 * 2 * 300 // 3] * 3


def test_a_ring_of_one():
    x = torch.arange(5.0)
    assert torch.equal(ring_all_reduce(x, 0, 1), x)


# The processes themselves ------------------------------------------------------------------------


def test_errors_are_named_and_the_next_call_works():
    with Ranks(1, timeout=60) as ranks:
        with pytest.raises(RankError, match=r"^rank 0: Traceback(.*\n)*ValueError: not today$"):
            ranks.run(fails)
        assert ranks.run(adds, 1) == [1 + SCALE]  # by a new process
        ranks.timeout = 0.2
        with pytest.raises(RankError, match="rank 0: has not answered"):
            ranks.run(sleeps)
    assert not ranks._processes


def fails(world):
    raise ValueError("not today")


def sleeps(world):
    import time

    time.sleep(30)


def adds(world, x, y=SCALE):
    return helper(x, y)


def helper(x, y):
    return torch.tensor([x, y]).sum().item()


def test_a_function_travels_with_what_it_mentions():
    name, found = pack(adds)
    assert name == "adds" and {k: kind for k, (kind, _) in found.items()} == {
        "adds": "code",
        "helper": "code",
        "torch": "module",
    }
    assert unpack((name, found))(None, 1) == 1 + SCALE
    assert unpack(pack(lambda world: SCALE))(None) == SCALE


def test_what_cannot_travel_is_refused():
    def inner(world):
        return ranks

    ranks = Ranks(1)
    with pytest.raises(ValueError, match="inner cannot be sent to another process"):
        ranks.run(inner)
    with pytest.raises(ValueError, match="expected a function, got Ranks"):
        pack(ranks)
    with pytest.raises(ValueError, match="at least one process, got 0"):
        Ranks(0)
