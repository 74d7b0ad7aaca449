"""Multi-head attention against torch.nn.MultiheadAttention on the same weights, and properties."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from llmtutor.layers.attention import MultiHeadAttention, causal_mask, sliding_window_mask
from llmtutor.layers.positions.alibi import Alibi
from llmtutor.layers.positions.base import Position
from llmtutor.layers.positions.relative import ShawPosition, T5Bias
from llmtutor.layers.positions.rope import Rope

EXACT = {"rtol": 1e-12, "atol": 1e-12}
D_MODEL, N_HEADS, HEAD_DIM = 12, 3, 4
PROJECTIONS = ["query", "key", "value"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def layer(**settings) -> MultiHeadAttention:
    """Every parameter random, also those that start at 0 or 1."""
    made = MultiHeadAttention(D_MODEL, N_HEADS, **settings).double()
    for i, parameter in enumerate(made.parameters()):
        parameter.data = 0.5 * draw(*parameter.shape, seed=20 + i).detach()
    return made


def torch_twin(ours: MultiHeadAttention) -> nn.MultiheadAttention:
    bias = ours.query.bias is not None
    twin = nn.MultiheadAttention(D_MODEL, N_HEADS, bias=bias, batch_first=True).double()
    parts = [getattr(ours, name) for name in PROJECTIONS]
    twin.in_proj_weight.data = torch.cat([part.weight.data for part in parts])
    twin.out_proj.weight.data = ours.output.weight.data.clone()
    if bias:
        twin.in_proj_bias.data = torch.cat([part.bias.data for part in parts])
        twin.out_proj.bias.data = ours.output.bias.data.clone()
    return twin


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (True, 3)])
def test_equals_torch(bias, causal, window) -> None:
    ours = layer(bias=bias, causal=causal, window=window)
    twin = torch_twin(ours)
    blocked = None
    if causal:
        blocked = ~(causal_mask(7) if window is None else sliding_window_mask(7, window))
    x = draw(2, 7, D_MODEL)
    got, weights = ours(x), ours.weights(x)
    want, want_weights = twin(x, x, x, attn_mask=blocked, average_attn_weights=False)
    torch.testing.assert_close(got, want, **EXACT)
    torch.testing.assert_close(weights, want_weights, **EXACT)

    direction = draw(2, 7, D_MODEL, seed=1).detach()
    mine = torch.autograd.grad((got * direction).sum(), [x, *ours.parameters()])
    theirs = torch.autograd.grad((want * direction).sum(), [x, *twin.parameters()])
    names = ["x", *(name for name, _ in ours.named_parameters())]
    found = dict(zip(names, mine, strict=True))
    names = ["x", *(name for name, _ in twin.named_parameters())]
    wanted = dict(zip(names, theirs, strict=True))
    torch.testing.assert_close(found["x"], wanted["x"], **EXACT)
    together = torch.cat([found[f"{name}.weight"] for name in PROJECTIONS])
    torch.testing.assert_close(together, wanted["in_proj_weight"], **EXACT)
    torch.testing.assert_close(found["output.weight"], wanted["out_proj.weight"], **EXACT)
    if bias:
        together = torch.cat([found[f"{name}.bias"] for name in PROJECTIONS])
        torch.testing.assert_close(together, wanted["in_proj_bias"], **EXACT)
        torch.testing.assert_close(found["output.bias"], wanted["out_proj.bias"], **EXACT)


def test_float32_equals_torch() -> None:
    ours = layer(bias=True)
    twin = torch_twin(ours).float()
    x = draw(2, 64, D_MODEL).detach().float()
    want, _ = twin(x, x, x, attn_mask=~causal_mask(64))
    assert (ours.float()(x) - want).abs().max() <= 1e-5


SCHEMES = {
    "none": lambda: None,
    "alibi": lambda: Alibi(N_HEADS),
    "shaw": lambda: ShawPosition(HEAD_DIM, 4),
    "t5": lambda: T5Bias(N_HEADS),
    "rope": lambda: Rope(HEAD_DIM),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_forward_is_what_weights_show(scheme, window, qk_norm) -> None:
    """The fused path gives the values weighted by the weights of the readable path."""
    ours = layer(position=SCHEMES[scheme](), window=window, qk_norm=qk_norm)
    x = draw(2, 7, D_MODEL)
    values = ours.value(x).reshape(2, 7, N_HEADS, HEAD_DIM)
    mixed = torch.einsum("bhqk,bkhd->bqhd", ours.weights(x), values).reshape(2, 7, D_MODEL)
    torch.testing.assert_close(ours(x), mixed @ ours.output.weight.T, **EXACT)
    if scheme != "none":
        plain = layer(window=window, qk_norm=qk_norm)
        plain.load_state_dict(ours.state_dict(), strict=False)
        assert (plain.weights(x) - ours.weights(x)).abs().max() > 1e-3


class Recorder(Position):
    """Doubles what it rotates, and keeps what it was given."""

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        self.given = x, positions
        return 2 * x

    def score_bias(self, q: Tensor, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        self.rotated = q
        return torch.arange(len(k_positions)).double().expand(1, len(q_positions), -1)


def test_queries_are_normalised_then_rotated_then_scored() -> None:
    recorder = Recorder()
    ours = layer(position=recorder, qk_norm=True, eps=0.3, causal=False)
    x = draw(2, 5, D_MODEL)
    q, k = (
        F.rms_norm(
            part(x).reshape(2, 5, N_HEADS, HEAD_DIM).transpose(1, 2), (HEAD_DIM,), norm.weight, 0.3
        )
        for part, norm in ((ours.query, ours.query_norm), (ours.key, ours.key_norm))
    )
    scores = (2 * q) @ (2 * k).transpose(-2, -1) / HEAD_DIM**0.5
    want = (scores + torch.arange(5)).softmax(-1)
    torch.testing.assert_close(ours.weights(x), want, **EXACT)
    given, positions = recorder.given
    torch.testing.assert_close(given, k, **EXACT)
    assert positions.tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(recorder.rotated, 2 * q, **EXACT)


def test_qk_norm_bounds_the_scores_whatever_the_size_of_the_input() -> None:
    plain, normed = (MultiHeadAttention(D_MODEL, N_HEADS, qk_norm=on).double() for on in (0, 1))
    x = 1e4 * draw(2, 7, D_MODEL)
    row = normed.weights(x)[..., -1, :]
    # Gains of 1: |q| = |k| = √head_dim, so scores lie within ±√head_dim and weights apart by e².
    ratio = row.amax(-1) / row.amin(-1)
    assert ratio.max() <= torch.tensor(2 * HEAD_DIM**0.5).exp()
    assert plain.weights(x)[..., -1, :].amin() == 0


@given(st.integers(0, 10_000), st.integers(1, 8))
@settings(deadline=None, max_examples=30)
def test_permutation_equivariant_without_positions(seed, seq) -> None:
    ours = layer(causal=False, qk_norm=True, bias=True)
    x = draw(2, seq, D_MODEL, seed=seed)
    order = torch.randperm(seq, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(ours(x[:, order]), ours(x)[:, order], **EXACT)


def test_causal_or_with_positions_order_matters() -> None:
    x = draw(1, 6, D_MODEL)
    order = torch.tensor([5, 4, 3, 2, 1, 0])
    for settings_ in ({"causal": True}, {"causal": False, "position": Rope(HEAD_DIM)}):
        ours = layer(**settings_)
        assert (ours(x[:, order]) - ours(x)[:, order]).abs().max() > 1e-3


def test_heads_are_apart() -> None:
    """What one head's slice of the projections does shows in that head's weights alone."""
    ours = layer()
    x = draw(2, 5, D_MODEL)
    before = ours.weights(x)
    ours.query.weight.data[HEAD_DIM : 2 * HEAD_DIM] *= -1
    moved = (ours.weights(x) - before).abs().amax((0, 2, 3))
    assert moved[1] > 1e-3
    assert moved[[0, 2]].eq(0).all()


def test_one_token_is_its_own_value() -> None:
    ours = layer()
    x = draw(2, 1, D_MODEL)
    torch.testing.assert_close(ours(x), ours.output(ours.value(x)), **EXACT)


@pytest.mark.parametrize("options", [{}, {"bias": True, "qk_norm": True, "window": 2}])
def test_gradcheck(options) -> None:
    ours = layer(**options)
    x = draw(1, 3, D_MODEL)
    assert torch.autograd.gradcheck(ours, (x,))
    names, values = zip(*ours.named_parameters(), strict=True)

    def run(*values: Tensor) -> Tensor:
        return torch.func.functional_call(ours, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, values, fast_mode=True)


def test_parameters() -> None:
    def count(**options) -> int:
        return sum(p.numel() for p in MultiHeadAttention(12, 3, **options).parameters())

    assert count() == 4 * 12 * 12
    assert count(bias=True) == 4 * (12 * 12 + 12)
    assert count(qk_norm=True) == 4 * 12 * 12 + 2 * 4
    assert "n_heads=3, causal=True, window=2" in repr(MultiHeadAttention(12, 3, window=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_heads": 5}, "n_heads must divide d_model.*d_model = 12, n_heads = 5"),
        ({"n_heads": 0}, "at least 1.*n_heads = 0"),
        ({"n_heads": -3}, "at least 1.*n_heads = -3"),
        ({"d_model": 0}, "at least 1.*d_model = 0"),
        ({"window": 0}, "window must be at least 1.*window = 0"),
        ({"window": 2, "causal": False}, "needs causal=True"),
        ({"qk_norm": True, "eps": 0.0}, "eps must be above 0"),
    ],
)
def test_refuses(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(**{"d_model": 12, "n_heads": 3, **arguments})


@pytest.mark.parametrize(
    ("shape", "message"), [((5, 12), "batch, seq, d_model"), ((2, 5, 11), "d_in = 12")]
)
def test_refuses_input(shape, message) -> None:
    for call in (layer(), layer().weights):
        with pytest.raises(ValueError, match=message):
            call(torch.zeros(shape, dtype=torch.float64))
