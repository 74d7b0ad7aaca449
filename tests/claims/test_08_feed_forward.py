"""Chapter 08: what its text says of the studies, of published models and of a chained gate."""

import re
from pathlib import Path

import nbformat
import pytest
import torch

from llmtutor.experiments import feed_forward as study
from llmtutor.experiments.choosing.verdicts import findings
from llmtutor.experiments.staircase import steps
from llmtutor.experiments.study import load_record
from llmtutor.layers.ffn import GatedMLP, swiglu_width
from llmtutor.model.published import PUBLISHED

CHAPTERS = Path(__file__).resolve().parents[2] / "book" / "chapters"


def page(name: str) -> tuple[str, str]:
    """Its Markdown, and all text of its outputs."""
    cells = nbformat.read(CHAPTERS / f"{name}.ipynb", as_version=4).cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    outputs = [o for c in cells if c.cell_type == "code" for o in c.outputs]
    shown = [o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in outputs]
    return prose, "\n".join(shown)


def test_a_chained_gate_can_say_all_that_a_true_one_can_if_it_is_wide_enough() -> None:
    """The open exercise: V = U G⁺."""
    torch.manual_seed(0)
    x = torch.randn(50, 6, dtype=torch.float64)
    for d_ff, enough in ((16, True), (6, True), (4, False)):
        true = GatedMLP(6, d_ff).double()
        gate, up, down = (p.detach() for p in true.parameters())
        chained = up @ torch.linalg.pinv(gate)
        a = x @ gate.T
        ours = (torch.nn.functional.silu(a) * (a @ chained.T)) @ down.T
        assert ((ours - true(x)).abs().max() < 1e-12) == enough
        assert chained.numel() / up.numel() == d_ff / 6


def test_in_transformers_layers_without_a_gate_are_worse_though_none_is_past_the_trigram() -> None:
    prose, shown = page("08_feed_forward")
    found = findings(load_record("choosing"), "small")
    gaps = {name: found[name].gap for name in ("gelu", "squared relu", "relu")}
    assert all(gap.verdict == "worse" and gap.n_seeds == 5 for gap in gaps.values())
    assert [round(gap.difference, 2) for gap in gaps.values()] == [0.05, 0.05, 0.08]
    assert "0.05 to 0.08 bits per byte" in prose
    trigram = re.search(r"Level line “trigram” at (\d\.\d+)", page("20_comparison")[1])
    assert trigram and re.search(rf"trigram \(chapter 20\) +{trigram[1]}", shown)


def test_the_last_rung_and_the_one_of_this_chapter() -> None:
    prose, _ = page("08_feed_forward")
    by_rung = {step.rung: step for step in steps(load_record("staircase"))}
    rung, before = by_rung["feed-forward"], by_rung["norms"]
    assert rung.better and round(rung.gain, 2) == 0.04 and "0.04 bits per byte" in prose
    assert round(rung.n_params / before.n_params, 1) == 1.4 and "40 % more parameters" in prose


def test_widths_of_published_models() -> None:
    ratios = {n: c.blocks[-1].ffn.d_ff / c.d_model for n, c in PUBLISHED.items()
              if hasattr(c.blocks[-1].ffn, "d_ff")}  # fmt: skip
    assert ratios["gpt2"] == 4 and ratios["llama3-8b"] == ratios["mistral-7b"] == 3.5
    assert PUBLISHED["llama2-7b"].blocks[0].ffn.d_ff == swiglu_width(4096, 256)
    assert ratios["gemma3-1b"] == max(ratios.values()) == 6


@pytest.mark.parametrize("form", study.FORMS)
def test_every_form_has_its_rate_inside_the_grid_and_is_past_the_trigram(form: str) -> None:
    rates = study.tried(load_record(study.RATES_STUDY), form)
    record = load_record(study.STUDY)
    assert min(rates) < record.plan["learning_rate"][form] < max(rates)
    losses = study.losses(record, form)
    assert sorted(losses) == [*range(len(losses))] and len(losses) >= 1
    assert max(losses.values()) < study.losses(record, "trigram")[0] - 0.2
