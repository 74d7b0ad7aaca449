"""Sphinx extension of this book: recorded measurements, as a picture and as a folded table.

```{benchmark} tokenizer
```

shows ``data/results/bench-tokenizer.json``: the time of each work by each implementation as a part
of the first one's, the peer; folded, the median, least and most over the rounds.

```{losses} speedrun left_out
```

shows the losses under the key ``left_out`` of ``bench-speedrun.json``: how far the mean over the
seeds of each run lies above that of the first one; folded, the mean, least and most.

```{growth} generation
```

shows how much longer a token takes in a long text than in a short one, from
``seconds_per_token`` of ``bench-generation.json``, and

```{bytes} generation cache_bytes
```

shows numbers of bytes under the key ``cache_bytes``, with their ratio to the first one.

```{gpu} parity
What was asked.
```

says what is recorded in ``gpu-parity.json`` below its words, or nothing: there it takes a GPU.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measured
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).resolve().parents[2] / "data" / "results"
HEAD = ("work", "by", "median", "least", "most", "ratio")
LOSS_HEAD = ("run", "mean loss", "least", "most", "difference")
BYTES_HEAD = ("what", "bytes", "ratio")


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
        """The bars; folded, where it was measured and the table."""
        result = self.result()
        machine, versions = result["machine"], result["versions"]
        text = (
            f"Measured on {result['date']} on {machine['cores']} cores ({machine['cpu']}, "
            f"{machine['system']}) with "
            + ", ".join(f"{name} {version}" for name, version in versions.items())
            + "."
        )
        peer = next(iter(next(iter(result["seconds"].values()))))
        return [
            _html(
                measured.bars(
                    measured.time_bars(result["seconds"]),
                    f"Time as a part of that of {peer}; a shorter bar is faster",
                    with_peer=True,
                )
            ),
            *_folded(
                "All times, and where they were measured",
                nodes.paragraph(text, text),
                _table([HEAD, *measured.rows(result["seconds"])]),
            ),
        ]


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
        """The bars and the folded table; two runs are a table alone."""
        losses = self.part()
        table = _table([LOSS_HEAD, *measured.loss_rows(losses)])
        if len(losses) == 2:
            return [table]
        caption = f"Loss above that of “{next(iter(losses))}”, in nats; a longer bar is worse"
        picture = measured.bars(measured.loss_bars(losses), caption)
        return [_html(picture), *_folded("All losses", table)]


class Bytes(Part):
    """Renders numbers of bytes of one recorded benchmark."""

    def run(self) -> list[nodes.Node]:
        """The bars and the folded table."""
        counted = self.part()
        table = _table([BYTES_HEAD, *measured.byte_rows(counted)])
        picture = measured.bars(measured.byte_bars(counted), "Bytes")
        return [_html(picture), *_folded("As parts of the first", table)]


class Growth(Recorded):
    """Renders the time per token of one recorded benchmark."""

    def run(self) -> list[nodes.Node]:
        """The bars and the folded table."""
        result = self.result()
        picture = measured.bars(
            measured.growth_bars(result["growth"]),
            "How much longer a token takes after 512 tokens than after 64, with a cache",
        )
        table = _table(measured.growth_rows(result["seconds_per_token"], result["growth"]))
        return [_html(picture), *_folded("All times, with and without a cache", table)]


class Gpu(SphinxDirective):
    """Renders one part of ``benchmarks/gpu.py``, where it was measured."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """What was asked, what was found, and the table that the part has made."""
        path = RESULTS / f"gpu-{self.arguments[0]}.json"
        if not path.is_file():
            return []
        self.env.note_dependency(str(path))
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        said = nodes.paragraph("", measured.gpu_sentence(record))
        table = [_table(record["table"])] if "table" in record else []
        return [*self.parse_content_to_nodes(), said, *table]


def _html(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


def _folded(title: str, *inside: nodes.Node) -> list[nodes.Node]:
    """Behind a line to open, where the page is HTML; elsewhere as it is."""
    opened = _html(f"<details><summary>{title}</summary>")
    return [opened, *inside, _html("</details>")]


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
