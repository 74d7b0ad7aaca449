"""Chapter 11: what its page says of the record's two recipes, and of pickled checkpoints."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "book" / "chapters" / "11_training.ipynb"


@pytest.fixture(scope="module")
def speedrun() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        path = ROOT / "benchmarks" / "speedrun.py"
        spec = importlib.util.spec_from_file_location("speedrun", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules["speedrun"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return module


IDS = np.zeros(100, np.int64)


def test_the_baseline_has_the_settings_of_nanogpt_on_a_cpu(speedrun: ModuleType) -> None:
    run = speedrun.baseline(IDS, 65, speedrun.BASELINE_STEPS, seed=0)
    assert (len(run.model.blocks), run.model.tokens.weight.shape) == (4, (65, 128))
    assert next(run.batches)[0].shape == (12, 64) and speedrun.BASELINE_STEPS == 2000
    first = run.optimizer.param_groups[0]
    assert (first["lr"], first["betas"], first["weight_decay"]) == (1e-3, (0.9, 0.99), 0.1)
    assert run.schedule(99) < 1 == run.schedule(100)  # 100 steps of warm-up
    assert run.schedule(1999) == pytest.approx(0.1, abs=1e-3)


def test_five_differences_stand_in_every_variant(speedrun: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "Five differences more stand in *every* variant" in page
    for name, recipe in speedrun.LEFT_OUT.items():
        run = speedrun.ours(recipe, IDS, 65, 1000, seed=0)
        assert run.model.head.weight is not run.model.embedding.weight, name
        assert all(group["weight_decay"] == 0 for group in run.optimizer.param_groups), name
        betas = {group["betas"] for group in run.optimizer.param_groups if "betas" in group}
        assert betas == {(0.9, 0.95)}, name
        of_adam = {g["lr"] for g in run.optimizer.param_groups if "betas" in g}
        assert of_adam == ({0.003} if name == "Muon" else {0.01}), name
        assert run.schedule(9) < 1 and run.schedule(10) == pytest.approx(1), name


def test_the_page_has_the_tables_of_the_recipe(speedrun: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    pairs, triples = speedrun.RECIPE.rows
    assert f"a table of {pairs:,} and one of {triples:,}" in page
    assert f"{65**2:,} possible pairs and {65**3:,} triples" in page


class Program:
    """Unpickled, it would run a function of its author's choice."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("I run",)


def test_torch_refuses_a_pickled_program_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(Program(), tmp_path / "stranger.pt")
    with pytest.raises(Exception, match="weights_only"):
        torch.load(tmp_path / "stranger.pt")
    assert capsys.readouterr().out == ""
    torch.load(tmp_path / "stranger.pt", weights_only=False)
    assert capsys.readouterr().out == "I run\n"
