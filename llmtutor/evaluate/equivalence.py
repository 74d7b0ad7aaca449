"""Chapter 20, comparison: when may one say that two variants are as good as each other?

"Not distinguishable" says that the seeds have shown no difference, which few seeds or noisy ones
never do. To say that there is none worth caring about takes a margin, named before the runs, and a
test that the true difference lies within it.
"""

import math

from scipy import stats

from llmtutor.checks import check_number
from llmtutor.evaluate.compare import Comparison


def equivalence_p(found: Comparison, margin: float) -> float:
    """p-value of "the true difference is ``margin`` or more, on one side or the other".

    Two paired t-tests, one on each side (Schuirmann 1987), of which the larger p counts: below 5 %
    just when the 90 % interval of the difference lies between −margin and margin.

    >>> from llmtutor.evaluate.compare import compare
    >>> near = compare({1: 2.00, 2: 2.11, 3: 1.99}, {1: 2.01, 2: 2.10, 3: 1.99})
    >>> round(equivalence_p(near, 0.05), 4), round(equivalence_p(near, 0.005), 2)
    (0.0065, 0.24)

    Raises:
        ValueError: a margin that is not above 0.
    """
    check_number("margin", margin, above=0)
    inside = margin - abs(found.difference)
    if found.deviation == 0:
        return 0.0 if inside > 0 else 1.0
    error = found.deviation / math.sqrt(found.n_seeds)
    return float(stats.t.sf(inside / error, found.n_seeds - 1))
