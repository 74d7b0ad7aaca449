"""Decoding with a cache gives the logits of the whole forward pass, however the text arrives."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from llmtutor.layers.attention import GroupedQueryAttention, MultiHeadAttention
from llmtutor.layers.positions import Alibi, Rope, ShawPosition, T5Bias
from llmtutor.model.caches import Caches
from llmtutor.model.config import ModelConfig
from llmtutor.model.parts import MIXERS, POSITIONS
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer

SEQ = 12
EXACT = {"rtol": 1e-10, "atol": 1e-10}
HEADS = {"mha": (None,), "gqa": (1, 2, 4)}
"""The numbers of key and value heads to try with each mixer."""
CUTS = {
    "all at once": [0, SEQ],
    "one by one": list(range(SEQ + 1)),
    **{f"prefill of {n}": [0, *range(n, SEQ + 1)] for n in range(2, SEQ)},
    "chunks": [0, 3, 4, 9, SEQ],
}


def shake(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += 0.3 * noise.to(parameter.dtype)


def made(**changes) -> Transformer:
    sizes = {"vocab_size": 17, "max_seq_len": 16, "n_layers": 2, "d_model": 16, "n_heads": 4}
    torch.manual_seed(0)
    model = build(ModelConfig(**{**sizes, "d_ff": 24, **changes})).double()
    shake(model)
    return model


def tokens(batch: int, seq: int = SEQ) -> Tensor:
    return torch.randint(17, (batch, seq), generator=torch.Generator().manual_seed(batch))


def in_pieces(model: Transformer, ids: Tensor, cuts: list[int], cache: Caches) -> Tensor:
    return torch.cat([model(ids[:, a:b], cache=cache) for a, b in pairwise(cuts)], dim=1)


def test_each_registered_mixer_is_tried() -> None:
    assert set(HEADS) == set(MIXERS)


@torch.no_grad()
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("mixer", "n_kv_heads"), [(m, n) for m in HEADS for n in HEADS[m]])
def test_cached_equals_uncached(mixer, n_kv_heads, position, placement, cuts) -> None:
    """Rows of their own, and rows padded on the left by as much as they are shorter."""
    model = made(mixer=mixer, n_kv_heads=n_kv_heads, position=position, norm_placement=placement)
    ids = tokens(3)
    want = model(ids)
    assert want.std() > 0.1
    cache = model.make_caches(3, SEQ)
    torch.testing.assert_close(in_pieces(model, ids, cuts, cache), want, **EXACT)
    assert cache.length == SEQ

    starts = [0, 2, 5]
    cache = model.make_caches(3, SEQ, torch.tensor(starts))
    got = in_pieces(model, ids, cuts, cache)
    assert got.isfinite().all()
    for row, start in enumerate(starts):
        alone = model(ids[row : row + 1, start:])[0]
        torch.testing.assert_close(got[row, start:], alone, **EXACT)


IN_ATTENTION = {
    "none": lambda: None,
    "rope": lambda: Rope(4),
    "alibi": lambda: Alibi(4),
    "t5": lambda: T5Bias(4, 4, 6),
    "shaw": lambda: ShawPosition(4, 3),
}


@torch.no_grad()
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("position", IN_ATTENTION)
@pytest.mark.parametrize("window", [1, 3, SEQ + 1])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_cached_equals_uncached_past_a_window(n_kv_heads, window, position, cuts) -> None:
    torch.manual_seed(0)
    mixer = GroupedQueryAttention(
        16, 4, n_kv_heads, position=IN_ATTENTION[position](), window=window, bias=True, qk_norm=True
    ).double()
    shake(mixer)
    x = torch.randn(2, SEQ, 16, dtype=torch.float64)
    for starts in (None, [4, 0]):
        cache = mixer.make_cache(2, SEQ, starts=None if starts is None else torch.tensor(starts))
        got = torch.cat([mixer(x[:, a:b], cache=cache) for a, b in pairwise(cuts)], dim=1)
        for row, start in enumerate(starts or [0, 0]):
            want = mixer(x[row : row + 1, start:])[0]
            torch.testing.assert_close(got[row, start:], want, **EXACT)


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
    model = made(position=position, mixer="gqa", n_kv_heads=2)
    cache = model.make_caches(2)
    first, ids = tokens(2), tokens(2).flip(1)
    model(first, cache=cache)
    cache.rewind(5)
    assert cache.length == 5
    mixed = torch.cat((first[:, :5], ids[:, :4]), dim=1)
    torch.testing.assert_close(model(ids[:, :4], cache=cache), model(mixed)[:, 5:], **EXACT)
    cache.reset()
    torch.testing.assert_close(model(ids, cache=cache), model(ids), **EXACT)
    with pytest.raises(ValueError, match=r"can only go back to 0 … 12 tokens, got 13"):
        cache.rewind(13)


def test_memory_is_set_aside_once_and_shrinks_with_the_heads() -> None:
    sizes = {}
    for mixer, heads in [("mha", None), ("gqa", 4), ("gqa", 2), ("gqa", 1)]:
        model = made(mixer=mixer, n_kv_heads=heads).float()
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
    "heads": ({"mixer": "gqa", "n_kv_heads": 2}, "n_kv_heads = 2, .*got .2, 4, 5, 4."),
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
        (torch.tensor([0]), r"one integer for each of 2 rows .* shape \(1,\)"),
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
        MultiHeadAttention(8, 2, causal=False).make_cache(1, 4)
