"""Chapter 20, comparison: the table for somebody who chooses, a row for each option.

Quality is what the runs of one size say, cost what was timed beside the baseline. What is not there
yet is an empty cell, so that the table can be read at any time.
"""

from collections.abc import Mapping, Sequence

from llmtutor.evaluate.pairs import PairScore
from llmtutor.experiments.choosing.cost import Ratio
from llmtutor.experiments.choosing.options import OPTIONS
from llmtutor.experiments.choosing.verdicts import (
    BASELINE,
    TWIN,
    Finding,
    baseline_loss,
    compute_factor,
    findings,
    losses,
    pairs,
    slope,
)
from llmtutor.experiments.study import Record

COLUMNS = (
    "option",
    "group",
    "what differs",
    "parameters",
    "active",
    "operations",
    "bits per byte",
    "gap",
    "verdict",
    "worth, in compute",
    "worth / operations",
    "minimal pairs",
    "training",
    "decoding",
    "cache",
    "peak memory",
)
TIMED = (
    "train_tokens_per_second",
    "decode_tokens_per_second",
    "cache_bytes",
    "peak_bytes",
)
"""The last columns, as factors of the baseline's."""


def overview(
    record: Record, costs: Mapping[str, Mapping[str, Ratio]], size: str
) -> list[tuple[str, ...]]:
    """Rows of COLUMNS for all options that were compared at a size, the baseline first.

    A gap comes with its 95 % interval, as do pairs and what is timed. "Worth" is the factor of
    compute that would bring the baseline there, "operations" the factor that the option takes.
    """
    by_option, found = losses(record, size), findings(record, size)
    scores, per_e = pairs(record, size), slope(record, size)
    sizes = {
        run["settings"]["option"]: run["result"]
        for run in record.runs
        if run["settings"]["size"] == size and "n_params" in run["result"]
    }
    rows = []
    for name in by_option:
        if name == TWIN or (name != BASELINE and name not in found):
            continue
        own = [*by_option[name].values()]
        spent = sizes[name]["train_flops"] / sizes[BASELINE]["train_flops"]
        loss = baseline_loss(by_option) if name == BASELINE else sum(own) / len(own)
        rows.append(
            (
                name,
                OPTIONS[name].group if name in OPTIONS else "",
                OPTIONS[name].says if name in OPTIONS else "",
                f"{sizes[name]['n_params']:,}",
                f"{sizes[name]['n_active']:,}",
                f"{spent:.2f}",
                f"{loss:.3f}",
                *_quality(found.get(name), per_e, spent),
                _accuracy(scores.get(name)),
                *_cost(costs.get(name)),
            )
        )
    return rows


def span(low: float, high: float, form: str) -> str:
    """An interval that no end of a line cuts in two.

    >>> span(0.5, 1, ".1f").replace("\N{NO-BREAK SPACE}", "_")
    '[0.5,_1.0]'
    """
    return f"[{low:{form}},\N{NO-BREAK SPACE}{high:{form}}]"


def _quality(finding: Finding | None, per_e: float | None, spent: float) -> Sequence[str]:
    if finding is None:
        return "", "", "", ""
    gap, worth, price = finding.gap, "", ""
    low, high = gap.interval
    if per_e is not None:
        factor, most, least = (compute_factor(d, per_e) for d in (gap.difference, low, high))
        worth, price = f"{factor:.2f} {span(least, most, '.2f')}", f"{factor / spent:.2f}"
    return f"{gap.difference:+.3f} {span(low, high, '+.3f')}", finding.verdict, worth, price


def _accuracy(score: PairScore | None) -> str:
    if score is None:
        return ""
    low, high = score.interval
    return f"{score.accuracy:.1%} {span(low, high, '.1%')}"


def _cost(ratios: Mapping[str, Ratio] | None) -> list[str]:
    if ratios is None:
        return len(TIMED) * [""]
    cells = []
    for figure in TIMED:
        low, high = ratios[figure].interval
        exact = high - low < 1e-9
        cells.append(f"{ratios[figure].mean:.2f}" + ("" if exact else f" {span(low, high, '.2f')}"))
    return cells
