"""What chapter 16 says of the world: sizes, reach, and the traffic of published settings."""

from statistics import mean

import pytest
import torch

from llmtutor.evaluate.compare import compare, compare_family
from llmtutor.experiments.study import load_record
from llmtutor.experiments.windows import VARIANTS, best_rate, losses
from llmtutor.layers.attention.flash import flash_attention
from llmtutor.layers.attention.traffic import (
    Traffic,
    flash_accesses,
    indexed_numbers,
    stored_accesses,
    tile_side,
)
from llmtutor.model.published import PUBLISHED


def test_the_square_of_a_novel() -> None:
    tokens = 2**17
    assert round(tokens**2 / 1e9) == 17 and round(2 * tokens**2 / 1e9) == 34
    assert 16_384**2 * 4 == 2**30  # of 16,384 tokens in float32: 1 GiB


def test_reach_of_mistral() -> None:
    config = PUBLISHED["mistral-7b"]
    window = config.blocks[0].mixer.window  # type: ignore[attr-defined]
    assert config.n_layers * (window - 1) + 1 == 131_041


@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_tiles_move_less_once_the_fast_memory_is_above_two_head_dims_squared(head_dim) -> None:
    seq, edge = 2**16, 2 * head_dim**2
    assert flash_accesses(seq, head_dim, 2 * edge) < stored_accesses(seq, head_dim)
    assert flash_accesses(seq, head_dim, edge // 2) > stored_accesses(seq, head_dim)


def test_the_scores_fit_where_a_tile_has_no_more_keys_than_the_head_is_wide() -> None:
    """From 2 d queries on; and as many numbers are moved as with square tiles."""
    d = 32
    for fast, fit in ((1024, False), (4096, False), (4 * 2 * d * d, True), (16_384, True)):
        queries = tile_side(fast, d)
        keys = min(queries, d)
        assert (2 * queries * d + 2 * keys * d + queries * keys <= fast) is fit
    assert 128**2 == 16_384  # a square tile of scores alone fills the largest of these memories
    x = torch.randn(512, d, generator=torch.Generator().manual_seed(0))
    narrow, square = Traffic(), Traffic()
    flash_attention(x, x, x, tile=(128, d), traffic=narrow)
    flash_attention(x, x, x, tile=(128, 128), traffic=square)
    assert narrow == square and narrow.total == flash_accesses(512, d, 16_384)


def test_weights_on_the_first_token() -> None:
    runs = load_record("attention-sinks").results(variant="plain")
    assert round(sum(100 * run["others"] for run in runs) / 3) == 12
    assert round(sum(100 * run["triggers"] for run in runs) / 3) == 1


def test_one_of_the_plain_runs_leaves_no_more_on_the_first_token_than_the_others() -> None:
    left = {
        form: [100 * run["others"] for run in load_record("attention-sinks").results(variant=form)]
        for form in ("plain", "sinks", "gate")
    }
    others = left["sinks"] + left["gate"]
    assert round(min(others)) == 5 and round(max(others)) == 8
    assert round(min(left["plain"])) == 7 and min(left["plain"]) < max(others)
    assert sorted(round(x) for x in left["plain"]) == [7, 14, 14]


def test_the_gated_form_copies_best_within_its_training_and_worst_beyond() -> None:
    record = load_record("attention-sinks")

    def copying(form: str, where: str) -> float:
        return mean(run[where]["full"][1] for run in record.results(variant=form))

    near, far = (
        {form: round(copying(form, where), 2) for form in ("plain", "sinks", "gate")}
        for where in ("near", "far")
    )
    assert near == {"plain": 0.14, "sinks": 0.12, "gate": 0.02}
    assert far == {"plain": 1.61, "sinks": 1.88, "gate": 4.95}
    for form in near:  # elsewhere, whatever they see
        for run in record.results(variant=form):
            assert all(round(loss[0], 2) == 1.88 for loss in run["far"].values())


def test_compressed_blocks_are_not_distinguishable_from_the_window_beside_them() -> None:
    record = load_record("windows")
    blocks, window = (
        losses(record, name, best_rate(record, name))
        for name in ("window and compressed blocks", "window")
    )
    one = compare(blocks, window)
    found = [round(x, 3) for x in (one.difference, *one.t_interval)]
    assert found == [0.018, -0.020, 0.056] and one.verdict == "not distinguishable"


def test_the_three_verdicts_stand_after_the_correction() -> None:
    record = load_record("windows")
    by_seed = {name: losses(record, name, best_rate(record, name)) for name in VARIANTS}
    for one in compare_family(by_seed, by_seed.pop("full")).values():
        assert one.verdict == "better" and round(one.adjusted_p, 3) == 0.044


def test_the_bus_is_the_narrow_place() -> None:
    """NVIDIA's data sheet of the H100 SXM: 989 TFLOPS in bfloat16, 3.35 TB a second."""
    operations_a_byte = 989 / 3.35
    assert operations_a_byte == pytest.approx(300, rel=0.02)
    operations, moved = 2 * 2 * 64, 4 * 2  # of one score; out and back, twice, in two bytes
    assert operations == 256 and operations / moved == 32


def test_of_what_deepseek_v3_2_reads_most_is_read_by_the_indexer() -> None:
    by_indexer, of_rows = indexed_numbers(131_072)
    millions = [round(x / 1e6, 1) for x in (by_indexer, of_rows, 131_072 * 576)]
    assert millions == [16.8, 1.2, 75.5] and by_indexer > 0.9 * (by_indexer + of_rows)
    assert indexed_numbers(2 * 131_072) == (2 * by_indexer, of_rows)
