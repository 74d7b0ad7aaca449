"""Chapter 02, mixtures: several sources in one training run, each with a weight of its own.

A weight is the share of the training tokens that come from a source, whatever its size. Together
with the size it says how often the source is read.
"""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Int64
from torch import Tensor

from llmtutor.checks import check_at_least
from llmtutor.data.batches import Ids, random_batches


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights, scaled so that they add up to one.

    >>> shares({"web": 3, "books": 1})
    {'web': 0.75, 'books': 0.25}

    Raises `ValueError` for a negative weight, or if none is positive.
    """
    total = sum(weights.values())
    if not total > 0 or min(weights.values()) < 0:
        raise ValueError(
            f"expected weights of which none is negative and one is positive, got {dict(weights)}"
        )
    return {name: weight / total for name, weight in weights.items()}


def tempered(sizes: Mapping[str, int], power: float) -> dict[str, float]:
    """Weights between "as large as it is" (power 1) and "all alike" (power 0).

    >>> tempered({"web": 900, "books": 100}, 0.5)
    {'web': 0.75, 'books': 0.25}
    """
    return shares({name: size**power for name, size in sizes.items()})


def epochs(
    sizes: Mapping[str, int], weights: Mapping[str, float], budget: float
) -> dict[str, float]:
    """How often each source is read while `budget` tokens are drawn.

    >>> epochs({"web": 900, "books": 100}, {"web": 0.6, "books": 0.4}, budget=750)
    {'web': 0.5, 'books': 3.0}

    Raises `ValueError` for a source without a size, or of size 0.
    """
    share = shares(weights)
    _check_same(sizes, weights, "size")
    check_at_least(1, **{f"tokens in {name}": sizes[name] for name in weights})
    return {name: share[name] * budget / sizes[name] for name in weights}


def mixed_batches(
    sources: Mapping[str, Ids],
    weights: Mapping[str, float],
    batch_size: int,
    seq_len: int,
    *,
    generator: torch.Generator,
) -> Iterator[tuple[Int64[Tensor, "batch seq"], Int64[Tensor, "batch seq"]]]:
    """Endless batches; each row draws its source by weight, then a window of it.

    Inputs and targets are those of `random_batches`, whose errors it raises as well, beside a
    `ValueError` for weights that are not for these sources.
    """
    share = shares(weights)
    _check_same(sources, weights, "text")
    check_at_least(1, batch_size=batch_size)
    names = list(weights)
    bounds = torch.tensor([share[name] for name in names], dtype=torch.float64).cumsum(0)
    rows = [random_batches(sources[name], 1, seq_len, generator=generator) for name in names]

    def batch() -> tuple[Tensor, Tensor]:
        drawn = torch.rand(batch_size, generator=generator, dtype=torch.float64)
        # The last bound is 1 but for rounding; nothing may fall behind it.
        of_row = torch.searchsorted(bounds[:-1], drawn, right=True)
        pairs = [next(rows[i]) for i in of_row.tolist()]
        inputs, targets = zip(*pairs, strict=True)
        return torch.cat(inputs), torch.cat(targets)

    return (batch() for _ in iter(int, 1))


def _check_same(found: Mapping[str, object], weights: Mapping[str, float], what: str) -> None:
    if found.keys() != weights.keys():
        raise ValueError(
            f"expected a {what} and a weight for each source, got {what}s for "
            f"{sorted(found)} and weights for {sorted(weights)}"
        )
