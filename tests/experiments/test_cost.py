"""Costs of a variant: what can be computed is, the rest is positive and in its place."""

import pytest
import torch

from llmtutor.experiments.cost import measure_variant, peak_bytes
from llmtutor.experiments.variants import BASELINE, SEQ_LEN
from llmtutor.model.accounting import forward_flops


def test_the_peak_is_that_of_the_largest_moment() -> None:
    kib = 256  # float32 numbers in a KiB

    def work() -> None:
        first = torch.zeros(1000 * kib)
        del first
        second, third = torch.zeros(600 * kib), torch.zeros(700 * kib)
        del second, third

    assert 1300 * 1024 <= peak_bytes(work) < 1400 * 1024


def test_a_variant_is_measured_in_a_process_of_its_own() -> None:
    cost = measure_variant(variant="mqa", round=0)
    assert cost["kv_bytes_per_token"] == 2 * 2 * 8 * 4  # one head instead of eight
    of_baseline = forward_flops(BASELINE, 1, SEQ_LEN) / SEQ_LEN
    assert cost["forward_flops_per_token"] == pytest.approx(of_baseline, rel=2e-3)
    # weights, gradients and two moments, 4 bytes each, are held at the same time
    assert 16 * cost["n_params"] < cost["peak_bytes"] < 16 * cost["n_params"] + 20e6
    assert min(cost["train_tokens_per_second"], cost["decode_tokens_per_second"]) > 0
