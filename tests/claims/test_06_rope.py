"""Chapter 06: what its text says of rotations, of published models and of the studies."""

import math
from pathlib import Path

import nbformat
import pytest
import torch
from transformers import Gemma3TextConfig, Llama4TextConfig, SmolLM3Config

from llmtutor.experiments import context_extension as study
from llmtutor.experiments import positions
from llmtutor.experiments.staircase import steps
from llmtutor.experiments.study import Record, load_record
from llmtutor.experiments.training import tokens
from llmtutor.layers.positions.rope import Rope
from llmtutor.model.published import PUBLISHED

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "chapters" / "06_rope.ipynb"


def page() -> tuple[str, str]:
    """Its Markdown, and all text of its outputs."""
    cells = nbformat.read(CHAPTER, as_version=4).cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    outputs = [o for c in cells if c.cell_type == "code" for o in c.outputs]
    shown = [o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in outputs]
    return prose, "\n".join(shown)


def scores(rope: Rope, q: torch.Tensor, k: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """Of each pair (…, head_dim) at each distance, (…, distances)."""
    at = rope.rotate(q[..., None, :].expand(*q.shape[:-1], len(distances), -1), distances)
    return (at * k[..., None, :]).sum(-1)


def test_the_sign_of_the_distance_counts() -> None:
    rope = Rope(8)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))

    def score(at_q: int, at_k: int) -> float:
        turned = (rope.rotate(x, torch.tensor([at])) for x, at in ((q, at_q), (k, at_k)))
        return float((next(turned) * next(turned)).sum())

    assert abs(score(5, 2) - score(9, 6)) < 1e-5
    assert abs(score(5, 2) - score(2, 5)) > 0.1


def test_unrelated_vectors_favour_no_distance_and_a_match_favours_the_near() -> None:
    rope, distances = Rope(64), torch.arange(100)
    q, k = torch.randn(2, 3000, 64, generator=torch.Generator().manual_seed(1))
    unrelated = scores(rope, q, k, distances)
    error = unrelated.std(0) / math.sqrt(len(q))
    assert (unrelated.mean(0).abs() < 4.5 * error).all()
    match = scores(rope, q, q, distances).mean(0)
    assert match.argmax() == 0 and match[50:].max() < 0.7 * match[0]


@pytest.mark.parametrize("distance", [0, 7, 90])
def test_for_any_distance_there_is_a_key_that_scores_highest_there(distance: int) -> None:
    rope, distances = Rope(64), torch.arange(100)
    q = torch.randn(1, 64, generator=torch.Generator().manual_seed(2)).double()
    key = rope.rotate(q, torch.tensor([distance]))
    assert scores(rope, q[0], key[0], distances).argmax() == distance


def test_every_fourth_layer_of_two_models_has_no_positions_and_gemma_has_two_bases() -> None:
    for config in (SmolLM3Config(), Llama4TextConfig()):
        turns = config.no_rope_layers  # 1 where RoPE is used
        assert [i for i, turn in enumerate(turns) if not turn] == list(range(3, len(turns), 4))
    theirs = {kind: p["rope_theta"] for kind, p in Gemma3TextConfig().rope_parameters.items()}
    assert theirs == {"sliding_attention": 10_000, "full_attention": 1_000_000}
    ours = {b.mixer.window: b.mixer.position.base for b in PUBLISHED["gemma3-1b"].blocks}
    assert ours == {512: 10_000, None: 1_000_000}


def test_bases_and_parts_of_published_models() -> None:
    _, shown = page()
    place = {name: config.blocks[-1].mixer.position for name, config in PUBLISHED.items()
             if hasattr(config.blocks[-1].mixer, "position")}  # fmt: skip
    assert place["llama2-7b"].base == 10_000 and place["llama3-8b"].base == 500_000
    assert place["qwen3-0.6b"].base == 1_000_000 and place["qwen3-next-80b-a3b"].fraction == 0.25
    for name in ("llama2-7b", "llama3-8b", "qwen3-0.6b"):
        d = PUBLISHED[name].blocks[0].mixer.width(PUBLISHED[name].d_model)
        turn = math.tau * place[name].base ** ((d - 2) / d)
        line = next(line for line in shown.splitlines() if line.startswith(name))
        assert f"{place[name].base:,.0f}" in line and f"{turn / 1000:,.0f} thousand" in line


def test_the_rung_of_this_chapter_is_better_with_fewer_parameters() -> None:
    prose, _ = page()
    found = {step.rung: step for step in steps(load_record("staircase"))}
    rung, before = found["rope"], found["positions"]
    assert rung.better and round(rung.gain, 2) == 0.04 and "0.04 bits per byte better" in prose
    assert rung.n_params < before.n_params and "with fewer parameters" in prose


def test_without_a_scaling_the_last_rung_is_worse_than_counting_beyond_its_context() -> None:
    """What the table of the page shows, against the records."""
    prose, shown = page()
    trigram = next(s for s in steps(load_record("staircase")) if s.rung == "trigram")
    table = shown.split("and beyond the first 256 of 1,024")[1]
    line = next(line for line in table.splitlines() if line.startswith("no scaling"))
    _, near, _, far = map(float, line.split()[-4:])
    assert near < trigram.bits_per_byte < far
    assert f"({trigram.bits_per_byte:.2f})" in prose


def test_settings_of_the_study_as_the_page_says_them() -> None:
    read = positions.STEPS * positions.BATCH * positions.SEQ_LEN
    more = positions.MORE_STEPS * positions.MORE_BATCH * positions.LONG
    assert 16 * more == read
    assert (positions.STEPS, positions.MORE_STEPS, positions.WINDOWS) == (3200, 200, 400)
    assert (positions.SEQ_LEN, positions.LONG, positions.FACTOR) == (64, 256, 4)
    assert positions.D_MODEL // positions.N_HEADS == 16 and positions.N_LAYERS == 3


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record(study.STUDY)


def test_rows_of_the_study_are_those_of_the_record(record: Record) -> None:
    _, shown = page()
    families = [
        ("beyond", "before", study.gaps(record, "before", "beyond")),
        ("short", "before", study.gaps(record, "before", "short")),
        ("beyond", "after", study.behind(record, "beyond")),
        ("short", "after", study.prices(record)),
    ]
    for part, when, gaps in families:
        for name, gap in gaps.items():
            bits = list(study.losses(record, name, when, part).values())
            assert len(bits) == positions.SEEDS
            start = f"{sum(bits) / len(bits):.3f}", gap.verdict
            assert any(
                line.startswith(name) and all(word in line for word in start)
                for line in shown.splitlines()
            ), (name, part, when)


def test_without_training_two_scalings_read_on_and_each_has_its_price(record: Record) -> None:
    prose, _ = page()
    gaps = study.gaps(record, "before", "beyond")
    better = [name for name, gap in gaps.items() if gap.verdict == "better"]
    assert better == ["NTK-aware", "YaRN", "Llama 3"]
    assert gaps["interpolation"].verdict == "worse"
    along = {name: study.curve(record, name, "before") for name in positions.SCALINGS}
    blind = math.log(tokens()[2])
    assert along["no scaling"][-1] > 0.95 * blind and along["NTK-aware"][-1] > 0.9 * blind
    assert all(max(along[name][8:]) < 0.5 * blind for name in ("YaRN", "Llama 3"))
    until = [at for at, loss in zip(study.PLACES, along["NTK-aware"], strict=True) if loss < 2]
    assert max(until) == 156 and "holds until about position 156" in prose
    paid = study.gaps(record, "before", "short")
    assert {gap.verdict for gap in paid.values()} == {"worse"}
    by_name = {name: f"{gap.difference:.2f}" for name, gap in paid.items()}
    said = "{NTK-aware} bits per byte for NTK-aware scaling, {YaRN} for YaRN, {Llama 3} for Llama 3"
    assert said.format(**by_name) in prose


def test_in_long_windows_four_pairs_of_ntk_reach_new_angles() -> None:
    """In windows of 256 pair i turns as far as it did in training at 64 · factor tokens."""
    plain, slowed = (
        Rope(16, scaling=positions.SCALINGS[name]).frequencies
        for name in ("no scaling", "NTK-aware")
    )
    known_until = (positions.SEQ_LEN * plain / slowed).tolist()
    new = [i for i in range(3, 8) if known_until[i] < positions.LONG - 1]
    assert new == [3, 4, 5, 6]
    assert 110 < known_until[3] < known_until[6] < 220


def test_after_a_little_training_three_scalings_are_level(record: Record) -> None:
    prose, _ = page()
    gaps = study.behind(record, "beyond")
    level = [name for name, gap in gaps.items() if gap.verdict == "not distinguishable"]
    assert level == ["NTK-aware", "YaRN", "Llama 3"]
    behind = gaps["interpolation"].difference, gaps["no scaling"].difference
    assert "Interpolation is {:.2f} behind it, no scaling at all {:.2f}".format(*behind) in prose
    prices = study.prices(record)
    most = max(prices[name].difference for name in level)
    assert f"is down to {most:.2f} and less for the three" in prose
    assert f"interpolation still pays {prices['interpolation'].difference:.2f}" in prose
