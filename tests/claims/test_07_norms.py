"""Chapter 07: hand examples, published models, a turned stream, and what the studies say."""

import json
import math
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from llmtutor.experiments import placements
from llmtutor.experiments.depth import DEPTHS, PLACEMENTS, QK_RATES, SEEDS
from llmtutor.experiments.rungs import RUNGS
from llmtutor.experiments.staircase import steps
from llmtutor.experiments.study import load_record, results_dir
from llmtutor.layers.norms import layer_norm, rms_norm
from llmtutor.model.presets import build, preset

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "chapters" / "07_norms.ipynb"


def prose() -> str:
    cells = nbformat.read(CHAPTER, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_the_example_by_hand() -> None:
    x = torch.tensor([1.0, 3.0, 5.0, 7.0])
    ones = torch.ones(4)
    says = prose()
    for vector in (layer_norm(x, ones), rms_norm(x, ones)):
        entries = ", ".join(f"{v:.2f}" for v in vector.tolist())
        assert f"({entries})" in says
    assert x.mean() == 4 and (x - 4).square().mean() == 5 and x.square().mean() == 84 / 4
    assert f"{math.sqrt(5):.2f}" == "2.24" and f"{math.sqrt(21):.2f}" == "4.58"
    assert x @ x / math.sqrt(4) == 42 and "84 / \\sqrt 4 = 42" in says
    assert pytest.approx(4e9, rel=0.1) == 2**32 and math.sqrt(64) == 8
    assert math.sqrt(2 * 50) == 10  # the quiz: a hundred sums


def test_sums_of_unrelated_vectors_grow_like_interest_or_like_a_root() -> None:
    generator = torch.Generator().manual_seed(0)
    as_large, of_size_one = (torch.randn(64, 512, generator=generator) for _ in range(2))
    for _ in range(64):
        step = torch.randn(64, 512, generator=generator)
        as_large = as_large + rms_norm(step, torch.ones(512)) * size(as_large)[:, None]
        of_size_one = of_size_one + rms_norm(step, torch.ones(512))
    assert math.log2(size(as_large).mean()) == pytest.approx(32, abs=1)
    assert size(of_size_one).mean() == pytest.approx(math.sqrt(65), rel=0.05)


def size(x: torch.Tensor) -> torch.Tensor:
    return x.square().mean(-1).sqrt()


def test_a_turned_stream_gives_the_same_logits_with_rmsnorm_and_others_with_layernorm() -> None:
    """The open exercise: gains folded first, then Q into each matrix that reads or writes."""
    turn = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)).double())
    for norm, same in (("rmsnorm", True), ("layernorm", False)):
        torch.manual_seed(0)
        config = preset("llama-nano", d_model=32, n_layers=2, n_heads=4, d_ff=48)
        model = build(config.replace(norm=norm, tie_weights=False)).double()
        ids = torch.randint(config.vocab_size, (2, 9))
        with torch.no_grad():
            for name, gain in model.named_parameters():
                if "norm" in name and name.endswith("weight"):
                    gain.uniform_(0.5, 1.5)
            before = model(ids)
            turned(model, turn.Q)
            assert ((model(ids) - before).abs().max() < 1e-9) == same


def turned(model: torch.nn.Module, q: torch.Tensor) -> None:
    """The model with its gains folded and its stream turned, in place."""

    def fold(norm: torch.nn.Module, *readers: torch.nn.Module) -> None:
        for reader in readers:
            reader.weight.mul_(norm.weight)
            reader.weight.copy_(reader.weight @ q)
        norm.weight.fill_(1.0)

    model.embedding.weight.copy_(model.embedding.weight @ q)
    for block in model.blocks:
        fold(block.norm_1, block.mixer.query, block.mixer.key, block.mixer.value)
        fold(block.norm_2, block.ffn.gate, block.ffn.up)
        for writer in (block.mixer.output, block.ffn.down):
            writer.weight.copy_(q.T @ writer.weight)
    fold(model.norm, model.head)


def test_in_todays_models_norms_are_where_the_text_says() -> None:
    places = {
        name: preset(name).blocks[0].norm_placement
        for name in ("gpt2", "llama3-8b", "olmo2-1b", "gemma2-2b", "gemma3-1b", "qwen3-0.6b")
    }
    assert places["gpt2"] == places["llama3-8b"] == places["qwen3-0.6b"] == "pre"
    assert places["olmo2-1b"] == "res-post"
    assert places["gemma2-2b"] == places["gemma3-1b"] == "sandwich"
    mixers = {name: preset(name).blocks[0].mixer for name in places}
    normed = {name for name, mixer in mixers.items() if mixer.qk_norm is not None}
    assert normed == {"olmo2-1b", "gemma3-1b", "qwen3-0.6b"}
    assert mixers["gemma2-2b"].softcap == 50 and mixers["gemma3-1b"].softcap is None
    assert preset("qwen2.5-0.5b").blocks[0].mixer.bias and not mixers["qwen3-0.6b"].bias


def test_the_rung_of_this_chapter() -> None:
    by_rung = {step.rung: step for step in steps(load_record("staircase"))}
    rung, before = by_rung["norms"], by_rung["rope"]
    assert RUNGS["norms"].new == "LayerNorm before attention and output"
    assert rung.better and f"{rung.gain:.3f} bits per byte" in prose()
    assert rung.n_params - before.n_params == 2 * 128


VERDICTS = {
    "post": {"better": [2], "worse": [8, 16]},
    "res-post": {"worse": [4, 8, 16]},
    "none": {"better": [2]},
}
"""By placement, the depths at which it is "better" or "worse" than pre-norm; others are neither."""
NONE_AGAINST_POST = {"not distinguishable": [2, 4], "better": [8]}
"""By verdict, the depths: no norm minus post-norm."""
DEEPER = {"pre": "better", "post": "worse", "res-post": "worse", "sandwich": "better"}
"""By placement, the verdict on 16 blocks minus 2."""
QK = {"loss, each at its best rate": "better", "sensitivity to the rate": "better"}
"""By question, the verdict on QK-norm minus plain."""


def test_verdicts_on_placements() -> None:
    gaps = placements.against(load_record("depth"), [n for n in PLACEMENTS if n != "pre"], "pre")
    found: dict[str, dict[str, list[int]]] = {}
    for (name, n), gap in gaps.items():
        assert gap.n_seeds == SEEDS
        if gap.verdict != "not distinguishable":
            found.setdefault(name, {}).setdefault(gap.verdict, []).append(n)
    assert found == VERDICTS


def test_what_the_text_says_of_single_placements() -> None:
    record = load_record("depth")
    found, bit = placements.by_depth(record), math.log(2)
    letters = placements.counted(1)
    learned = {n: [loss < letters - 0.1 for loss in found["post"][n].values()] for n in DEPTHS}
    assert [sum(learned[n]) for n in DEPTHS] == [5, 4, 5, 2]
    assert min(found["post"][16].values()) > placements.counted(2)
    assert [sum(map(math.isinf, found["none"][n].values())) for n in DEPTHS] == [0, 0, 0, 2]
    gaps = placements.against(record, [n for n in PLACEMENTS if n != "pre"], "pre")
    assert len(gaps) == 15 and round(gaps["post", 2].difference / bit, 1) == -0.1
    sandwich = [end / bit for n in DEPTHS for end in gaps["sandwich", n].t_interval]
    assert max(map(abs, sandwich)) < 0.06
    behind = [gaps["res-post", n].difference for n in DEPTHS]
    assert behind == sorted(behind)
    third = placements.against(record, ["none"], "post")["none", 8].difference / bit
    assert round(-third, 2) == 0.33
    searched = load_record("depth-rates").results(placement="post")
    assert min(float(lr) for result in searched for lr in result["losses"]) == 0.00025


def test_rms_norm_is_quicker_as_written_and_slower_in_torch() -> None:
    times = json.loads((results_dir() / "bench-norms.json").read_text(encoding="utf-8"))
    of = {
        who: [times[f"8x256x{d}_rmsnorm_{who}_time_to_layernorm"] for d in (128, 768)]
        for who in ("as_written", "torch", "ours")
    }
    assert all(0.55 < ratio < 0.65 for ratio in of["as_written"])
    assert all(3.45 < ratio < 4.1 for ratio in of["torch"])
    assert all(3 <= ratio < 4 for ratio in of["ours"])
    fused = [times[f"8x256x{d}_layernorm_as_written_time_to_torch"] for d in (128, 768)]
    assert [round(ratio) for ratio in fused] == [8, 8]


def test_torch_has_a_kernel_of_layer_norm_for_cpus_and_none_of_rms_norm() -> None:
    x, gain = torch.randn(8, 16), torch.ones(16)
    for norm, fused in ((F.layer_norm, True), (F.rms_norm, False)):
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            norm(x, (16,), gain)
        called = {event.key for event in seen.key_averages()}
        assert ("aten::native_layer_norm" in called) == fused
        assert ({"aten::pow", "aten::mean"} <= called) != fused


def test_no_norm_against_post_norm_and_sixteen_blocks_against_two() -> None:
    record, found = load_record("depth"), dict[str, list[int]]()
    for (_, n), gap in placements.against(record, ["none"], "post").items():
        found.setdefault(gap.verdict, []).append(n)
    assert found == NONE_AGAINST_POST
    assert {name: gap.verdict for name, gap in placements.deeper(record).items()} == DEEPER


def test_every_stack_has_its_own_rate_and_all_its_seeds() -> None:
    record = load_record("depth")
    for name, by_depth in placements.by_depth(record).items():
        for n in DEPTHS:
            assert len(by_depth[n]) == SEEDS and str(n) in record.plan["lr"][name]


def test_qk_norm_against_the_rate() -> None:
    record = load_record("qk-norm")
    assert {name: gap.verdict for name, gap in placements.qk_gaps(record).items()} == QK
    for qk_norm in (False, True):
        by_rate = placements.by_rate(record, qk_norm)
        assert tuple(by_rate) == QK_RATES
        assert all(len(of_seed) == SEEDS for of_seed in by_rate.values())
        assert np.isfinite(placements.best_rate(by_rate))


def test_what_the_text_says_of_rates() -> None:
    record, bit = load_record("qk-norm"), math.log(2)
    best, gap = (comparison.difference / bit for comparison in placements.qk_gaps(record).values())
    assert (round(best, 3), round(gap, 2)) == (-0.015, -0.18)
    lost = {}
    for qk_norm, lr in ((True, 0.016), (False, 0.008)):
        means = {
            rate: float(np.mean(list(of_seed.values()))) / bit
            for rate, of_seed in placements.by_rate(record, qk_norm).items()
        }
        assert min(means, key=means.__getitem__) == lr
        lost[qk_norm] = round(means[8 * lr] - means[lr], 2)
    assert lost == {True: 0.12, False: 0.40}
    plain = placements.by_rate(record, False)[0.128]
    assert 0 < placements.counted(2) / bit - np.mean(list(plain.values())) / bit < 0.1


def test_nothing_is_left_to_be_filled_in() -> None:
    assert not re.findall("⟦.*?⟧", CHAPTER.read_text(encoding="utf-8"))
