"""One run: a function of its settings, with an honest curve."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from llmtutor.experiments import training
from llmtutor.experiments.curve import spread_windows
from llmtutor.experiments.training import (
    FINAL,
    SEQ_LEN,
    model_config,
    schedule,
    tokens,
    train_run,
)
from llmtutor.model.accounting import parameters
from llmtutor.model.presets import build

TINY = {"d_model": 8, "n_tokens": 50 * 16 * SEQ_LEN, "lr": 0.02, "seed": 0}


@pytest.fixture(autouse=True, scope="module")
def small_text() -> None:
    try:
        tokens()
    except OSError as error:
        pytest.skip(f"the corpus is not here: {error}")


@pytest.fixture(scope="module")
def run(small_text: None) -> dict[str, Any]:
    return train_run(**TINY)


def test_the_same_settings_give_the_same_run_and_another_seed_another(run: dict) -> None:
    assert run == train_run(**TINY)
    assert run["curve"]["loss"] != train_run(**{**TINY, "seed": 1})["curve"]["loss"]


def test_it_learns_and_the_curve_starts_at_log_v_and_ends_near_the_held_out_loss(run: dict) -> None:
    loss = run["curve"]["loss"]
    assert loss[0] == pytest.approx(math.log(tokens()[2]), abs=0.3)
    assert run["valid_loss"] < loss[0] - 1
    assert abs(run["valid_loss"] - loss[-1]) < 0.3


def test_the_curve_has_ten_single_steps_and_then_means_of_ten() -> None:
    run = train_run(**{**TINY, "n_tokens": 25 * 16 * SEQ_LEN + 5})
    assert run["steps"] == 25 and run["n_tokens"] == 25 * 16 * SEQ_LEN
    assert run["curve"]["step"] == [*range(1, 11), 20, 25]
    assert {len(column) for column in run["curve"].values()} == {12}
    rows = [(float(i), 2.0 * i, 1.0) for i in range(25)]
    assert training._curve(rows)["loss"][-2:] == [np.mean(range(10, 20)), np.mean(range(20, 25))]


def test_the_part_of_the_embedding_is_a_part_of_the_gradient(run: dict) -> None:
    curve = run["curve"]
    assert all(
        0 < part < whole for part, whole in zip(curve["embedding"], curve["grad_norm"], strict=True)
    )


def test_a_run_that_diverges_says_so() -> None:
    run = train_run(**{**TINY, "lr": 1e30})
    assert run["valid_loss"] is None
    assert len(run["curve"]["step"]) < 50


def test_sizes_are_those_of_the_model() -> None:
    run = train_run(**{**TINY, "n_tokens": 16 * SEQ_LEN})
    model = build(model_config(8, 2, tokens()[2]))
    whole = sum(p.numel() for p in model.parameters())
    assert run["n_params"] + run["n_embedding"] == whole
    assert run["n_embedding"] == 8 * tokens()[2]


def test_learning_rate_by_hand() -> None:
    """100 steps: the peak in the fifth, then half a cosine down to a tenth of it."""
    factors = [schedule(100)(step) for step in range(100)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[4 + 96 // 2] == pytest.approx(0.55)
    assert FINAL < factors[-1] < FINAL + 0.001
    assert all(a >= b for a, b in pairwise(factors[4:]))


def test_validation_windows_cover_the_held_out_works_without_overlap() -> None:
    held_out = spread_windows(np.arange(476_650), training.VALID_WINDOWS, SEQ_LEN)
    starts = torch.cat([inputs[:, 0] for inputs, _ in held_out])
    assert len(starts) == training.VALID_WINDOWS
    assert starts.diff().min() > SEQ_LEN


def test_the_model_is_llama_in_small() -> None:
    config = model_config(32, 2, 84, tie_weights=False)
    (block,) = set(config.blocks)
    kinds = config.norm.kind, block.norm.kind, block.ffn.kind, block.mixer.position.kind
    assert kinds == ("rmsnorm", "rmsnorm", "gated-mlp", "rope")
    assert block.mixer.width(32) == 8 and not config.tie_weights
    d, f = 32, block.ffn.d_ff
    assert parameters(config).non_embedding - 84 * d == 2 * (4 * d * d + 3 * d * f + 2 * d) + d


def test_bpe_tokens_are_learnt_from_the_training_text() -> None:
    train, valid, size = tokens(300)
    assert size == 300 and len(train) < len(tokens()[0]) and len(valid) < len(tokens()[1])
