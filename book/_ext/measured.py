"""Recorded measurements as rows of a table and as bars; ``benchmarks.py`` puts them on pages."""

from collections.abc import Sequence
from html import escape
from statistics import mean, median
from typing import Any

Bar = tuple[str, float, str]
"""A label, a length, and the words at its end."""


def bars(
    groups: Sequence[tuple[str, Sequence[Bar]]], caption: str, *, with_peer: bool = False
) -> str:
    """Groups of bars as an HTML table; ``with_peer``, the first of each group is grey.

    Raises:
        ValueError: a length that is negative, or nothing longer than zero.
    """
    lengths = [length for _, group in groups for _, length, _ in group]
    if min(lengths) < 0 or not (longest := max(lengths)) > 0:
        raise ValueError(f"expected lengths of at least 0, one of them above, got {lengths}")
    body = ""
    for title, group in groups:
        if title:
            body += f'<tr><th colspan="2" scope="rowgroup">{escape(title)}</th></tr>'
        for i, (label, length, words) in enumerate(group):
            kind = "lt-bar lt-peer" if with_peer and i == 0 else "lt-bar"
            body += (
                f'<tr><th scope="row">{escape(label)}</th><td><span class="{kind}" '
                f'style="width:{62 * length / longest:.1f}%"></span> {escape(words)}</td></tr>'
            )
    return f'<table class="lt-bars"><caption>{escape(caption)}</caption>{body}</table>'


def time_bars(seconds: dict[str, dict[str, list[float]]]) -> list[tuple[str, list[Bar]]]:
    """For each work, the median time of each implementation as a part of the first one's.

    >>> time_bars({"encode_text": {"peer": [2.0], "ours": [1.5]}})
    [('encode text', [('peer', 1.0, '1.00'), ('ours', 0.75, '0.75')])]
    """
    groups = []
    for work, times in seconds.items():
        peer = median(next(iter(times.values())))
        parts = {name: median(values) / peer for name, values in times.items()}
        group = [(name, part, f"{part:.2f}") for name, part in parts.items()]
        groups.append((work.replace("_", " "), group))
    return groups


def loss_bars(losses: dict[str, list[float]]) -> list[tuple[str, list[Bar]]]:
    """How much higher than the first run's each mean loss is, in one group.

    >>> loss_bars({"nothing": [1.5, 1.7], "Muon": [1.9]})[0][1][1]
    ('Muon', 0.3, '+0.300')
    """
    first = mean(next(iter(losses.values())))
    above = {name: mean(values) - first for name, values in losses.items()}
    group = [(name, round(max(0.0, more), 6), f"{more:+.3f}") for name, more in above.items()]
    return [("", group)]


def growth_bars(
    growth: dict[str, dict[str, tuple[float, float, float]]],
) -> list[tuple[str, list[Bar]]]:
    """By how much a token takes longer in the longer text, for each kind of decoding with a cache.

    Without one it takes several times as long, and beside that nothing else would be seen.
    """
    groups = []
    for work, kinds in growth.items():
        with_cache = {kind: parts[0] for kind, parts in kinds.items() if kind != "uncached"}
        group = [(kind, max(0.0, more), f"{more:+.1%}") for kind, more in with_cache.items()]
        groups.append((work.replace("_", " "), group))
    return groups


def byte_bars(counted: dict[str, int]) -> list[tuple[str, list[Bar]]]:
    """Numbers of bytes in one group."""
    return [("", [(name, float(value), f"{value:,}") for name, value in counted.items()])]


def rows(seconds: dict[str, dict[str, list[float]]]) -> list[tuple[str, ...]]:
    """One row for each implementation of each work; times in seconds.

    >>> rows({"encode": {"peer": [2.0, 4.0, 3.0], "ours": [1.5]}})[1]
    ('encode', 'ours', '1.50 s', '1.50 s', '1.50 s', '0.50')
    """
    table = []
    for work, times in seconds.items():
        peer = median(next(iter(times.values())))
        for name, values in times.items():
            middle = median(values)
            shown = [_duration(value) for value in (middle, min(values), max(values))]
            table.append((work.replace("_", " "), name, *shown, f"{middle / peer:.2f}"))
    return table


def loss_rows(losses: dict[str, list[float]]) -> list[tuple[str, ...]]:
    """One row for each run; losses in nats per token.

    >>> loss_rows({"nothing": [1.5, 1.7], "Muon": [1.9]})[1]
    ('Muon', '1.900', '1.900', '1.900', '+0.300')
    """
    first = mean(next(iter(losses.values())))
    return [
        (
            name,
            *(f"{value:.3f}" for value in (mean(values), min(values), max(values))),
            f"{mean(values) - first:+.3f}",
        )
        for name, values in losses.items()
    ]


def growth_rows(
    works: dict[str, dict[str, dict[str, list[float]]]],
    growth: dict[str, dict[str, tuple[float, float, float]]],
) -> list[tuple[str, ...]]:
    """Head, and one row for each kind of decoding of each work: medians, and the recorded growth.

    >>> times = {"gpt2_batch_1": {"cached": {"64": [0.001], "512": [0.00107]}}}
    >>> growth_rows(times, {"gpt2_batch_1": {"cached": (0.07, 0.05, 0.11)}})[1]
    ('gpt2 batch 1', 'cached', '1.00 ms', '1.07 ms', '+7.0% (+5.0 to +11.0)')
    """
    kinds = [(work, kind, times) for work, of in works.items() for kind, times in of.items()]
    table: list[tuple[str, ...]] = [
        ("work", "by", *(f"at {length} tokens" for length in kinds[0][2]), "growth (95 %)")
    ]
    for work, kind, times in kinds:
        shown = [f"{1000 * median(values):.2f} ms" for values in times.values()]
        middle, low, high = growth[work][kind]
        grown = f"{middle:+.1%} ({100 * low:+.1f} to {100 * high:+.1f})"
        table.append((work.replace("_", " "), kind, *shown, grown))
    return table


def byte_rows(counted: dict[str, int]) -> list[tuple[str, ...]]:
    """One row for each number of bytes.

    >>> byte_rows({"all heads": 4096, "one head": 1024})[1]
    ('one head', '1,024', '0.25')
    """
    first = next(iter(counted.values()))
    return [(name, f"{value:,}", f"{value / first:.2f}") for name, value in counted.items()]


def _duration(seconds: float) -> str:
    """Two digits behind the point from 0.2 s on, milliseconds below.

    >>> _duration(0.784), _duration(0.0847)
    ('0.78 s', '85 ms')
    """
    return f"{seconds:.2f} s" if seconds >= 0.2 else f"{1000 * seconds:.0f} ms"


def gpu_sentence(record: dict[str, Any]) -> str:
    """What a part found, where and when; or what went wrong.

    >>> record = {"date": "2026-01-31", "device": "H100", "versions": {"torch": "2.11"}}
    >>> gpu_sentence({**record, "ok": True, "summary": "36 of 36 models agree"})
    'Measured on 2026-01-31 on H100 with torch 2.11: 36 of 36 models agree.'
    """
    found = [record[key] for key in ("summary", "error") if key in record]
    where = f"on {record['date']} on {record['device']} with torch {record['versions']['torch']}"
    return f"{'Measured' if record['ok'] else 'Not as it should be,'} {where}: {'; '.join(found)}."
