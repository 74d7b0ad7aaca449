"""Heads of keys and values made fewer: means and first heads, by hand and of equal heads."""

import pytest
import torch

from llmtutor.layers.attention import Attention, first_heads, mean_pool_heads


def test_by_hand() -> None:
    weight = torch.arange(16.0).reshape(8, 2)  # 4 heads of 2 rows
    assert mean_pool_heads(weight, 4, 2).tolist() == [[2, 3], [4, 5], [10, 11], [12, 13]]
    assert first_heads(weight, 4, 2).tolist() == [[0, 1], [2, 3], [8, 9], [10, 11]]
    bias = torch.tensor([1.0, 2.0, 5.0, 6.0])
    assert mean_pool_heads(bias, 2, 1).tolist() == [3, 4]
    assert first_heads(bias, 2, 1).tolist() == [1, 2]


@pytest.mark.parametrize("pool", [mean_pool_heads, first_heads])
def test_of_equal_heads_either_is_the_head_and_of_as_many_nothing_changes(pool) -> None:
    """And a layer that is cut so computes the same function."""
    generator = torch.Generator().manual_seed(0)
    kept = torch.randn(2, 4, 32, generator=generator, dtype=torch.float64)
    repeated = kept.repeat_interleave(4, 0).flatten(0, 1)
    torch.testing.assert_close(pool(repeated, 8, 2), kept.flatten(0, 1))
    assert torch.equal(pool(repeated, 8, 8), repeated)

    large, small = Attention(32, 8).double(), Attention(32, 8, n_kv_heads=2).double()
    large.key.weight.data = large.value.weight.data = repeated
    state = large.state_dict()
    cut = {name: pool(state[name], 8, 2) for name in ("key.weight", "value.weight")}
    small.load_state_dict(state | cut)
    x = torch.randn(2, 5, 32, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(small(x), large(x))


@pytest.mark.parametrize("pool", [mean_pool_heads, first_heads])
def test_refuses(pool) -> None:
    for n_kv_heads in (3, 0, -2, 16):
        with pytest.raises(
            ValueError, match=rf"must divide .*n_heads = 8, n_kv_heads = {n_kv_heads}"
        ):
            pool(torch.zeros(8, 2), 8, n_kv_heads)
    for weight in (torch.zeros(6, 2), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="n_heads · head_dim with n_heads = 4, got shape"):
            pool(weight, 4, 2)
