"""Chapter 05: what its text says of records, of published models and of torch's fused kernels."""

import math
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, BloomConfig, Llama4TextConfig, SmolLM3Config, WhisperConfig
from transformers.models.bert.modeling_bert import BertEmbeddings
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.whisper.modeling_whisper import WhisperDecoder, WhisperEncoder, sinusoids

from llmtutor.evaluate.compare import compare
from llmtutor.experiments import position_findings, positions
from llmtutor.experiments.choosing.verdicts import baseline_loss, findings, losses
from llmtutor.experiments.staircase import steps
from llmtutor.experiments.study import Record, load_record
from llmtutor.experiments.training import SEQ_LEN, tokens
from llmtutor.layers.attention.core import attention
from llmtutor.layers.positions import T5Bias
from llmtutor.layers.positions.alibi import alibi_slopes
from llmtutor.layers.positions.relative import t5_buckets

CHAPTERS = Path(__file__).resolve().parents[2] / "book" / "chapters"


def page(name: str) -> tuple[str, str]:
    """Its Markdown, and all text of its outputs."""
    cells = nbformat.read(CHAPTERS / f"{name}.ipynb", as_version=4).cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    outputs = [o for c in cells if c.cell_type == "code" for o in c.outputs]
    shown = [o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in outputs]
    return prose, "\n".join(shown)


def test_the_encoder_of_t5_gives_half_of_its_buckets_to_each_direction() -> None:
    keys_minus_query = torch.arange(-300, 301)
    buckets = T5Attention._relative_position_bucket(keys_minus_query, bidirectional=True)
    back, ahead = buckets[:301], buckets[301:]
    assert sorted(set(back.tolist())) == list(range(16))
    assert sorted(set(ahead.tolist())) == list(range(17, 32))  # 16 would be 0 tokens ahead
    alone = [b for b in range(16) if (back == b).sum() == 1]
    assert alone == list(range(8))  # 8 of the 16 hold one distance each


def kernel(learned: bool) -> set[str]:
    q = torch.randn(1, 2, 8, 4, requires_grad=True)
    bias = torch.randn(1, 2, 8, 8, requires_grad=learned)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        F.scaled_dot_product_attention(q, q, q, attn_mask=bias)
    names = {event.key for event in profiled.key_averages()}
    return {name for name in names if name.startswith("aten::_scaled_dot_product")}


def test_on_the_cpu_a_learned_bias_leaves_the_fused_kernel() -> None:
    assert kernel(learned=False) == {"aten::_scaled_dot_product_flash_attention_for_cpu"}
    assert kernel(learned=True) == {"aten::_scaled_dot_product_attention_math"}


@pytest.fixture(scope="module")
def on_text() -> Record:
    return load_record(position_findings.TEXT)


def test_the_tables_of_the_page_are_those_of_the_records(on_text: Record) -> None:
    _, shown = page("05_positions")
    for scheme, by_seed in position_findings.bits(on_text).items():
        assert set(by_seed) == set(range(positions.SEEDS))
        bits = f"{np.mean(list(by_seed.values())):.3f}"
        assert re.search(rf"^{scheme} +{on_text.plan['lr'][scheme]:.3f} +{bits} ", shown, re.M)
    puzzle = load_record(position_findings.PUZZLE)
    for scheme in positions.SCHEMES:
        by_task = [position_findings.shares(puzzle, scheme, t) for t in position_findings.TASKS]
        assert all(set(shares) == set(range(positions.PUZZLE_SEEDS)) for shares in by_task)
        means = [f"{100 * np.mean(list(shares.values())):.1f}" for shares in by_task]
        worst = f"{100 * min(min(shares.values()) for shares in by_task):.1f}"
        rate = f"{puzzle.plan['lr'][scheme]:.3f}"
        row = rf"^{scheme} +{rate} +{means[0]} +{means[1]} +{worst}$"
        assert re.search(row, shown, re.M), row


def test_on_the_puzzle_all_arrive_and_two_are_late() -> None:
    prose, _ = page("05_positions")
    puzzle = load_record(position_findings.PUZZLE)
    right = {
        scheme: min(
            min(position_findings.shares(puzzle, scheme, task).values())
            for task in position_findings.TASKS
        )
        for scheme in positions.SCHEMES
    }
    assert sorted(right, key=right.__getitem__)[:2] == ["none", "alibi"]
    assert min(share for s, share in right.items() if s not in {"none", "alibi"}) > 0.999
    assert f"is right {100 * right['none']:.0f} times in a hundred with its worst seed" in prose
    at_250 = {s: losses[0] for s, losses in position_findings.by_step(puzzle).items()}
    by_loss = sorted(at_250, key=at_250.__getitem__)
    assert by_loss[:3] == ["learned", "shaw", "rope"] and by_loss[-2:] == ["alibi", "none"]
    assert at_250["alibi"] > position_findings.crossing_off()[1] > at_250["t5"]
    assert positions.PUZZLE_MARKS[0] == 250


def test_each_scheme_is_better_than_none_and_none_is_past_the_trigram(on_text: Record) -> None:
    prose, _ = page("05_positions")
    bits, counted = position_findings.bits(on_text), position_findings.counted()
    past = counted["trigram"] - np.mean(list(bits["none"].values()))
    assert f"to beat a table of trigrams by {past:.2f} bits" in prose
    for scheme, by_seed in bits.items():
        assert (max(by_seed.values()) < counted["4-gram"]) == (scheme != "none")
    gaps = position_findings.against(on_text, "none").values()
    assert {gap.verdict for gap in gaps} == {"better"} and len(gaps) == 6
    by = sorted(-gap.difference for gap in gaps)
    assert f"each of the six schemes beats *none*, by {by[0]:.2f} to {by[-1]:.2f}" in prose


def test_beside_rope_only_alibi_is_detected_and_behind(on_text: Record) -> None:
    prose, _ = page("05_positions")
    gaps = position_findings.against(on_text, "rope")
    detected = {s: gap for s, gap in gaps.items() if gap.verdict != "not distinguishable"}
    assert set(detected) == {"none", "alibi"} and detected["alibi"].verdict == "worse"
    assert f"and ALiBi, {detected['alibi'].difference:.2f} behind" in prose
    gap = compare(*(position_findings.bits(on_text)[name] for name in ("learned", "sinusoidal")))
    assert gap.verdict == "not distinguishable" and "cannot be told apart either" in prose


def test_two_schemes_read_on_and_five_break(on_text: Record) -> None:
    prose, _ = page("05_positions")
    gaps = position_findings.farther(on_text)
    verdicts = {scheme: gap.verdict for scheme, gap in gaps.items()}
    assert [s for s, v in verdicts.items() if v != "worse"] == ["alibi", "shaw"]
    assert verdicts["alibi"] == verdicts["shaw"] == "not distinguishable"
    assert f"and loses {gaps['none'].difference:.1f} bits per byte" in prose
    blind = math.log2(tokens()[2])
    assert f"all {tokens()[2]} characters, {blind:.1f} bits" in prose
    far = position_findings.stretch(on_text, "rope", position_findings.FAR)
    assert abs(np.mean(list(far.values())) - blind) < 0.2


def test_in_windows_of_64_five_buckets_are_never_trained() -> None:
    seen = set(t5_buckets(-torch.arange(SEQ_LEN)).tolist())
    assert seen == set(range(27)) and int(t5_buckets(torch.tensor(-(SEQ_LEN - 1)))) == 26


def test_short_trained_transformers_have_alibi_ahead_and_none_is_past_the_trigram() -> None:
    """What the chapter recalls of chapter 20's record, and its own record overturns."""
    record = load_record("choosing")
    gaps = {name: found.gap for name, found in findings(record, "small").items()}
    assert gaps["alibi"].verdict == "better"
    trigram = re.search(r"Level line “trigram” at (\d\.\d+)", page("20_comparison")[1])
    assert trigram and baseline_loss(losses(record, "small")) > float(trigram[1])


def test_the_rung_of_this_chapter() -> None:
    prose, _ = page("05_positions")
    by_rung = {step.rung: step for step in steps(load_record("staircase"))}
    rung, before = by_rung["positions"], by_rung["attention"]
    gain = before.bits_per_byte - rung.bits_per_byte
    assert rung.better and f"brings {gain:.2f} bits per byte" in prose
    assert by_rung["trigram"].bits_per_byte < before.bits_per_byte
    assert 0 < by_rung["bigram"].bits_per_byte - before.bits_per_byte < 0.1  # hardly better
    assert abs(by_rung["mlp"].bits_per_byte - rung.bits_per_byte) < 0.01


@pytest.mark.parametrize("config", [SmolLM3Config(num_hidden_layers=36),
                                    Llama4TextConfig(num_hidden_layers=48)])  # fmt: skip
def test_every_fourth_layer_of_two_models_is_without_rope(config) -> None:
    assert config.no_rope_layers == [1, 1, 1, 0] * (config.num_hidden_layers // 4)


def test_bloom_has_slopes_and_bert_and_whisper_have_tables() -> None:
    bias = build_alibi_tensor(torch.ones(1, 5), 8, torch.float32)
    torch.testing.assert_close(bias[:, 0], torch.tensor(alibi_slopes(8))[:, None] * torch.arange(5))
    assert BloomConfig().model_type == "bloom"
    small = BertConfig(vocab_size=9, hidden_size=8, num_attention_heads=2)
    assert BertEmbeddings(small).position_embeddings.weight.shape == (512, 8)
    sizes = {"d_model": 8, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"vocab_size": 9, "encoder_layers": 1, "decoder_layers": 1, "pad_token_id": 0}
    config = WhisperConfig(**sizes)
    encoder, decoder = WhisperEncoder(config), WhisperDecoder(config)
    torch.testing.assert_close(encoder.embed_positions.weight.detach(),
                               sinusoids(*encoder.embed_positions.weight.shape))  # fmt: skip
    assert not encoder.embed_positions.weight.requires_grad
    assert decoder.embed_positions.weight.requires_grad


def test_a_position_that_restarts_puts_all_keys_into_one_bucket() -> None:
    """Find the bug: the first token is right; counting on from the stored keys mends the rest."""
    torch.manual_seed(3)
    bias = T5Bias(n_heads=2, n_buckets=8, max_distance=16)
    torch.nn.init.normal_(bias.weight)
    q, k, v = torch.randn(3, 2, 6, 4)
    six = torch.arange(6)
    at_once = attention(q, k, v, causal=True, bias=bias.score_bias(q, six, six))
    for t in range(4):
        query, keys = q[:, t : t + 1], torch.arange(t + 1)
        for position, wrong in ((torch.tensor([0]), t > 0), (torch.arange(t, t + 1), False)):
            added = bias.score_bias(query, position, keys)
            alone = attention(query, k[:, : t + 1], v[:, : t + 1], bias=added)
            error = (alone - at_once[:, t : t + 1]).abs().max()
            assert error > 0.05 if wrong else error < 1e-6
            if wrong:
                assert torch.equal(added[0, 0], bias.weight[0, 0].expand(t + 1))
