"""The layer against torch, against its formula with any options together, and its properties."""

import itertools
import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextAttention

from llmtutor.layers.attention import (
    Attention,
    AttentionConfig,
    causal_mask,
    sliding_window_mask,
)
from llmtutor.layers.norms import LayerNorm, LayerNormConfig, RMSNormConfig
from llmtutor.layers.part import Site
from llmtutor.layers.positions import Alibi, Position, Rope, RopeConfig, ShawPosition, T5Bias

EXACT = {"rtol": 1e-12, "atol": 1e-12}
D_MODEL, N_HEADS, SEQ = 16, 4, 6
PROJECTIONS = ["query", "key", "value"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def layer(n_heads: int = N_HEADS, d_model: int = D_MODEL, **options: Any) -> Attention:
    """Every parameter random, also those that start at 0 or 1."""
    made = Attention(d_model, n_heads, **options).double()
    for i, parameter in enumerate(made.parameters()):
        parameter.data = 0.5 * draw(*parameter.shape, seed=20 + i).detach()
    return made


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# --- against torch --------------------------------------------------------------------------------


def torch_twin(ours: Attention) -> nn.MultiheadAttention:
    bias = ours.query.bias is not None
    twin = nn.MultiheadAttention(D_MODEL, N_HEADS, bias=bias, batch_first=True).double()
    parts = [getattr(ours, name) for name in PROJECTIONS]
    twin.in_proj_weight.data = torch.cat([part.weight.data for part in parts])
    twin.out_proj.weight.data = ours.output.weight.data.clone()
    if bias:
        twin.in_proj_bias.data = torch.cat([part.bias.data for part in parts])
        twin.out_proj.bias.data = ours.output.bias.data.clone()
    return twin


@pytest.mark.parametrize(
    ("bias", "causal", "window"), [(False, False, None), (True, True, None), (True, True, 3)]
)
def test_equals_torch(bias, causal, window) -> None:
    ours = layer(bias=bias, causal=causal, window=window)
    twin = torch_twin(ours)
    blocked = None
    if causal:
        blocked = ~(causal_mask(SEQ) if window is None else sliding_window_mask(SEQ, window))
    x = draw(2, SEQ, D_MODEL)
    got, weights = ours(x), ours.weights(x)
    want, want_weights = twin(x, x, x, attn_mask=blocked, average_attn_weights=False)
    torch.testing.assert_close(got, want, **EXACT)
    torch.testing.assert_close(weights, want_weights, **EXACT)

    direction = draw(2, SEQ, D_MODEL, seed=1).detach()
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


# --- any options together -------------------------------------------------------------------------

POSITIONS = {
    "none": lambda head_dim: None,
    "rope": Rope,
    "alibi": lambda head_dim: Alibi(N_HEADS),
    "t5": lambda head_dim: T5Bias(N_HEADS, 4, 8),
    "shaw": lambda head_dim: ShawPosition(head_dim, 3),
}
NORMS = {
    "none": {},
    "each head": {"qk_norm": RMSNormConfig(eps=0.1)},
    "each head, centred": {"qk_norm": LayerNormConfig(eps=0.1), "qk_norm_over": "head"},
    "all heads": {"qk_norm": RMSNormConfig(eps=0.1), "qk_norm_over": "heads"},
}
CHOICES: dict[str, tuple] = {
    "n_kv_heads": (None, 1, 2),
    "head_dim": (None, 6),
    "bias": (False, True),
    "output_bias": (None, False, True),
    "norm": tuple(NORMS),
    "position": tuple(POSITIONS),
    "window": (None, 3),
    "scale": (None, 0.9),
    "softcap": (None, 1.2),
    "sinks": (False, True),
    "gate": (False, True),
}


def all_pairs(choices: dict[str, tuple]) -> list[dict[str, Any]]:
    """Few combinations, in which each value of each option meets each value of each other one."""

    def pairs(case: dict[str, Any]) -> set:
        return set(itertools.combinations(case.items(), 2))

    names, values = list(choices), list(choices.values())
    left = {
        ((a, x), (b, y))
        for (a, xs), (b, ys) in itertools.combinations(zip(names, values, strict=True), 2)
        for x in xs
        for y in ys
    }
    dice, cases = random.Random(0), []
    while left:
        some = [{name: dice.choice(choices[name]) for name in names} for _ in range(50)]
        best = max(some, key=lambda case: len(left & pairs(case)))
        cases.append(best)
        left -= pairs(best)
    return cases


def chosen(case: dict[str, Any]) -> dict[str, Any]:
    """Options of ``Attention``."""
    options = {name: case[name] for name in CHOICES if name not in ("norm", "position")}
    position = POSITIONS[case["position"]](case["head_dim"] or D_MODEL // N_HEADS)
    return options | NORMS[case["norm"]] | {"position": position}


def head_by_head(ours: Attention, x: Tensor, case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The formula from the options alone: output, and weights (batch, heads, q, k)."""
    state = dict(ours.named_parameters())
    width = case["head_dim"] or D_MODEL // N_HEADS
    n_kv, places = case["n_kv_heads"] or N_HEADS, torch.arange(x.shape[1])
    assert ("query.bias" in state) == case["bias"]
    assert ("output.bias" in state) == (
        case["bias"] if case["output_bias"] is None else case["output_bias"]
    )

    def normed(vector: Tensor, which: str) -> Tensor:
        gain = state[f"{which}_norm.weight"]
        if case["norm"] == "each head, centred":
            return F.layer_norm(vector, gain.shape, gain, state[f"{which}_norm.bias"], 0.1)
        return F.rms_norm(vector, gain.shape, gain, 0.1)

    def heads(which: str, n: int) -> list[Tensor]:
        vector = x @ state[f"{which}.weight"].T + state.get(f"{which}.bias", 0.0)
        if which != "value" and case["norm"] == "all heads":
            vector = normed(vector, which)
        each = [vector[..., i * width : (i + 1) * width] for i in range(n)]
        if which != "value" and case["norm"].startswith("each head"):
            each = [normed(head, which) for head in each]
        if which != "value":
            each = [ours.position.rotate(head, places) for head in each]
        return each

    q, k, v = heads("query", N_HEADS), heads("key", n_kv), heads("value", n_kv)
    bias = ours.position.score_bias(torch.stack(q, dim=1), places, places)
    behind = places[:, None] - places
    unseen = (behind < 0) | (behind >= (case["window"] or SEQ))
    outputs, weights = [], []
    for h in range(N_HEADS):
        shared = h // (N_HEADS // n_kv)
        scores = q[h] @ k[shared].mT * (case["scale"] or width**-0.5)
        if case["softcap"]:
            scores = case["softcap"] * torch.tanh(scores / case["softcap"])
        if bias is not None:
            scores = scores + bias[..., h, :, :]
        exps = scores.masked_fill(unseen, -torch.inf).exp()
        sink = state["sinks"][h].exp() if case["sinks"] else 0.0
        weights.append(exps / (exps.sum(-1, keepdim=True) + sink))
        outputs.append(weights[-1] @ v[shared])
    together = torch.cat(outputs, dim=-1)
    if case["gate"]:
        opened = x @ state["gate.weight"].T + state.get("gate.bias", 0.0)
        together = together / (1 + torch.exp(-opened))
    out = together @ state["output.weight"].T + state.get("output.bias", 0.0)
    return out, torch.stack(weights, dim=1)


@pytest.mark.parametrize(
    "case", all_pairs(CHOICES), ids=lambda case: "-".join(map(str, case.values()))
)
def test_any_options_together_are_the_formula(case) -> None:
    """Values, weights, gradients, and the values of a text that arrives in pieces."""
    ours, x = layer(**chosen(case)), draw(2, SEQ, D_MODEL)
    want, weights = head_by_head(ours, x, case)
    got = ours(x)
    torch.testing.assert_close(got, want, **EXACT)
    torch.testing.assert_close(ours.weights(x), weights, **EXACT)
    inputs, direction = [x, *ours.parameters()], draw(2, SEQ, D_MODEL, seed=1).detach()
    torch.testing.assert_close(
        torch.autograd.grad((got * direction).sum(), inputs),
        torch.autograd.grad((want * direction).sum(), inputs),
        rtol=1e-10,
        atol=1e-11,
    )
    cache = ours.make_cache(2, SEQ)
    pieces = [ours(piece, cache=cache) for piece in x.split([2, 1, 1, 2], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), want, **EXACT)


def test_each_option_alone_makes_another_function() -> None:
    plain = {name: values[0] for name, values in CHOICES.items()}
    x = draw(2, SEQ, D_MODEL)
    before = layer(**chosen(plain))(x)
    for name, values in CHOICES.items():
        for value in values[1:]:
            if (name, value) != ("output_bias", False):  # which it is without being told
                after = layer(**chosen(plain | {name: value}))(x)
                assert (after - before).abs().max() > 1e-3, (name, value)


def test_the_configuration_builds_what_the_layer_was_told() -> None:
    options = {
        "n_kv_heads": 2,
        "head_dim": 6,
        "window": 3,
        "output_bias": True,
        "qk_norm": LayerNormConfig(eps=0.1, bias=False),
        "qk_norm_over": "heads",
        "scale": 0.9,
        "softcap": 1.2,
        "sinks": True,
        "gate": True,
    }
    built = AttentionConfig(N_HEADS, position=RopeConfig(base=100.0), **options).build(
        Site(D_MODEL, SEQ)
    )
    told = Attention(D_MODEL, N_HEADS, position=Rope(6, base=100.0, pairing="half"), **options)
    assert repr(built) == repr(told)
    told.load_state_dict(built.state_dict())
    x = draw(1, SEQ, D_MODEL).float()
    assert torch.equal(built(x), told(x))


# --- heads that share -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_kv_heads", "options"),
    [(1, {}), (2, {"window": 3, "bias": True, "qk_norm": RMSNormConfig()}), (4, {"causal": False})],
)
def test_repeated_keys_in_multi_head_attention_are_the_grouped_form(n_kv_heads, options) -> None:
    """What a group uses, written out for each of its heads, gets a share of the gradient each."""
    ours = layer(n_kv_heads=n_kv_heads, position=Rope(4), **options)
    mha = layer(position=Rope(4), **options)
    group = N_HEADS // n_kv_heads

    def repeated(weight: Tensor) -> Tensor:
        rows = weight.reshape(n_kv_heads, 1, 4, *weight.shape[1:])
        return torch.cat([rows] * group, dim=1).reshape(-1, *weight.shape[1:])

    shared = ("key.weight", "key.bias", "value.weight", "value.bias")
    state = ours.state_dict()
    mha.load_state_dict({n: repeated(w) if n in shared else w for n, w in state.items()})
    x, direction = draw(2, SEQ, D_MODEL), draw(2, SEQ, D_MODEL, seed=1).detach()
    for made in (ours, mha):
        (made(x) * direction).sum().backward()
    torch.testing.assert_close(ours(x), mha(x), **EXACT)
    grads = dict(mha.named_parameters())
    for name, parameter in ours.named_parameters():
        want = grads[name].grad
        if name in shared:
            want = want.reshape(n_kv_heads, group, 4, *want.shape[1:]).sum(1)
        torch.testing.assert_close(parameter.grad, want.reshape(parameter.shape), **EXACT)


def test_as_many_heads_of_keys_as_of_queries_is_saying_nothing() -> None:
    made = []
    for n_kv_heads in (None, N_HEADS):
        torch.manual_seed(3)
        made.append(Attention(D_MODEL, N_HEADS, n_kv_heads=n_kv_heads))
    x = draw(2, SEQ, D_MODEL).float()
    assert torch.equal(made[0](x), made[1](x)) and repr(made[0]) == repr(made[1])


# --- how far a window reaches ---------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 4])
def test_k_windows_on_top_of_each_other_reach_k_times_w_minus_1_plus_1_tokens(window) -> None:
    """Shown by gradients: W counts the token itself, so each layer looks W − 1 further back."""
    seq = 16
    for depth in (1, 2, 4):
        layers = [layer(window=window, position=Rope(4)) for _ in range(depth)]
        x = draw(1, seq, D_MODEL)
        y = x
        for one in layers:
            y = y + one(y)
        (slope,) = torch.autograd.grad(y[0, -1].sum(), x)
        reached = slope[0].abs().amax(-1) > 0
        reach = min(seq, depth * (window - 1) + 1)
        assert reached.tolist() == [False] * (seq - reach) + [True] * reach


# --- against Qwen3-Next ---------------------------------------------------------------------------


def test_the_gate_is_that_of_qwen3_next() -> None:
    """Theirs comes out of the projection of the queries, head by head: query, gate, query, …"""
    config = Qwen3NextConfig(
        hidden_size=D_MODEL, num_attention_heads=4, num_key_value_heads=2, head_dim=6
    )
    config._attn_implementation = "eager"
    theirs = Qwen3NextAttention(config, 0).double()
    norm = RMSNormConfig(eps=config.rms_norm_eps, offset=True)
    ours = layer(n_kv_heads=2, head_dim=6, qk_norm=norm, gate=True)
    both = torch.stack([part.weight.unflatten(0, (4, 6)) for part in (ours.query, ours.gate)], 1)
    theirs.q_proj.weight.data = both.flatten(0, 2).data
    for name, part in (("k_proj", ours.key), ("v_proj", ours.value), ("o_proj", ours.output)):
        getattr(theirs, name).weight.data = part.weight.data
    theirs.q_norm.weight.data = ours.query_norm.weight.data
    theirs.k_norm.weight.data = ours.key_norm.weight.data
    x = draw(2, SEQ, D_MODEL)
    still = torch.ones(2, SEQ, 2).double(), torch.zeros(2, SEQ, 2).double()
    blocked = torch.zeros(SEQ, SEQ).double().masked_fill(~causal_mask(SEQ), -torch.inf)
    want, _ = theirs(x, still, blocked[None, None])
    torch.testing.assert_close(ours(x), want, rtol=1e-6, atol=1e-6)  # their norms go by float32


# --- what goes where ------------------------------------------------------------------------------


class Recorder(Position):
    """Doubles what it rotates, and keeps what it was given."""

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        self.given = x, positions
        return 2 * x

    def score_bias(self, q: Tensor, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        self.scored = q, q_positions, k_positions
        return torch.arange(len(k_positions)).double().expand(1, len(q_positions), -1)


def test_queries_are_normalised_then_rotated_then_scored() -> None:
    recorder = Recorder()
    ours = layer(position=recorder, qk_norm=RMSNormConfig(eps=0.3), causal=False)
    x = draw(2, 5, D_MODEL)
    q, k = (
        F.rms_norm(part(x).reshape(2, 5, 4, 4).transpose(1, 2), (4,), norm.weight, 0.3)
        for part, norm in ((ours.query, ours.query_norm), (ours.key, ours.key_norm))
    )
    want = ((2 * q) @ (2 * k).mT / 2 + torch.arange(5)).softmax(-1)
    torch.testing.assert_close(ours.weights(x), want, **EXACT)
    given, positions = recorder.given
    torch.testing.assert_close(given, k, **EXACT)
    assert positions.tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(recorder.scored[0], 2 * q, **EXACT)


def test_positions_go_on_with_the_text_also_behind_a_window() -> None:
    for window, keys in ((None, [0, 1, 2, 3, 4, 5, 6]), (3, [3, 4, 5, 6])):
        ours = layer(position=(recorder := Recorder()), window=window)
        cache = ours.make_cache(1, 8)
        ours(draw(1, 5, D_MODEL), cache=cache)
        ours(draw(1, 2, D_MODEL), cache=cache)
        _, q_positions, k_positions = recorder.scored
        assert recorder.given[1].tolist() == q_positions.tolist() == [5, 6]
        assert k_positions.tolist() == keys


@pytest.mark.parametrize("over", ["head", "heads"])
def test_qk_norm_bounds_the_scores_whatever_the_size_of_the_input(over) -> None:
    plain, normed = (
        Attention(D_MODEL, N_HEADS, qk_norm=norm, qk_norm_over=over).double()
        for norm in (None, RMSNormConfig())
    )
    x = 1e4 * draw(2, SEQ, D_MODEL)
    row = normed.weights(x)[..., -1, :]
    # Gains of 1: a whole vector has length √d_model, a head no more, or √head_dim by itself.
    bound = 4 / 2 if over == "head" else D_MODEL / 2
    assert (row.amax(-1) / row.amin(-1)).max() <= torch.tensor(2.0 * bound).exp()
    assert plain.weights(x)[..., -1, :].amin() == 0


@given(st.integers(0, 10_000), st.integers(1, 8))
@settings(deadline=None, max_examples=15)
def test_permutation_equivariant_without_positions(seed, seq) -> None:
    ours = layer(causal=False, qk_norm=RMSNormConfig(), bias=True, sinks=True)
    x = draw(2, seq, D_MODEL, seed=seed)
    order = torch.randperm(seq, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(ours(x[:, order]), ours(x)[:, order], **EXACT)


def test_causal_or_with_positions_order_matters() -> None:
    x, order = draw(1, 6, D_MODEL), torch.arange(6).flip(0)
    for options in ({"causal": True}, {"causal": False, "position": Rope(4)}):
        ours = layer(**options)
        assert (ours(x[:, order]) - ours(x)[:, order]).abs().max() > 1e-3


def test_heads_are_apart() -> None:
    """What one head's slice of the projections does shows in that head's weights alone."""
    ours, x = layer(), draw(2, 5, D_MODEL)
    before = ours.weights(x)
    ours.query.weight.data[4:8] *= -1
    moved = (ours.weights(x) - before).abs().amax((0, 2, 3))
    assert moved[1] > 1e-3
    assert moved[[0, 2, 3]].eq(0).all()


def test_one_token_is_its_own_value_unless_a_sink_takes_some() -> None:
    x = draw(2, 1, D_MODEL)
    ours, leaking = layer(), layer(sinks=True)
    torch.testing.assert_close(ours(x), ours.output(ours.value(x)), **EXACT)
    assert leaking.weights(x).max() < 1


def test_gradcheck() -> None:
    ours = layer(
        n_kv_heads=2,
        bias=True,
        qk_norm=RMSNormConfig(),
        window=2,
        softcap=1.5,
        sinks=True,
        gate=True,
    )
    names, values = zip(*ours.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(ours, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (draw(1, 3, D_MODEL), *values), fast_mode=True)


def test_parameters() -> None:
    norm = RMSNormConfig()
    cases = [
        ({}, 4 * 144),
        ({"bias": True}, 4 * (144 + 12)),
        ({"output_bias": True}, 4 * 144 + 12),
        ({"bias": True, "output_bias": False}, 4 * 144 + 3 * 12),
        ({"n_kv_heads": 1}, 2 * 144 + 2 * 24),
        ({"n_kv_heads": 3, "bias": True}, 2 * (144 + 12) + 2 * (72 + 6)),
        ({"head_dim": 5, "n_kv_heads": 2}, 2 * 12 * 30 + 2 * 12 * 10),
        ({"n_kv_heads": 3, "qk_norm": norm}, 2 * 144 + 2 * 72 + 2 * 2),
        ({"n_kv_heads": 3, "qk_norm": norm, "qk_norm_over": "heads"}, 2 * 144 + 2 * 72 + 12 + 6),
        ({"sinks": True}, 4 * 144 + 6),
        ({"gate": True, "bias": True, "n_kv_heads": 3}, 3 * (144 + 12) + 2 * (72 + 6)),
    ]
    for options, want in cases:
        assert count(Attention(12, 6, **options)) == want, options
    assert "n_heads=6, n_kv_heads=6, causal=True, window=2" in repr(Attention(12, 6, window=2))
    assert "n_heads=6, n_kv_heads=3, causal=False" in repr(
        Attention(12, 6, n_kv_heads=3, causal=False)
    )
    assert isinstance(Attention(12, 6, qk_norm=LayerNormConfig()).key_norm, LayerNorm)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"n_heads": 5},
            "n_heads must divide d_model unless head_dim .* = 12 and n_heads = 5: 2.4",
        ),
        ({"n_heads": 0}, "n_heads must be at least 1, got 0"),
        ({"n_heads": True}, "n_heads must be int, got True"),
        ({"d_model": 0}, "d_model must be at least 1, got 0"),
        ({"n_kv_heads": 2}, "n_kv_heads must divide n_heads.*n_heads = 3, n_kv_heads = 2"),
        ({"n_kv_heads": 0}, "n_kv_heads must divide n_heads.*n_kv_heads = 0"),
        ({"n_kv_heads": 6}, "n_kv_heads must divide n_heads.*n_kv_heads = 6"),
        ({"head_dim": 0}, "head_dim must be at least 1, got 0"),
        ({"window": 0}, "window must be at least 1.*got 0"),
        ({"window": 2, "causal": False}, "needs causal=True"),
        ({"scale": 0.0}, "scale must be above 0, got 0"),
        ({"softcap": -1.0}, "softcap must be above 0, got -1"),
        ({"qk_norm": "rmsnorm"}, "qk_norm must be NormConfig or nothing, got 'rmsnorm'"),
        ({"qk_norm_over": "all"}, "qk_norm_over must be one of 'head', 'heads', got 'all'"),
    ],
)
def test_refuses(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Attention(**{"d_model": 12, "n_heads": 3, **options})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 16), r"x must be \(batch, seq, d_model\), got shape \(5, 16\)"),
        ((16,), r"x must be \(batch, seq, d_model\), got shape \(16,\)"),
        ((2, 5, 11), "d_in = 16"),
    ],
)
def test_refuses_input(shape, message) -> None:
    for call in (layer(), layer().weights):
        with pytest.raises(ValueError, match=message):
            call(torch.zeros(shape, dtype=torch.float64))
