"""The protocols of what mixes positions and of what it keeps: who follows them, who does not."""

import pytest
import torch
from torch import nn

from llmtutor.layers.attention import Attention, AttentionConfig, KVCache, WindowCache
from llmtutor.layers.ffn import MLP
from llmtutor.layers.mixer import Cache, Mixer, MixerConfig, check_room, check_starts
from llmtutor.layers.part import Costs, Load, Site


def test_attention_is_a_mixer_and_makes_caches() -> None:
    layer = Attention(8, 2, window=3)
    assert isinstance(layer, Mixer)
    assert isinstance(layer.make_cache(1, 8), Cache)
    assert isinstance(WindowCache(1, 1, 8, 4, window=2), Cache)
    assert isinstance(KVCache(1, 1, 8, 4), Cache)
    assert issubclass(AttentionConfig, MixerConfig)


def test_what_lacks_a_part_of_the_protocol_does_not_follow_it() -> None:
    assert not isinstance(MLP(4, 8), Mixer) and not isinstance(nn.Linear(4, 4), Mixer)
    assert not isinstance(Attention(8, 2), Cache)
    with pytest.raises(TypeError, match="abstract"):
        MixerConfig()  # type: ignore[abstract]


def test_a_mixer_of_ones_own_needs_no_base_class() -> None:
    class Mean(nn.Module):
        def forward(self, x, *, cache=None):
            return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]

        def make_cache(self, batch, max_len, *, starts=None):
            raise ValueError("means cannot be continued")

    class MeanConfig(MixerConfig):
        kind = "mean"

        def build(self, site):
            return Mean()

        def costs(self, site, load):
            return Costs()

    site = Site(8, 16)
    assert isinstance(MeanConfig().build(site), Mixer)
    assert MeanConfig().position_table(site.at(3)) == (3, 0)  # none, and one for each layer
    assert MeanConfig().costs(site, Load(1, 1)) == Costs()


def test_starts_are_none_where_no_row_is_padded() -> None:
    device = torch.device("cpu")
    assert check_starts(None, 2, 8, device) is None
    assert check_starts(torch.tensor([0, 0]), 2, 8, device) is None
    got = check_starts(torch.tensor([7, 0], dtype=torch.int32), 2, 8, device)
    assert got is not None and got.dtype == torch.int64 and got.tolist() == [7, 0]


def test_room_is_up_to_the_last_slot() -> None:
    check_room(5, 3, 8)
    with pytest.raises(ValueError, match=r"4 tokens more than the 5 .* over its max_len = 8; make"):
        check_room(5, 4, 8)
