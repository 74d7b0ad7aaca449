"""Mamba: mambapy's block, what selecting does, a state that never grows, what it starts with."""

import pytest
import torch
import torch.nn.functional as F
from mambapy.mamba import MambaBlock
from mambapy.mamba import MambaConfig as TheirConfig

from llmtutor.layers.ffn import NoFeedForwardConfig
from llmtutor.layers.part import Site
from llmtutor.layers.recurrent.mamba import Mamba, MambaConfig
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import build

D, SEQ = 16, 11
THEIRS = {"log_decay": "A_log", "skip": "D"}
THEIRS |= {"input": "in_proj", "conv": "conv1d", "select": "x_proj"}
THEIRS |= {"step": "dt_proj", "output": "out_proj"}


@pytest.fixture
def layer() -> Mamba:
    torch.manual_seed(0)
    return Mamba(D, d_state=5).double()


def x(seq: int = SEQ) -> torch.Tensor:
    return torch.randn(2, seq, D, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("pscan", [False, True])
def test_it_is_the_block_of_mambapy_gradients_too(layer: Mamba, pscan: bool) -> None:
    theirs = MambaBlock(TheirConfig(d_model=D, n_layers=1, d_state=5, pscan=pscan)).double()
    state = {}
    for name, value in layer.state_dict().items():
        module, dot, kind = name.partition(".")
        state[THEIRS[module] + dot + kind] = value
    theirs.load_state_dict(state)
    got, want = layer(x()), theirs(x())
    assert want.std() > 0.01
    torch.testing.assert_close(got, want, rtol=0, atol=1e-9)
    got.square().sum().backward()
    want.square().sum().backward()
    for name, parameter in layer.named_parameters():
        module, dot, kind = name.partition(".")
        other = theirs.get_parameter(THEIRS[module] + dot + kind).grad
        torch.testing.assert_close(parameter.grad, other, rtol=1e-6, atol=1e-9)


def test_one_step_by_hand() -> None:
    """Everything 1 or 0 but the step: Δ = softplus(log(e − 1)) = 1, so h = e⁻¹ h + v, y = h + v."""
    layer = Mamba(1, d_state=1, expand=1, d_conv=1, conv_bias=False).double().requires_grad_(False)
    for parameter in layer.parameters():
        parameter.zero_()
    layer.input.weight.copy_(torch.tensor([[1.0], [1.0]]))
    layer.conv.weight.fill_(1)
    layer.step.bias.fill_(1.0).expm1_().log_()
    layer.skip.fill_(1)
    layer.output.weight.fill_(1)
    u = torch.tensor([[[1.0], [2.0]]], dtype=torch.float64)
    v = F.silu(u)
    # select gives B = C = v, where its weight is 1 for both.
    layer.select.weight.copy_(torch.tensor([[0.0], [1.0], [1.0]]))
    h0 = v[0, 0, 0] ** 2
    h1 = torch.exp(torch.tensor(-1.0)) * h0 + v[0, 1, 0] ** 2
    want = torch.stack((v[0, 0, 0] * h0 + v[0, 0, 0], v[0, 1, 0] * h1 + v[0, 1, 0])) * v[0, :, 0]
    torch.testing.assert_close(layer(u).flatten(), want)


def test_a_step_of_nothing_ignores_a_token_and_a_long_one_forgets_the_past(layer: Mamba) -> None:
    """The two ends of Δ: the state stays as it was, or is what came just now."""
    layer.requires_grad_(False)
    u, state = x(1).repeat(1, 1, 2), torch.ones(2, 2 * D, 5, dtype=torch.float64)
    layer.step.weight.zero_()
    layer.step.bias.fill_(-40.0)
    torch.testing.assert_close(layer._mixed(u, None, state, None)[1], state, rtol=0, atol=1e-15)
    layer.step.bias.fill_(60.0)
    far = layer._mixed(u, None, state, None)[1]
    torch.testing.assert_close(far, layer._mixed(u, None, 0 * state, None)[1], rtol=1e-12, atol=0)


def test_the_past_takes_as_much_after_a_thousand_tokens(layer: Mamba) -> None:
    layer.requires_grad_(False)
    caches = [layer.make_cache(2, longest) for longest in (4, 5000)]
    assert caches[0].nbytes == caches[1].nbytes == 2 * 2 * D * (5 + 3) * 8
    layer(x(1000), cache=caches[1])
    assert caches[1].nbytes == caches[0].nbytes and caches[1].length == 1000


def test_half_precision_keeps_its_dtype() -> None:
    layer = Mamba(8).bfloat16()
    assert layer(torch.ones(1, 3, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    cache = layer.make_cache(1, 4)
    assert layer(torch.ones(1, 3, 8, dtype=torch.bfloat16), cache=cache).dtype == torch.bfloat16


@pytest.mark.parametrize("init", ["gpt2", "glorot"])
def test_initialisation_leaves_the_time_scales_alone(init: str) -> None:
    block = {"mixer": MambaConfig(), "ffn": NoFeedForwardConfig()}
    torch.manual_seed(0)
    model = build(ModelConfig.uniform(9, 8, 2, 32, 1, 1, init=init, **block))
    mixer = model.blocks[1].mixer
    torch.testing.assert_close(mixer.log_decay.exp()[3], torch.arange(1.0, 17))
    assert torch.equal(mixer.skip, torch.ones(64))
    steps = F.softplus(mixer.step.bias)
    assert 0.99e-3 < steps.min() < 3e-3 and 3e-2 < steps.max() < 1.01e-1
    assert mixer.step.weight.abs().max() > 0.5  # uniform up to 1/√2, not 0.02


def test_sizes_below_one_are_refused_by_name() -> None:
    for name in ("d_state", "expand", "d_conv", "dt_rank"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            MambaConfig(**{name: 0})
    with pytest.raises(ValueError, match="d_model = 4, got shape"):
        Mamba(4)(torch.zeros(1, 2, 5))
    assert MambaConfig().rank(768) == 48 and MambaConfig().rank(24) == 2


def test_a_block_without_a_feed_forward_part() -> None:
    config = ModelConfig.uniform(9, 8, 2, 16, 1, 1, mixer=MambaConfig(), ffn="no-ffn")
    block = build(config).blocks[0]
    assert block.ffn is None and block.norm_2 is None
    names = {name.partition(".")[0] for name, _ in block.named_parameters()}
    assert names == {"mixer", "norm_1"}
    assert config.blocks[0].n_sub_layers == config.blocks[0].n_norms == 1
    sandwich = config.replace(norm_placement="sandwich")
    assert sandwich.blocks[0].n_norms == 2 and build(sandwich).blocks[0].after_1 is not None
    with pytest.raises(ValueError, match="no feed-forward part to build"):
        NoFeedForwardConfig().build(Site(16, 8))
