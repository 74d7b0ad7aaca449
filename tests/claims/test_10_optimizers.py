"""Chapter 10: what its page says of Muon, of rates, of the race, of noise and of batches."""

from pathlib import Path
from statistics import mean
from typing import Any

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

    def rates(*args: Any, **given: Any) -> dict[str, float]:
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


def cost(name: str, factor: float) -> float:
    """Bits per byte that a rate costs, as a multiple of the best."""
    tried = verdicts.searched(name)
    best = min(tried, key=tried.__getitem__)
    return tried[best * factor] - tried[best]


def test_only_sgd_has_its_best_rate_beside_a_cliff(prose: str) -> None:
    assert round(cost("SGD", 2), 2) == 1.86 and "twice that costs 1.86 bits per byte" in prose
    found = {
        name: (round(cost(name, 2), 2), round(cost(name, 0.5), 2)) for name in ("AdamW", "Muon")
    }
    assert found == {"AdamW": (0.01, 0.06), "Muon": (0.02, 0.04)}
    assert (
        "AdamW loses 0.01 at twice its best rate and 0.06 at half of it, Muon 0.02 and 0.04"
        in prose
    )
    assert cost("momentum", 2) < 0.1
    best = {n: min(t := verdicts.searched(n), key=t.__getitem__) for n in ("SGD", "momentum")}
    assert best == {"SGD": 6.4, "momentum": 0.8}
    of_l2 = {
        n: min(t := verdicts.searched(n), key=t.__getitem__) for n in ("SGD, L2", "momentum, L2")
    }
    assert best["SGD"] == 4 * of_l2["SGD, L2"] == 6.4
    assert best["momentum"] == 4 * of_l2["momentum, L2"]
    assert of_l2["SGD, L2"] * 0.1 == pytest.approx(0.16)  # of a weight, in a step


def test_the_adamw_beside_muon_matters_little(prose: str) -> None:
    found = verdicts.beside_muon(load_record("racing-rates"))
    assert min(found) == 0.002 and max(found) == 0.064
    assert round(max(found.values()) - min(found.values()), 2) == 0.02
    assert "between 0.002 and 0.064, worst and best are 0.02 bits apart" in prose


def test_l2_through_the_gradient_puts_sgd_above_the_bigram() -> None:
    levels = verdicts.counted()
    for name in ("SGD", "momentum"):
        assert min(verdicts.by_seed(f"{name}, L2").values()) > levels["bigram"]
    assert abs(mean(verdicts.by_seed("SGD").values()) - levels["trigram"]) < 0.01
    assert max(verdicts.by_seed("momentum").values()) < levels["trigram"] - 0.1


def test_the_order_of_the_race(prose: str) -> None:
    found = verdicts.race()
    cost_of_l2 = [found[f"{name}, L2 − {name}"].difference for name in ("SGD", "momentum")]
    assert [round(bits, 2) for bits in cost_of_l2] == [0.95, 1.07]
    assert "cost SGD 0.95 and momentum 1.07 bits per byte" in prose
    gaps = {"momentum − SGD": 0.2, "AdamW − momentum": 0.1, "Muon − AdamW": 0.09}
    assert min(cost_of_l2) > 2 * sum(gaps.values())
    for pair, gap in gaps.items():
        assert found[pair].verdict == "better" and found[pair].n_seeds == 5
        assert round(-found[pair].difference, 2) == gap
        first, second = (verdicts.by_seed(name) for name in pair.split(" − "))
        assert all(first[seed] < second[seed] for seed in range(5))
        told = f"{gap:.2f} ahead of {pair.split(' − ')[1]}"
        assert prose.count(told.replace("0.09 ahead", "0.09 bits per byte ahead")) >= 1


def test_what_warm_up_and_a_falling_rate_are_worth(prose: str) -> None:
    found = verdicts.ablations()
    falls = [found[f"{name}, no decay"] for name in verdicts.ABLATED]
    assert [round(gap.difference, 2) for gap in falls] == [0.08, 0.13]
    assert {gap.verdict for gap in falls} == {"worse"}
    assert "0.08 bits per byte to AdamW and 0.13 to Muon" in prose
    for name, reach in zip(verdicts.ABLATED, (0.015, 0.005), strict=True):
        gap = found[f"{name}, no warm-up"]
        assert gap.verdict == "not distinguishable" and abs(gap.difference) < 0.0015
        assert round((gap.t_interval[1] - gap.t_interval[0]) / 2, 3) == reach
    assert "±0.015 and ±0.005 around nothing" in prose


def test_the_noise_scale_grows_because_the_signal_fades(prose: str) -> None:
    found = verdicts.noise(load_record("gradient-noise"))
    assert [round(found[step]["windows"]) for step in (0, 50, 200, 800)] == [3, 33, 22, 280]
    assert found[0]["windows"] < 16 < found[50]["windows"]
    assert 100 < found[0]["signal"] / found[800]["signal"] < 150
    assert 0.8 < found[800]["noise"] / found[0]["noise"] < 1
    for run in load_record("gradient-noise").runs:  # in every seed
        ends = [run["result"]["noise"][step] for step in ("0", "800")]
        first, last = (part["noise"] / part["signal"] for part in ends)
        assert first < 4 and last > 200
    assert "after 50 steps it is 33, after 200 it is 22, at the end 280" in prose
