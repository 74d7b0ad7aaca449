"""Attention behind a short convolution: torch's convolution, what it becomes, a case by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmtutor.layers.attention import Attention
from llmtutor.layers.attention.convolved import ConvolvedAttention, ConvolvedConfig
from llmtutor.layers.part import Site
from llmtutor.layers.positions import RopeConfig

SITE = Site(d_model=16, max_seq_len=12)


def layer(**options: object) -> ConvolvedAttention:
    torch.manual_seed(0)
    config = ConvolvedConfig(4, n_kv_heads=2, position=RopeConfig(), **options)  # type: ignore[arg-type]
    return config.build(SITE).double()


def test_it_is_torchs_convolution_before_attention() -> None:
    """Heads without rotation: the three convolutions of torch, then its attention."""
    torch.manual_seed(0)
    ours = ConvolvedAttention(16, 4, n_kv_heads=2).double()
    x = torch.randn(3, 9, 16, dtype=torch.float64)
    parts = []
    for linear, taps in zip(
        (ours.query, ours.key, ours.value), ours.conv.weight.split(ours.widths), strict=True
    ):
        conv = nn.Conv1d(len(taps), len(taps), 4, groups=len(taps), bias=False).double()
        conv.weight.data = taps.data
        before = F.pad((x @ linear.weight.T).mT, (3, 0))
        parts.append(F.silu(conv(before)).mT.unflatten(-1, (-1, 4)).transpose(1, 2))
    theirs = F.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)
    want = theirs.transpose(1, 2).flatten(2) @ ours.output.weight.T
    torch.testing.assert_close(ours(x), want, rtol=0, atol=1e-12)


def test_a_convolution_that_passes_the_present_on_leaves_attention() -> None:
    """Taps (0, 0, 0, 1): only the silu is between. Weights of attention on the same projections."""
    ours = layer()
    ours.conv.weight.data.zero_()
    ours.conv.weight.data[:, 0, -1] = 1
    plain = Attention(16, 4, n_kv_heads=2, position=RopeConfig().build(SITE, 4, 4)).double()
    plain.load_state_dict(ours.state_dict(), strict=False)
    for name in ("query", "key", "value"):
        setattr(plain, name, nn.Sequential(getattr(ours, name), nn.SiLU()))
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    torch.testing.assert_close(ours(x), plain(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.weights(x), plain.weights(x), rtol=0, atol=1e-12)


def test_by_hand_a_key_knows_the_token_before() -> None:
    """Width 1, one head: keys are silu of x_t + 2 x_{t−1}, values of x_t, queries of 1."""
    one = ConvolvedAttention(1, 1, conv_width=2).double()
    for part in (one.query, one.key, one.value, one.output):
        part.weight.data.fill_(1.0)
    one.conv.weight.data = torch.tensor([[[0.0, 1.0]], [[2.0, 1.0]], [[0.0, 1.0]]]).double()
    x = torch.tensor([[[1.0], [3.0]]], dtype=torch.float64)
    keys = F.silu(torch.tensor([1.0, 3.0 + 2.0], dtype=torch.float64))
    query, values = F.silu(torch.tensor(3.0).double()), F.silu(x[0, :, 0])
    weights = (query * keys).softmax(0)
    assert one(x)[0, 1, 0].item() == pytest.approx((weights * values).sum().item(), abs=1e-12)
    assert one(x)[0, 0, 0].item() == pytest.approx(values[0].item(), abs=1e-12)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="conv_width"):
        ConvolvedConfig(4, conv_width=0)
    with pytest.raises(ValueError, match="causal=True"):
        ConvolvedAttention(16, 4, causal=False)
    cache = layer().make_cache(1, 8)
    layer()(torch.zeros(1, 3, 16, dtype=torch.float64), cache=cache)
    with pytest.raises(ValueError, match="cannot go back from 3 to 1"):
        cache.crop(1)
    with pytest.raises(ValueError, match="this cache keeps"):
        layer()(torch.zeros(2, 1, 16, dtype=torch.float64), cache=cache)
