"""Chapter 11: what its page says of the record, of curves that are ill, of pickled checkpoints."""

import copy
import importlib.util
import json
import math
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from llmtutor.evaluate.compare import compare_family
from llmtutor.experiments import sick_curves as sick
from llmtutor.experiments.study import load_record, results_dir
from llmtutor.model.presets import build, preset

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


def parameters(run: Any) -> int:
    return sum(p.numel() for p in run.model.parameters())


def test_the_baseline_is_nanogpts_recipe_for_a_cpu(speedrun: ModuleType) -> None:
    run = speedrun.baseline(IDS, 65, speedrun.BASELINE_STEPS, seed=0)
    assert (len(run.model.blocks), run.model.tokens.weight.shape) == (4, (65, 128))
    assert next(run.batches)[0].shape == (12, 64) and speedrun.BASELINE_STEPS == 2000
    first = run.optimizer.param_groups[0]
    assert (first["lr"], first["betas"], first["weight_decay"]) == (1e-3, (0.9, 0.99), 0.1)
    assert run.schedule(99) < 1 == run.schedule(100)  # 100 steps of warm-up
    assert run.schedule(1999) == pytest.approx(0.1, abs=1e-3)
    assert run.clip == 1 and not any(n.endswith("bias") for n, _ in run.model.named_parameters())
    other = speedrun.baseline(IDS, 65, speedrun.BASELINE_STEPS, seed=0, lr=4e-3)
    assert {group["lr"] for group in other.optimizer.param_groups} == {4e-3}


def test_every_row_gives_up_one_difference_and_together_they_are_all(speedrun: ModuleType) -> None:
    rows = dict(speedrun.left_out(0.004, 0.003))
    whole = vars(rows.pop("nothing"))
    given_up: list[str] = []
    for name, recipe in rows.items():
        changed = {field for field, value in vars(recipe).items() if value != whole[field]}
        together = {"Muon": {"optimizer", "lr"}, "decay to zero": {"schedule", "final"}}
        together["two blocks instead of four"] = {"n_layers", "d_ff"}
        assert changed == together.get(name, changed) and (name in together or len(changed) == 1)
        given_up += changed
    # Muon's momentum goes with Muon; nothing else is left that the baseline does otherwise.
    assert set(whole) - set(given_up) == {"momentum"} and len(given_up) == len(set(given_up))


def test_a_row_does_what_it_says(speedrun: ModuleType) -> None:
    rows = speedrun.left_out(0.004, 0.003)
    runs = {name: speedrun.ours(recipe, IDS, 65, 1000, seed=0) for name, recipe in rows.items()}
    plain, tied = runs["nothing"].model, runs["head of its own"].model
    assert tied.head.weight is tied.embedding.weight and tied.head.weight.any()
    assert plain.head.weight is not plain.embedding.weight and not plain.head.weight.any()
    settings = {name: run.optimizer.param_groups for name, run in runs.items()}
    assert {g["betas"] for g in settings["beta2 of 0.95"] if "betas" in g} == {(0.9, 0.99)}
    assert {g["lr"] for g in settings["rate of AdamW"] if "betas" in g} == {0.004}
    assert {g["lr"] for g in settings["Muon"]} == {0.003}
    assert max(g["weight_decay"] for g in settings["no weight decay"]) == 0.1
    assert runs["no clipping"].clip == 1 and runs["nothing"].clip is None
    assert runs["short warm-up"].schedule(99) < 1 == runs["short warm-up"].schedule(100)
    assert hasattr(runs["rotary positions"].model.position, "weight")
    assert runs["zeros at the start"].model.blocks[0].mixer.output.weight.any()
    assert len(runs["n-gram embedding"].model.embedding.tables) == 0
    assert next(runs["batch of 32 windows"].batches)[0].shape == (12, 64)


def test_a_sweep_goes_on_while_an_end_is_the_best(speedrun: ModuleType) -> None:
    def start(lr: float) -> Any:
        run = SimpleNamespace(train=lambda n: None, evaluate=lambda v: None)
        run.curve = [(1, 1.0, math.inf if lr > 8 else abs(lr - 6.0))]
        return lambda steps, seed: run

    assert list(speedrun.sweep(start, (1, 2), 10, IDS)) == [1, 2, 4, 8]
    assert list(speedrun.sweep(start, (4, 8, 16), 10, IDS)) == [2, 4, 8, 16]
    assert list(speedrun.sweep(start, (6, 12), 10, IDS)) == [3, 6, 12]
    assert list(speedrun.sweep(start, (2, 4, 6, 8), 10, IDS)) == [2, 4, 6, 8]


def test_what_the_page_says_of_the_record(speedrun: ModuleType) -> None:
    """The baseline is tuned inside its sweep, and every difference has its row and its verdict."""
    record = json.loads((results_dir() / "bench-speedrun.json").read_text(encoding="utf-8"))
    for name, rates in record["rates"].items():
        losses = {float(lr): loss for lr, loss in rates.items() if loss is not None}
        best = min(losses, key=losses.__getitem__)
        assert record["chosen"][name] == best and min(losses) < best < max(losses)
    rows = speedrun.left_out(*record["chosen"].values())
    assert list(record["left_out"]) == list(rows)
    whole = dict(enumerate(record["left_out"]["nothing"]))
    assert len(whole) == record["left_out_seeds"] == 5 and record["seeds"] == 3
    by_seed = {name: dict(enumerate(losses)) for name, losses in record["left_out"].items()}
    del by_seed["nothing"]
    for name, gap in compare_family(by_seed, whole).items():
        mean, low, high = record["left_out_gaps"][name]
        assert mean == pytest.approx(gap.difference, abs=1e-4)
        assert (low, high) == pytest.approx(gap.t_interval, abs=1e-4)
        assert record["left_out_verdicts"][name] == gap.verdict
    gaps = {n: record["left_out_gaps"][n][0] for n, v in record["left_out_verdicts"].items()
            if v == "worse"}  # fmt: skip
    order = sorted(gaps, key=gaps.__getitem__, reverse=True)
    assert order == ["two blocks instead of four", "Muon", "n-gram embedding", "rotary positions",
                     "Glorot's start"]  # fmt: skip
    words = "two blocks for four bring {:.2f} nats, Muon {:.2f}, the n-gram tables {:.2f}, "
    words += "rotary positions {:.2f} and Glorot's start {:.2f}"
    assert words.format(*(gaps[name] for name in order)) in PAGE.read_text(encoding="utf-8")
    assert "better" not in record["left_out_verdicts"].values()
    assert "Five of the fifteen are detected" in (ROOT / "book" / "performance.md").read_text(
        "utf-8"
    )
    run = speedrun.baseline(IDS, 65, 100, seed=0)
    assert record["parameters"]["baseline"] == parameters(run)
    for name, recipe in rows.items():
        size = parameters(speedrun.ours(recipe, IDS, 65, 100, seed=0))
        assert record["left_out_parameters"][name] == size
    four = record["left_out_parameters"]["two blocks instead of four"]
    page = PAGE.read_text(encoding="utf-8")
    pub, tuned = (
        1 / np.mean(record["intervals"][k]) for k in ("published_time_ratio", "time_ratio")
    )
    assert f'one could say \\"{pub:.0f} times faster\\"' in page
    assert f'what is left is \\"{tuned:.1f} times faster\\"' in page
    assert f"{four / 1e6:.2f} million parameters" in page and "nobody tuned" not in page


def test_rows_whose_steps_compute_the_same_get_as_many_of_them(speedrun: ModuleType) -> None:
    record = json.loads((results_dir() / "bench-speedrun.json").read_text(encoding="utf-8"))
    rows = speedrun.left_out(*record["chosen"].values())
    kinds = {name: speedrun.works_like(recipe) for name, recipe in rows.items()}
    alike = {name for name, kind in kinds.items() if kind == kinds["nothing"]}
    settings = {"decay to zero", "short warm-up", "no weight decay", "beta2 of 0.95"}
    starts = {"Glorot's start", "zeros at the start"}
    assert alike == {"nothing", "rate of AdamW", *settings, *starts}
    assert len({record["left_out_steps"][name] for name in alike}) == 1
    assert len(set(kinds.values())) == 1 + len(rows) - len(alike)
    # at Muon's rate AdamW makes denormal numbers: a step takes half as long again, until flushed
    assert kinds["Muon"].lr == rows["Muon"].lr != rows["nothing"].lr


def test_the_page_has_the_tables_of_the_recipe(speedrun: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    pairs, triples = speedrun.RECIPE.rows
    assert f"share {pairs:,} and {triples:,} rows" in page
    assert f"{65**2:,} possible pairs and {65**3:,} triples" in page


@pytest.fixture(scope="module")
def runs() -> dict[str, list[dict[str, Any]]]:
    record = load_record(sick.STUDY)
    found = {name: record.results(illness=name) for name in (*sick.ALL, *sick.COUNTS)}
    assert all(len(found[name]) == sick.SEEDS == 3 for name in sick.ALL)
    return found


def test_ill_curves_have_the_signs_that_the_page_names(runs: dict[str, list[Any]]) -> None:
    bigram = runs["bigram"][0]["valid_loss"]
    for seed, healthy in enumerate(runs[sick.HEALTHY]):
        of = {name: runs[name][seed] for name in sick.ILLNESSES}
        curves = {name: run["curve"]["loss"] for name, run in of.items()}
        reported = {name: run["marks"]["loss"] for name, run in of.items()}
        trigram = runs["trigram"][0]["valid_loss"]
        assert trigram < healthy["valid_loss"] < bigram
        assert reported["leak"][-1] < 0.01 and of["leak"]["valid_loss"] > 10
        assert set(of["dead"]["grad_norm"]) == {0.0}
        assert {round(loss, 2) for loss in curves["dead"]} == {4.43} == {round(math.log(84), 2)}
        assert reported["little"][-1] > min(reported["little"]) + 0.1
        assert curves["little"][-1] < reported["little"][-1] - 1
        assert min(curves["pile"][-6:]) > bigram + 0.7  # as a rate that is too high
        assert of["pile"]["grad_norm"][-1] > 50 * healthy["grad_norm"][-1]
        assert of["rate"]["grad_norm"][-1] < 2 * healthy["grad_norm"][-1]
        assert curves["rate"][-1] > bigram + 0.3
        late, before = np.mean(curves["order"][-6:]), min(curves["order"][:-6])
        assert late > before + 0.1 and reported["order"][-1] > min(reported["order"]) + 0.1
        assert of["decay"]["grad_norm"][-1] > 2 * healthy["grad_norm"][-1]
        assert reported["decay"][-1] > healthy["marks"]["loss"][-1] + 0.15


def test_every_illness_costs_in_every_pair_and_a_cold_start_need_not(runs: dict[str, Any]) -> None:
    record = load_record(sick.STUDY)
    found = sick.verdicts(record)
    healthy = sick.by_seed(record, sick.HEALTHY)
    for name in sick.ILLNESSES:
        if name != sick.HEALTHY:
            losses = sick.by_seed(record, name)
            assert all(losses[seed] > healthy[seed] for seed in healthy)
            assert found[name].verdict == "worse", name
    low, high = found["cold"].t_interval
    assert found["cold"].verdict == "not distinguishable" and low < 0 < high


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


def test_checkpointing_costs_a_quarter_as_the_last_product_of_a_block_is_not_made_again() -> None:
    """With torch's early stop taken away every block is run forward again, as a whole."""
    torch.manual_seed(0)
    shape = {"n_layers": 6, "d_model": 64, "n_heads": 4, "d_ff": 176}
    kept = build(preset("llama-nano", vocab_size=65, max_seq_len=64, **shape))
    again = copy.deepcopy(kept)
    for block in again.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    ids = torch.randint(65, (16, 64))

    def operations(model: torch.nn.Module, early_stop: bool) -> int:
        with set_checkpoint_early_stop(early_stop), FlopCounterMode(display=False) as counter:
            model(ids).mean().backward()
        return counter.get_total_flops()

    plain = operations(kept, True)
    stopped, through = (operations(again, early_stop) for early_stop in (True, False))
    down = 2 * ids.numel() * shape["n_layers"] * shape["d_model"] * shape["d_ff"]
    assert through - stopped == down
    assert 0.23 < stopped / plain - 1 < 0.27 and 0.30 < through / plain - 1 < 1 / 3
