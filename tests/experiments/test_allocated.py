"""The bytes that operations allocate."""

import torch

from llmtutor.experiments.allocated import allocated_bytes
from llmtutor.experiments.peak import peak_bytes


def test_new_tensors_count_and_views_do_not() -> None:
    x = torch.zeros(6, 4)
    assert allocated_bytes(lambda: x.view(4, 6)[1:].T.expand(2, 6, 3)) == 0
    assert allocated_bytes(lambda: x.add_(1)) == 0
    assert allocated_bytes(lambda: (x + 1, x[:3].clone())) == 4 * (24 + 12)
    assert allocated_bytes(lambda: x.split(2)[0] @ x.T) == 4 * 2 * 6


def test_it_counts_what_the_allocator_counts_also_what_was_freed() -> None:
    x, kib = torch.zeros(256 * 100), 1024

    def work() -> None:
        first = x + 1
        del first
        (x + 2).mul_(2)

    assert allocated_bytes(work) == 200 * kib
    assert 100 * kib <= peak_bytes(work) < 101 * kib  # the first was gone by then
