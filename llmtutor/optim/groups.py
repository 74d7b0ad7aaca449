"""Chapter 10, optimizers, step 7: which rule for which parameter.

Weight decay keeps the matrices of linear layers from growing. A gain or a bias has nothing to gain
from being near 0, and a row of an embedding whose token is rare would only fade.
"""

from torch import Tensor, nn

from llmtutor.checks import check_name
from llmtutor.layers.basic import HEAD, has_tag
from llmtutor.optim.adamw import AdamW
from llmtutor.optim.base import Group, Params, Rule
from llmtutor.optim.muon import Muon
from llmtutor.optim.sgd import SGD


class MuonWithAdamW(Rule):
    """One optimizer of two rules: each group says in ``"rule"`` which is its own.

    A group holds the settings of its rule, all of them; ``make_optimizer`` writes them.
    """

    def __init__(self, params: Params) -> None:
        super().__init__(params, {})

    def check(self, group: Group) -> None:
        """As its rule does."""
        RULES[check_name("rule", group.get("rule"), RULES)].check(self, group)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """One step of a group by its rule."""
        RULES[group["rule"]].update(self, group, params, grads)


RULES: dict[str, type[Muon] | type[AdamW]] = {"muon": Muon, "adamw": AdamW}
OPTIMIZERS: dict[str, type[Rule]] = {"sgd": SGD, "adamw": AdamW, "muon": MuonWithAdamW}


def split(model: nn.Module) -> dict[str, list[Tensor]]:
    """Trained parameters by their part, each once: ``hidden``, ``head`` and ``rest``.

    ``hidden`` are matrices (and stacks of them) that multiply, ``head`` those of a layer tagged so,
    ``rest`` all tables, gains and biases. A tied matrix is an embedding: ``rest``.

    >>> parts = split(nn.Sequential(nn.Embedding(7, 2), nn.Linear(2, 3)))
    >>> [(name, [tuple(p.shape) for p in part]) for name, part in parts.items()]
    [('hidden', [(3, 2)]), ('head', []), ('rest', [(7, 2), (3,)])]
    """
    heads = {p for m in model.modules() if has_tag(m, HEAD) for p in m.parameters()}
    tables = {p for m in model.modules() for p in _tables(m)}
    parts: dict[str, list[Tensor]] = {"hidden": [], "head": [], "rest": []}
    for p in model.parameters():
        if not p.requires_grad:
            continue
        if p in tables or p.ndim < 2:
            parts["rest"].append(p)
        else:
            parts["head" if p in heads else "hidden"].append(p)
    return parts


def _tables(module: nn.Module) -> list[Tensor]:
    """Own parameters that are looked up by row, not multiplied by: the module says so."""
    if isinstance(module, nn.Embedding):  # torch's own says nothing
        return [module.weight]
    return [getattr(module, name) for name in getattr(module, "no_decay", ())]


def make_optimizer(
    model: nn.Module,
    name: str,
    lr: float,
    *,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    momentum: float | None = None,
    adam_lr: float | None = None,
    adjust_lr_fn: str = "match_rms_adamw",
) -> Rule:
    """An optimizer by name for a model: "sgd", "adamw" or "muon".

    Matrices decay; gains, biases, embeddings and position tables do not. "muon" is Muon for the
    hidden matrices and AdamW, with learning rate ``adam_lr`` (default: ``lr``), for the rest;
    ``betas`` and ``eps`` belong to AdamW, ``momentum`` to SGD (default 0.9) and Muon (0.95, always
    Nesterov's). Each group has a ``"name"`` and keeps ``"initial_lr"``, which a schedule scales.

    >>> optimizer = make_optimizer(nn.Linear(2, 3), "adamw", 1e-3)
    >>> [(g["name"], g["initial_lr"], g["weight_decay"]) for g in optimizer.param_groups]
    [('matrices', 0.001, 0.1), ('rest', 0.001, 0.0)]

    Raises:
        ValueError: an unknown name (with the nearest one), a setting out of range, a model
            without parameters to train, "muon" for a model without hidden matrices.
    """
    check_name("optimizer", name, OPTIMIZERS)
    parts = split(model)
    if not any(parts.values()):
        raise ValueError("the model has no parameter that requires a gradient: nothing to train")
    decays = {"weight_decay": weight_decay}
    if name == "muon":
        if not parts["hidden"]:
            raise ValueError('"muon" needs hidden matrices and the model has none: take "adamw"')
        muon = {"rule": "muon", "lr": lr, "momentum": 0.95 if momentum is None else momentum}
        muon |= {"nesterov": True, "ns_steps": 5, "adjust_lr_fn": adjust_lr_fn}
        adamw = {"rule": "adamw", "lr": lr if adam_lr is None else adam_lr}
        adamw |= {"betas": tuple(betas), "eps": eps, "fused": True}
        groups = [
            {"name": "hidden", "params": parts["hidden"], **muon, **decays},
            {"name": "head", "params": parts["head"], **adamw, **decays},
            {"name": "rest", "params": parts["rest"], **adamw, "weight_decay": 0.0},
        ]
    else:
        groups = [
            {"name": "matrices", "params": parts["hidden"] + parts["head"], **decays},
            {"name": "rest", "params": parts["rest"], "weight_decay": 0.0},
        ]
    groups = [group for group in groups if group["params"]]
    optimizer: Rule
    if name == "muon":
        optimizer = MuonWithAdamW(groups)
    elif name == "adamw":
        optimizer = AdamW(groups, lr, betas, eps)
    else:
        optimizer = SGD(groups, lr, 0.9 if momentum is None else momentum)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer
