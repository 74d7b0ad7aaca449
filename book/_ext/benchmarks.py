"""Sphinx extension of this book: tables made from recorded measurements, so none is typed.

```{benchmark} tokenizer
```

shows ``data/results/bench-tokenizer.json``: the time of each work by each implementation, as
median, least and most over the rounds, and the ratio of the medians to the first one, the peer.

```{losses} speedrun left_out
```

shows the losses under the key ``left_out`` of ``bench-speedrun.json``: the mean, least and most
over the seeds of each run, and the difference of its mean to that of the first one.

```{growth} generation
```

shows how long a token takes in a short text and in a long one, from ``seconds_per_token`` of
``bench-generation.json``, and

```{bytes} generation cache_bytes
```

shows numbers of bytes under the key ``cache_bytes``, with their ratio to the first one.

```{gpu} parity
```

says what is recorded in ``gpu-parity.json``, or that nothing is: there it takes a GPU.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).resolve().parents[2] / "data" / "results"
HEAD = ("work", "by", "median", "least", "most", "ratio")
LOSS_HEAD = ("run", "mean loss", "least", "most", "difference")
NOT_MEASURED = "Not measured yet."
BYTES_HEAD = ("heads of keys and values", "bytes", "ratio")


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


class Recorded(SphinxDirective):
    """A directive whose first argument names a recorded benchmark."""

    required_arguments = 1

    def result(self) -> dict[str, Any]:
        """What was recorded; the page is made again when that changes."""
        path = RESULTS / f"bench-{self.arguments[0]}.json"
        if not path.is_file():
            raise self.error(f"{path.name} is not recorded: run benchmarks/{self.arguments[0]}.py")
        self.env.note_dependency(str(path))
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content


class Benchmark(Recorded):
    """Renders the times of one recorded benchmark."""

    def run(self) -> list[nodes.Node]:
        """The sentence on where it was measured, and the table."""
        result = self.result()
        machine, versions = result["machine"], result["versions"]
        text = (
            f"Measured on {result['date']} on {machine['cores']} cores ({machine['cpu']}, "
            f"{machine['system']}) with "
            + ", ".join(f"{name} {version}" for name, version in versions.items())
            + "."
        )
        return [nodes.paragraph(text, text), _table([HEAD, *rows(result["seconds"])])]


class Part(Recorded):
    """A directive that shows what is recorded under one key, its second argument."""

    required_arguments = 2

    def part(self) -> Any:
        """The part of the record."""
        result, key = self.result(), self.arguments[1]
        if key not in result:
            raise self.error(f"no {key!r} in the record; there are {', '.join(result)}")
        return result[key]


class Losses(Part):
    """Renders losses of one recorded benchmark."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        return [_table([LOSS_HEAD, *loss_rows(self.part())])]


class Bytes(Part):
    """Renders numbers of bytes of one recorded benchmark."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        return [_table([BYTES_HEAD, *byte_rows(self.part())])]


class Growth(Recorded):
    """Renders the time per token of one recorded benchmark."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        result = self.result()
        return [_table(growth_rows(result["seconds_per_token"], result["growth"]))]


class Gpu(SphinxDirective):
    """Renders one part of ``benchmarks/gpu.py``, where it was measured."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A sentence, and the table that the part has made."""
        path = RESULTS / f"gpu-{self.arguments[0]}.json"
        if not path.is_file():
            return [nodes.paragraph("", NOT_MEASURED)]
        self.env.note_dependency(str(path))
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        said = nodes.paragraph("", gpu_sentence(record))
        return [said, *([_table(record["table"])] if "table" in record else [])]


def gpu_sentence(record: dict[str, Any]) -> str:
    """What a part found, where and when; or what went wrong.

    >>> record = {"date": "2026-01-31", "device": "H100", "versions": {"torch": "2.11"}}
    >>> gpu_sentence({**record, "ok": True, "summary": "36 of 36 models agree"})
    'Measured on 2026-01-31 on H100 with torch 2.11: 36 of 36 models agree.'
    """
    found = [record[key] for key in ("summary", "error") if key in record]
    where = f"on {record['date']} on {record['device']} with torch {record['versions']['torch']}"
    return f"{'Measured' if record['ok'] else 'Not as it should be,'} {where}: {'; '.join(found)}."


def _table(lines: Sequence[Sequence[str]]) -> nodes.table:
    columns = [nodes.colspec(colwidth=1) for _ in lines[0]]
    group = nodes.tgroup("", *columns, cols=len(columns))
    made = [
        nodes.row("", *(nodes.entry("", nodes.paragraph(cell, cell)) for cell in line))
        for line in lines
    ]
    group += [nodes.thead("", made[0]), nodes.tbody("", *made[1:])]
    return nodes.table("", group)


def setup(app: Sphinx) -> dict[str, object]:
    """Called by Sphinx."""
    app.add_directive("benchmark", Benchmark)
    app.add_directive("losses", Losses)
    app.add_directive("growth", Growth)
    app.add_directive("bytes", Bytes)
    app.add_directive("gpu", Gpu)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
