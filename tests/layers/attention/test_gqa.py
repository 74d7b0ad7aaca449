"""Grouped-query attention: MHA where every head has its own keys, repeated keys where shared."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmtutor.layers.attention import (
    GroupedQueryAttention,
    MultiHeadAttention,
    attention,
    first_heads,
    fused_attention,
    mean_pool_heads,
)
from llmtutor.layers.positions import Alibi, Rope, ShawPosition, T5Bias

EXACT = {"rtol": 1e-12, "atol": 1e-12}
D_MODEL, N_HEADS, HEAD_DIM = 32, 8, 4
OPTIONS = {
    "plain": dict,
    "window, biases, norms": lambda: {"window": 3, "bias": True, "qk_norm": True},
    "rope": lambda: {"position": Rope(HEAD_DIM)},
    "alibi": lambda: {"position": Alibi(N_HEADS)},
    "t5": lambda: {"position": T5Bias(N_HEADS)},
    "shaw": lambda: {"position": ShawPosition(HEAD_DIM, 3)},
    "both ways": lambda: {"causal": False},
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def layer(n_kv_heads: int, **options) -> GroupedQueryAttention:
    made = GroupedQueryAttention(D_MODEL, N_HEADS, n_kv_heads, **options).double()
    for i, parameter in enumerate(made.parameters()):
        parameter.data = 0.5 * draw(*parameter.shape, seed=20 + i)
    return made


@pytest.mark.parametrize("case", OPTIONS)
def test_as_many_key_heads_as_heads_is_mha(case) -> None:
    """To the bit, and drawn the same from the same seed."""
    x = draw(2, 7, D_MODEL)
    made = []
    for kind, sizes in ((GroupedQueryAttention, (N_HEADS,)), (MultiHeadAttention, ())):
        torch.manual_seed(3)
        made.append(kind(D_MODEL, N_HEADS, *sizes, **OPTIONS[case]()).double())
    ours, mha = made
    assert ours.state_dict().keys() == mha.state_dict().keys()
    assert torch.equal(ours(x), mha(x))
    assert torch.equal(ours.weights(x), mha.weights(x))


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4, 8])
def test_repeated_keys_in_mha_are_the_grouped_form(n_kv_heads, case) -> None:
    """Each head of keys and values written out for all its query heads: values and gradients."""
    ours = layer(n_kv_heads, **OPTIONS[case]())
    mha = MultiHeadAttention(D_MODEL, N_HEADS, **OPTIONS[case]()).double()
    group = N_HEADS // n_kv_heads

    def repeated(weight: Tensor) -> Tensor:
        rows = weight.reshape(n_kv_heads, 1, HEAD_DIM, *weight.shape[1:])
        return torch.cat([rows] * group, dim=1).reshape(-1, *weight.shape[1:])

    shared = ("key.weight", "key.bias", "value.weight", "value.bias")
    state = ours.state_dict()
    mha.load_state_dict({n: repeated(w) if n in shared else w for n, w in state.items()})
    x = draw(2, 7, D_MODEL)
    torch.testing.assert_close(ours(x), mha(x), **EXACT)
    torch.testing.assert_close(ours.weights(x), mha.weights(x), **EXACT)

    direction = draw(2, 7, D_MODEL, seed=1)
    for made in (ours, mha):
        (made(x) * direction).sum().backward()
    grads = dict(mha.named_parameters())
    for name, parameter in ours.named_parameters():
        want = grads[name].grad
        if name in shared:  # what is used by a group gets the sum over the group
            want = want.reshape(n_kv_heads, group, HEAD_DIM, *want.shape[1:]).sum(1)
        torch.testing.assert_close(parameter.grad, want.reshape(parameter.shape), **EXACT)


@pytest.mark.parametrize("rule", ["nothing", "mask", "row mask", "head mask", "bias"])
def test_a_single_query_of_a_group_equals_heads_written_out(rule) -> None:
    """Decoding takes another road through the kernel; each batch and head has its own numbers."""
    q, k, v = draw(3, 8, 1, 4), draw(3, 2, 6, 4, seed=1), draw(3, 2, 6, 5, seed=2)
    shapes = {
        "mask": (1, 6),
        "row mask": (3, 1, 1, 6),
        "head mask": (3, 8, 1, 6),
        "bias": (8, 1, 6),
    }
    rules = {}
    if rule != "nothing":
        noise = draw(*shapes[rule], seed=3)
        rules = {"bias": noise} if rule == "bias" else {"mask": noise > -0.5}
    each = torch.arange(8) // 4
    want = attention(q, k[:, each], v[:, each], causal=True, **rules)
    for path in (attention, fused_attention):
        torch.testing.assert_close(path(q, k, v, causal=True, **rules), want, **EXACT)


@pytest.mark.parametrize("path", [attention, fused_attention])
def test_heads_share_in_groups_that_stand_together(path) -> None:
    """Against torch on heads written out; and by hand: q heads 0, 1 read kv head 0, then 1."""
    q, k, v = draw(2, 4, 5, 3), draw(2, 2, 6, 3, seed=1), draw(2, 2, 6, 3, seed=2)
    mask = draw(5, 6, seed=3) > -0.5
    each = [0, 0, 1, 1]
    want = F.scaled_dot_product_attention(q, k[:, each], v[:, each], attn_mask=mask)
    torch.testing.assert_close(path(q, k, v, mask=mask), want, **EXACT)
    values = torch.tensor([10.0, 20.0]).reshape(1, 2, 1, 1)
    out = path(torch.zeros(1, 4, 1, 1), torch.zeros(1, 2, 1, 1), values)
    assert out.flatten().tolist() == [10, 10, 20, 20]


def test_mean_pool_by_hand_and_of_equal_heads() -> None:
    weight = torch.arange(16.0).reshape(8, 2)  # 4 heads of 2 rows
    pooled = mean_pool_heads(weight, 4, 2)
    assert pooled.tolist() == [[2, 3], [4, 5], [10, 11], [12, 13]]
    assert torch.equal(mean_pool_heads(weight, 4, 4), weight)
    kept = draw(2 * HEAD_DIM, D_MODEL)
    repeated = kept.unflatten(0, (2, HEAD_DIM)).repeat_interleave(4, 0).flatten(0, 1)
    torch.testing.assert_close(mean_pool_heads(repeated, 8, 2), kept, **EXACT)


def test_parameters() -> None:
    def count(n_kv_heads: int, **options) -> int:
        made = GroupedQueryAttention(12, 6, n_kv_heads, **options)
        return sum(p.numel() for p in made.parameters())

    assert [count(n) for n in (6, 3, 1)] == [4 * 144, 2 * 144 + 2 * 72, 2 * 144 + 2 * 24]
    assert count(3, bias=True, qk_norm=True) == 2 * (144 + 12) + 2 * (72 + 6) + 2 * 2
    text = repr(GroupedQueryAttention(12, 6, 3))
    assert "n_heads=6, n_kv_heads=3, causal=True" in text


def test_gradcheck() -> None:
    ours = GroupedQueryAttention(8, 4, 2, bias=True, qk_norm=True).double()
    assert torch.autograd.gradcheck(ours, (draw(1, 3, 8).requires_grad_(),))


@pytest.mark.parametrize("n_kv_heads", [3, 0, -2, 16])
def test_refuses(n_kv_heads) -> None:
    message = rf"n_kv_heads must divide n_heads.*n_heads = 8, n_kv_heads = {n_kv_heads}"
    with pytest.raises(ValueError, match=message):
        GroupedQueryAttention(D_MODEL, N_HEADS, n_kv_heads)
    with pytest.raises(ValueError, match=message):
        mean_pool_heads(torch.zeros(8, 2), 8, n_kv_heads)
    with pytest.raises(ValueError, match=message):
        first_heads(torch.zeros(8, 2), 8, n_kv_heads)


def test_refuses_rows_that_are_no_heads() -> None:
    with pytest.raises(ValueError, match=r"n_heads · head_dim with n_heads = 4, .*\(6, 2\)"):
        mean_pool_heads(torch.zeros(6, 2), 4, 2)
    with pytest.raises(ValueError, match=r"n_heads · head_dim with n_heads = 4, .*\(6, 2\)"):
        first_heads(torch.zeros(6, 2), 4, 2)
    for path in (attention, fused_attention):
        with pytest.raises(ValueError, match="heads of k divide those of q"):
            path(torch.zeros(1, 4, 2, 3), torch.zeros(1, 3, 2, 3), torch.zeros(1, 3, 2, 3))
