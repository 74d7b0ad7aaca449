"""Chapter 10: what its page says of the size of a step of Muon."""

import pytest
import torch
from torch import nn

from llmtutor.optim import Muon


@pytest.mark.parametrize("shape", [(64, 168), (168, 64), (64, 64)])
def test_entries_of_a_step_of_muon_have_a_size_of_about_a_fifth(shape: tuple[int, int]) -> None:
    """In units of the learning rate, as with Adam; Jordan's own factor makes them smaller."""
    sizes = {}
    for adjust in ("match_rms_adamw", "original"):
        p = nn.Parameter(torch.zeros(shape))
        p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        Muon([p], lr=1.0, weight_decay=0.0, adjust_lr_fn=adjust).step()
        sizes[adjust] = p.detach().square().mean().sqrt().item()
    assert 0.15 < sizes["match_rms_adamw"] < 0.22
    assert sizes["original"] < 0.9 * sizes["match_rms_adamw"]
