"""Sphinx extension of this book: tables made from recorded measurements, so none is typed.

```{benchmark} tokenizer
```

shows ``data/results/bench-tokenizer.json``: the time of each work by each implementation, as
median, least and most over the rounds, and the ratio of the medians to the first one, the peer.
"""

import json
from pathlib import Path
from statistics import median

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).resolve().parents[2] / "data" / "results"
HEAD = ("work", "by", "median", "least", "most", "ratio")


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


def _duration(seconds: float) -> str:
    """Two digits behind the point from 0.2 s on, milliseconds below.

    >>> _duration(0.784), _duration(0.0847)
    ('0.78 s', '85 ms')
    """
    return f"{seconds:.2f} s" if seconds >= 0.2 else f"{1000 * seconds:.0f} ms"


class Benchmark(SphinxDirective):
    """Renders one recorded benchmark."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The sentence on where it was measured, and the table."""
        path = RESULTS / f"bench-{self.arguments[0]}.json"
        if not path.is_file():
            raise self.error(f"{path.name} is not recorded: run benchmarks/{self.arguments[0]}.py")
        self.env.note_dependency(str(path))
        result = json.loads(path.read_text(encoding="utf-8"))
        machine, versions = result["machine"], result["versions"]
        text = (
            f"Measured on {result['date']} on {machine['cores']} cores ({machine['cpu']}, "
            f"{machine['system']}) with "
            + ", ".join(f"{name} {version}" for name, version in versions.items())
            + "."
        )
        return [nodes.paragraph(text, text), _table([HEAD, *rows(result["seconds"])])]


def _table(lines: list[tuple[str, ...]]) -> nodes.table:
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in HEAD), cols=len(HEAD))
    made = [
        nodes.row("", *(nodes.entry("", nodes.paragraph(cell, cell)) for cell in line))
        for line in lines
    ]
    group += [nodes.thead("", made[0]), nodes.tbody("", *made[1:])]
    return nodes.table("", group)


def setup(app: Sphinx) -> dict[str, object]:
    """Called by Sphinx."""
    app.add_directive("benchmark", Benchmark)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
