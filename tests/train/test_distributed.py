"""Two real processes that act as one: the same curve, the same state, and a clear end."""

import itertools
import math
import os

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from llmtutor.data.batches import random_batches
from llmtutor.layers.basic import cross_entropy
from llmtutor.model.presets import build, preset
from llmtutor.optim.groups import make_optimizer
from llmtutor.train.distributed import (
    LostRankError,
    World,
    accumulating,
    check_batch_size,
    choose_device,
    connect,
    disconnect,
    full_state,
    guarded,
    load_full_state,
    local_batches,
    mean,
    unwrap,
    wrap,
)
from llmtutor.train.ranks import RankError, Ranks
from llmtutor.train.step import train_step

STEPS, FEW = 50, 12
SIZES = {"vocab_size": 31, "max_seq_len": 12, "n_layers": 2, "d_model": 16, "n_heads": 2}


@pytest.fixture(scope="module")
def ranks():
    with Ranks(2, timeout=60) as ranks:
        yield ranks


# What the processes run; each function travels to them as code -----------------------------------


def make(world, strategy, name="llama", optimizer="adamw", dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    model = wrap(build(preset(name, **SIZES, d_ff=24)).to(dtype), world, strategy)
    return model, make_optimizer(model, optimizer, 1e-2, weight_decay=0.1)


def batches(first=0, steps=STEPS):
    ids = torch.arange(997) ** 2 % 31
    stream = random_batches(ids, 8, 12, generator=torch.Generator().manual_seed(7))
    return itertools.islice(stream, first, first + steps)


def train(world, model, optimizer, accumulate=1, first=0, steps=STEPS):
    """The loss and the norm of the gradient of each step."""
    curve = []
    for batch in batches(first, steps):
        parts = local_batches(batch, world, accumulate)
        metrics = train_step(model, parts, optimizer, clip=0.5)
        curve.append((mean(metrics.loss, world), metrics.grad_norm))
    return curve


def run(world, strategy="ddp", accumulate=1, steps=STEPS, **settings):
    model, optimizer = make(world, strategy, **settings)
    curve = train(world, model, optimizer, accumulate, steps=steps)
    return curve, full_state(model, optimizer)


def difference(a, b):
    """The largest difference between numbers or tensors in two nested structures."""
    a, b = tree_leaves(a), tree_leaves(b)
    assert [type(x) for x in a] == [type(x) for x in b]
    numbers = (torch.Tensor, float, int)
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if isinstance(x, numbers)]
    return max(torch.as_tensor(x - y, dtype=torch.float64).abs().max().item() for x, y in pairs)


# One curve ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain():
    """One process, and nothing of ours in the loop."""
    torch.manual_seed(0)
    model = build(preset("llama", **SIZES, d_ff=24)).double()
    matrices, rest = [g["params"] for g in make_optimizer(model, "adamw", 1).param_groups]
    groups = [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    curve = []
    for inputs, targets in batches():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        curve.append((loss.item(), norm.item()))
    return curve, model.state_dict()


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_are_one_process(ranks, plain, strategy, accumulate):
    (curve, state), (other_curve, other_state) = ranks.run(run, strategy, accumulate)
    assert len(curve) == STEPS and curve[-1][0] < curve[0][0] - 1  # it learns
    assert difference(curve, plain[0]) < 1e-9
    assert difference(state[0], dict(plain[1])) < 1e-6
    assert other_curve == curve
    kept = [x for x in tree_leaves(other_state) if isinstance(x, torch.Tensor)]
    assert kept and all(x.numel() == 0 for x in kept)  # only rank 0 has what is written


def run_with(world, strategy, settings):
    return run(world, strategy, 2, **settings)


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_other_optimizers_and_tied_weights(ranks, strategy, optimizer):
    """Muon needs whole matrices, of which each rank holds a slice; GPT-2 uses one matrix twice."""
    settings = {"optimizer": optimizer, "name": "gpt2", "steps": FEW}
    (curve, state), _ = ranks.run(run_with, strategy, settings)
    curve_alone, state_alone = run(World(), **settings)
    assert difference(curve, curve_alone) < 1e-6
    assert difference(state, state_alone) < 1e-6


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_float32_is_averaged_too(ranks, strategy):
    """In float32, FSDP2 would ask gloo for a mean, which was wrong in some versions of torch."""
    settings = {"dtype": torch.float32, "steps": FEW}
    (curve, _), _ = ranks.run(run_with, strategy, settings)
    assert difference(curve, run(World(), **settings)[0]) < 1e-4


# What each rank holds and sends ------------------------------------------------------------------


def first_weights(world, strategy):
    model, _ = make(world, strategy, seed=world.rank)  # each rank draws other weights
    weights = unwrap(model).state_dict().values()
    return [w.full_tensor() if isinstance(w, DTensor) else w for w in weights]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_all_ranks_start_with_the_weights_of_rank_0(ranks, strategy):
    first = list(make(World(), strategy)[0].state_dict().values())
    for weights in ranks.run(first_weights, strategy):
        assert difference(weights, first) == 0


def bytes_held(world, strategy):
    model, optimizer = make(world, strategy)
    train(world, model, optimizer, steps=1)
    tensors = [*model.parameters(), *(p.grad for p in model.parameters())]
    tensors += [x for entries in optimizer.state.values() for x in entries.values()]
    local = [x.to_local() if isinstance(x, DTensor) else x for x in tensors]
    return sum(x.nbytes for x in local if x.ndim)


def test_sharding_halves_what_a_rank_holds(ranks):
    whole = bytes_held(World(), "ddp")
    parameters = sum(p.nbytes for p in make(World(), "ddp")[0].parameters())
    assert whole == 4 * parameters  # weights, gradients, two moments
    assert ranks.run(bytes_held, "ddp") == [whole, whole]
    zero, one = ranks.run(bytes_held, "fsdp")
    assert zero + one == whole and abs(zero - one) < 0.1 * whole  # 31 rows are 16 and 15


def watch_gradients(world, strategy):
    """For both micro-batches: a gradient of this rank, or nothing while it is not shared."""
    model, _ = make(world, strategy)
    seen = []
    for i, (inputs, targets) in enumerate(local_batches(next(batches()), world, 2)):
        with accumulating(model, last=i == 1):
            cross_entropy(model(inputs), targets).backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        grads = [g.full_tensor() if isinstance(g, DTensor) else g.clone() for g in grads]
        seen.append(torch.cat([g.flatten() for g in grads]) if grads else None)
    return seen


def test_only_the_last_micro_batch_talks(ranks):
    (first, last), (other_first, other_last) = ranks.run(watch_gradients, "ddp")
    assert not torch.allclose(first, other_first)  # still local
    assert torch.equal(last, other_last)
    sharded, other_sharded = ranks.run(watch_gradients, "fsdp")
    assert sharded[0] is None and other_sharded[0] is None  # not yet scattered
    torch.testing.assert_close(sharded[1], last)
    alone = watch_gradients(World(), "ddp")
    torch.testing.assert_close(last, alone[1])


def talk(world):
    return (
        mean(world.rank * 3.0, world),
        mean([world.rank * 1.0, 2.0], world),
        world.is_main,
    )


def test_means_over_ranks(ranks):
    assert ranks.run(talk) == [(1.5, [0.5, 2.0], True), (1.5, [0.5, 2.0], False)]
    assert talk(World()) == (0.0, [0.0, 2.0], True)


# State across worlds -----------------------------------------------------------------------------


def resume(world, strategy, state, first):
    model, optimizer = make(world, strategy, seed=99)
    load_full_state(model, optimizer, *state)
    curve = train(world, model, optimizer, first=first, steps=FEW)
    return curve, full_state(model, optimizer)


def start(world, strategy, steps):
    model, optimizer = make(world, strategy)
    train(world, model, optimizer, steps=steps)
    return full_state(model, optimizer)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_resume_goes_on_bit_by_bit(ranks, strategy):
    whole = ranks.run(run, strategy, 1, 2 * FEW)[0]
    state = ranks.run(start, strategy, FEW)[0]
    curve, end = ranks.run(resume, strategy, state, FEW)[0]
    assert curve == whole[0][FEW:]
    assert difference(end, whole[1]) == 0


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_state_goes_from_one_world_to_another(ranks, plain, strategy):
    alone = start(World(), "ddp", FEW)
    curve, _ = ranks.run(resume, strategy, alone, FEW)[0]
    assert difference(curve, plain[0][FEW : 2 * FEW]) < 1e-6
    two = ranks.run(start, strategy, FEW)[0]
    assert difference(resume(World(), "ddp", two, FEW)[0], plain[0][FEW : 2 * FEW]) < 1e-6


# The end of a rank -------------------------------------------------------------------------------


def half_dies(world):
    dist.all_reduce(torch.ones(1))
    if world.rank == 1:
        os._exit(9)
    try:
        mean(1.0, world)
    except LostRankError as error:
        raise ValueError(str(error)) from None


def test_a_lost_rank_is_named_as_such(ranks):
    with pytest.raises(RankError) as error:
        ranks.run(half_dies)
    assert "rank 0 of 2 stops: another rank has died or does not answer" in str(error.value)
    assert "resumes from its last checkpoint" in str(error.value)
    assert "rank 1: the process has died (exit code 9)" in str(error.value)


def test_other_errors_pass_unchanged():
    with pytest.raises(RuntimeError, match="mat1") as error, guarded(World(0, 2)):
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not isinstance(error.value, LostRankError)
    with pytest.raises(RuntimeError) as error, guarded(World()):  # nobody to lose
        raise RuntimeError("Connection closed by peer")
    assert not isinstance(error.value, LostRankError)


# Who am I ----------------------------------------------------------------------------------------


def test_without_torchrun_a_world_of_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    world = connect("cpu")
    assert world == World(0, 1, torch.device("cpu")) and world.is_main
    assert not dist.is_initialized()
    model = torch.nn.Linear(2, 2)
    assert wrap(model, world, "fsdp") is model
    disconnect()  # does no harm


@pytest.mark.parametrize(
    ("size", "message"),
    [("two", "WORLD_SIZE must be a whole number.* got 'two'"), ("2", "let torchrun start")],
)
def test_an_environment_that_torchrun_has_not_set(monkeypatch, size, message):
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ValueError, match=message):
        connect("cpu")


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="unknown device 'gpu'; did you mean"):
        choose_device("gpu")
    with pytest.raises(ValueError, match="unknown strategy 'fsdp2'; did you mean 'fsdp'"):
        wrap(torch.nn.Linear(2, 2), World(), "fsdp2")


def test_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda", 1) == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="process 2 of this machine wants cuda device 2, but the"):
        choose_device("cuda", 2)


@pytest.mark.parametrize(("cuda", "mps", "want"), [(1, 1, "cuda"), (0, 1, "mps"), (0, 0, "cpu")])
def test_auto_takes_the_fastest(monkeypatch, cuda, mps, want):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    assert choose_device("auto").type == want


def test_several_processes_do_not_share_mps(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ValueError, match="cannot share mps; take --device cpu"):
        connect("mps")


# The rows of a rank ------------------------------------------------------------------------------


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 1), (2, 1), (2, 3), (3, 2), (6, 1)])
def test_all_rows_are_taken_once_in_equal_parts(world_size, accumulate):
    rows = torch.arange(12).view(6, 2)
    seen = []
    for rank in range(world_size):
        parts = local_batches((rows, rows + 100), World(rank, world_size), accumulate)
        assert [len(x) for x, _ in parts] == [6 // world_size // accumulate] * accumulate
        assert all(torch.equal(y, x + 100) for x, y in parts)
        mine = torch.cat([x for x, _ in parts])
        assert torch.equal(mine, rows[rank::world_size])
        seen += mine[:, 0].tolist()
    assert sorted(seen) == rows[:, 0].tolist()


@pytest.mark.parametrize(
    ("batch_size", "world_size", "accumulate"), [(8, 3, 1), (8, 2, 3), (1, 2, 1), (8, 1, 0)]
)
def test_a_batch_that_cannot_be_shared_equally_is_refused(batch_size, world_size, accumulate):
    with pytest.raises(ValueError, match=f"a batch of {batch_size} sequences cannot be shared"):
        check_batch_size(batch_size, World(0, world_size), accumulate)
    rows = torch.zeros(batch_size, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"{world_size} process"):
        local_batches((rows, rows), World(0, world_size), accumulate)


def test_equal_parts_make_the_mean_of_means_the_mean():
    values = torch.arange(12.0)
    assert math.isclose(values.view(3, 4).mean(1).mean(), values.mean())
