"""Chapter 09, the transformer: a configuration in a few lines, what repeats said once.

Nothing here knows the parts: what is shown are the fields of their configurations, and what they
say that they cost.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from itertools import groupby
from typing import Any

import torch

from llmtutor.layers.part import Part
from llmtutor.layers.registry import PARTS
from llmtutor.model.accounting import cache_bytes, parameters, token_flops
from llmtutor.model.block import ROLES, BlockConfig
from llmtutor.model.config import ModelConfig

ALWAYS = ("activation", "base", "d_state", "eps", "expand", "n_experts", "top_k")
"""Fields that are shown also where they have their default."""
ABSENT = object()
DTYPE = torch.bfloat16
"""Of the numbers in the cache."""
LARGE = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}
BYTES = {" GiB": 2**30, " MiB": 2**20, " KiB": 2**10, " bytes": 1}


def pattern(labels: Sequence[str]) -> str:
    """What is repeated, and how often: the shortest piece that is there twice, then the rest.

    >>> pattern(["near", "near", "far"] * 3 + ["near"])
    '3 × (2 × near, 1 × far), 1 × near'
    """
    n = len(labels)
    period = next(
        p for p in range(1, n + 1) if all(a == labels[i % p] for i, a in enumerate(labels))
    )
    times = n // period
    if times < 2 or period == 1:
        return _runs(labels)
    rest = labels[times * period :]
    return f"{times} × ({_runs(labels[:period])})" + (f", {_runs(rest)}" if rest else "")


def _runs(labels: Sequence[str]) -> str:
    return ", ".join(f"{len(list(group))} × {label}" for label, group in groupby(labels))


def block_labels(blocks: Sequence[BlockConfig]) -> list[str]:
    """For each block what tells it apart from the others; "block" where they are all alike.

    >>> from llmtutor.model.presets import preset
    >>> block_labels(preset("gemma2-2b", n_layers=3).blocks)
    ['window 4,096', 'full', 'window 4,096']
    """
    kinds = {block: block.to_dict() for block in blocks}
    places = sorted(_differing(list(kinds.values())), key=lambda p: not p.endswith(".window"))
    labels = {}
    for block, values in kinds.items():
        found = [(place, _find(values, place)) for place in places]
        phrases = [_phrase(place, value) for place, value in found if value is not ABSENT]
        first, *others = phrases or ["block"]
        labels[block] = first + (f" ({', '.join(others)})" if others else "")
    return [labels[block] for block in blocks]


def _differing(values: Sequence[Any], place: str = "") -> list[str]:
    """Places of what tells values apart, "mixer.position.base"; of parts their kind comes first."""
    by_kind: dict[str, list[Any]] = {}
    for value in values:
        kind = value.get("kind", "block") if isinstance(value, Mapping) else repr(value)
        by_kind.setdefault(kind, []).append(value)
    found = [place] if len(by_kind) > 1 else []
    for alike in by_kind.values():
        for name in alike[0] if isinstance(alike[0], Mapping) else ():
            inside = [value[name] for value in alike]
            found += _differing(inside, f"{place}.{name}" if place else name)
    return list(dict.fromkeys(found))


def _find(values: Any, place: str) -> Any:
    """What stands at a place; ``ABSENT`` where a part has no such field."""
    for name in place.split("."):
        values = values.get(name, ABSENT) if isinstance(values, Mapping) else ABSENT
    return values


def _phrase(path: str, value: Any) -> str:
    """ "mixer.window", 512 → "window 512"."""
    name = path.rpartition(".")[2]
    if name == "window" and value is None:
        return "full"
    if isinstance(value, Mapping):
        return str(value["kind"]) if name == path else f"{name} {value['kind']}"
    if value is None or value is False:
        return f"no {name}"
    return name if value is True else f"{name} {_number(value)}"


def _number(value: Any) -> str:
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and value >= 1):
        return f"{int(value):,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def part_lines(blocks: Sequence[BlockConfig]) -> list[tuple[str, str]]:
    """The parts of the blocks by role, with their fields but for what ``block_labels`` says.

    >>> from llmtutor.model.presets import preset
    >>> part_lines(preset("gpt2").blocks)[1]
    ('ffn', 'mlp: d_ff 3,072, activation gelu_tanh, bias')
    """
    differ = _differing([block.to_dict() for block in dict.fromkeys(blocks)])
    lines: dict[tuple[str, str], None] = {}
    for block in dict.fromkeys(blocks):
        for role in ROLES:
            text = _part(block.to_dict()[role], f"{role}.", differ)
            if role == "norm":
                text += f" ({block.norm_placement})"
            lines[role, text] = None
    return list(lines)


def _part(values: Mapping[str, Any], place: str = "", skip: Collection[str] = ()) -> str:
    """ "attention: n_heads 4, position rope (base 10,000)"; without what most models have alike."""
    shown = []
    for name, value in values.items():
        path = f"{place}{name}"
        if name == "kind" or usual(PARTS[values["kind"]], name, value):
            continue
        if isinstance(value, Mapping):
            head, _, inner = _part(value, f"{path}.", skip).partition(": ")
            shown.append(f"{name} {head}" + (f" ({inner})" if inner else ""))
        elif path not in skip:
            shown.append(_phrase(path, value))
    return f"{values['kind']}: {', '.join(shown)}" if shown else str(values["kind"])


def usual(part: Part | type[Part], name: str, value: Any) -> bool:
    """Whether most models have this value in a field of the part, so that it need not be shown."""
    default = next(f.default for f in fields(part) if f.name == name)  # type: ignore[arg-type]
    return bool(value == default) and name not in ALWAYS


def figures(config: ModelConfig) -> dict[str, Any]:
    """Sizes and costs as plain numbers, for programs."""
    counted = parameters(config)
    full = config.max_seq_len
    return {
        "n_layers": config.n_layers,
        "d_model": config.d_model,
        "vocab_size": config.vocab_size,
        "context": full,
        "pattern": pattern(block_labels(config.blocks)),
        "parameters": {"total": counted.total, "active": counted.active},
        "flops_per_token": {"first": token_flops(config, 1), "last": token_flops(config, full)},
        "cache_bytes": {
            "dtype": str(DTYPE).removeprefix("torch."),
            "first": cache_bytes(config, 1, 1, DTYPE),
            "context": cache_bytes(config, 1, full, DTYPE),
        },
    }


def summary(config: ModelConfig) -> list[tuple[str, str]]:
    """Lines for a reader: what each is about, and what it says.

    >>> from llmtutor.model.presets import preset
    >>> dict(summary(preset("gemma2-2b")))["blocks"]
    '13 × (1 × window 4,096, 1 × full)'
    """
    known = figures(config)
    counts, flops, cache = (known[n] for n in ("parameters", "flops_per_token", "cache_bytes"))
    scaled = f", times {config.embedding_scale:.4g}" if config.embedding_scale != 1 else ""
    position = f", {config.position.kind} positions added" if config.position else ""
    matrix = "the embedding's matrix" if config.tie_weights else "a matrix of their own"
    bound = config.logit_softcap
    active = "" if counts["active"] == counts["total"] else f", {counts['active']:,} for a token"
    first, last = (f"{short(flops[n], LARGE, 3)} for the {n}" for n in ("first", "last"))
    kept, most = (short(cache[n], BYTES, 4) for n in ("first", "context"))
    full = f"{config.max_seq_len:,} tokens"
    return [
        ("embedding", f"{config.vocab_size:,} × {config.d_model:,}{scaled}{position}"),
        ("blocks", known["pattern"]),
        *((f"  {role}", text) for role, text in part_lines(config.blocks)),
        ("last norm", "none" if config.norm is None else _part(config.norm.to_dict())),
        ("logits", matrix + (f", bounded by ±{_number(bound)}" if bound else "")),
        ("context", full),
        ("parameters", f"{counts['total']:,}{active}"),
        ("FLOPs", f"{first} token, {last} of {full}"),
        ("cache", f"{kept} for the first token, {most} for {full} ({cache['dtype']})"),
    ]


def short(number: int, units: Mapping[str, float], digits: int) -> str:
    """1_234_567 → "1.23M", 36_864 → "36 KiB"."""
    unit = next((unit for unit, size in units.items() if number >= size), "")
    return f"{number / units.get(unit, 1):.{digits}g}{unit}"
