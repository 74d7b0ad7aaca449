"""Feed-forward layers against GPT-2's and Llama's in transformers, formulas by hand, bad input."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from llmtutor.layers.basic import RESIDUAL, has_tag
from llmtutor.layers.ffn import (
    ACTIVATIONS,
    GATES,
    MLP,
    GatedMLP,
    GatedMLPConfig,
    MLPConfig,
    swiglu_width,
)
from llmtutor.layers.part import Site

EXACT = {"rtol": 1e-12, "atol": 1e-12}
ALL = [(MLP, name) for name in ACTIVATIONS] + [(GatedMLP, name) for name in GATES]


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def randomise(module: nn.Module) -> nn.Module:
    for i, parameter in enumerate(module.parameters()):
        parameter.data = draw(*parameter.shape, seed=20 + i).detach()
    return module


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    """Values, and gradients of the input."""
    x = draw(2, 5, 6)
    got, want = ours(x), theirs(x)
    torch.testing.assert_close(got, want, **EXACT)
    direction = draw(*got.shape, seed=3).detach()
    (mine,) = torch.autograd.grad((got * direction).sum(), x)
    (wanted,) = torch.autograd.grad((want * direction).sum(), x)
    torch.testing.assert_close(mine, wanted, **EXACT)


# --- against transformers -------------------------------------------------------------------------


@pytest.mark.parametrize(("theirs", "ours"), [("silu", "silu"), ("gelu", "gelu"), ("relu", "relu")])
@pytest.mark.parametrize("bias", [False, True])
def test_gated_mlp_equals_llama(theirs, ours, bias) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    sizes = {"hidden_size": 6, "intermediate_size": 10, "num_attention_heads": 1}
    config = LlamaConfig(**sizes, hidden_act=theirs, mlp_bias=bias)
    llama = randomise(LlamaMLP(config).double())
    gated = GatedMLP(6, 10, ours, bias).double()
    state = {name.replace("_proj", ""): value for name, value in llama.state_dict().items()}
    gated.load_state_dict(state)
    assert_same(gated, llama)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("gelu_new", "gelu_tanh"), ("gelu", "gelu"), ("relu", "relu"), ("relu2", "relu2")],
)
def test_mlp_equals_gpt2(theirs, ours) -> None:
    from transformers import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    config = GPT2Config(n_embd=6, activation_function=theirs, resid_pdrop=0.0)
    gpt2 = randomise(GPT2MLP(10, config).double())
    mlp = MLP(6, 10, ours, bias=True).double()
    state = gpt2.state_dict()
    mlp.load_state_dict(
        {
            "up.weight": state["c_fc.weight"].T,  # Conv1D keeps (d_in, d_out)
            "up.bias": state["c_fc.bias"],
            "down.weight": state["c_proj.weight"].T,
            "down.bias": state["c_proj.bias"],
        }
    )
    assert_same(mlp, gpt2)


# --- by hand --------------------------------------------------------------------------------------

FORMULAS = {
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: max(x, 0.0),
    "relu2": lambda x: max(x, 0.0) ** 2,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
}


@given(st.floats(-30, 30))
@settings(deadline=None, max_examples=40)
def test_activations_are_their_formulas(x: float) -> None:
    for name, act in {**ACTIVATIONS, **GATES}.items():
        got = act(torch.tensor(x, dtype=torch.float64)).item()
        assert got == pytest.approx(FORMULAS[name](x), rel=1e-12, abs=1e-12), name


def test_every_activation_has_a_formula() -> None:
    assert set(FORMULAS) == {*ACTIVATIONS, *GATES}


def test_gated_mlp_by_hand() -> None:
    gated = GatedMLP(1, 2, "relu").double()
    gated.gate.weight.data = torch.tensor([[1.0], [-1.0]]).double()
    gated.up.weight.data = torch.tensor([[3.0], [5.0]]).double()
    gated.down.weight.data = torch.tensor([[1.0, 10.0]]).double()
    # x = 2: gates 2 and 0, up 6 and 10, so 12; x = −2: gates 0 and 2, up −6 and −10, so −200.
    out = gated(torch.tensor([[2.0], [-2.0]]).double())
    assert out.tolist() == [[12.0], [-200.0]]


def test_glu_of_the_paper_equals_torch() -> None:
    gated = GatedMLP(6, 10, "sigmoid").double()
    x = draw(2, 6)
    want = F.glu(torch.cat([gated.up(x), gated.gate(x)], -1)) @ gated.down.weight.T
    torch.testing.assert_close(gated(x), want, **EXACT)


def test_both_projections_of_the_gate_read_the_input() -> None:
    """Chained instead (the gate's output into ``up``) d_ff would have to be d_model."""
    gated = GatedMLP(6, 6).double()
    x = draw(2, 6)
    chained = gated.down(gated.up(F.silu(gated.gate(x))))
    assert (gated(x) - chained).abs().max() > 1e-2
    # A gate shut everywhere lets nothing through, whatever goes up.
    gated.gate.weight.data.zero_()
    assert gated(x).eq(0).all()


@pytest.mark.parametrize(("make", "activation"), ALL)
def test_each_position_by_itself(make, activation) -> None:
    layer = make(6, 10, activation).double()
    x = draw(2, 5, 6)
    whole = layer(x)
    for t in range(5):
        torch.testing.assert_close(layer(x[:, t]), whole[:, t], **EXACT)
    changed = x.detach().clone()
    changed[:, 3:] = 9.0
    assert torch.equal(layer(changed)[:, :3], whole[:, :3])


@pytest.mark.parametrize(("make", "activation"), ALL)
def test_gradcheck(make, activation) -> None:
    layer = randomise(make(3, 4, activation, bias=True).double())
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (draw(2, 3), *values))


# --- sizes ----------------------------------------------------------------------------------------


def parameters(layer: nn.Module) -> int:
    return sum(p.numel() for p in layer.parameters())


def test_parameters() -> None:
    assert parameters(MLP(6, 10)) == 2 * 60
    assert parameters(MLP(6, 10, bias=True)) == 2 * 60 + 16
    assert parameters(GatedMLP(6, 10)) == 3 * 60
    assert parameters(GatedMLP(6, 10, bias=True)) == 3 * 60 + 26
    assert parameters(GatedMLP(96, swiglu_width(96, 1))) == parameters(MLP(96, 4 * 96))


@pytest.mark.parametrize(
    ("d_model", "d_ff"), [(4096, 11008), (5120, 13824), (6656, 17920), (8192, 22016)]
)
def test_width_gives_the_models_of_llama(d_model: int, d_ff: int) -> None:
    """intermediate_size of Llama 7B, 13B, 33B and 65B."""
    assert swiglu_width(d_model, multiple_of=256) == d_ff


@given(st.integers(1, 10_000), st.integers(1, 300))
@settings(deadline=None, max_examples=50)
def test_width_is_the_next_multiple_of_two_thirds(d_model: int, multiple_of: int) -> None:
    width = swiglu_width(d_model, multiple_of)
    exact = 8 * d_model // 3
    assert width % multiple_of == 0
    assert exact <= width < exact + multiple_of
    assert swiglu_width(3 * d_model, 1) == 8 * d_model  # rounding of 8/3 never shows


def test_width_by_another_ratio() -> None:
    assert swiglu_width(512) == 1408
    assert swiglu_width(100, 10, ratio=2) == 200
    assert swiglu_width(100, 10, ratio=3.5) == 350
    assert swiglu_width(1, 1, ratio=0.5) == 1  # never nothing


@pytest.mark.parametrize("config", [MLPConfig, GatedMLPConfig])
def test_the_configuration_builds_the_layer_it_names(config) -> None:
    layer = config(10, activation="relu", bias=True).build(Site(6, 8))
    assert type(layer) is {MLPConfig: MLP, GatedMLPConfig: GatedMLP}[config]
    assert repr(layer) == repr(type(layer)(6, 10, "relu", bias=True))
    assert has_tag(layer.down, RESIDUAL) and not has_tag(layer.up, RESIDUAL)
    for changes, message in [
        ({"d_ff": 0}, "d_ff must be at least 1, got 0"),
        ({"d_ff": 2.5}, "d_ff must be int, got 2.5"),
        ({"activation": "reul"}, "unknown activation 'reul'; did you mean 'relu'"),
    ]:
        with pytest.raises(ValueError, match=message):
            config(**{"d_ff": 10, **changes})


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name", "nearest"),
    [
        (MLP, "gleu", "gelu"),
        (MLP, "relu_2", "relu2"),
        (MLP, "swish", "silu"),
        (MLP, "gelu_new", "gelu_tanh"),
        (GatedMLP, "sigmoidal", "sigmoid"),
        (GatedMLP, "relu2", "relu"),
        (GatedMLP, "SiLU", "silu"),
    ],
)
def test_unknown_activation_names_the_nearest(make, name, nearest) -> None:
    with pytest.raises(ValueError, match=f"'{name}'; did you mean '{nearest}'"):
        make(4, 8, name)


@pytest.mark.parametrize("make", [MLP, GatedMLP])
def test_refuses(make) -> None:
    for sizes, message in [((0, 4), "d_model .* got 0"), ((4, -1), "d_ff .* got -1")]:
        with pytest.raises(ValueError, match=message.replace(".*", "must be at least 1,")):
            make(*sizes)
    with pytest.raises(ValueError, match="d_in = 4"):
        make(4, 8)(torch.zeros(2, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "d_model must be at least 1, got 0"),
        ((4, 0), "multiple_of must be at least 1, got 0"),
        ((4, 64, 0.0), "ratio must be above 0, got 0"),
        ((4, 64, math.nan), "ratio must be a finite number, got nan"),
    ],
)
def test_width_refuses(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        swiglu_width(*arguments)


def test_print() -> None:
    assert "activation='relu2'" in repr(MLP(4, 8, "relu2"))
    assert "activation='silu'" in repr(GatedMLP(4, 8))
