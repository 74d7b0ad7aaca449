"""The most bytes held at one time."""

import torch

from llmtutor.experiments.peak import peak_bytes


def test_the_peak_is_that_of_the_largest_moment() -> None:
    kib = 256  # float32 numbers in a KiB

    def work() -> None:
        first = torch.zeros(1000 * kib)
        del first
        second, third = torch.zeros(600 * kib), torch.zeros(700 * kib)
        del second, third

    assert 1300 * 1024 <= peak_bytes(work) < 1400 * 1024
