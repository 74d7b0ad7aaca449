"""Chapter 10, optimizers: step 1, what all of them share.

An optimizer is a rule that turns a gradient into a change of the weights, and the memory that the
rule needs for each weight. The groups of parameters, ``zero_grad`` and ``state_dict`` come from
``torch.optim.Optimizer``, so that schedules, checkpoints and sharded parameters work as ever.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

Params = Iterable[Tensor] | Iterable[dict[str, Any]]
"""Parameters, or groups of them as dictionaries with ``"params"`` and settings of their own."""
Group = dict[str, Any]
"""Parameters and their settings."""


class Rule(torch.optim.Optimizer):
    """An optimizer that changes one group of parameters after the other by ``update``."""

    @abstractmethod
    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """Change ``params``, those of ``group`` that have a gradient, in place."""

    def check(self, group: Group) -> None:
        """Raise ``ValueError`` by name for a setting of ``group`` out of range."""
        check_at_least_0(**{n: group[n] for n in ("lr", "eps", "weight_decay") if n in group})
        if len(betas := group.get("betas", (0.0, 0.0))) != 2:
            raise ValueError(f"betas must be two numbers, got {betas}")
        fractions = {"momentum": group.get("momentum", 0.0)}
        fractions |= {f"betas[{i}]": beta for i, beta in enumerate(betas)}
        for name, value in fractions.items():
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {value}")

    def add_param_group(self, param_group: Group) -> None:
        """As in torch, where every group comes in here; checked."""
        super().add_param_group(param_group)
        self.check(self.param_groups[-1])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every group; with a ``closure``, its result, which is the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self.update(group, params, [p.grad for p in params])
        return loss

    def memory(self, name: str, params: list[Tensor]) -> list[Tensor]:
        """The tensor called ``name`` that is kept for each parameter; zeros at first."""
        for p in params:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in params]


def check_at_least_0(**settings: float) -> None:
    """Raise ``ValueError`` by name for a setting that is negative or not a number.

    >>> check_at_least_0(lr=-1)
    Traceback (most recent call last):
    ValueError: lr must be at least 0, got -1
    """
    for name, value in settings.items():
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
