"""Latent or grouped: the record's claims from its raw losses, the rates, a run by definition."""

from statistics import mean

import pytest
import torch

from llmtutor.evaluate.compare import compare, holm
from llmtutor.experiments.latent_conversion import (
    CONTROL_RATES,
    FULL_RANK,
    HEAD_DIM,
    METHODS,
    RATES,
    SEARCH_RATES,
    SEARCH_SEED,
    SEEDS,
    SIZES,
    TURNED,
    WHOLE,
    converted,
)
from llmtutor.experiments.study import Record, load_record
from llmtutor.experiments.training import model_config, tokens
from llmtutor.experiments.uptraining import D_MODEL, MARKS, N_HEADS
from llmtutor.model.presets import build

KINDS = [("control", WHOLE), ("latent", FULL_RANK), ("latent, by texts", FULL_RANK)]
KINDS += [(method, n) for n in SIZES for method in METHODS]


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record("latent-conversion")


def losses(record: Record, method: str, numbers: int, mark: int) -> dict[int, float]:
    """By seed."""
    found = {}
    for seed in range(SEEDS):
        (run,) = record.results(method=method, numbers=numbers, seed=seed)
        found[seed] = run["losses"][str(mark)]
    return found


def test_every_kind_has_every_seed_and_mark_and_its_bytes(record: Record) -> None:
    for method, numbers in KINDS:
        for run in record.results(method=method, numbers=numbers):
            assert run["cache_bytes"] == 2 * numbers * 4  # two layers, float32
            assert [int(mark) for mark in run["losses"]] == list(MARKS)
        assert len(losses(record, method, numbers, 0)) == SEEDS


def test_the_rates_are_the_best_of_a_search_and_lie_inside_it(record: Record) -> None:
    for method, rate in RATES.items():
        rates = CONTROL_RATES if method == "control" else SEARCH_RATES
        runs = {
            run["settings"]["rate"]: run["result"]["valid_loss"]
            for run in record.runs
            if run["settings"]["method"] == method and run["settings"]["seed"] == SEARCH_SEED
        }
        assert sorted(runs) == sorted(rates) and min(runs, key=runs.__getitem__) == rate
        assert min(rates) < rate < max(rates)


def test_all_conversions_of_a_seed_begin_with_one_model(record: Record) -> None:
    """What training leaves is the same: the control's first loss is the trained model's."""
    for seed in range(SEEDS):
        before = losses(record, "control", WHOLE, 0)[seed]
        assert all(losses(record, m, n, 0)[seed] > before for m, n in KINDS[1:])


def test_at_equal_bytes_the_latent_loses_less_in_every_seed(record: Record) -> None:
    p_values = []
    for n in SIZES:
        for method in ("latent", "latent, by texts"):
            for mark in MARKS:
                ours, theirs = (losses(record, m, n, mark) for m in (method, "grouped"))
                assert all(ours[seed] < theirs[seed] for seed in range(SEEDS)), (method, n, mark)
        p_values.append(
            compare(losses(record, "latent", n, 100), losses(record, "grouped", n, 100)).p_value
        )
    for n in (FULL_RANK, *SIZES):
        p_values.append(
            compare(losses(record, "latent", n, 100), losses(record, "control", WHOLE, 100)).p_value
        )
    assert max(holm(p_values)) < 0.05  # no verdict on the page hangs on asking seven times


def test_directions_of_real_keys_are_better_where_few_are_kept_before_training_on(
    record: Record,
) -> None:
    for n in SIZES:
        by_weights = mean(losses(record, "latent", n, 0).values())
        assert mean(losses(record, "latent, by texts", n, 0).values()) < by_weights


def test_a_latent_of_all_directions_costs_what_the_shared_key_costs() -> None:
    torch.manual_seed(0)
    config = model_config(D_MODEL, 1, tokens()[2], n_heads=N_HEADS, rope_fraction=TURNED / HEAD_DIM)
    model = build(config).double()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        control, full = (converted(model, m, n)(ids) for m, n in KINDS[:2])
        torch.testing.assert_close(control, model(ids))
        assert (full - control).abs().max() > 1e-3
        for block in model.blocks:  # the same turned keys in all heads: nothing to lose
            keys = block.mixer.key.weight.unflatten(0, (N_HEADS, HEAD_DIM))
            keys[:, :TURNED] = keys[:1, :TURNED].clone()
        torch.testing.assert_close(converted(model, "latent", FULL_RANK)(ids), model(ids))
