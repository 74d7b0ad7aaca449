"""A window with the first tokens beside it: by hand, against plain attention, beyond its length."""

import pytest
import torch
from torch import Tensor

from llmtutor.layers.attention import Attention
from llmtutor.layers.attention.streaming import (
    StreamingAttention,
    StreamingCache,
    StreamingConfig,
)
from llmtutor.layers.part import Site
from llmtutor.layers.positions import Alibi, Rope, RopeConfig, T5Bias

EXACT = {"rtol": 1e-10, "atol": 1e-11}
D = 16


def made(kept_first: int = 2, window: int | None = 3, **options) -> StreamingAttention:
    layer = StreamingAttention(D, 4, kept_first=kept_first, window=window, **options).double()
    generator = torch.Generator().manual_seed(5)
    for p in layer.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return layer.requires_grad_(False)


def text(batch: int = 1, seq: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, seq, D, generator=generator, dtype=torch.float64)


def test_the_rule_of_the_paper_token_by_token() -> None:
    """Keys are kept unrotated; at each token all of the cache is turned to 0, 1, 2, … anew."""
    layer, x = made(position=Rope(4), n_kv_heads=2), text()
    q, k, v = (part(x)[0].unflatten(-1, (-1, 4)) for part in (layer.query, layer.key, layer.value))
    want = torch.zeros(9, 4, 4, dtype=torch.float64)
    for t in range(9):
        kept = sorted({0, 1} & set(range(t + 1)) | set(range(max(0, t - 2), t + 1)))
        places = torch.arange(len(kept))
        for head in range(4):
            keys = layer.position.rotate(k[kept, head // 2], places)
            query = layer.position.rotate(q[t, head][None], places[-1:])
            weights = (query @ keys.T / 2).softmax(-1)
            want[t, head] = (weights @ v[kept, head // 2])[0]
    torch.testing.assert_close(layer(x)[0], want.flatten(1) @ layer.output.weight.T, **EXACT)


@pytest.mark.parametrize("position", [None, Rope(4), Alibi(4), T5Bias(4, 8, 8)])
def test_until_the_first_tokens_leave_the_window_it_is_plain_attention(position) -> None:
    streaming = made(position=position)
    plain = Attention(D, 4, position=position).double().requires_grad_(False)
    plain.load_state_dict(streaming.state_dict())
    x = text()
    torch.testing.assert_close(streaming(x[:, :5]), plain(x[:, :5]), **EXACT)
    assert (streaming(x)[:, 5:] - plain(x)[:, 5:]).abs().max() > 1e-3
    wide, none = made(window=9, position=position), made(window=None, position=position)
    for layer in (wide, none):
        layer.load_state_dict(streaming.state_dict())
        torch.testing.assert_close(layer(x), plain(x), **EXACT)


def test_a_distance_never_grows_beyond_the_cache() -> None:
    """After any number of equal tokens the output stays what it was when the window was full."""
    layer, seq = made(position=Rope(4)), 300
    x = text(seq=1).expand(1, seq, D)
    cache = layer.make_cache(1, seq)
    got = torch.cat([layer(x[:, i : i + 1], cache=cache) for i in range(seq)], dim=1)
    torch.testing.assert_close(got[:, 5:], got[:, 4:5].expand(1, seq - 5, D), **EXACT)
    assert cache.nbytes == 2 * 4 * (3 + 2) * 4 * 8  # and so does the memory


def test_weights_are_those_of_the_first_and_of_the_window() -> None:
    layer, x = made(position=Rope(4)), text()
    weights = layer.weights(x)
    assert weights.shape == (1, 4, 9, 9)
    seen = (weights > 0).all(1)[0]
    for t in range(9):
        assert seen[t].nonzero().flatten().tolist() == sorted(
            {0, 1} & set(range(t + 1)) | set(range(max(0, t - 2), t + 1))
        )
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 4, 9, dtype=torch.float64), **EXACT)


def test_each_row_keeps_its_own_first_tokens() -> None:
    cache = StreamingCache(2, 1, 9, 1, beside=(2,), window=2, starts=torch.tensor([0, 3]))
    for a, b in ((0, 1), (1, 4), (4, 9)):
        new = torch.arange(float(a), float(b)).view(1, 1, -1, 1).expand(2, -1, -1, -1)
        cache.append(new, -new)
    assert cache.beside_keys.flatten(1).tolist() == [[0, 1], [3, 4]]
    assert torch.equal(cache.beside_values, -cache.beside_keys)
    assert cache.keys.flatten(1).tolist() == [[7, 8], [7, 8]]
    with pytest.raises(ValueError, match=r"cannot go back from 9 to 4 .* between the first and"):
        cache.crop(4)


def test_the_configuration_builds_what_the_layer_was_told() -> None:
    config = StreamingConfig(4, window=3, kept_first=2, position=RopeConfig(base=100.0))
    built = config.build(Site(D, 9))
    told = StreamingAttention(
        D, 4, window=3, kept_first=2, position=Rope(4, base=100.0, pairing="half")
    )
    assert repr(built) == repr(told)
    for bad in ({"kept_first": 0}, {"window": 0}):
        name = next(iter(bad))
        for make in (lambda: StreamingConfig(4, **bad), lambda: StreamingAttention(D, 4, **bad)):  # noqa: B023
            with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
                make()
