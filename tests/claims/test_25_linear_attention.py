"""Chapter 25: what its text says of the study of recall, of costs and of published models."""

import math

import pytest
import torch

from llmtutor.experiments.recall import ASKED, MORE_STEPS, RATES, STEPS, Task, recall_texts
from llmtutor.experiments.recall_models import CONV_WIDTH, MIXERS, recall_config
from llmtutor.experiments.recall_verdicts import best_rate, right, verdicts
from llmtutor.experiments.study import Record, load_record
from llmtutor.layers.attention import AttentionConfig
from llmtutor.layers.recurrent.delta import delta_rule_recurrent, unit_keys
from llmtutor.layers.recurrent.delta_net import DeltaNetConfig
from llmtutor.layers.recurrent.linear_attention import linear_attention_recurrent
from llmtutor.model.accounting import cache_bytes, parameters
from llmtutor.model.published import PUBLISHED


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record("recall")


def shares(
    record: Record, model: str, n_keys: int = 24, task: Task = "once", written: str = "once"
):
    """At the model's best rate, by seed."""
    best = best_rate(record, model, task)
    return list(right(record, model, best, n_keys, task=task, written=written).values())


def test_models_are_of_one_size_and_differ_in_what_the_table_says() -> None:
    sizes = [parameters(recall_config(name)).total for name in MIXERS if "one layer" not in name]
    assert max(sizes) / min(sizes) < 1.006 and STEPS == 1000
    assert (len(MIXERS), len(sizes)) == (10, 8)
    kinds = [block.mixer.kind for block in recall_config("hybrid, small state").blocks]
    assert kinds == ["delta-net", "delta-net", "delta-net", "attention"]
    assert MIXERS["adds"].values() == MIXERS["delta rule"].values()
    for name in ("adds", "delta rule"):
        large, small = (MIXERS[name + end].widths(32) for end in ("", ", small state"))
        assert (large, small) == ((16, 16), (8, 8))
    mamba = MIXERS["mamba"]
    assert (mamba.expand * 32, mamba.d_state, mamba.d_conv) == (64, 16, CONV_WIDTH)


def test_tails_shrink_less_than_the_state() -> None:
    for end, state, tails, kept in (("", 8192, 4608, 12_800), (", small state", 2048, 2304, 4352)):
        config = recall_config("adds" + end)
        head_dim, _ = config.blocks[0].mixer.widths(32)
        assert state == 4 * 2 * head_dim**2 * 4  # layers, heads, numbers, bytes
        assert tails == 4 * 3 * 2 * head_dim * (CONV_WIDTH - 1) * 4  # q, k, v of two heads
        assert cache_bytes(config, 1, 88) == state + tails == kept


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


def test_the_delta_rule_points_better_up_to_about_24_pairs() -> None:
    """Cosine of what is read with what was stored, in 32 dimensions."""
    generator = torch.Generator().manual_seed(0)

    def cosines(n: int) -> list[float]:
        k, v = (torch.randn(200, n, 32, generator=generator, dtype=torch.float64) for _ in "kv")
        k, ones = unit_keys(k), torch.ones(200, n, dtype=torch.float64)
        states = (linear_attention_recurrent(k, k, v)[1], delta_rule_recurrent(k, k, v, ones)[1])
        reads = [k @ state for state in states]
        return [float((r * v).sum() / (r.norm() * v.norm())) for r in reads]

    ahead = {n: delta - adds for n in (4, 8, 16, 20, 28, 32, 64) for adds, delta in [cosines(n)]}
    assert all((lead > 0) == (n < 24) and lead < 0.04 for n, lead in ahead.items())


def test_one_layer_that_adds_says_the_old_value_and_the_delta_rule_does_not(record: Record) -> None:
    one_layer = ("adds, one layer", "delta rule, one layer")
    (right_adds, right_delta), (old_adds, old_delta) = (
        [shares(record, model, task="twice", written=kind) for model in one_layer]
        for kind in ("twice", "first")
    )
    for got, old in zip(right_adds, old_adds, strict=True):
        assert 0.5 < got < 0.58 and old > 0.95 * (1 - got)
    others = shares(record, "delta rule, one layer", task="twice")
    for got, old, other in zip(right_delta, old_delta, others, strict=True):
        assert got >= 0.97 and old < 0.03 and other - got < 0.02


def test_four_layers_that_add_make_up_for_a_part(record: Record) -> None:
    right_adds = shares(record, "adds", task="twice", written="twice")
    old = shares(record, "adds", task="twice", written="first")
    assert (round(min(right_adds), 2), round(max(right_adds), 2)) == (0.6, 0.84)
    assert all(y > 0.75 * (1 - x) for x, y in zip(right_adds, old, strict=True))
    both = (shares(record, "delta rule", task="twice", written=kind) for kind in ("once", "twice"))
    assert all(abs(one - two) < 0.04 for one, two in zip(*both, strict=True))


def test_attention_recalls_all_and_without_convolution_it_is_slow(record: Record) -> None:
    assert shares(record, "attention") == [1, 1, 1]
    seeds = sorted(shares(record, "attention without convolution"))
    assert seeds[-1] > 0.8 and seeds[-2] < 0.4


def test_two_heads_of_16_hold_24_pairs_and_a_quarter_of_them_does_not(record: Record) -> None:
    for rule in ("adds", "delta rule"):
        assert min(shares(record, rule)) > 0.97
        assert max(shares(record, rule + ", small state")) < 0.9
    small = [shares(record, rule + ", small state") for rule in ("adds", "delta rule")]
    assert all(x > y for x, y in zip(*small, strict=True)) and len(small[0]) == 3


def test_one_layer_of_attention_makes_up_for_small_states(record: Record) -> None:
    assert min(shares(record, "hybrid, small state")) > 0.99
    rates = RATES["once"]["hybrid, small state"]
    good = [min(right(record, "hybrid, small state", lr, 24).values()) > 0.9 for lr in rates]
    assert sum(good) == 1 and len(good) == 4


def test_which_differences_are_sure(record: Record) -> None:
    found = verdicts(record)
    sure = {question for question, one in found.items() if one.verdict != "not distinguishable"}
    assert sure == {"hybrid against delta rule, small state", "changed keys, one layer"}
    assert all(found[question].verdict == "better" for question in sure)
    adds, delta = (
        shares(record, model, task="twice", written="twice") for model in ("adds", "delta rule")
    )
    assert all(x < y for x, y in zip(adds, delta, strict=True)) and len(adds) == 5


def test_mamba_learns_it_in_more_steps_and_stays_on_the_floor_at_its_lowest_rate(
    record: Record,
) -> None:
    """Who knows which values were said can do no better than to say the most frequent one."""
    assert MORE_STEPS["mamba"] == 3 * STEPS
    assert 64 * MIXERS["mamba"].d_state == 2 * (2 * 16 * 16)
    assert [round(x, 1) for x in shares(record, "mamba")] == [0.8, 0.5]
    lowest = min(RATES["once"]["mamba"])
    for n in ASKED["once"]:
        _, values = recall_texts(n, 2000, torch.Generator().manual_seed(0))
        same = values[:, :, None] == values[:, None]
        floor = (same.sum(-1).amax(-1) / n).mean().item()
        assert right(record, "mamba", lowest, n)[0] == pytest.approx(floor, abs=0.02)
