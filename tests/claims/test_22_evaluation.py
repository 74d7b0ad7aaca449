"""Chapter 22: what its text says without showing it, from formulas and the record."""

import math
import os
from typing import Any

import numpy as np
import pytest
import torch

from llmtutor.evaluate.calibration import expected_calibration_error, reliability
from llmtutor.evaluate.certainty import (
    against_chance,
    compare_marks,
    guessing,
    resampled_ratio,
    wilson,
)
from llmtutor.experiments.benchmarks import FORMS, LINES, PUBLISHED, UNIFORM, asked
from llmtutor.experiments.climbing import texts
from llmtutor.experiments.kept import load_kept
from llmtutor.experiments.rungs import LAST
from llmtutor.experiments.study import load_record

needs_blimp = pytest.mark.skipif(
    "LLMTUTOR_MIRROR" not in os.environ, reason="LLMTUTOR_MIRROR names no folder: no BLiMP here"
)


def power(n: int, share: float) -> float:
    """How often the verdict on n questions with four answers is "above chance"."""
    likely = guessing([share] * n)
    least = n // 4
    while against_chance(least, [0.25] * n) != "above chance":
        least += 1
    return float(likely[least:].sum())


def test_how_many_questions_it_takes() -> None:
    assert power(10_042, 0.27) > 0.95
    assert 0.5 < power(10_042, 0.26) < 0.8
    assert power(200, 0.27) == pytest.approx(0.1, abs=0.05)


def test_five_nats_are_99_percent() -> None:
    assert round(1 / (1 + math.exp(-5)), 2) == 0.99


def test_what_would_have_been_a_verdict_on_22_changed_marks() -> None:
    for alone, verdict in ((17, "better"), (16, "not distinguishable")):
        first = [True] * alone + [False] * (200 - alone)
        second = [False] * alone + [True] * (22 - alone) + [False] * 178
        one = compare_marks(first, second)
        assert one.verdict == verdict and one.difference == (2 * alone - 22) / 200


def test_a_guesser_has_about_three_paradigms_on_the_far_sides() -> None:
    far = sum(
        likely
        for n, likely in enumerate(guessing([0.5] * 20))
        if not against_chance(n, [0.5] * 20).startswith("not")
    )
    assert 67 * far == pytest.approx(3, abs=0.4)


def results(form: str) -> dict[str, Any]:
    runs = load_record("benchmarks").runs
    return {
        run["settings"]["model"]: run["result"] for run in runs if run["settings"]["form"] == form
    }


def marks(result: Any, metric: str = "acc") -> list[bool]:
    return [mark == "1" for mark in result["marks"][metric]]


def test_our_last_rung_guesses_at_public_benchmarks_and_not_at_cut_lines() -> None:
    own = results("as published")[LAST]
    for task in ("blimp", "hellaswag", "arc_easy"):
        for one in own[task]["metrics"].values():
            assert one["verdict"] == "not distinguishable from chance"
    assert own[LINES]["metrics"]["acc"]["verdict"] == "above chance"


def test_by_paradigms_the_published_model_is_no_longer_above_chance() -> None:
    right = np.array(list(results("as published")[PUBLISHED]["blimp"]["groups"].values()), float)
    low, high = resampled_ratio(right, np.full(67, 20.0))
    assert low < 0.5 < right.mean() / 20 < high
    assert results("as published")[PUBLISHED]["blimp"]["metrics"]["acc"]["interval"][0] > 0.5


def test_no_form_is_told_from_the_published_one() -> None:
    for model, task in ((PUBLISHED, "arc_easy"), (LAST, LINES)):
        plain = marks(results("as published")[model][task])
        for form in FORMS[1:]:
            if result := results(form).get(model):
                assert compare_marks(marks(result[task]), plain).verdict == "not distinguishable"


def test_a_model_that_knows_nothing_leads_minimal_pairs() -> None:
    whole = results("as published")
    nothing = whole[UNIFORM]["blimp"]
    assert (nothing["n_tied"], nothing["metrics"]["acc"]["right"]) == (681, 681 + 323)
    assert round(1004 / 1340, 2) == 0.75
    best = max(whole, key=lambda name: whole[name]["blimp"]["metrics"]["acc"]["right"])
    assert best == UNIFORM
    bits = {n: sum(r["nats"]) / sum(r["bytes"]) for n, r in whole.items()}
    assert max(bits, key=bits.__getitem__) == PUBLISHED
    assert all(result["bytes"] == whole[LAST]["bytes"] for result in whole.values())


@needs_blimp
def test_pairs_are_chosen_by_their_length() -> None:
    tokenizer, (pairs, _) = texts().tokenizer, asked("blimp")
    longer = [
        len(tokenizer.encode(" " + good)) - len(tokenizer.encode(" " + bad))
        for good, bad in (pair.answers for pair in pairs)
    ]
    sign, right = np.sign(longer), np.array(marks(results("as published")[LAST]["blimp"]))
    assert [int((sign == side).sum()) for side in (-1, 0, 1)] == [323, 681, 336]
    assert [round(right[sign == side].mean(), 2) for side in (-1, 0, 1)] == [0.80, 0.51, 0.29]


def test_what_the_interval_of_a_paradigm_score_draws() -> None:
    right = np.array(list(results("as published")[LAST]["blimp"]["groups"].values()), float)
    part = right / 20
    half = 1.96 * math.sqrt((part * (1 - part) / 20).sum()) / 67
    assert part.mean() - half > 0.5 > wilson(int(right.sum()), 1340)[0]
    low, high = resampled_ratio(right, np.full(67, 20.0))
    assert low < 0.5 and 2 < (high - low) / (2 * half) < 3


def test_cut_lines_leave_the_small_network_open() -> None:
    whole = results("as published")
    mlp, trigram, last = (whole[name][LINES] for name in ("mlp", "trigram", LAST))
    assert mlp["metrics"]["acc"]["verdict"] == "not distinguishable from chance"
    assert mlp["metrics"]["acc_norm"]["verdict"] == "above chance"
    assert mlp["metrics"]["acc_norm"]["right"] == 63
    one = compare_marks(marks(trigram), marks(mlp))
    assert (one.only_first, one.only_second, round(one.p_value, 2)) == (20, 14, 0.39)
    assert compare_marks(marks(last), marks(trigram)).p_value < 1e-5


def test_the_staircase_gains_more_with_the_whole_context() -> None:
    bits = {
        run["settings"]["rung"]: run["result"]["bits_per_byte"]
        for run in reversed(load_record("staircase").runs)
        if run["settings"]["seed"] == 0
    }
    assert round(bits["trigram"] - bits[LAST], 2) == 0.36


def test_prompts_that_did_not_fit() -> None:
    cut = {form: results(form)[PUBLISHED]["arc_easy"]["n_cut"] for form in FORMS}
    assert (cut["as published"], cut["1 example"], cut["3 examples"]) == (1, 3, 23)


def test_a_share_of_0_38_fits_35_of_120_and_the_standard_error_of_lambada() -> None:
    assert round(wilson(35, 120)[1], 2) == 0.38
    assert round(100 * math.sqrt(0.722 * 0.278 / 1000), 1) == 1.4


def test_tokens_are_far_better_calibrated_than_answers() -> None:
    ids, (model, _) = texts().held_out, load_kept()
    starts = np.linspace(0, len(ids) - 258, 40).astype(int)
    rows = torch.tensor(np.stack([ids[start : start + 257] for start in starts]).astype(int))
    with torch.no_grad():
        sure, chosen = model.eval()(rows[:, :-1]).softmax(-1).max(-1)
    right = (chosen == rows[:, 1:]).flatten().tolist()
    bins = reliability(sure.double().clamp(max=1).flatten().tolist(), right)
    assert round(expected_calibration_error(bins), 2) == 0.07
