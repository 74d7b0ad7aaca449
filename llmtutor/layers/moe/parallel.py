"""Chapter 18, moe: experts that live on several processes, and tokens that travel to them.

Each process holds some of the experts and reads some of the texts. A token goes to the process
that holds its expert, is worked on there, and its result comes back: two exchanges, and two more
for the gradients, which travel the same ways backwards (Lepikhin et al. 2020, GShard).
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.layers.moe.dispatch import Experts, grouped
from llmtutor.layers.moe.layer import MoE


class Exchange(torch.autograd.Function):
    """Rows to other processes: the first ``send[0]`` to process 0, and so on.

    What comes from process 0 stands first: ``receive[0]`` rows. The gradient goes back the way that
    its row came.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, send: list[int], receive: list[int]) -> Tensor:
        """The rows that others have sent here."""
        ctx.send, ctx.receive = send, receive
        return _exchange(x, send, receive)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The gradients of the rows that were sent."""
        return _exchange(grad, ctx.receive, ctx.send), None, None


def _exchange(x: Tensor, send: list[int], receive: list[int]) -> Tensor:
    arrived = x.new_empty(sum(receive), *x.shape[1:])
    dist.all_to_all_single(arrived, x.contiguous(), receive, send)
    return arrived


def exchanged(
    experts: Experts,
    x: Float[Tensor, "tokens d_model"],
    chosen: Int[Tensor, "tokens top_k"],
    weights: Float[Tensor, "tokens top_k"],
) -> Float[Tensor, "tokens d_model"]:
    """``grouped``, with ``experts`` those of this process alone; all processes call it together.

    ``chosen`` counts the experts of all: with 4 here, expert 5 is the second of process 1.
    """
    world, here, top_k = dist.get_world_size(), len(experts), chosen.shape[1]
    order = chosen.flatten().argsort(stable=True)
    counts = chosen.flatten().bincount(minlength=world * here + 1)[:-1].view(world, here)
    asked = torch.empty_like(counts)  # by process and by expert of this one
    dist.all_to_all_single(asked, counts)
    send, receive = counts.sum(1).tolist(), asked.sum(1).tolist()
    arrived = Exchange.apply(x[order[: sum(send)] // top_k], send, receive)
    wanted = torch.arange(here, device=x.device).repeat(world).repeat_interleave(asked.flatten())
    done = grouped(experts, arrived, wanted[:, None], arrived.new_ones(len(arrived), 1))
    came = Exchange.apply(done, receive, send)
    dropped = came.new_zeros(len(order) - len(came), x.shape[1])
    back = torch.cat([came, dropped])[order.argsort()].unflatten(0, chosen.shape)
    return (weights.unsqueeze(-1) * back).sum(1).to(back.dtype)


def share_experts(model: nn.Module) -> nn.Module:
    """``model`` itself, of whose experts each process keeps its part: the first those that begin.

    All processes must have the same weights before. Afterwards the loss of a process has gradients
    of its experts for the texts of all; what else there is, and is the same everywhere, has them
    for its own texts, to be summed or averaged as ever. Losses of balance stay those of the texts
    of a process.

    Raises:
        ValueError: a number of experts that the number of processes does not divide.
    """
    world, rank = dist.get_world_size(), dist.get_rank()
    for module in model.modules():
        if not isinstance(module, MoE):
            continue
        n = module.config.n_experts
        if n % world:
            raise ValueError(f"{n} experts cannot be shared equally by {world} processes")
        here = n // world
        module.experts = nn.ModuleList(module.experts[rank * here : (rank + 1) * here])
        module.dispatch = exchanged
    return model
