"""Experts in balance or not: every arm recorded, what is claimed of it, a step of a run again."""

import pytest

from llmtutor.experiments.expert_balance import (
    BALANCES,
    D_FF,
    DENSE,
    MOE_BALANCE,
    N_EXPERTS,
    RATE,
    RATES,
    SEARCH_SEED,
    SEARCHED,
    SEEDS,
    config_of,
)
from llmtutor.experiments.study import Record, load_record
from llmtutor.experiments.training import tokens
from llmtutor.model.accounting import parameters


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record("moe-balance")


def busiest(record: Record, arm: str) -> list[float]:
    runs = [record.results(arm=arm, lr=RATE, seed=seed)[0] for seed in range(SEEDS)]
    return [max(max(layer) for layer in run["held_out_loads"]) for run in runs]


def test_every_run_is_recorded(record: Record) -> None:
    wanted = MOE_BALANCE.runs({})
    made = [run["settings"] for run in record.runs]
    assert len(made) == len(wanted) and all(settings in made for settings in wanted)
    for run in record.runs:
        loads = run["result"]["held_out_loads"]
        assert len(loads) == (0 if run["settings"]["arm"] in DENSE else 2)
        assert all(sum(layer) == pytest.approx(N_EXPERTS, abs=1e-2) for layer in loads)


def test_without_balance_experts_collapse_and_with_the_loss_they_do_not(record: Record) -> None:
    assert min(busiest(record, "none")) > 3
    assert max(busiest(record, "loss 0.01")) <= 1.5


def test_the_best_rate_is_not_at_an_end(record: Record) -> None:
    for arm in SEARCHED:
        losses = [record.results(arm=arm, lr=lr, seed=SEARCH_SEED)[0]["valid_loss"] for lr in RATES]
        assert losses[1] < losses[0]
        assert losses[1] < losses[2] + 0.002, arm  # of "loss 0.01" the two are as good


@pytest.fixture
def shakespeare() -> None:
    try:
        tokens()
    except OSError as error:
        pytest.skip(f"no Shakespeare: {error}")


def test_arms_have_equal_active_or_total_size(shakespeare) -> None:
    sparse = parameters(config_of("none"))
    router = 2 * 64 * N_EXPERTS
    assert sparse.active - router == parameters(config_of("dense, equal active")).total
    assert sparse.total - router == parameters(config_of("dense, equal total")).total
    assert {config_of(arm).blocks[0].ffn.expert.d_ff for arm in BALANCES} == {D_FF}
