"""Calibration: by hand, by a model that is calibrated by making, and by another library."""

import numpy as np
import pytest

from llmtutor.evaluate.calibration import expected_calibration_error, reliability


def test_bins_by_hand() -> None:
    bins = reliability([0.1, 0.55, 0.6, 0.95, 1.0], [False, True, False, True, True], n_bins=5)
    assert [(round(b.low, 1), b.n, b.right) for b in bins] == [
        (0.0, 1, 0),
        (0.4, 2, 1),
        (0.8, 2, 2),
    ]
    assert bins[1].confidence == pytest.approx(0.575) and bins[1].accuracy == 0.5
    assert bins[1].interval[0] < 0.5 < bins[1].interval[1]
    wanted = (1 * 0.1 + 2 * 0.075 + 2 * 0.025) / 5
    assert expected_calibration_error(bins) == pytest.approx(wanted)


def test_who_is_calibrated_has_a_small_error_and_who_is_too_sure_a_large_one() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.25, 1.0, 20_000)
    right = rng.uniform(size=20_000) < sure
    assert expected_calibration_error(reliability(sure.tolist(), right.tolist())) < 0.02
    boast = np.sqrt(sure)
    assert expected_calibration_error(reliability(boast.tolist(), right.tolist())) > 0.12


def test_points_are_those_of_scikit_learn() -> None:
    curve = pytest.importorskip("sklearn.calibration", reason="scikit-learn is not installed")
    rng = np.random.default_rng(1)
    sure = rng.uniform(0.01, 0.99, 500)
    right = rng.uniform(size=500) < sure**2
    bins = reliability(sure.tolist(), right.tolist())
    accuracy, confidence = curve.calibration_curve(right, sure, n_bins=10)
    assert [b.accuracy for b in bins] == pytest.approx(accuracy)
    assert [b.confidence for b in bins] == pytest.approx(confidence)


def test_what_is_no_confidence_is_refused() -> None:
    with pytest.raises(ValueError, match="a mark for each confidence, got 0 for 0"):
        reliability([], [])
    with pytest.raises(ValueError, match="between 0 and 1"):
        reliability([1.2], [True])
