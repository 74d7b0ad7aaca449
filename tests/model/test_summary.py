"""What a summary says of blocks that differ, and that what it counts is what is counted."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmtutor.model.accounting import cache_bytes, parameters, token_flops
from llmtutor.model.presets import preset
from llmtutor.model.summary import block_labels, figures, part_lines, pattern, summary

SMALL = preset("llama-nano", n_layers=2)


def unfold(text: str) -> list[str]:
    """The inverse of `pattern`, for labels of one letter."""
    labels: list[str] = []
    for part in text.replace("), ", ")|").split("|"):
        times, _, inner = part.partition(" × (") if " × (" in part else ("1", "", part)
        runs = [run.split(" × ") for run in inner.removesuffix(")").split(", ")]
        labels += int(times) * [label for n, label in runs for _ in range(int(n))]
    return labels


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=14))
def test_a_pattern_says_every_block(labels: list[str]) -> None:
    assert unfold(pattern(labels)) == labels


def test_a_pattern_is_short() -> None:
    assert pattern(26 * ["a"]) == "26 × a"
    assert pattern([*5 * ["w"], "f"] * 22) == "22 × (5 × w, 1 × f)"
    assert pattern(["d", *26 * ["e"]]) == "1 × d, 26 × e"


OTHERS = {
    "ffn": ({"ffn": "gelu"}, ["gated-mlp", "mlp"]),
    "sizes": ({"d_ff": 500}, ["d_ff 344", "d_ff 500"]),
    "window": ({"window": 8}, ["full", "window 8"]),
    "positions": ({"position": "none"}, ["position rope", "position none"]),
    "base": ({"rope_base": 500.5}, ["base 10,000", "base 500.5"]),
    "norms of q and k": ({"qk_norm": "rmsnorm"}, ["no qk_norm", "qk_norm rmsnorm"]),
    "a flag": ({"sinks": True}, ["no sinks", "sinks"]),
    "two things": ({"window": 8, "rope_base": 5.0}, ["full (base 10,000)", "window 8 (base 5)"]),
    "place of the norms": (
        {"norm_placement": "sandwich"},
        ["norm_placement pre", "norm_placement sandwich"],
    ),
    "nothing": ({}, ["block", "block"]),
}


@pytest.mark.parametrize("case", OTHERS)
def test_labels_say_what_tells_blocks_apart(case) -> None:
    changes, labels = OTHERS[case]
    mixed = (SMALL.blocks[0], SMALL.replace(**changes).blocks[0])
    assert block_labels(mixed) == labels
    if case in ("sizes", "window", "base", "a flag", "two things"):
        shown = " ".join(text for _, text in part_lines(mixed))
        assert not any(label.partition(" (")[0] in shown for label in labels)


def test_lines_leave_out_what_is_off() -> None:
    (_, mixer), (_, ffn), (_, norm) = part_lines(preset("mistral-7b").blocks)
    assert mixer == (
        "attention: n_heads 32, n_kv_heads 8, position rope (base 10,000), window 4,096"
    )
    assert (ffn, norm) == ("gated-mlp: d_ff 14,336, activation silu", "rmsnorm: eps 1e-05 (pre)")
    both = part_lines((SMALL.blocks[0], SMALL.replace(ffn="gelu").blocks[0]))
    assert [role for role, _ in both] == ["mixer", "ffn", "norm", "ffn"]


def test_figures_are_those_of_accounting() -> None:
    config = replace(preset("gemma2-2b"), max_seq_len=6000)
    known = figures(config)
    assert known["parameters"]["total"] == parameters(config).total
    assert known["cache_bytes"]["context"] == cache_bytes(config, 1, 6000, torch.bfloat16)
    assert known["flops_per_token"]["last"] == token_flops(config, 6000)
    text = dict(summary(config))
    assert text["blocks"] == known["pattern"] == "13 × (1 × window 4,096, 1 × full)"
    assert text["embedding"] == "256,000 × 2,304, times 48"
    assert text["logits"] == "the embedding's matrix, bounded by ±30"
