"""Tiles give what the formula gives, move what the formulas say, and never store the square."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmtutor.experiments.peak import peak_bytes
from llmtutor.layers.attention import (
    Attention,
    attention,
    sliding_window_mask,
)
from llmtutor.layers.attention.flash import flash_attention, flash_forward
from llmtutor.layers.attention.tiles import Tiles
from llmtutor.layers.attention.traffic import (
    Traffic,
    flash_accesses,
    flash_backward_accesses,
    indexed_numbers,
    native_sparse_tokens,
    stored_accesses,
    stored_attention,
    tile_side,
)
from llmtutor.layers.positions import Alibi, Rope

EXACT = {"rtol": 1e-11, "atol": 1e-12}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def gradients(y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((y * draw(*y.shape, seed=9).detach().to(y)).sum(), inputs)


# --- the same function ----------------------------------------------------------------------------


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_any_tiles_give_the_values_and_gradients_of_the_formula(data) -> None:
    seq_q, before = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 5))
    tile = data.draw(st.integers(1, 11)), data.draw(st.integers(1, 11))
    heads, kv_heads = data.draw(st.sampled_from([(1, 1), (4, 4), (4, 2), (4, 1)]))
    causal = data.draw(st.booleans())
    window = data.draw(st.integers(1, 12)) if causal and data.draw(st.booleans()) else None
    seq_k = seq_q + before
    q = draw(2, heads, seq_q, 3, seed=1)
    k, v = draw(2, kv_heads, seq_k, 3, seed=2), draw(2, kv_heads, seq_k, 5, seed=3)
    shape = data.draw(
        st.sampled_from([None, (seq_q, seq_k), (1, seq_k), (2, 1, 1, seq_k), (heads, seq_q, 1)])
    )
    mask = None
    if shape is not None:  # whole rows may be masked
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
        mask = torch.rand(shape, generator=generator) < 0.6
    scale = data.draw(st.sampled_from([None, 0.3]))
    whole = mask
    if window is not None:
        near = sliding_window_mask(seq_q, window, seq_k)
        whole = near if mask is None else mask & near
    want = attention(q, k, v, mask=whole, causal=causal, scale=scale)
    got = flash_attention(q, k, v, mask=mask, causal=causal, scale=scale, window=window, tile=tile)
    torch.testing.assert_close(got, want, **EXACT)
    for mine, theirs in zip(gradients(got, q, k, v), gradients(want, q, k, v), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


def test_a_row_that_sees_nothing_is_zero_with_zero_gradient() -> None:
    q, k, v = (draw(4, 2, seed=i) for i in range(3))
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1], mask[2, :2] = False, False
    got = flash_attention(q, k, v, mask=mask, tile=(2, 2))
    assert got[1].eq(0).all() and got.isfinite().all()
    dq, dk, dv = torch.autograd.grad(got.sum(), (q, k, v))
    assert dq[1].eq(0).all() and all(g.isfinite().all() for g in (dq, dk, dv))
    _, lse = flash_forward(q, k, v, Tiles(4, 4, 2, 2), 1.0, mask, Traffic())
    assert lse[1] == -math.inf and lse[[0, 2, 3]].isfinite().all()


def test_large_scores_do_not_overflow() -> None:
    """The maximum grows from tile to tile: each step has to shrink what is there."""
    q = torch.ones(1, 1)
    k = torch.tensor([[1.0], [200.0], [1000.0], [998.0]])
    got = flash_attention(q, k, k, scale=1.0, tile=(1, 1))
    torch.testing.assert_close(got, attention(q, k, k, scale=1.0))


@pytest.mark.parametrize("causal", [False, True])
def test_the_log_sum_exp_is_that_of_torch(causal) -> None:
    q, k, v = (draw(2, 3, 70, 16, seed=i, dtype=torch.float32).detach() for i in range(3))
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    want, want_lse = kernel(q, k, v, 0.0, causal, scale=0.25)
    got, lse = flash_forward(q, k, v, Tiles(70, 70, 16, 24, causal), 0.25, None, Traffic())
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse, want_lse, rtol=1e-5, atol=1e-5)


def test_float32_and_bfloat16() -> None:
    """Sums in float32: of eight bits only the inputs and the output are."""
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        q, k, v = (draw(2, 128, 16, seed=i, dtype=dtype) for i in range(3))
        got = flash_attention(q, k, v, causal=True, tile=(32, 48))
        exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
        want = attention(*exact, causal=True)
        assert got.dtype == dtype
        assert (got - want).abs().max() <= tolerance
        for mine, theirs in zip(gradients(got, q, k, v), gradients(want, *exact), strict=True):
            assert (mine - theirs).abs().max() <= 4 * tolerance


@pytest.mark.parametrize(
    "options",
    [
        {"n_kv_heads": 2, "position": Rope(4), "window": 3},
        {"position": Alibi(4), "softcap": 2.0, "sinks": True},  # the formula runs
    ],
)
def test_it_serves_as_the_attention_of_a_layer(options) -> None:
    layer, x = Attention(16, 4, **options).double(), draw(3, 9, 16)
    want = layer(x)
    layer.attend = flash_attention
    torch.testing.assert_close(layer(x), want, **EXACT)
    cache = layer.make_cache(3, 9, starts=torch.tensor([0, 2, 4]))
    pieces = [layer(piece, cache=cache) for piece in x.split([5, 1, 3], dim=1)]
    for row, start in enumerate([0, 2, 4]):
        alone = layer(x[row : row + 1, start:])[0]
        torch.testing.assert_close(torch.cat(pieces, dim=1)[row, start:], alone, **EXACT)


# --- tiles ----------------------------------------------------------------------------------------


@given(*(st.integers(1, 12) for _ in range(3)), st.integers(0, 5), st.none() | st.integers(1, 9))
@settings(deadline=None)
def test_tiles_hold_each_pair_that_may_meet_once_and_no_empty_tile(
    seq_q, height, width, before, window
) -> None:
    tiles = Tiles(seq_q, seq_q + before, height, width, True, window)
    want = sliding_window_mask(seq_q, window or tiles.seq_k, tiles.seq_k)
    seen = torch.zeros(seq_q, tiles.seq_k, dtype=torch.int64)
    for rows in tiles.rows():
        for columns in tiles.columns(rows):
            allowed = tiles.allowed(rows, columns)
            assert allowed is None or allowed.any()
            seen[rows, columns] += torch.tensor(1) if allowed is None else allowed.long()
    assert torch.equal(seen, want.long())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 0}, "height must be at least 1, got 0"),
        ({"window": 0, "causal": True}, "window must be at least 1, got 0"),
        ({"window": 2}, "a window needs causal=True"),
        ({"seq_q": 5, "causal": True}, "last seq_q of seq_k positions, got seq_q = 5, seq_k = 4"),
    ],
)
def test_tiles_refuse(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Tiles(**{"seq_q": 4, "seq_k": 4, **options})
    q, k = torch.zeros(options.get("seq_q", 4), 2), torch.zeros(4, 2)
    rest = {name: value for name, value in options.items() if name in ("window", "causal")}
    with pytest.raises(ValueError, match=message):
        flash_attention(q, k, k, tile=(options.get("height", 2), 2), **rest)


# --- what is moved --------------------------------------------------------------------------------


def test_accesses_by_hand() -> None:
    """Four tokens of two numbers in tiles of two: two rows of two tiles."""
    x, traffic = draw(4, 2), Traffic()
    out = flash_attention(x, x, x, tile=(2, 2), traffic=traffic)
    reads = 4 * 2 + 2 * (4 * 2 + 4 * 2)  # queries once, keys and values for each row of tiles
    assert (traffic.reads, traffic.writes) == (reads, 4 * 2 + 4)
    assert flash_accesses(4, 2, fast=16) == traffic.total == 52
    backward = Traffic()
    flash_attention(x, x, x, tile=(2, 2), traffic=backward).sum().backward()
    more = backward.total - traffic.total
    assert more == flash_backward_accesses(4, 2, fast=16) == 36 + 96
    assert out.shape == (4, 2)


@pytest.mark.parametrize(
    ("seq", "head_dim", "fast"), [(512, 8, 1024), (1000, 8, 1024), (1024, 32, 8192), (600, 16, 999)]
)
def test_accesses_counted_are_those_of_the_formulas(seq, head_dim, fast) -> None:
    x = torch.randn(seq, head_dim).requires_grad_()
    side, forward, both = tile_side(fast, head_dim), Traffic(), Traffic()
    with torch.no_grad():
        flash_attention(x, x, x, tile=(side, side), traffic=forward)
    assert forward.total == pytest.approx(flash_accesses(seq, head_dim, fast), rel=0.1)
    flash_attention(x, x, x, tile=(side, side), traffic=both).sum().backward()
    backward = both.total - forward.total
    assert backward == pytest.approx(flash_backward_accesses(seq, head_dim, fast), rel=0.1)
    stored = Traffic()
    stored_attention(x, x, x, stored)
    assert stored.total == pytest.approx(stored_accesses(seq, head_dim), rel=0.1)
    causal = Traffic()
    with torch.no_grad():
        flash_attention(x, x, x, causal=True, tile=(side, side), traffic=causal)
    tiles = Tiles(seq, seq, side, side, causal=True)
    share = sum(len(tiles.columns(rows)) for rows in tiles.rows()) / len(tiles.rows()) ** 2
    once = seq * (2 * head_dim + 1)
    assert causal.total - once == pytest.approx(share * (forward.total - once), rel=0.1)


def test_stored_attention_is_attention() -> None:
    q, k, v = (draw(2, 5, 4, seed=i) for i in range(3))
    torch.testing.assert_close(stored_attention(q, k, v, Traffic()), attention(q, k, v), **EXACT)


def test_traffic_refuses() -> None:
    with pytest.raises(ValueError, match=r"needs 4 · head_dim = 256 numbers .* got 100"):
        flash_accesses(8, 64, 100)
    with pytest.raises(ValueError, match="seq must be at least 1, got 0"):
        stored_accesses(0, 4)


def test_sparse_attention_reads_what_the_papers_say() -> None:
    # Yuan et al. 2025, table 4: tokens read by full attention and by theirs.
    for seq, want in ((8192, 2048), (16_384, 2560), (32_768, 3584), (65_536, 5632)):
        assert native_sparse_tokens(seq) == pytest.approx(want, rel=0.002)
    assert native_sparse_tokens(300) == 300
    by_indexer, of_rows = indexed_numbers(10**7)
    assert 576 * 10**7 / (by_indexer + of_rows) == pytest.approx(576 / 128, rel=0.01)
    assert indexed_numbers(1000) == (128_000, 576_000)  # all of a short text, and the indexer


# --- what is stored -------------------------------------------------------------------------------


def passes(seq: int, attend, head_dim: int = 16, **options) -> int:
    """Peak bytes of a forward and a backward pass over one head."""
    q, k, v = (draw(seq, head_dim, seed=i, dtype=torch.float32) for i in range(3))
    return peak_bytes(lambda: attend(q, k, v, causal=True, **options).sum().backward())


def test_memory_grows_with_the_tokens_not_with_their_square() -> None:
    lengths = (256, 512, 1024, 2048)
    tiles = [passes(n, flash_attention, tile=(64, 64)) for n in lengths]
    square = [passes(n, attention) for n in lengths]
    steps = [b - a for a, b in pairwise(tiles)]
    assert steps[1] == pytest.approx(2 * steps[0], rel=0.05)
    assert steps[2] == pytest.approx(2 * steps[1], rel=0.05)
    assert square[3] > 3.5 * square[2] and square[3] > 2048**2 * 4
    assert tiles[3] < square[3] / 30


def test_sixteen_thousand_tokens_fit_in_sixteen_mebibytes() -> None:
    """The square of weights alone would take a GiB in float32."""
    assert passes(16_384, flash_attention, tile=(512, 512)) < 16 * 2**20
