"""Chapter 03, language modelling: the four parts every later model is made of.

``Linear`` and ``Embedding`` hold the parameters, ``softmax`` turns logits into probabilities and
``cross_entropy`` says, in nats, how surprised those probabilities are by what came next.
"""

import math
from typing import Any, ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.checks import check_at_least, check_name

M = TypeVar("M", bound=nn.Module)
INT_DTYPES = (torch.int64, torch.int32, torch.int16, torch.uint8)


def softmax(x: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """Probabilities from logits: ``exp(x_i) / Σ_j exp(x_j)`` along ``dim`` (same shape as ``x``).

    The largest logit is subtracted first, which changes nothing, so that no exponential overflows.
    A logit of −inf gives probability 0. Where *every* logit is −inf (a row masked completely) the
    row is zeros with zero gradient, where ``torch.softmax`` gives nan; +inf and nan give nan.

    >>> softmax(torch.tensor([1000.0, 1000.0, -math.inf]))
    tensor([0.5000, 0.5000, 0.0000])

    Raises:
        ValueError: ``x`` is not floating point.
    """
    exps = _shift(x, dim).exp()
    return exps / _or_one(exps.sum(dim, keepdim=True))


def log_softmax(x: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """Log-probabilities from logits: ``x_i − log Σ_j exp(x_j)`` along ``dim``, same shape as ``x``.

    Going through ``softmax(x).log()`` would round small probabilities to 0 and their logarithm
    to −inf; the difference of the two terms keeps them. A row masked completely is all −inf.

    >>> log_softmax(torch.tensor([0.0, -1000.0]))
    tensor([    0., -1000.])

    Raises:
        ValueError: ``x`` is not floating point.
    """
    shifted = _shift(x, dim)
    return shifted - _or_one(shifted.exp().sum(dim, keepdim=True)).log()


def _shift(x: Tensor, dim: int) -> Tensor:
    """``x`` minus its maximum along ``dim``; a row of −inf stays −inf instead of becoming nan."""
    if not x.is_floating_point():
        raise ValueError(f"logits must be floating point, got {x.dtype}; convert with .float()")
    # The maximum is a constant for the gradient: the result does not depend on the shift.
    top = x.detach().amax(dim, keepdim=True)
    return x - top.masked_fill(top == -math.inf, 0.0)


def _or_one(total: Tensor) -> Tensor:
    """``total`` with 0 replaced by 1; only a row masked completely sums to 0, others reach 1."""
    return total.masked_fill(total == 0, 1.0)


def cross_entropy(
    logits: Float[Tensor, "*batch vocab"],
    targets: Int[Tensor, "*batch"],
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Float[Tensor, "..."]:
    """Surprise at the targets in nats: ``−log softmax(logits)[target]``.

    The vocabulary is the *last* dimension of ``logits`` (``torch.nn.functional.cross_entropy``
    wants it second). ``reduction`` is ``"mean"`` or ``"sum"`` over all targets (both scalars), or
    ``"none"`` (shape of ``targets``).

    >>> cross_entropy(torch.zeros(2, 8), torch.tensor([3, 5]))  # uniform over 8: log 8
    tensor(2.0794)

    Raises:
        ValueError: shapes that do not fit, logits not floating point, targets not integers or
            outside the vocabulary, unknown ``reduction``, or a mean over no target at all.
    """
    if logits.ndim == 0 or logits.shape[:-1] != targets.shape:
        raise ValueError(
            "targets must have the shape of logits without its last dimension (the vocabulary): "
            f"got logits {tuple(logits.shape)}, targets {tuple(targets.shape)}"
        )
    check_name("reduction", reduction, ("mean", "sum", "none"))
    check_ids(targets, logits.shape[-1], "targets")
    losses = -log_softmax(logits).gather(-1, targets.long().unsqueeze(-1)).squeeze(-1)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if losses.numel() == 0:
        raise ValueError("no target to score: the batch is empty")
    return losses.mean()


def check_ids(ids: Tensor, vocab_size: int, name: str = "ids") -> None:
    """Raise ``ValueError`` unless ``ids`` holds integers in ``0 … vocab_size − 1``, so not −1."""
    check_integers(name, ids)
    if ids.numel() == 0:
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        wrong = low if low < 0 else high
        raise ValueError(
            f"{name} must lie in 0 … {vocab_size - 1} (vocabulary of {vocab_size}), got {wrong}; "
            "were they made by another tokenizer?"
        )


def check_integers(name: str, x: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` holds integers."""
    if x.dtype not in INT_DTYPES:
        raise ValueError(f"{name} must be integers (torch.int64), got {x.dtype}")


def check_rows(name: str, x: Tensor, rows: int, most: int) -> None:
    """Raise ``ValueError`` unless ``x`` is one integer in 0 … ``most`` for each row."""
    if x.shape != (rows,) or x.dtype not in INT_DTYPES:
        raise ValueError(
            f"{name} must be one integer for each of {rows} rows, "
            f"got shape {tuple(x.shape)} of {x.dtype}"
        )
    if rows and not 0 <= int(x.min()) <= int(x.max()) <= most:
        raise ValueError(f"{name} must lie in 0 … {most}, got {x.tolist()}")


def check_width(x: Tensor, name: str, width: int) -> None:
    """Raise ``ValueError`` unless ``width`` is the last dimension of ``x``."""
    if x.ndim == 0 or x.shape[-1] != width:
        raise ValueError(f"last dimension must be {name} = {width}, got shape {tuple(x.shape)}")


RESIDUAL, HEAD = "writes into the residual stream", "gives the logits"


def tag(module: M, *tags: str) -> M:
    """``module``, marked with what initialisation and optimizers want to know of it."""
    module.tags = frozenset(tags)  # type: ignore[assignment]
    return module


def has_tag(module: nn.Module, tag: str) -> bool:
    """Whether ``module`` was marked so."""
    return tag in getattr(module, "tags", ())


def _truncated_normal(std: float, *shape: int) -> nn.Parameter:
    """Parameter drawn from a normal of mean 0 and deviation ``std``, redrawn beyond ±3 ``std``."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), 0.0, std, -3 * std, 3 * std))


class Layer(nn.Module):
    """A module that ``print(model)`` shows with its settings."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def extra_repr(self) -> str:
        """Each setting with its name, 10000.0 as 10000."""
        texts = {n: f"{v:g}" if isinstance(v, float) else repr(v) for n, v in self.settings.items()}
        return ", ".join(f"{name}={text}" for name, text in texts.items())


class Linear(Layer):
    """``y = x Wᵀ (+ b)``, on the last dimension: (…, d_in) → (…, d_out).

    ``weight`` has shape (d_out, d_in) as in ``torch.nn.Linear``; its entries start as a normal of
    variance 2 / (d_in + d_out) (Glorot and Bengio 2010, eq. 12) cut at three standard deviations,
    so that neither activations nor gradients grow with the width. ``bias`` starts at 0.

    Raises:
        ValueError: sizes below 1, or an input whose last dimension is not ``d_in``.
    """

    def __init__(self, d_in: int, d_out: int, bias: bool = False) -> None:
        super().__init__(d_in=d_in, d_out=d_out, bias=bias)
        check_at_least(1, d_in=d_in, d_out=d_out)
        self.weight = _truncated_normal(math.sqrt(2 / (d_in + d_out)), d_out, d_in)
        self.bias = nn.Parameter(torch.zeros(d_out)) if bias else None

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Map (…, d_in) to (…, d_out)."""
        check_width(x, "d_in", self.weight.shape[1])
        return F.linear(x, self.weight, self.bias)  # x @ W.T + b, the sum inside the product


class Embedding(Layer):
    """Row ``id`` of a table: ids (…) → vectors (…, d_model).

    The same as a one-hot vector times ``weight`` (vocab_size, d_model), without the products by 0.
    Entries start as a normal of deviation 1 cut at ±3.

    Raises:
        ValueError: sizes below 1; ids that are not integers or lie outside the vocabulary.
    """

    no_decay: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__(vocab_size=vocab_size, d_model=d_model)
        check_at_least(1, vocab_size=vocab_size, d_model=d_model)
        self.weight = _truncated_normal(1.0, vocab_size, d_model)

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch d_model"]:
        """Look up (…) → (…, d_model)."""
        check_integers("ids", ids)
        try:
            return F.embedding(ids.long(), self.weight)  # weight[ids] with a faster gradient
        except IndexError:  # the kernel looks at the values; only when it refuses them do we
            check_ids(ids, len(self.weight))
            raise
