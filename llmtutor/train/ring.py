"""Chapter 13, distributed: sums over processes that stand in a ring, all of them equal."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def ring_reduce_scatter(parts: list[Tensor], rank: int, world_size: int) -> None:
    """Add up, in place, so that ``parts[(rank + 1) % world_size]`` is the sum over all ranks.

    ``world_size − 1`` times each rank hands one part to its right neighbour and adds the part that
    comes from the left; a part goes once around the ring and collects one contribution a stop.
    """
    right, left = (rank + 1) % world_size, (rank - 1) % world_size
    incoming = torch.empty_like(parts[0])
    for hop in range(world_size - 1):
        _exchange(parts[(rank - hop) % world_size], right, incoming, left)
        parts[(rank - hop - 1) % world_size] += incoming


def ring_all_gather(parts: list[Tensor], rank: int, world_size: int) -> None:
    """Copy finished parts around the ring, in place, until every rank has all of them."""
    right, left = (rank + 1) % world_size, (rank - 1) % world_size
    for hop in range(world_size - 1):
        finished, next_one = (parts[(rank + i - hop) % world_size] for i in (1, 0))
        _exchange(finished, right, next_one, left)


def ring_all_reduce(x: Float[Tensor, "n"], rank: int, world_size: int) -> Float[Tensor, "n"]:
    """The sum over all ranks; each sends and receives ``2 (world_size − 1) / world_size · n``.

    The scheme of Patarasuk and Yuan (2009): a reduce-scatter, then an all-gather, of ``n`` padded
    to a multiple of ``world_size``. All ranks get the same bits: a part is added up once.
    """
    padded = torch.nn.functional.pad(x, (0, -len(x) % world_size))
    parts = list(padded.clone().chunk(world_size))
    ring_reduce_scatter(parts, rank, world_size)
    ring_all_gather(parts, rank, world_size)
    return torch.cat(parts)[: len(x)]


def _exchange(outgoing: Tensor, right: int, incoming: Tensor, left: int) -> None:
    """Send to the right while receiving from the left: a ring of waiting senders would hang."""
    sending = dist.isend(outgoing, right)
    dist.recv(incoming, left)
    if sending is not None:
        sending.wait()
