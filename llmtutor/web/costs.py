"""Chapter 09, the transformer: what the widget Cost begins with, and what stands in its place.

Its numbers on a page come from ``page/costs.js``; the recorded example has those of
``model.accounting``.
"""

import json
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Context
from html import escape
from types import MappingProxyType
from typing import Any

import torch

from llmtutor.checks import check_name
from llmtutor.model.accounting import Parameters, cache_bytes, parameters, token_flops
from llmtutor.model.config import ModelConfig
from llmtutor.model.published import PUBLISHED
from llmtutor.web import cost_words as words
from llmtutor.web.cost_sizes import cost_sizes

NAMES = (
    *("gpt2", "llama2-7b", "llama3-8b", "llama3.2-1b", "mistral-7b", "qwen3-0.6b"),
    *("gemma2-2b", "gemma3-1b", "mixtral-8x7b", "qwen3-30b-a3b", "gpt-oss-20b"),
    *("deepseek-v2-lite", "deepseek-v3"),
)
STARTS: Mapping[str, ModelConfig] = MappingProxyType(
    {
        "staircase": ModelConfig.uniform(1024, 256, 6, 192, 6, 512, tie_weights=False),
        **{name: PUBLISHED[name] for name in NAMES},
    }
)
"""Models to begin with: the last rung of the book's staircase, then published ones."""
OPTIONS: Mapping[str, Any] = MappingProxyType(
    {"start": "llama3-8b", "show": "transformer", "seq": 8192}
)
"""What the widget begins with, where nothing else is said: a model of ``STARTS``; the sizes that
stand first, those of "transformer", "gqa", "mla" or "moe"; tokens of the text, a power of two."""


def cost_script() -> str:
    """A script with what the widget needs to know: sizes of all ``STARTS``, and words."""
    values = {
        "models": {name: cost_sizes(config) for name, config in STARTS.items()},
        "sizes": words.SIZES,
        "first": words.FIRST,
        "parts": words.PARTS,
        "rows": words.ROWS,
        "legend": words.LEGEND,
        "units": {name: list(units.items()) for name, units in words.UNITS.items()},
        "weights": words.WEIGHTS,
        "caches": words.CACHES,
    }
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return f"(globalThis.LLMTutor ??= {{}}).costData = {text};\n"


def recorded_cost(options: Mapping[str, Any]) -> str:
    """What the widget shows when it starts with ``options``, as HTML.

    Raises:
        ValueError: an unknown option or value (with the nearest one), a text that is no power of
            two, or longer than the table of positions.
    """
    for name in options:
        check_name("option of the widget", name, OPTIONS)
    given = {**OPTIONS, **options}
    check_name("model to begin with", given["start"], STARTS)
    check_name("sizes to show", given["show"], words.FIRST)
    config = STARTS[given["start"]]
    seq = length(config, options.get("seq"))
    costs = _table(
        f"{given['start']} with a text of {seq:,} tokens",
        ("cost", "now"),
        list(zip(_labels(), _costs(config, seq), strict=True)),
    )
    columns = ("part", "share", "parameters")
    where = _table("Where the parameters sit", columns, _shares(parameters(config)))
    legend = f'<p class="lt-legend">{escape(words.LEGEND)}</p>'
    return f'<div class="lt-costs">\n{costs}\n{where}\n</div>\n{legend}'


def length(config: ModelConfig, seq: int | None = None) -> int:
    """``seq``, or as many tokens as the widget begins with: 8,192, or what fits into fewer.

    Raises:
        ValueError: no power of two from 64 to 1,048,576.
    """
    if seq is None:
        return min(int(OPTIONS["seq"]), 1 << (config.max_seq_len.bit_length() - 1))
    if seq not in [2**k for k in range(6, 21)]:
        raise ValueError(f"seq must be a power of two from 64 to 1,048,576, got {seq!r}")
    if config.position is not None and seq > config.max_seq_len:
        raise ValueError(
            f"seq must be at most {config.max_seq_len}, got {seq}: it has no more positions"
        )
    return seq


def _costs(config: ModelConfig, seq: int) -> list[str]:
    """The values of ``ROWS``, with bfloat16 where a reader could choose."""
    longer = config.replace(max_seq_len=seq) if seq > config.max_seq_len else config
    found = parameters(config)
    return [
        readable(found.total, words.COUNTS),
        readable(found.active, words.COUNTS),
        readable(token_flops(longer, seq), words.FLOPS),
        readable(cache_bytes(longer, 1, seq, torch.bfloat16), words.BYTES),
        readable(2 * found.total, words.BYTES),
        readable(16 * found.total, words.BYTES),
    ]


def _shares(found: Parameters) -> list[tuple[str, str, str]]:
    """Of each part that there is: name, share of all, count."""
    counts = [
        *(found.embedding, found.position, found.mixers),
        *(found.ffns - found.idle, found.idle, found.norms, found.head),
    ]
    return [
        (name, _percent(count / found.total), readable(count, words.COUNTS))
        for name, count in zip(words.PARTS.values(), counts, strict=True)
        if count
    ]


def _labels() -> list[str]:
    return [f"{row}, bfloat16" if row in ("KV cache", "weights") else row for row in words.ROWS]


def readable(number: int, units: Mapping[str, int]) -> str:
    """Three digits and a unit; a half goes up, as in JavaScript.

    >>> from llmtutor.web.cost_words import BYTES, COUNTS
    >>> readable(8_030_261_248, COUNTS), readable(2**20 + 2**17, BYTES), readable(512, BYTES)
    ('8.03 B', '1.13 MiB', '512 bytes')
    """
    unit, size = next(((u, s) for u, s in units.items() if number >= s), [*units.items()][-1])
    digits = Context(prec=3, rounding=ROUND_HALF_UP)
    return f"{float(digits.create_decimal_from_float(number / size)):,g}{unit}"


def _percent(share: float) -> str:
    """As ``percent`` of kit.js."""
    return "< 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """As ``table`` of kit.js makes them."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<table class="lt-table"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"
    )
