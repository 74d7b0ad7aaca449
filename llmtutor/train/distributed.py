"""Chapter 13, distributed: one model trained by several processes that act as one.

``torchrun --standalone --nproc_per_node=2 …`` starts the processes; `connect` tells each of them
who it is. A process alone is a world of one, and everything here then does nothing.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Int64
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map

from llmtutor.checks import check_name

T = TypeVar("T")
CPU = torch.device("cpu")
STRATEGIES = ("ddp", "fsdp")
LOST = re.compile(
    r"clos(ed|ure)|reset by peer|broken pipe|timed out|timeout|remote process exited|"
    r"unhandled system error|refused",
    re.IGNORECASE,
)


class LostRankError(ConnectionError):
    """Another process of the job has died or does not answer."""


@dataclass(frozen=True)
class World:
    """Which process this is, of how many, and where it computes."""

    rank: int = 0
    """0 … world_size − 1, unique in the job."""
    world_size: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the only one that writes files and prints."""
        return self.rank == 0


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """The device called ``name``; ``"auto"`` is the first there is of cuda, mps, cpu.

    ``local_rank`` is the rank among the processes of this machine: which of its GPUs to take.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    check_name("device", name, ("auto", "cuda", "mps", "cpu"))
    found = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if found.get(name, local_rank + 1) <= local_rank:
        raise ValueError(
            f"process {local_rank} of this machine wants {name} device {local_rank}, but there "
            f"are {found[name]}; start fewer processes, or take --device cpu"
        )
    return torch.device(name, local_rank) if name == "cuda" else torch.device(name)


def connect(device: str = "auto", timeout: float = 60.0) -> World:
    """Join the processes that torchrun started; without torchrun, a world of one.

    The processes talk through NCCL on GPUs and gloo on CPUs (mps has no such library: several
    processes on a Mac compute on its CPU). One that waits longer than ``timeout`` seconds for
    another gives up with an error.

    Raises:
        ValueError: an unknown device, or one that is not there; variables of the environment that
            no torchrun has set.
    """
    rank, local_rank = _number_from_torchrun("RANK", 0), _number_from_torchrun("LOCAL_RANK", 0)
    world_size = _number_from_torchrun("WORLD_SIZE", 1)
    if world_size == 1:
        return World(device=choose_device(device))
    if device == "auto" and not torch.cuda.is_available():
        device = "cpu"
    chosen = choose_device(device, local_rank)
    if chosen.type == "mps":
        raise ValueError("several processes cannot share mps; take --device cpu, or one process")
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    world = World(rank, world_size, chosen)
    try:
        with guarded(world):
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    except ValueError as error:
        raise ValueError(
            f"{error}; let torchrun start the processes, or unset WORLD_SIZE"
        ) from None
    _KEPT.append(dist.group.WORLD)
    return world


def _number_from_torchrun(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ValueError(f"{name} must be a whole number, as torchrun sets it, got {text!r}")
    return int(text)


# Groups live as long as the process. Gloo's destructor waits for gloo's threads; if DDP, which also
# holds the group, let go of it last, that would happen with Python locked, and a thread that needs
# Python to free a tensor would never finish: a job that is done and does not end.
_KEPT: list[dist.ProcessGroup | None] = []


def disconnect() -> None:
    """Leave the world; call it last, also after an error."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def guarded(world: World) -> Iterator[None]:
    """Say in one sentence that another rank is gone, where torch shows the wire that broke.

    Raises:
        LostRankError: in place of the ``RuntimeError`` of a broken or timed-out connection.
    """
    try:
        yield
    except RuntimeError as error:
        if world.world_size == 1 or not LOST.search(str(error)):
            raise
        source_file = r"^\[\S+\]\s*"
        said = re.sub(source_file, "", str(error).splitlines()[0]).rstrip(". ")
        raise LostRankError(
            f"rank {world.rank} of {world.world_size} stops: another rank has died or does not "
            f"answer ({said}); start the job again, it resumes from its last checkpoint"
        ) from error


def local_batches(
    batch: tuple[Int64[Tensor, "batch seq"], Int64[Tensor, "batch seq"]],
    world: World,
    accumulate: int = 1,
) -> list[tuple[Tensor, Tensor]]:
    """The rows ``[rank::world_size]`` of a global batch, cut into ``accumulate`` micro-batches.

    All parts have the same number of tokens, so the mean of their means is that over the batch.

    >>> inputs = torch.arange(8).view(4, 2)
    >>> [x.tolist() for x, _ in local_batches((inputs, inputs + 1), World(1, 2), accumulate=2)]
    [[[2, 3]], [[6, 7]]]

    Raises:
        ValueError: the batch does not divide into that many equal parts.
    """
    check_batch_size(len(batch[0]), world, accumulate)
    inputs, targets = (part[world.rank :: world.world_size].to(world.device) for part in batch)
    return list(zip(inputs.chunk(accumulate), targets.chunk(accumulate), strict=True))


def check_batch_size(batch_size: int, world: World, accumulate: int = 1) -> None:
    """``ValueError`` unless the batch divides into equal parts, one a rank and micro-batch."""
    parts = world.world_size * accumulate
    if accumulate < 1 or batch_size < 1 or batch_size % parts:
        raise ValueError(
            f"a batch of {batch_size} sequences cannot be shared equally by {world.world_size} "
            f"process{'es' if world.world_size > 1 else ''} with {accumulate} micro-batch"
            f"{'es' if accumulate > 1 else ''} each; take a batch size that {parts} divides"
        )


def wrap(model: nn.Module, world: World, strategy: str = "ddp") -> nn.Module:
    """The model on its device, so wrapped that ``backward`` averages gradients over all ranks.

    ``"ddp"``: each rank holds all of the model; gradients are all-reduced. ``"fsdp"``: each rank
    holds a slice of each parameter, gradient and optimizer state (FSDP2, `fully_shard`); weights
    of a block are gathered when it needs them, gradients reduce-scattered. All ranks start with
    the weights of rank 0. Make the optimizer afterwards: ``"fsdp"`` exchanges parameters.

    Raises:
        ValueError: an unknown strategy, with the nearest name.
    """
    check_name("strategy", strategy, STRATEGIES)
    model = model.to(world.device)
    if world.world_size == 1:
        return model
    with guarded(world):
        if strategy == "ddp":
            ids = [world.device.index] if world.device.type == "cuda" else None
            return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)
        for part in [*getattr(model, "blocks", []), model]:
            sharded = fully_shard(part)
            # Sum, then divide: on gloo, torch 2.9 took a wrong mean (pytorch/pytorch 162338).
            sharded.set_force_sum_reduction_for_comms(world.device.type == "cpu")
        return model


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP's wrapper; FSDP2 needs none and any other model is returned as is."""
    return model.module if isinstance(model, DistributedDataParallel) else model


@contextmanager
def accumulating(model: nn.Module, last: bool) -> Iterator[None]:
    """Around forward *and* backward of a micro-batch: only the ``last`` one talks to other ranks.

    The others add to local gradients, which would otherwise cross the network once a micro-batch.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        model.set_is_last_backward(last)
    silent = isinstance(model, DistributedDataParallel) and not last
    with model.no_sync() if silent else nullcontext():  # type: ignore[operator]
        yield


def mean(value: T, world: World) -> T:
    """The mean of a number, or of each in a list, over all ranks, the same on each of them."""
    if world.world_size == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=world.device)
    with guarded(world):
        dist.all_reduce(total)
    return (total / world.world_size).tolist()  # type: ignore[return-value]


def full_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dicts of model and optimizer as a single process would have them, on the CPU.

    All ranks must call it, since shards are gathered; only rank 0 keeps the tensors, the others
    get empty ones. Names are those of the unwrapped model.
    """
    is_main = not dist.is_initialized() or dist.get_rank() == 0

    def gather(value: Any) -> Any:
        if isinstance(value, DTensor):
            value = value.full_tensor()
        if isinstance(value, Tensor):
            value = value.detach().cpu() if is_main else value.new_empty(0)
        return value

    return tree_map(gather, (unwrap(model).state_dict(), optimizer.state_dict()))


def load_full_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    model_state: dict[str, Tensor],
    optimizer_state: dict[str, Any],
) -> None:
    """Set model and optimizer to full states, of which each rank keeps its own slices.

    All ranks hand over the same states. Their number and strategy may differ from those that saved.
    """
    model = unwrap(model)
    now = model.state_dict()
    model.load_state_dict({name: _like(v, now.get(name)) for name, v in model_state.items()})
    optimizer.load_state_dict(optimizer_state)
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[name] = _like(value, parameter)


def _like(value: Tensor, model: Tensor | None) -> Tensor:
    """The slice of ``value`` that this rank holds of ``model``, or ``value`` itself."""
    if not isinstance(model, DTensor) or isinstance(value, DTensor):
        return value
    value = value.to(model.device)
    return distribute_tensor(value, model.device_mesh, model.placements, src_data_rank=None)
