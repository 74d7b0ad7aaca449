"""Drawings, chapter 20: what a table of losses is made of."""

from collections.abc import Mapping, Sequence

import numpy as np

from llmtutor.viz.diagrams.language import matrix, number
from llmtutor.viz.diagrams.shapes import Drawing, column, named


def draw_layout(losses: Mapping[str, Sequence[float]]) -> Drawing:
    """Losses of options (rows) with seeds (columns): the rows' means, the seeds' shares, the rest.

    What is left over when both are taken away is the noise of each run.
    """
    names, table = list(losses), np.array([*losses.values()])
    means = table.mean(axis=1, keepdims=True)
    shares = table.mean(axis=0, keepdims=True) - table.mean()
    rest = table - means - shares
    seeds = [str(seed) for seed in range(table.shape[1])]
    shape = column(
        named(
            matrix(table, "value", digits=3, rows=names, columns=seeds),
            "losses: a row an option, a column a seed",
        ),
        named(matrix(means, "key", digits=3, rows=names), "= the option's mean"),
        named(matrix(shares, "query", digits=3, columns=seeds), "+ the seed's share, in each row"),
        named(matrix(rest, "state", digits=3, rows=names), "+ noise: what is left"),
        gap=12,
    )
    said = "; ".join(
        f"{name} {number(float(m), 3)}, left over {', '.join(number(float(r), 3) for r in left)}"
        for name, m, left in zip(names, means[:, 0], rest, strict=True)
    )
    return Drawing(
        shape,
        "A table of losses and what it is made of",
        f"Each loss is its row's mean, plus its seed's share "
        f"({', '.join(number(float(s), 3) for s in shares[0])}), plus noise. Means: {said}.",
    )
