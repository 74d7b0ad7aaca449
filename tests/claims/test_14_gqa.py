"""What chapter 14 says of caches and shared heads, and how its formulas are written."""

import math
from pathlib import Path

import nbformat
import pytest
import torch

from llmtutor.experiments.allocated import allocated_bytes
from llmtutor.experiments.choosing.options import SIZES
from llmtutor.experiments.choosing.verdicts import findings, nulls
from llmtutor.experiments.study import load_record
from llmtutor.layers.attention import KVCache, attention, fused_attention
from llmtutor.model.accounting import cache_bytes, parameters
from llmtutor.model.presets import build, preset

CHAPTERS = sorted((Path(__file__).parents[2] / "book" / "chapters").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_no_backslash_of_a_formula_became_a_tab(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert [c.id for c in cells if c.cell_type == "markdown" and "\t" in c.source] == []


# Costs.


def test_fourteen_conversations_fill_a_gpu_and_the_weights_a_fifth() -> None:
    llama = preset("llama3-8b")
    weights = 2 * parameters(llama).total
    assert 0.19 < weights / 80e9 < 0.21
    multi_head = cache_bytes(llama.replace(n_kv_heads=32), 1, 8192, torch.bfloat16)
    assert (80e9 - weights) // multi_head == 14
    assert multi_head == 4 * cache_bytes(llama, 1, 8192, torch.bfloat16)  # 3 of 4 removed
    assert 1 - 8 / 64 == 7 / 8  # Llama 3 70B


def test_what_fills_the_gpu() -> None:
    def sizes(n_kv_heads: int, tokens: int, sequences: int, bits: int = 16) -> tuple[float, float]:
        config = preset("llama3-8b").replace(n_kv_heads=n_kv_heads, max_seq_len=32768)
        caches = cache_bytes(config, sequences, tokens, torch.bfloat16) * bits / 16
        return 2 * parameters(config).total / 1e9, caches / 1e9

    totals = [sum(sizes(1, 32768, 64)), sum(sizes(8, 32768, 64)), sum(sizes(8, 32768, 64, 4))]
    assert [round(total, 1) for total in totals] == [50.0, 290.9, 84.8]
    assert [round(size, 1) for size in sizes(32, 2048, 16)] == [17.7, 17.2]


def test_how_fast_a_full_gpu_is() -> None:
    """The open exercise, from the data sheet's 3.35 TB/s."""
    weights, a_token, bandwidth = 2 * parameters(preset("llama3-8b")).total, 131_072, 3.35e12
    caches = 32 * 8192 * a_token
    assert round(weights / 1e9, 1) == 16.1 and round(caches / 1e9, 1) == 34.4
    assert round(caches / 8 / 1e9, 1) == 4.3
    steps = [(weights + part) / bandwidth for part in (caches, caches / 8)]
    assert [round(1e3 * step, 1) for step in steps] == [15.1, 6.1]
    assert [round(32 / step, -2) for step in steps] == [2100, 5300]
    assert round(weights / (32 * a_token), -2) == 3800
    assert weights / (32 * 4 * a_token) < 1000 and weights + 4 * caches > 80e9
    assert round(weights / a_token, -4) == 120_000
    smaller = 2 * parameters(preset("llama3-8b").replace(n_kv_heads=1)).total
    assert round((weights - smaller) / 1e9, 1) == 0.5


@pytest.mark.parametrize(
    ("name", "heads", "kv_heads", "kib"),
    [
        ("gpt2", 12, 12, 36),
        ("llama2-7b", 32, 32, 512),
        ("llama3-8b", 32, 8, 128),
        ("mistral-7b", 32, 8, 128),
        ("qwen3-30b-a3b", 32, 4, 96),
        ("gpt-oss-20b", 64, 8, 48),
        ("gemma3-1b", 4, 1, 26),
        ("olmo2-1b", 16, 16, 128),
    ],
)
def test_todays_models(name: str, heads: int, kv_heads: int, kib: int) -> None:
    config = preset(name)
    mixers = [block.mixer for block in config.blocks]
    assert {(m.n_heads, m.kv_heads) for m in mixers} == {(heads, kv_heads)}
    assert cache_bytes(config, 1, 1, torch.bfloat16) == kib * 1024
    windows = sum(m.window is not None for m in mixers)
    share = {"mistral-7b": 1.0, "gpt-oss-20b": 0.5, "gemma3-1b": 22 / 26}.get(name, 0.0)
    assert windows / len(mixers) == pytest.approx(share)


# Sharing.


def test_by_hand_a_denial_is_found_with_weight_0_77() -> None:
    part = math.exp(4 / math.sqrt(2))
    assert round(part, 1) == 16.9 and round(part + 5, 1) == 21.9
    assert round(part / (part + 5), 2) == 0.77


@pytest.mark.parametrize("seq", [1, 20])
def test_the_fused_kernel_repeats_no_shared_head(seq: int) -> None:
    cache = KVCache(1, 2, 64, 16)  # a view of it is not contiguous
    k, v = cache.append(*torch.randn(2, 1, 2, 60, 16))
    q, read = torch.randn(1, 8, seq, 16), k.nbytes + v.nbytes
    assert allocated_bytes(lambda: attention(q, k, v)) > 4 * read
    assert allocated_bytes(lambda: fused_attention(q, k, v, causal=True)) < read + 2 * q.nbytes


def test_a_fold_of_the_queries_makes_no_copy_and_broadcasting_does() -> None:
    keys, _ = KVCache(1, 2, 1024, 64).append(*torch.randn(2, 1, 2, 1000, 64))
    k = keys[0]
    folded = torch.randn(2, 4, 64)
    scores = 8 * 1000 * 4
    assert allocated_bytes(lambda: folded @ k.mT) == scores
    assert allocated_bytes(lambda: folded[:, :, None] @ k[:, None].mT) == scores + 4 * k.nbytes


def test_the_other_order_of_copies_is_the_same_model_with_its_queries_renamed() -> None:
    random = torch.Generator().manual_seed(0)
    w_q, w_o = torch.randn(2, 8, 8, generator=random, dtype=torch.float64)
    x = torch.randn(5, 8, generator=random, dtype=torch.float64)
    k, v = torch.randn(2, 2, 5, 2, generator=random, dtype=torch.float64)

    def layer(w_q: torch.Tensor, w_o: torch.Tensor, turns: bool) -> torch.Tensor:
        q = (x @ w_q.T).unflatten(1, (4, 2)).transpose(0, 1)
        copies = [t.repeat(2, 1, 1) if turns else t.repeat_interleave(2, 0) for t in (k, v)]
        return attention(q, *copies, causal=True).transpose(0, 1).flatten(1) @ w_o.T

    renamed = torch.tensor([0, 1, 4, 5, 2, 3, 6, 7])  # heads 1 and 2 exchanged
    torch.testing.assert_close(layer(w_q[renamed], w_o[:, renamed], True), layer(w_q, w_o, False))
    assert not torch.allclose(layer(w_q, w_o, True), layer(w_q, w_o, False))


def test_only_a_common_beginning_has_the_same_keys() -> None:
    """Quiz 4: where the first word differs, later keys do, above the first layer."""
    model = build(preset("llama-nano", vocab_size=20, max_seq_len=16)).eval()
    ids = torch.arange(12)[None]
    other = ids.clone()
    other[0, 0] = 19
    kept = []
    for text in (ids, other):
        caches = model.make_caches(1)
        with torch.no_grad():
            model(text, cache=caches)
        kept.append([cache.keys[:, :, 1:12] for cache in caches])
    assert torch.equal(kept[0][0], kept[1][0])
    assert not torch.allclose(kept[0][1], kept[1][1])
    assert 1000 // 16 == 62  # full pages of the common prompt


# Records.


def test_no_difference_was_found_and_none_as_large_as_the_margin() -> None:
    record = load_record("choosing")
    cases = [("small", "gqa-2"), ("small", "mqa"), ("middle", "gqa-2"), ("small", "head missing")]
    for size, option in cases:
        found = findings(record, size)[option]
        low, high = found.gap.interval
        assert found.verdict == "as good" and low < 0 < high and found.gap.n_seeds == 5
    for size in ("small", "middle"):
        low, high = nulls(record)[size].interval
        assert low < 0 < high
    counts = [parameters(SIZES[size].baseline).total for size in ("small", "middle")]
    assert [round(n, -3) for n in counts] == [136_000, 234_000]
    assert round(10 * counts[0], -5) == 1_400_000 and SIZES["small"].seq_len == 256


def test_the_mean_of_heads_beats_the_first_which_beats_new_ones_in_each_seed() -> None:
    record = load_record("uptraining")

    def losses(n_kv_heads: int, pool: str, step: int) -> list[float]:
        return [r["losses"][str(step)] for r in record.results(n_kv_heads=n_kv_heads, pool=pool)]

    for step in (50, 100):
        ways = [losses(1, pool, step) for pool in ("mean", "first", "random")]
        counts = [losses(n, "mean", step) for n in (4, 2, 1)]
        for ordered in (ways, counts):
            assert all(a < b < c for a, b, c in zip(*ordered, strict=True))
    control = losses(8, "mean", 0)
    for n, pool in ((4, "mean"), (2, "mean"), (1, "mean"), (1, "first"), (1, "random")):
        merged, ten = losses(n, pool, 0), losses(n, pool, 10)
        for before, start, after in zip(control, merged, ten, strict=True):
            assert start - after > (start - before) / 2  # more than half is back
        end = zip(losses(n, pool, 100), losses(8, "mean", 100), strict=True)
        assert all(a - b > 0.05 for a, b in end)  # and still behind


def test_a_published_model_merged_still_begins_with_once_upon() -> None:
    runs = load_record("stories260k").runs
    assert [run["settings"]["n_kv_heads"] for run in runs] == [4, 2, 1]
    for run in runs:
        n = run["settings"]["n_kv_heads"]
        assert run["result"]["cache_bytes"] == 2 * 5 * n * 8 * 512 * 4  # 5 layers, heads of 8
        assert run["result"]["text"].startswith("Once upon")


def test_a_cache_in_eight_bits_costs_nothing_and_four_cost_narrow_heads_much() -> None:
    record = load_record("quantisation-ladder")
    cost = {}
    for model in ("stories260K", "feed-forward", "longer"):
        for scheme in ("float32", "cache-8", "cache-4"):
            (run,) = record.results(model=model, scheme=scheme, part=None)
            cost[model, scheme] = run["bits_per_byte"]
        assert cost[model, "cache-8"] - cost[model, "float32"] <= 0.00105
    for model, most in (("stories260K", 0.32), ("feed-forward", 0.005), ("longer", 0.005)):
        assert cost[model, "cache-4"] - cost[model, "float32"] < most
    assert cost["stories260K", "cache-4"] - cost["stories260K", "float32"] > 0.3


def test_a_service_in_pages_and_with_one_prefix() -> None:
    own = [100 + 15 * i for i in range(64)]
    lengths = [2000 + n for n in own]
    in_pages = sum(16 * math.ceil(n / 16) for n in lengths)
    shared = in_pages - 63 * 2000
    assert 2000 == 125 * 16 and (own[0], own[-1]) == (100, 1045)
    a_token = 131_072
    assert round(64 * 8192 * a_token / 1e9, 1) == 68.7
    assert round(shared * a_token / 1e9, 1) == 5.1
    assert shared == 2000 + sum(16 * math.ceil(n / 16) for n in own)
