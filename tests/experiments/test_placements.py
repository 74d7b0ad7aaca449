"""Stacks before their first step, and verdicts from a record that is made up."""

import math

import numpy as np
import pytest
import torch

from llmtutor.experiments import placements
from llmtutor.experiments.depth import DEPTHS, PLACEMENTS, QK_RATES
from llmtutor.experiments.placements import (
    a_batch,
    against,
    best_rate,
    by_depth,
    by_rate,
    counted,
    deeper,
    gradient_sizes,
    new_stack,
    qk_gaps,
    sensitivity,
    stream_sizes,
)
from llmtutor.experiments.study import Record


def record(study: str, runs: list[tuple[dict[str, object], float | None]]) -> Record:
    made = [{"settings": s, "result": {"valid_loss": loss}} for s, loss in runs]
    return Record(study, "", {}, "", [], made)


def test_sizes_are_those_of_the_stream_and_one_seed_gives_one_start() -> None:
    pre, none = new_stack("pre", 3), new_stack("none", 3)
    for name, matrix in none.named_parameters():
        assert torch.equal(matrix, dict(pre.named_parameters())[name])
    ids, targets = a_batch()
    sizes = stream_sizes(pre, ids)
    x = pre.embedding(ids)
    by_hand = [x.square().mean(-1).sqrt().mean().item()]
    for block in pre.blocks:
        x = block(x)
        by_hand.append(x.square().mean(-1).sqrt().mean().item())
    assert sizes == pytest.approx(by_hand, rel=1e-5)
    assert stream_sizes(new_stack("post", 3), ids)[1:] == pytest.approx(3 * [1], abs=1e-2)
    assert not any(block._forward_hooks for block in pre.blocks)
    gradients = gradient_sizes(pre, (ids, targets))
    of_first = [p.grad.norm().item() for p in pre.blocks[0].parameters() if p.ndim > 1]
    assert len(gradients) == 3 and gradients[0] == pytest.approx(math.hypot(*of_first), rel=1e-5)


def depth_record(lost: tuple[str, int] | None = None) -> Record:
    """Post-norm is 0.1 worse at each depth, no norm not the same twice; depth brings 0.05 each."""
    shift = {"pre": 0.0, "post": 0.1, "res-post": 0.0, "sandwich": -0.1, "none": 0.0}
    wobble = dict.fromkeys(PLACEMENTS, (0.001, -0.002, 0.001)) | {"none": (0.3, -0.3, 0.1)}
    runs: list[tuple[dict[str, object], float | None]] = []
    for name in PLACEMENTS:
        for i, n in enumerate(DEPTHS):
            for seed in range(3):
                loss = (
                    2 + shift[name] - 0.05 * i + 0.1 * seed + wobble[name][(seed + (n == 16)) % 3]
                )
                gone = lost == (name, n) and seed == 1
                settings = {"placement": name, "n_layers": n, "lr": 0.01, "seed": seed}
                runs.append((settings, None if gone else loss))
    return record("depth", runs)


def test_verdicts_of_placements_come_from_pairs_and_one_family() -> None:
    found = by_depth(depth_record())
    assert found["pre"][2] == pytest.approx({0: 2.001, 1: 2.098, 2: 2.201})
    gaps = against(depth_record(), ("post", "sandwich", "none"), "pre")
    assert len(gaps) == 12
    assert gaps["post", 4].difference == pytest.approx(0.1)
    verdicts = {name: {gaps[name, n].verdict for n in DEPTHS} for name in ("post", "none")}
    assert verdicts == {"post": {"worse"}, "none": {"not distinguishable"}}
    assert gaps["sandwich", 16].verdict == "better"
    assert gaps["none", 2].adjusted_p >= gaps["none", 2].p_value


def test_a_pair_that_diverged_is_left_out() -> None:
    lost = depth_record(lost=("none", 16))
    assert by_depth(lost)["none"][16][1] == math.inf
    gaps = against(lost, ("post", "none"), "pre")
    assert ("none", 16) not in gaps and ("none", 8) in gaps and ("post", 16) in gaps
    assert set(deeper(lost)) == set(PLACEMENTS) - {"none"}
    assert set(deeper(depth_record(lost=("none", 2)))) == set(PLACEMENTS) - {"none"}


def test_deeper_is_the_last_depth_minus_the_first() -> None:
    gaps = deeper(depth_record())
    assert gaps["pre"].difference == pytest.approx(-0.15)
    assert gaps["pre"].verdict == "better" and gaps["none"].verdict == "not distinguishable"


def test_sensitivity_is_the_mean_cost_of_a_rate_and_a_lost_run_knows_nothing(monkeypatch) -> None:
    runs: list[tuple[dict[str, object], float | None]] = []
    for seed in range(3):
        for i, lr in enumerate(QK_RATES):
            worse = 0.01 * (seed + 1) * i
            runs.append(({"qk_norm": True, "lr": lr, "seed": seed}, 2 + worse))
            runs.append(({"qk_norm": False, "lr": lr, "seed": seed}, None if i == 5 else 2 + worse))
    made = record("qk-norm", runs)
    plain, normed = by_rate(made, False), by_rate(made, True)
    assert list(plain) == list(QK_RATES) and best_rate(plain) == best_rate(normed) == QK_RATES[0]
    of_plain, of_normed = sensitivity(plain), sensitivity(normed)
    assert of_normed[1] == pytest.approx(0.02 * np.mean(range(6)))
    lost = (math.log(placements.tokens()[2]) - 2 - 0.02 * 5) / 6
    assert of_plain[1] == pytest.approx(of_normed[1] + lost)
    gaps = qk_gaps(made)
    assert gaps["sensitivity to the rate"].verdict == "better"
    assert gaps["loss, each at its best rate"].difference == 0


def test_counting_more_tokens_predicts_better() -> None:
    assert counted(1) > counted(2) > counted(3) > 2
