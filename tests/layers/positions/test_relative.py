"""Shaw's vectors against the explicit loop; T5's buckets against `transformers` and integers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtutor.layers.positions import ShawPosition, T5Bias
from llmtutor.layers.positions.relative import t5_buckets

# --- Shaw et al. ---------------------------------------------------------------------------


def shaw_by_loop(q, weight, q_positions, k_positions):
    """Equation 4 of the paper: the query times the vector of the clipped distance."""
    reach = len(weight) // 2
    batch, heads, n_q, head_dim = q.shape
    bias = torch.zeros(batch, heads, n_q, len(k_positions), dtype=q.dtype)
    for b in range(batch):
        for h in range(heads):
            for i, p in enumerate(q_positions.tolist()):
                for j, r in enumerate(k_positions.tolist()):
                    vector = weight[max(-reach, min(reach, r - p)) + reach]
                    bias[b, h, i, j] = (q[b, h, i] * vector).sum() / math.sqrt(head_dim)
    return bias


@given(
    st.integers(1, 4),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
)
@settings(max_examples=30, deadline=None)
def test_shaw_equals_the_loop(max_distance, q_positions, k_positions):
    position = ShawPosition(3, max_distance).double()
    q = torch.randn(2, 2, len(q_positions), 3, dtype=torch.float64)
    where = torch.tensor(q_positions), torch.tensor(k_positions)
    want = shaw_by_loop(q, position.weight.detach(), *where)
    torch.testing.assert_close(position.score_bias(q, *where), want, rtol=1e-12, atol=1e-12)


def test_shaw_scores_are_products_with_shifted_keys():
    """Equation 2 and 4 whole: (q · (k + a)) / √d is what bias and scaled score make together."""
    position = ShawPosition(4, 2).double()
    q, k = torch.randn(2, 1, 1, 5, 4, dtype=torch.float64)
    positions = torch.arange(5)
    vectors = position.weight[(positions[None] - positions[:, None]).clamp(-2, 2) + 2]
    want = torch.einsum("bhid,bhijd->bhij", q, k[:, :, None] + vectors) / 2
    got = q @ k.transpose(-1, -2) / 2 + position.score_bias(q, positions, positions)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_shaw_by_hand():
    position = ShawPosition(1, 1)
    with torch.no_grad():
        position.weight.copy_(torch.tensor([[-10.0], [0.0], [7.0]]))
    bias = position.score_bias(torch.tensor([[[2.0]]]), torch.tensor([5]), torch.arange(3, 9))
    assert bias.tolist() == [[[-20.0, -20.0, 0.0, 14.0, 14.0, 14.0]]]


def test_shaw_gradient():
    position = ShawPosition(3, 2).double()
    q = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    positions = torch.arange(4)

    def function(q, weight):
        return torch.func.functional_call(
            Bias(position), {"inner.weight": weight}, (q, positions, positions)
        )

    assert torch.autograd.gradcheck(function, (q, position.weight))


class Bias(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *inputs):
        return self.inner.score_bias(*inputs)


@pytest.mark.parametrize(("sizes", "name"), [((0, 2), "head_dim"), ((4, 0), "max_distance")])
def test_shaw_sizes(sizes, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        ShawPosition(*sizes)


# --- T5 ------------------------------------------------------------------------------------


def t5(**options):
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    config = T5Config(d_model=12, d_kv=4, num_heads=3, **options)
    return T5Attention(config, has_relative_attention_bias=True, layer_idx=0)


@pytest.mark.parametrize(("n_buckets", "max_distance"), [(32, 128), (16, 64), (8, 20), (64, 1000)])
def test_buckets_equal_transformers(n_buckets, max_distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    relative = torch.arange(-3000, 3001)
    ours = t5_buckets(relative, n_buckets, max_distance)
    theirs = T5Attention._relative_position_bucket(relative, False, n_buckets, max_distance)
    assert torch.equal(ours, theirs)
    assert set(ours.tolist()) == set(range(n_buckets))


def test_bias_equals_transformers():
    theirs = t5(is_decoder=True).double()
    ours = T5Bias(3).double()
    ours.load_state_dict({"weight": theirs.relative_attention_bias.weight.detach()}, strict=True)
    q = torch.zeros(1, 3, 40, 4, dtype=torch.float64)
    want = theirs.compute_bias(40, 200, past_seen_tokens=160)
    got = ours.score_bias(q, torch.arange(160, 200), torch.arange(200))
    assert torch.equal(got[None], want)


def bucket_in_integers(relative: int, n: int, max_distance: int) -> int:
    """No logarithm: bucket e + m is reached when (d / e)^(n − e) ≥ (max_distance / e)^m."""
    distance = max(-relative, 0)
    e = n // 2
    if distance < e:
        return distance
    steps = n - e
    reached = [m for m in range(steps) if distance**steps * e**m >= max_distance**m * e**steps]
    return e + max(reached)


@given(st.integers(1, 40), st.integers(1, 500), st.data())
@settings(max_examples=60, deadline=None)
def test_buckets_equal_exact_arithmetic(exact, further, data):
    """Also on the edges of buckets, where logarithms in floating point may fall short."""
    n_buckets = 2 * exact
    max_distance = data.draw(st.sampled_from([exact + further, 4 * exact, 8 * exact, 27 * exact]))
    relative = data.draw(st.lists(st.integers(-2000, 2000), min_size=1, max_size=20))
    relative += [s * exact * r for r in (1, 2, 3, 4, 8, 9, 16) for s in (-1, 1)]
    got = t5_buckets(torch.tensor(relative), n_buckets, max_distance).tolist()
    assert got == [bucket_in_integers(r, n_buckets, max_distance) for r in relative]


def test_buckets_by_hand():
    """8 buckets up to 32: 0–3 alone, then edges at 4, 4 · 8^(1/4) = 6.7, 11.3 and 19.03."""
    relative = -torch.tensor([0, 1, 2, 3, 4, 6, 7, 11, 12, 19, 20, 31, 32, 999])
    want = [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7, 7]
    assert t5_buckets(relative, 8, 32).tolist() == want
    assert t5_buckets(-relative, 8, 32).tolist() == [0] * 14


def test_edges_of_buckets_by_hand():
    """10 buckets up to 160: edges at 5 · 2^m, where log(2) / log(32) · 5 rounds to less than 1."""
    edges = torch.tensor([5, 10, 20, 40, 80])
    assert t5_buckets(-edges, 10, 160).tolist() == [5, 6, 7, 8, 9]
    assert t5_buckets(1 - edges, 10, 160).tolist() == [4, 5, 6, 7, 8]


def test_bias_by_hand():
    position = T5Bias(2, n_buckets=4, max_distance=8)
    with torch.no_grad():
        position.weight.copy_(torch.tensor([[0.0, 1], [10, 11], [20, 21], [30, 31]]))
    bias = position.score_bias(torch.zeros(2, 1, 3), torch.tensor([5]), torch.arange(7))
    # Distances 5, 4, 3, 2, 1, 0 and one to come: buckets 3 (from 4 = 2 · 4^(1/2)), 2, 1, 0.
    assert bias.tolist() == [[[30, 30, 20, 20, 10, 0, 0]], [[31, 31, 21, 21, 11, 1, 1]]]


def test_bias_has_the_dtype_of_the_queries():
    """Under autocast queries are bfloat16 and parameters float32; fused attention wants one."""
    positions = torch.arange(3)
    bias = T5Bias(2).score_bias(torch.zeros(2, 3, 4, dtype=torch.bfloat16), positions, positions)
    assert bias.dtype == torch.bfloat16


def test_t5_gradient():
    position = T5Bias(2, n_buckets=8, max_distance=16).double()
    inputs = torch.zeros(2, 9, 4, dtype=torch.float64), torch.arange(9), torch.arange(9)

    def function(weight):
        return torch.func.functional_call(Bias(position), {"inner.weight": weight}, inputs)

    assert torch.autograd.gradcheck(function, (position.weight,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 0}, "n_heads must be at least 1, got 0"),
        ({"n_buckets": 1}, "n_buckets must be at least 2, got 1"),
        ({"max_distance": 16}, "must be above 16, .* n_buckets = 32; got 16"),
    ],
)
def test_t5_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        T5Bias(**{"n_heads": 2, **options})
