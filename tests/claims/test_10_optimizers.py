"""Chapter 10: what its page says of the size of a step of Muon, and of the race against AdamW."""

import pytest
import torch
from torch import nn

from llmtutor.model.presets import build, preset
from llmtutor.optim import Muon, make_optimizer


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


def test_beside_muon_all_but_the_hidden_matrices_move_at_the_rate_of_the_middle_adamw() -> None:
    torch.manual_seed(0)
    model = build(preset("gpt2-nano", vocab_size=9, max_seq_len=4, n_layers=1))

    def rates(*args, **given) -> dict[str, float]:
        groups = make_optimizer(model, *args, **given).param_groups
        by_parameter = {id(p): group["lr"] for group in groups for p in group["params"]}
        return {name: by_parameter[id(p)] for name, p in model.named_parameters()}

    adamw, muon = rates("adamw", 0.003), rates("muon", 0.02, adam_lr=0.003)
    moved = {name for name in adamw if muon[name] != adamw[name]}
    assert moved == {n for n, p in model.blocks.named_parameters("blocks") if p.ndim == 2}
