"""A text in pieces is the text at once; what a window holds, and the ways back."""

import itertools

import pytest
import torch
from torch import Tensor

from llmtutor.layers.attention import Attention, KVCache, WindowCache, attention
from llmtutor.layers.attention.masks import sliding_window_mask
from llmtutor.layers.mixer import Cache
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.layers.positions import Alibi, Rope, ShawPosition, T5Bias

SEQ, D_MODEL = 6, 16
EXACT = {"rtol": 1e-10, "atol": 1e-10}
CUTS = [[0, *inner, SEQ] for n in range(SEQ) for inner in itertools.combinations(range(1, SEQ), n)]
"""All ways to cut a text."""
LAYERS = {
    "plain": dict,
    "rope, sinks, shared": lambda: {"position": Rope(4), "sinks": True, "n_kv_heads": 2},
    "alibi, softcap": lambda: {"position": Alibi(4), "softcap": 1.5},
    "shaw, norms, scale": lambda: {
        "position": ShawPosition(4, 3),
        "qk_norm": RMSNormConfig(),
        "scale": 0.9,
    },
    "t5, biases, wide": lambda: {"position": T5Bias(4, 4, 6), "bias": True, "head_dim": 6},
}
WINDOWS = [None, 1, 3, SEQ - 1]


def made(case: str, window: int | None) -> Attention:
    layer = Attention(D_MODEL, 4, window=window, **LAYERS[case]()).double()
    generator = torch.Generator().manual_seed(5)
    for p in layer.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return layer.requires_grad_(False)


def text(batch: int = 1, seq: int = SEQ, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, seq, D_MODEL, generator=generator, dtype=torch.float64)


def in_pieces(layer: Attention, x: Tensor, cuts: list[int], cache: KVCache) -> Tensor:
    return torch.cat([layer(x[:, a:b], cache=cache) for a, b in itertools.pairwise(cuts)], dim=1)


# --- cached is uncached ---------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("case", LAYERS)
def test_cached_equals_uncached_however_the_text_is_cut(case, window) -> None:
    layer, x = made(case, window), text()
    want = layer(x)
    cache = layer.make_cache(1, SEQ)
    assert isinstance(cache, WindowCache if window else KVCache)
    for cuts in CUTS:
        torch.testing.assert_close(in_pieces(layer, x, cuts, cache), want, **EXACT)
        assert cache.length == SEQ
        cache.reset()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("case", LAYERS)
def test_rows_padded_on_the_left_are_as_they_are_alone(case, window) -> None:
    layer, x, starts = made(case, window), text(3), [0, 2, 5]
    alone = [layer(x[row : row + 1, start:])[0] for row, start in enumerate(starts)]
    for cuts in CUTS[::5]:
        cache = layer.make_cache(3, SEQ, starts=torch.tensor(starts))
        got = in_pieces(layer, x, cuts, cache)
        assert got.isfinite().all()
        for row, start in enumerate(starts):
            torch.testing.assert_close(got[row, start:], alone[row], **EXACT)


def test_a_window_is_the_mask_of_a_window() -> None:
    """By the function alone, with a cache of keys and values by hand."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, SEQ, 4, generator=generator) for _ in range(3))
    want = attention(q, k, v, mask=sliding_window_mask(SEQ, 3))
    for cuts in CUTS[::5]:
        cache = WindowCache(2, 3, SEQ, 4, window=3)
        for a, b in itertools.pairwise(cuts):
            keys, values = cache.append(k[:, :, a:b], v[:, :, a:b])
            mask = sliding_window_mask(b - a, 3, keys.shape[2])
            got = attention(q[:, :, a:b], keys, values, mask=mask)
            torch.testing.assert_close(got, want[:, :, a:b])


# --- what is kept ---------------------------------------------------------------------------------


def rows(*numbers: int) -> Tensor:
    return torch.tensor([float(n) for n in numbers]).view(1, 1, -1, 1)


@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_window_holds_its_last_tokens_and_no_more(window) -> None:
    for cuts in CUTS[::3]:
        cache = WindowCache(1, 1, SEQ, 1, window=window)
        for a, b in itertools.pairwise(cuts):
            new = rows(*range(a, b))
            keys, values = cache.append(new, -new)
            assert keys.flatten().tolist() == list(range(max(0, a - window + 1), b))
            assert torch.equal(values, -keys)
            assert cache.length == b and cache.keys.shape[2] == window
            kept = list(range(max(0, b - window), b))
            assert cache.keys.flatten().tolist()[window - len(kept) :] == kept
            assert torch.equal(cache.values, -cache.keys)


def test_memory_is_set_aside_once_and_that_of_a_window_does_not_grow_with_the_text() -> None:
    layer = made("rope, sinks, shared", 3)
    window, whole = layer.make_cache(2, 500), made("rope, sinks, shared", None).make_cache(2, 500)
    assert window.nbytes == 2 * 2 * 2 * 3 * 4 * 8 and whole.nbytes == 2 * 2 * 2 * 500 * 4 * 8
    for cache in (window, whole):
        before = cache.keys.data_ptr(), cache.values.data_ptr()
        layer(text(2), cache=cache)
        assert (cache.keys.data_ptr(), cache.values.data_ptr()) == before
    assert type(made("plain", SEQ).make_cache(1, SEQ)) is KVCache  # nothing is pushed out


def test_a_cache_has_the_dtype_of_the_weights_and_no_gradient() -> None:
    layer = made("plain", 3)
    assert layer.make_cache(1, 4).keys.dtype == torch.float64
    cache = layer.requires_grad_(True).make_cache(1, SEQ)
    layer(text(), cache=cache)
    assert not cache.keys.requires_grad and not cache.values.requires_grad
    layer(text(seq=1), cache=layer.make_cache(1, SEQ)).sum().backward()
    assert layer.query.weight.grad is not None


@pytest.mark.parametrize("window", [None, 3])
def test_all_is_made_where_the_weights_are(window) -> None:
    with torch.device("meta"):
        layer = Attention(D_MODEL, 4, position=Alibi(4), window=window)
    x, cache = torch.zeros(2, SEQ, D_MODEL, device="meta"), layer.make_cache(2, 2 * SEQ)
    assert cache.keys.is_meta and layer.weights(x).is_meta
    assert layer(x, cache=cache).is_meta and layer(x[:, :1], cache=cache).is_meta


# --- ways back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("length", [0, 2, 5])
def test_back_at_a_snapshot_the_text_goes_on_as_if_nothing_had_been(window, length) -> None:
    layer, x = made("rope, sinks, shared", window), text()
    cache = layer.make_cache(1, SEQ)
    if length:
        layer(x[:, :length], cache=cache)
    snapshot = cache.snapshot()
    for seed in (1, 2):  # more than once
        layer(text(seed=seed)[:, length:], cache=cache)
        cache.restore(snapshot)
        assert cache.length == length
    got = layer(x[:, length:], cache=cache)
    torch.testing.assert_close(got, layer(x)[:, length:], **EXACT)


def test_all_keys_go_back_by_length_a_window_only_by_snapshot() -> None:
    whole, window = KVCache(1, 1, 8, 1), WindowCache(1, 1, 8, 1, window=3)
    for cache in (whole, window):
        assert isinstance(cache, Cache)
        cache.append(rows(0, 1, 2, 3), rows(0, 1, 2, 3))
    assert whole.always_crops and not window.always_crops
    assert [whole.can_crop(n) for n in (-1, 0, 3, 4, 5)] == [False, True, True, True, False]
    assert [window.can_crop(n) for n in (-1, 0, 3, 4, 5)] == [False, False, False, True, False]
    whole.crop(2)
    assert whole.append(rows(9), rows(9))[0].flatten().tolist() == [0, 1, 9]
    with pytest.raises(ValueError, match="cannot go back from 3 to 4 tokens: only to fewer"):
        whole.crop(4)
    window.crop(4)
    message = r"cannot go back from 4 to 2 tokens: .* pushed out .* restore a snapshot"
    with pytest.raises(ValueError, match=message):
        window.crop(2)
    assert window.append(rows(9), rows(9))[0].flatten().tolist() == [2, 3, 9]
    for cache in (whole, window):
        cache.reset()
        assert cache.length == 0 and cache.append(rows(7), rows(7))[0].flatten().tolist() == [7]


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 3])
def test_what_does_not_fit_is_refused_and_nothing_is_written(window) -> None:
    layer = made("rope, sinks, shared", window)
    cache = layer.make_cache(2, 5)
    layer(text(2, 4), cache=cache)
    before = cache.keys.clone()
    with pytest.raises(ValueError, match=r"2 tokens more than the 4 in the cache .* max_len = 5"):
        layer(text(2, 2), cache=cache)
    with pytest.raises(ValueError, match=r"keys \(batch = 2, n_kv_heads = 2, new, head_dim = 4\)"):
        layer(text(3, 1), cache=cache)
    with pytest.raises(ValueError, match=r"n_kv_heads = 2, .* got \(2, 4, 1, 4\)"):
        made("plain", window)(text(2, 1), cache=cache)
    with pytest.raises(
        ValueError, match=r"for keys .* of torch\.float64, got .* of torch\.float32"
    ):
        layer.float()(text(2, 1).float(), cache=cache)
    with pytest.raises(ValueError, match=r"for values .* of torch\.float64"):
        cache.append(before[:, :, :1], before[:, :, :1].float())
    assert cache.length == 4 and torch.equal(cache.keys, before)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (torch.tensor([0]), r"one integer for each of 2 rows, got shape \(1,\)"),
        (torch.tensor([0.0, 1.0]), "torch.float32"),
        (torch.tensor([0, 16]), r"0 … 15, got \[0, 16\]"),
        (torch.tensor([-1, 0]), r"0 … 15, got \[-1, 0\]"),
    ],
)
def test_refuses_starts(starts, message) -> None:
    for layer in (made("plain", None), made("plain", 3)):
        with pytest.raises(ValueError, match=message):
            layer.make_cache(2, 16, starts=starts)


def test_refuses() -> None:
    for sizes in ((0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0)):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            KVCache(*sizes)
    with pytest.raises(ValueError, match="window must be at least 1"):
        WindowCache(1, 1, 4, 1, window=0)
    with pytest.raises(ValueError, match="only causal attention"):
        Attention(8, 2, causal=False).make_cache(1, 4)
    assert KVCache(2, 1, 4, 1, starts=torch.tensor([0, 0])).starts is None  # nothing is padded
