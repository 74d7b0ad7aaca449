"""Chapter 25: what its text says of the study of recall, of costs and of published models."""

import math

import pytest
import torch

from llmtutor.experiments.recall import CHANGES, PAIRS, SMALL, STEPS, recall_config, recall_texts
from llmtutor.experiments.study import load_record
from llmtutor.layers.attention import AttentionConfig
from llmtutor.layers.recurrent.delta import delta_rule_recurrent, unit_keys
from llmtutor.layers.recurrent.delta_net import DeltaNetConfig
from llmtutor.layers.recurrent.linear_attention import linear_attention_recurrent
from llmtutor.model.accounting import parameters
from llmtutor.model.published import PUBLISHED


def runs_of(name: str) -> list[dict]:
    tuned, found = load_record("recall-rates"), load_record("recall")
    rate = found.plan["rates"][name.removesuffix(SMALL)]
    runs = tuned.results(model=name, lr=rate) + found.results(model=name)
    assert len(runs) == 3
    return runs


def test_models_are_of_one_size() -> None:
    sizes = [parameters(recall_config(name)).total for name in CHANGES]
    assert max(sizes) / min(sizes) < 1.003 and STEPS == 1000
    kinds = [block.mixer.kind for block in recall_config("hybrid").blocks]
    assert kinds == ["delta-net", "delta-net", "delta-net", "attention"]


@pytest.mark.parametrize("name", ["linear attention", "delta-net", "hybrid"])
def test_the_larger_states_hold_all_pairs(name: str) -> None:
    assert all(run["accuracy"]["24"] > 0.97 for run in runs_of(name))


def test_small_states_do_not_and_the_delta_rule_is_the_worse() -> None:
    for adds, delta in zip(
        runs_of("linear attention" + SMALL), runs_of("delta-net" + SMALL), strict=True
    ):
        falling = [adds["accuracy"][str(n)] for n in PAIRS]
        assert falling == sorted(falling, reverse=True) and falling[-1] < 0.55
        assert delta["mean_accuracy"] < adds["mean_accuracy"] - 0.3


def test_attention_is_at_three_places_and_mamba_at_the_start() -> None:
    means = sorted(run["mean_accuracy"] for run in runs_of("attention"))
    assert means[0] < 0.45 and 0.8 < means[1] < 0.9 and means[2] == 1.0
    tried = load_record("recall-rates").results(model="mamba")
    assert all(run["mean_accuracy"] < 0.2 for run in [*runs_of("mamba"), *tried])


def test_where_the_delta_rules_order_of_votes_turns() -> None:
    """1 − cos² = cos at 51.8 degrees: below it Romeo has more votes for Capulet."""
    assert 51 < math.degrees(math.acos((math.sqrt(5) - 1) / 2)) < 52


def test_a_fading_of_a_hundredth_halves_in_69_tokens() -> None:
    assert round(math.log(2) / -math.log(0.99)) == 69


def test_what_the_table_says_of_qwen3_next() -> None:
    mixers = [block.mixer for block in PUBLISHED["qwen3-next-80b-a3b"].blocks]
    recurrent = [m for m in mixers if isinstance(m, DeltaNetConfig)]
    full = [m for m in mixers if isinstance(m, AttentionConfig)]
    assert (len(recurrent), len(full), len(mixers)) == (36, 12, 48)
    one = recurrent[0]
    assert (one.n_heads, one.value_heads, *one.widths(2048)) == (16, 32, 128, 128)
    assert full[0].gate and full[0].kv_heads < full[0].n_heads


def test_mamba_is_as_good_as_the_values_without_their_keys() -> None:
    """Who knows which values were said can do no better than to say the most frequent one."""
    for n in PAIRS:
        _, values = recall_texts(n, 2000, torch.Generator().manual_seed(0))
        same = values[:, :, None] == values[:, None]
        floor = (same.sum(-1).amax(-1) / n).mean().item()
        for run in runs_of("mamba"):
            assert run["accuracy"][str(n)] == pytest.approx(floor, abs=0.02)


def test_part_of_the_gap_of_adding_is_length_and_not_direction() -> None:
    """With 32 pairs in 32 dimensions, each rule allowed one best factor."""
    generator = torch.Generator().manual_seed(0)
    k, v = (torch.randn(40, 1, 32, 32, generator=generator, dtype=torch.float64) for _ in "kv")
    k = unit_keys(k)
    ones = torch.ones(40, 1, 32, dtype=torch.float64)
    states = (linear_attention_recurrent(k, k, v)[1], delta_rule_recurrent(k, k, v, ones)[1])
    raw, scaled = [], []
    for state in states:
        read = k @ state
        best = (read * v).sum() / read.square().sum()
        for kept, found in ((raw, read), (scaled, best * read)):
            kept.append(((found - v).square().mean() / v.square().mean()).sqrt().item())
    assert raw[1] < 0.85 * raw[0] and scaled[1] > 0.95 * scaled[0]
