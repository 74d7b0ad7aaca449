"""Merged heads: the record's claims from its raw losses, the control by definition, a run again."""

from statistics import mean

import pytest
import torch

from llmtutor.experiments.study import Record, load_record
from llmtutor.experiments.training import model_config, tokens
from llmtutor.experiments.uptraining import (
    MARKS,
    MERGES,
    POOLS,
    SEEDS,
    falling,
    random_heads,
    train_on,
)
from llmtutor.layers.attention import mean_pool_heads
from llmtutor.model.grouping import group_heads
from llmtutor.model.presets import build


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record("uptraining")


def losses(record: Record, n_kv_heads: int, pool: str) -> list[dict[str, float]]:
    """By seed."""
    return [
        record.results(n_kv_heads=n_kv_heads, pool=pool, seed=seed)[0]["losses"]
        for seed in range(SEEDS)
    ]


def test_every_merge_has_every_seed_and_every_mark(record: Record) -> None:
    for n_kv_heads, pool in MERGES:
        for run in losses(record, n_kv_heads, pool):
            assert [int(step) for step in run] == list(MARKS)
    for run in record.runs:
        assert run["result"]["valid_loss"] == run["result"]["losses"][str(MARKS[-1])]


def test_the_order_of_the_paper_in_every_seed(record: Record) -> None:
    """Ainslie et al. (2023), figure 4: mean, first, random; and more heads are better."""
    for step in ("50", "100"):
        for seed in range(SEEDS):
            by_pool = [losses(record, 1, pool)[seed][step] for pool in ("mean", "first", "random")]
            by_heads = [losses(record, n, "mean")[seed][step] for n in (8, 4, 2, 1)]
            assert by_pool == sorted(by_pool) and by_heads == sorted(by_heads)


def test_merging_ruins_and_training_mends_in_part(record: Record) -> None:
    control = mean(run["100"] for run in losses(record, 8, "mean"))
    for n_kv_heads in (4, 2, 1):
        merged = losses(record, n_kv_heads, "mean")
        assert min(run["0"] for run in merged) > 3 > 2 > control
        assert mean(run["100"] for run in merged) > control + 0.05
        for run in merged:  # the first ten steps bring back more than half
            assert run["0"] - run["10"] > (run["0"] - control) / 2


def test_merging_into_as_many_heads_is_the_control() -> None:
    """The model is then the same, and what follows is plain training."""
    torch.manual_seed(0)
    model = build(model_config(16, 1, tokens()[2], n_heads=4))
    again = [
        train_on(group_heads(model, 4, POOLS[pool]), falling(3), (0, 3), 7)
        for pool in ("mean", "first")
    ]
    assert again[0] == again[1]
    assert again[0] == train_on(model, falling(3), (0, 3), 7)
    assert again[0]["3"] < again[0]["0"]


def test_random_heads_are_new_and_as_large_as_first_ones() -> None:
    weight = torch.full((32, 64), 5.0)
    torch.manual_seed(0)
    new = random_heads(weight, 8, 2)
    assert new.shape == mean_pool_heads(weight, 8, 2).shape == (8, 64)
    assert abs(new.mean()) < 0.05
    assert new.std().item() == pytest.approx((2 / (32 + 64)) ** 0.5, rel=0.1)


def test_losses_are_taken_at_the_marks_and_the_rate_falls_to_its_end() -> None:
    torch.manual_seed(0)
    model = build(model_config(16, 1, tokens()[2], n_heads=4))
    seen = []

    def schedule(step: int) -> float:
        seen.append(step)
        return 0.0

    found = train_on(model, schedule, (0, 2, 5), 1)
    assert list(found) == ["0", "2", "5"] and seen == [0, 1, 2, 3, 4]
    assert len(set(found.values())) == 1  # with a rate of 0 nothing moves
    assert [falling(100)(step) for step in (0, 50, 100)] == pytest.approx([0.5, 0.3, 0.1])
    assert {falling(100, 0.01)(step) for step in (0, 50, 100)} == {0.01}
