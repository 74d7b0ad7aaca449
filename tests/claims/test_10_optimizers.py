"""Chapter 10: what its page says of steps of Muon, of rates, of the race, of noise and of batches."""

import math
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn

from llmtutor.experiments import racing_verdicts as verdicts
from llmtutor.experiments.racing import signal_and_noise
from llmtutor.experiments.staircase import steps
from llmtutor.experiments.studies import means
from llmtutor.experiments.study import load_record
from llmtutor.model.presets import build, preset
from llmtutor.optim import SGD, Muon, make_optimizer

PAGE = Path(__file__).resolve().parents[2] / "book" / "chapters" / "10_optimizers.ipynb"


@pytest.fixture(scope="module")
def prose() -> str:
    cells = nbformat.read(PAGE, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


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


def test_muon_gets_the_hidden_matrices_and_adamw_the_rest() -> None:
    torch.manual_seed(0)
    model = build(preset("gpt2-nano", vocab_size=9, max_seq_len=4, n_layers=1))

    def rates(*args, **given) -> dict[str, float]:
        groups = make_optimizer(model, *args, **given).param_groups
        by_parameter = {id(p): group["lr"] for group in groups for p in group["params"]}
        return {name: by_parameter[id(p)] for name, p in model.named_parameters()}

    adamw, muon = rates("adamw", 0.003), rates("muon", 0.02, adam_lr=0.003)
    moved = {name for name in adamw if muon[name] != adamw[name]}
    assert moved == {n for n, p in model.blocks.named_parameters("blocks") if p.ndim == 2}


def test_of_all_changes_that_make_nothing_longer_the_orthogonal_one_agrees_best() -> None:
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    u, s, vt = torch.linalg.svd(g, full_matrices=False)
    best = float((g * (u @ vt)).sum())
    assert best == pytest.approx(float(s.sum()))
    for _ in range(50):
        other = torch.randn(4, 6, generator=generator, dtype=torch.float64)
        other /= torch.linalg.matrix_norm(other, 2)
        assert float((g * other).sum()) < best


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.8])
def test_momentum_moves_the_limit_to_twice_one_plus_mu_over_the_curvature(mu: float) -> None:
    """The open exercise, at a curvature of 25."""

    def after(lr: float) -> float:
        w = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = SGD([w], lr, mu)
        for _ in range(2000):
            w.grad = 25 * w.detach()
            optimizer.step()
        return abs(w.item())

    limit = 2 * (1 + mu) / 25
    assert after(0.99 * limit) < 1e-6 and after(1.01 * limit) > 1e6
    if mu == 0.8:
        assert limit == pytest.approx(0.144)


def test_with_complex_eigenvalues_the_path_shrinks_by_the_root_of_mu() -> None:
    mu, c = 0.8, 25.0
    for x in (1.01 * (1 - mu**0.5) ** 2, 1.0, 0.99 * (1 + mu**0.5) ** 2):
        step = torch.tensor([[1 - x, -x * mu / c], [c, mu]], dtype=torch.float64)  # rate x / c
        assert torch.linalg.eigvals(step).abs().tolist() == pytest.approx(2 * [mu**0.5])


def test_at_the_noise_scale_noise_and_signal_are_equally_long() -> None:
    """The example of the page: 4 windows."""
    generator = torch.Generator().manual_seed(0)
    windows = torch.tensor([1.0, 0.0]) + 2**0.5 * torch.randn(40_000, 2, generator=generator)
    of_four = windows.view(-1, 4, 2).mean(1)
    assert float((of_four - windows.mean(0)).square().sum(1).mean()) == pytest.approx(1, rel=0.05)
    found = signal_and_noise(of_four, batch=4)
    assert found["noise"] / found["signal"] == pytest.approx(4, rel=0.1)


def test_best_rates_by_width(prose: str) -> None:
    losses = means(load_record("learning-rate"), "d_model", "lr")
    best = {}
    for width in (16, 40, 96):
        of_width = {lr: loss for (d, lr), loss in losses.items() if d == width}
        best[width] = min(of_width, key=of_width.__getitem__)
    assert best == {16: 0.032, 40: 0.016, 96: 0.008}
    assert "0.032 in a model of width 16, at 0.016 with 40, at 0.008 with 96" in prose


def test_small_batches_are_ahead_at_equal_characters(prose: str) -> None:
    found = verdicts.by_batch(load_record("batch-size"))
    best = {batch: min(losses.values()) for batch, losses in found.items()}
    assert [round(best[batch], 2) for batch in (4, 16, 64)] == [3.08, 3.24, 3.65]
    edges = {batch: min(found[batch], key=found[batch].__getitem__) for batch in found}
    assert edges[64] == max(found[64]) and edges[4] < max(found[4]) and edges[16] < max(found[16])
    assert "3.08 bits per byte after 976 steps, against 3.65 after 61" in prose
    record = load_record("batch-size")
    taken = {r["settings"]["batch_size"]: r["result"]["steps"] for r in record.runs}
    assert taken == {4: 976, 16: 244, 64: 61}
    assert {r["settings"]["seed"] for r in record.runs} == {0}


def test_the_next_rung_is_lower_by_what_the_page_says(prose: str) -> None:
    by_rung = {step.rung: step for step in steps(load_record("staircase"))}
    assert by_rung["training"].better and round(by_rung["training"].gain, 2) == 0.04
    assert "0.04 bits per byte lower" in prose
