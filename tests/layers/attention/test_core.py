"""Attention against torch and transformers, against loops over numbers, and its properties.

Everything is run through the readable and the fused path. Libraries and loops are the oracles of
the readable path, which then is that of the fused one, whatever the arguments.
"""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmtutor.layers.attention import (
    attention,
    attention_weights,
    causal_mask,
    core,
    fused_attention,
    padding_mask,
    sliding_window_mask,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}
PATHS = pytest.mark.parametrize("path", [attention, fused_attention])


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def qkv(seq_q: int = 5, seq_k: int = 5, v_dim: int = 4, batch: tuple[int, ...] = (2, 3)):
    return (
        draw(*batch, seq_q, 4, seed=1),
        draw(*batch, seq_k, 4, seed=2),
        draw(*batch, seq_k, v_dim, seed=3),
    )


def gradients(y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((y * draw(*y.shape, seed=9).detach()).sum(), inputs)


def by_loops(q, k, v, allowed, bias, scale, softcap=None, sink=None) -> Tensor:
    """(q, head_dim), one number at a time with math.exp: no tensor operation in common."""
    out = torch.zeros(len(q), v.shape[1], dtype=torch.float64)
    for i in range(len(q)):
        scores = {}
        for j in (j for j in range(len(k)) if allowed[i][j]):
            score = scale * sum(float(a) * float(b) for a, b in zip(q[i], k[j], strict=True))
            bent = score if softcap is None else softcap * math.tanh(score / softcap)
            scores[j] = bent + float(bias[i][j])
        total = sum(math.exp(s) for s in scores.values())
        total += 0.0 if sink is None else math.exp(sink)
        for j, s in scores.items():
            out[i] += math.exp(s) / total * v[j]
    return out


# --- against torch ---------------------------------------------------------------------------


@PATHS
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize(("seq_q", "seq_k", "v_dim", "scale"), [(5, 5, 4, None), (3, 7, 6, 0.3)])
def test_equals_torch(path, with_bias, with_mask, scale, seq_q, seq_k, v_dim) -> None:
    inputs = [*qkv(seq_q, seq_k, v_dim)]
    mask = causal_mask(seq_q, seq_k) if with_mask else None
    theirs_mask: Tensor | None = mask
    if with_bias:
        inputs.append(draw(3, seq_q, seq_k, seed=4))
        theirs_mask = inputs[3].expand(2, 3, seq_q, seq_k)
        if mask is not None:
            theirs_mask = theirs_mask.masked_fill(~mask, -math.inf)
    bias = inputs[3] if with_bias else None
    got = path(*inputs[:3], mask=mask, bias=bias, scale=scale)
    want = F.scaled_dot_product_attention(*inputs[:3], attn_mask=theirs_mask, scale=scale)
    torch.testing.assert_close(got, want, **EXACT)
    torch.testing.assert_close(gradients(got, *inputs), gradients(want, *inputs), **EXACT)


@PATHS
def test_float32_is_close_to_float64(path) -> None:
    q, k, v = qkv(32, 32)
    got = path(q.float(), k.float(), v.float(), causal=True).double()
    assert (got - attention(q, k, v, causal=True)).abs().max() <= 1e-5


@PATHS
def test_softcap_equals_gemma_2(path) -> None:
    """transformers, with heads that share keys and values; their softmax is in float32."""
    from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

    q, k, v = draw(2, 6, 5, 4), draw(2, 2, 7, 4, seed=2), draw(2, 2, 7, 3, seed=3)
    module = SimpleNamespace(num_key_value_groups=3, training=False)
    mask = torch.zeros(5, 7).masked_fill(~causal_mask(5, 7), -math.inf)
    want, _ = eager_attention_forward(module, q, k, v, mask, scaling=0.9, softcap=1.5)
    got = path(q, k, v, causal=True, scale=0.9, softcap=1.5)
    torch.testing.assert_close(got, want.transpose(1, 2), rtol=1e-6, atol=1e-6)


@PATHS
def test_sinks_equal_gpt_oss(path) -> None:
    from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

    inputs = draw(2, 6, 5, 4), draw(2, 2, 7, 4, seed=2), draw(2, 2, 7, 3, seed=3), draw(6, seed=4)
    module = SimpleNamespace(num_key_value_groups=3, training=False, sinks=inputs[3])
    mask = torch.zeros(5, 7, dtype=torch.float64).masked_fill(~causal_mask(5, 7), -math.inf)
    want, _ = eager_attention_forward(module, *inputs[:3], mask, scaling=0.9)
    want = want.transpose(1, 2)
    got = path(*inputs[:3], causal=True, scale=0.9, sinks=inputs[3])
    torch.testing.assert_close(got, want, **EXACT)
    torch.testing.assert_close(gradients(got, *inputs), gradients(want, *inputs), **EXACT)


# --- every argument in every path ----------------------------------------------------------------

RULES = {
    "mask": lambda q, k: draw(2, 1, q, k, seed=5) > -0.5,
    "causal": lambda q, k: True,
    "bias": lambda q, k: draw(4, q, k, seed=6),
    "scale": lambda q, k: 1.3,
    "softcap": lambda q, k: 0.8,
    "sinks": lambda q, k: draw(4, seed=7),
}
COMBINATIONS = [names for n in range(7) for names in itertools.combinations(RULES, n)]


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("seq_q", "seq_k"), [(5, 5), (3, 5), (1, 5), (1, 1)])
def test_fused_equals_readable_with_any_arguments_together(seq_q, seq_k, n_kv_heads) -> None:
    """Each argument counts, with and without each other one, and on every road of the kernel."""
    q, k = draw(2, 4, seq_q, 8, seed=1), draw(2, n_kv_heads, seq_k, 8, seed=2)
    v = draw(2, n_kv_heads, seq_k, 3, seed=3)
    for names in COMBINATIONS:
        rules = {name: RULES[name](seq_q, seq_k) for name in names}
        got, want = fused_attention(q, k, v, **rules), attention(q, k, v, **rules)
        torch.testing.assert_close(got, want, **EXACT, msg=lambda text: f"{names}: {text}")  # noqa: B023


@pytest.mark.parametrize(("seq_q", "seq_k"), [(5, 5), (1, 1), (1, 5)])
def test_causal_alone_needs_no_mask_in_the_fused_path(seq_q, seq_k, monkeypatch) -> None:
    inputs = qkv(seq_q, seq_k)
    want = attention(*inputs, causal=True)
    monkeypatch.delattr(core, "causal_mask")
    torch.testing.assert_close(fused_attention(*inputs, causal=True), want, **EXACT)


@PATHS
def test_bias_and_sinks_of_another_precision_take_that_of_the_queries(path) -> None:
    q, k, v = (x.detach().bfloat16() for x in qkv())
    rules = {"bias": draw(3, 5, 5, seed=4).float(), "sinks": draw(3, seed=5).float()}
    for names in (["bias"], ["sinks"], ["bias", "sinks"]):
        given = {name: rules[name] for name in names}
        want = path(q, k, v, **{name: x.bfloat16() for name, x in given.items()})
        got = path(q, k, v, **given)
        assert got.dtype == torch.bfloat16 and torch.equal(got, want)


@PATHS
def test_masks_are_made_where_the_queries_are(path) -> None:
    q, k = torch.zeros(2, 3, 4, device="meta"), torch.zeros(2, 5, 4, device="meta")
    assert path(q, k, k, causal=True).is_meta


# --- by hand ---------------------------------------------------------------------------------


@PATHS
def test_equals_loops_over_single_numbers(path) -> None:
    q, k, v = (x.detach() for x in qkv(4, 6, 3, batch=()))
    bias = draw(4, 6, seed=4).detach()
    allowed = sliding_window_mask(4, 3, 6)
    allowed[2] = False
    want = by_loops(q, k, v, allowed, bias, 0.5)  # 1/√4
    torch.testing.assert_close(path(q, k, v, mask=allowed, bias=bias), want, **EXACT)
    plain = by_loops(q, k, v, causal_mask(4, 6), 0 * bias, 0.5)
    torch.testing.assert_close(path(q, k, v, causal=True), plain, **EXACT)
    want = by_loops(q, k, v, allowed, bias, 1.1, softcap=0.7, sink=-0.2)
    got = path(
        *(x[None] for x in (q, k, v)),
        mask=allowed,
        bias=bias,
        scale=1.1,
        softcap=0.7,
        sinks=torch.tensor([-0.2], dtype=torch.float64),
    )
    torch.testing.assert_close(got[0], want, **EXACT)


@PATHS
def test_mask_and_causal_are_taken_together(path) -> None:
    for seq_q, seq_k in ((5, 5), (3, 7)):
        q, k, v = qkv(seq_q, seq_k)
        mask = draw(seq_q, seq_k, seed=5) > -0.5
        both = mask & causal_mask(seq_q, seq_k)
        got = path(q, k, v, mask=mask, causal=True)
        torch.testing.assert_close(got, attention(q, k, v, mask=both), **EXACT)


@PATHS
def test_heads_share_in_groups_that_stand_together(path) -> None:
    """Heads 0 and 1 of the queries read the first keys and values, 2 and 3 the second."""
    values = torch.tensor([10.0, 20.0]).reshape(1, 2, 1, 1)
    out = path(torch.zeros(1, 4, 1, 1), torch.zeros(1, 2, 1, 1), values)
    assert out.flatten().tolist() == [10, 10, 20, 20]
    q, k, v = draw(2, 4, 5, 3), draw(2, 2, 6, 3, seed=1), draw(2, 2, 6, 3, seed=2)
    each = [0, 0, 1, 1]
    want = F.scaled_dot_product_attention(q, k[:, each], v[:, each])
    torch.testing.assert_close(path(q, k, v), want, **EXACT)


@PATHS
def test_by_hand(path) -> None:
    # Scores 0 and log 3 (scale 1/√1): weights 1/4 and 3/4.
    q, k = torch.tensor([[1.0]]), torch.tensor([[0.0], [math.log(3.0)]])
    v = torch.tensor([[0.0, 8.0], [4.0, 0.0]])
    torch.testing.assert_close(path(q, k, v), torch.tensor([[3.0, 2.0]]))
    torch.testing.assert_close(attention_weights(q, k), torch.tensor([[0.25, 0.75]]))


@PATHS
def test_softcap_and_sinks_by_hand(path) -> None:
    # The score of the second key is such that the cap bends it to ln 2.
    cap = math.log(3.0)
    q, k = torch.tensor([[[1.0]]]), torch.tensor([[[0.0], [cap * math.atanh(math.log(2) / cap)]]])
    v = torch.tensor([[[3.0], [6.0]]])
    # Scores 0 and ln 2: weights 1/3 and 2/3; beside a sink of 0, which has no value, 1/4 and 1/2.
    assert path(q, k, v, softcap=cap).item() == pytest.approx(5.0)
    assert path(q, k, v, softcap=cap, sinks=torch.zeros(1)).item() == pytest.approx(3.75)
    weights = attention_weights(q, k, softcap=cap, sinks=torch.zeros(1))
    torch.testing.assert_close(weights, torch.tensor([[[0.25, 0.5]]]))
    # No score comes out beyond the cap, however large: weights differ by e² at most.
    row = attention_weights(q, torch.tensor([[[-1e4], [1e4]]]), softcap=1.0)[0, 0]
    assert (row[1] / row[0]).item() == pytest.approx(math.exp(2))
    # A query that may see nothing leaves all its attention in the sink.
    nobody = torch.zeros(1, 2, dtype=torch.bool)
    assert path(q, k, v, mask=nobody, sinks=torch.zeros(1)).tolist() == [[[0.0]]]


@PATHS
def test_a_perfect_match_copies_its_value(path) -> None:
    keys = 100 * torch.eye(4)
    values = draw(4, 2).detach().float()
    torch.testing.assert_close(path(keys[[2, 0]], keys, values), values[[2, 0]])


@PATHS
def test_huge_scores_stay_finite(path) -> None:
    q = torch.full((1, 1, 2, 4), 1e6)
    v = torch.tensor([[1.0], [3.0]]).expand(1, 1, 2, 1)
    torch.testing.assert_close(path(q, q, v), torch.full((1, 1, 2, 1), 2.0))


# --- rows masked completely --------------------------------------------------------------------


@PATHS
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_row_masked_completely_is_zero_with_zero_gradient(path, with_bias, dtype) -> None:
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in qkv())
    bias = draw(3, 5, 5, seed=4).detach().to(dtype).requires_grad_() if with_bias else None
    mask = causal_mask(5)
    mask[2] = False
    out = path(q, k, v, mask=mask, bias=bias)
    assert out[..., 2, :].eq(0).all()
    assert out.isfinite().all()
    inputs = [q, k, v] if bias is None else [q, k, v, bias]
    found = gradients(out.double(), *inputs)
    assert all(g.isfinite().all() for g in found)
    assert found[0][..., 2, :].eq(0).all()
    assert found[0][..., 3, :].abs().sum() > 0
    if bias is not None:
        assert found[3][:, 2].eq(0).all()


@PATHS
def test_sequence_of_padding_alone(path) -> None:
    q, k, v = qkv()
    out = path(q, k, v, mask=padding_mask(torch.tensor([0, 3]), 5), causal=True)
    assert out[0].eq(0).all()
    for g in gradients(out, q, k, v):
        assert g.isfinite().all()
        assert g[0].eq(0).all()
    torch.testing.assert_close(out[1, :, :3], path(q, k, v, causal=True)[1, :, :3], **EXACT)


# --- properties --------------------------------------------------------------------------------

seeds = st.integers(0, 10_000)


@given(seeds, st.integers(1, 7), st.integers(1, 7), st.floats(0.01, 0.99), st.floats(-30, 30))
@settings(deadline=None, max_examples=25)
def test_rows_sum_to_one_or_to_nothing(seed, seq_q, seq_k, density, shift) -> None:
    q, k = draw(2, seq_q, 4, seed=seed), draw(2, seq_k, 4, seed=seed + 1)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(seq_q, seq_k, generator=generator) < density
    weights = attention_weights(q, k, mask=mask)
    want = mask.any(-1).double().expand(2, seq_q)
    torch.testing.assert_close(weights.sum(-1), want, **EXACT)
    assert weights.ge(0).all()
    assert weights[:, ~mask].eq(0).all()
    # The same number added to a whole row of scores changes nothing.
    shifted = attention_weights(q, k, mask=mask, bias=torch.full((seq_q, 1), shift).double())
    torch.testing.assert_close(shifted, weights, rtol=1e-10, atol=1e-10)


@PATHS
@given(seed=seeds, seq=st.integers(1, 8))
@settings(deadline=None, max_examples=25)
def test_without_positions_order_means_nothing(path, seed, seq) -> None:
    """Permuted queries give permuted outputs; permuted keys and values give the same."""
    q, k, v = (draw(2, seq, 4, seed=seed + i) for i in range(3))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(seq, generator=generator)
    out = path(q, k, v)
    torch.testing.assert_close(path(q[:, order], k, v), out[:, order], **EXACT)
    torch.testing.assert_close(path(q, k[:, order], v[:, order]), out, **EXACT)


@PATHS
@given(seed=seeds, changed=st.integers(1, 6))
@settings(deadline=None, max_examples=25)
def test_the_past_does_not_see_the_future(path, seed, changed) -> None:
    q, k, v = (draw(2, 7, 4, seed=seed + i).detach() for i in range(3))
    before = path(q, k, v, causal=True)
    k[:, changed], v[:, changed] = 7.0, -7.0
    after = path(q, k, v, causal=True)
    assert torch.equal(after[:, :changed], before[:, :changed])
    assert not torch.equal(after[:, changed], before[:, changed])


@PATHS
def test_outputs_are_means_of_values(path) -> None:
    q, k, v = qkv()
    out = path(q, k, v, causal=True)
    assert (out <= v.cummax(-2).values + 1e-12).all()
    assert (out >= v.cummin(-2).values - 1e-12).all()


@PATHS
def test_gradcheck(path) -> None:
    q, k, v = qkv(3, 4, 2, batch=(2,))
    bias = draw(3, 4, seed=4)
    mask = causal_mask(3, 4)
    mask[0] = False
    assert torch.autograd.gradcheck(
        lambda q, k, v, bias: path(q, k, v, mask=mask, bias=bias), (q, k, v, bias)
    )
    assert torch.autograd.gradcheck(lambda q, k, v: path(q, k, v, causal=True), (q, k, v))


# --- bad input ---------------------------------------------------------------------------------

X = torch.zeros(2, 3, 5, 4)


@PATHS
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": torch.ones(5, 5)}, "mask must be boolean.*float32; .* bias"),
        ({"mask": torch.ones(5, 5).int()}, "mask must be boolean.*int32"),
        ({"mask": torch.ones(5, 4).bool()}, r"mask must broadcast.*\(2, 3, 5, 5\), got \(5, 4\)"),
        ({"mask": torch.ones(2, 5, 5).bool()}, r"mask must broadcast.*got \(2, 5, 5\)"),
        ({"mask": torch.ones(1, 1, 1, 1, 1).bool()}, "mask must broadcast"),
        ({"bias": torch.ones(6, 5)}, r"bias must broadcast.*got \(6, 5\)"),
        ({"bias": torch.ones(5, 5).bool()}, "bias must be floating point, got torch.bool"),
        ({"q": torch.zeros(2, 3, 5, 3)}, r"q and k must agree.*\(2, 3, 5, 3\)"),
        ({"q": torch.zeros(2, 1, 5, 4)}, "q and k must agree"),
        ({"q": torch.zeros(4)}, r"q must be .*\(\.\.\., seq, head_dim\).*\(4,\)"),
        ({"k": torch.zeros(2, 3, 5, 4).long()}, "k must be floating point.*int64"),
        ({"k": torch.zeros(2, 2, 5, 4)}, "heads of k divide those of q"),
        ({"k": torch.zeros(2, 0, 5, 4)}, "heads of k divide those of q"),
        ({"k": torch.zeros(1, 1, 5, 4)}, "heads of k divide those of q"),
        ({"q": torch.zeros(5, 4)}, "q and k must agree"),
        ({n: torch.zeros(5, 4) for n in "qkv"} | {"sinks": torch.zeros(())}, "for each head of q"),
        ({"softcap": 0.0}, "softcap must be above 0, got 0"),
        ({"softcap": math.nan}, "softcap must be above 0, got nan"),
        ({"sinks": torch.zeros(2)}, r"one number for each head of q \(2, 3, 5, 4\).*got .*\(2,\)"),
        ({"sinks": torch.zeros(3, 1)}, r"one number for each head .*got shape \(3, 1\)"),
        ({"v": torch.zeros(2, 3, 6, 4)}, "v must .* one row for each key"),
        ({"v": torch.zeros(2, 3, 5, 4).long()}, "v must be floating point"),
    ],
)
def test_refuses(path, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        path(**{"q": X, "k": X, "v": X, **arguments})
