"""Decoding with a cache gives the logits of the whole forward pass, however the text arrives."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from llmtutor.layers.attention import Attention
from llmtutor.layers.positions import AttentionPositionConfig, EmbeddingPositionConfig
from llmtutor.layers.registry import kinds
from llmtutor.model.accounting import cache_bytes
from llmtutor.model.caches import Caches
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer

SEQ = 12
EXACT = {"rtol": 1e-10, "atol": 1e-10}
POSITIONS = [*kinds(AttentionPositionConfig), *kinds(EmbeddingPositionConfig)]
CUTS = [
    [0, SEQ],
    [*range(SEQ + 1)],
    [0, *range(5, SEQ + 1)],
    [0, 3, 4, 9, SEQ],
]


def shake(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += 0.3 * noise.to(parameter.dtype)


def made(**changes) -> Transformer:
    sizes = {"vocab_size": 17, "max_seq_len": 16, "n_layers": 2, "d_model": 16, "n_heads": 4}
    torch.manual_seed(0)
    model = build(ModelConfig.uniform(**{**sizes, "d_ff": 24, **changes})).double()
    shake(model)
    return model


def tokens(batch: int, seq: int = SEQ) -> Tensor:
    return torch.randint(17, (batch, seq), generator=torch.Generator().manual_seed(batch))


def in_pieces(model: Transformer, ids: Tensor, cuts: list[int], cache: Caches) -> Tensor:
    return torch.cat([model(ids[:, a:b], cache=cache) for a, b in pairwise(cuts)], dim=1)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"n_kv_heads": 4},
        {"n_kv_heads": 2, "window": 4},
        {"n_kv_heads": 1, "norm_placement": "post"},
    ],
    ids=str,
)
@pytest.mark.parametrize("position", POSITIONS)
def test_cached_equals_uncached(changes, position) -> None:
    """However the text arrives, rows of their own and rows padded on the left."""
    model = made(position=position, **changes)
    ids = tokens(3)
    want = model(ids)
    starts = [0, 2, 5]
    alone = [model(ids[row : row + 1, start:])[0] for row, start in enumerate(starts)]
    assert want.std() > 0.1
    for cuts in CUTS:
        cache = model.make_caches(3, SEQ)
        torch.testing.assert_close(in_pieces(model, ids, cuts, cache), want, **EXACT)
        assert cache.length == SEQ
        cache = model.make_caches(3, SEQ, torch.tensor(starts))
        got = in_pieces(model, ids, cuts, cache)
        assert got.isfinite().all()
        for row, start in enumerate(starts):
            torch.testing.assert_close(got[row, start:], alone[row], **EXACT)


@torch.no_grad()
def test_a_window_keeps_as_many_slots_and_a_mixture_adds_up() -> None:
    """A text of 512 tokens, layers that look back at 32 and layers that see all."""
    sizes = {"vocab_size": 17, "max_seq_len": 512, "n_layers": 1, "d_model": 16, "n_heads": 4}
    full = ModelConfig.uniform(**sizes, d_ff=24, n_kv_heads=2)
    narrow = full.replace(window=32)
    mixed = full.replace(blocks=2 * (*(2 * narrow.blocks), *full.blocks))
    torch.manual_seed(0)
    ids = tokens(1, 512)
    for config, slots in ((narrow, [32]), (mixed, 2 * [32, 32, 512])):
        model = build(config).double()
        cache = model.make_caches(1)
        got = in_pieces(model, ids, [0, 300, *range(301, 330), 512], cache)
        torch.testing.assert_close(got, model(ids), **EXACT)
        assert [layer.keys.shape[2] for layer in cache] == slots
        token = 2 * 2 * 4 * 8  # keys and values, 2 heads of 4 numbers of 8 bytes
        assert cache.nbytes == token * sum(slots) == cache_bytes(config, 1, 512, torch.float64)


@torch.no_grad()
def test_a_window_goes_back_to_a_snapshot_alone() -> None:
    model = made(window=3)
    cache = model.make_caches(2)
    first, ids = tokens(2), tokens(2).flip(1)
    model(first[:, :6], cache=cache)
    assert not cache.always_crops and cache.can_crop(6) and not cache.can_crop(5)
    with pytest.raises(
        ValueError, match="cannot go back from 6 to 5 tokens: older ones were pushed out"
    ):
        cache.crop(5)
    saved = cache.snapshot()
    for _ in range(2):  # as often as one likes
        model(ids[:, :4], cache=cache)
        cache.restore(saved)
        assert cache.length == 6
    mixed = torch.cat((first[:, :6], ids[:, :4]), dim=1)
    torch.testing.assert_close(model(ids[:, :4], cache=cache), model(mixed)[:, 6:], **EXACT)
    cache.reset()
    torch.testing.assert_close(model(ids, cache=cache), model(ids), **EXACT)


@torch.no_grad()
def test_padding_is_never_looked_at() -> None:
    """Other ids in the padding, the same logits to the bit."""
    model = made(position="learned")
    ids, starts = tokens(2, 8), torch.tensor([0, 3])
    other = ids.clone()
    other[1, :3] = (other[1, :3] + 1) % 17
    one, two = (model(i, cache=model.make_caches(2, 8, starts)) for i in (ids, other))
    assert torch.equal(one[1, 3:], two[1, 3:]) and torch.equal(one[0], two[0])
    assert not torch.equal(one[1, :3], two[1, :3])


@torch.no_grad()
@pytest.mark.parametrize("position", ["rope", "learned"])
def test_rewound_and_reset_caches_go_on_as_new_ones(position) -> None:
    model = made(position=position, n_kv_heads=2)
    cache = model.make_caches(2)
    first, ids = tokens(2), tokens(2).flip(1)
    model(first, cache=cache)
    cache.crop(5)
    assert cache.length == 5
    mixed = torch.cat((first[:, :5], ids[:, :4]), dim=1)
    torch.testing.assert_close(model(ids[:, :4], cache=cache), model(mixed)[:, 5:], **EXACT)
    cache.reset()
    torch.testing.assert_close(model(ids, cache=cache), model(ids), **EXACT)
    with pytest.raises(ValueError, match="cannot go back from 12 to 13 tokens: only to fewer"):
        cache.crop(13)


def test_memory_is_set_aside_once_and_shrinks_with_the_heads() -> None:
    sizes = {}
    for heads in (None, 4, 2, 1):
        model = made(n_kv_heads=heads).float()
        cache = model.make_caches(3, 16)
        before = [layer.keys.data_ptr() for layer in cache]
        model(tokens(3), cache=cache)
        assert [layer.keys.data_ptr() for layer in cache] == before
        sizes[heads] = cache.nbytes
        assert cache.nbytes == sum(x.nbytes for c in cache for x in (c.keys, c.values))
    assert sizes == {None: 12288, 4: 12288, 2: 6144, 1: 3072}  # 2·2·3·16 tokens' 16 · 4 bytes


def test_no_gradient_goes_through_a_cache() -> None:
    model = made()
    cache = model.make_caches(1)
    model(tokens(1), cache=cache)
    assert not any(layer.keys.requires_grad for layer in cache)
    model(tokens(1)[:, :1], cache=cache).sum().backward()


# Bad input ----------------------------------------------------------------------------------------

FOREIGN = {
    "layers": ({"n_layers": 3}, "for 3 layers and batch 2, the model has 2 layers"),
    "heads": ({"n_kv_heads": 2}, "n_kv_heads = 2, .*got .2, 4, 5, 4."),
    "width": ({"d_model": 32}, "head_dim = 8.* got .2, 4, 5, 4."),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_cache_of_another_model_is_refused(case) -> None:
    changes, message = FOREIGN[case]
    model, cache = made(), made(**changes).make_caches(2)
    with pytest.raises(ValueError, match=message):
        model(tokens(2, 5), cache=cache)
    assert cache.length == 0


def test_another_dtype_or_batch_is_refused() -> None:
    model = made()
    with pytest.raises(ValueError, match=r"torch.float64.* of torch.float32"):
        cache = model.make_caches(2)
        model.float()(tokens(2), cache=cache)
    with pytest.raises(ValueError, match=r"and batch 2, .* ids have batch 3"):
        model(tokens(3), cache=model.make_caches(2))


def test_what_does_not_fit_is_refused_and_nothing_is_written() -> None:
    model = made()
    cache = model.make_caches(1, 14)
    model(tokens(1), cache=cache)
    with pytest.raises(ValueError, match=r"3 tokens more than the 12 .* max_len = 14"):
        model(tokens(1, 3), cache=cache)
    assert cache.length == 12
    model(tokens(1, 2), cache=cache)
    for max_len in (0, 17):
        with pytest.raises(ValueError, match=rf"1 … max_seq_len = 16, got {max_len}"):
            model.make_caches(1, max_len)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (torch.tensor([0]), r"one integer for each of 2 rows, got shape \(1,\)"),
        (torch.tensor([0.0, 1.0]), "torch.float32"),
        (torch.tensor([0, 16]), r"0 … 15, got \[0, 16\]"),
        (torch.tensor([-1, 0]), r"0 … 15, got \[-1, 0\]"),
    ],
)
def test_wrong_starts_are_refused(starts, message) -> None:
    with pytest.raises(ValueError, match=message):
        made().make_caches(2, starts=starts)


def test_attention_that_looks_ahead_has_no_cache() -> None:
    with pytest.raises(ValueError, match="only causal attention"):
        Attention(8, 2, causal=False).make_cache(1, 4)
