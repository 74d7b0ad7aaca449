"""The feed-forward layer of gpt-oss: against its published form, at its bounds, and by hand."""

import pytest
import torch
from transformers import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

from llmtutor.layers.clamped import ClampedGatedMLP, ClampedGatedMLPConfig


def test_equals_one_expert_of_gpt_oss() -> None:
    torch.manual_seed(0)
    ours = ClampedGatedMLP(6, 10, limit=2.0, slope=1.3).double()
    for parameter in ours.parameters():
        parameter.data.normal_()
    sizes = {"hidden_size": 6, "intermediate_size": 10, "num_local_experts": 1}
    config = GptOssConfig(**sizes, num_experts_per_tok=1, swiglu_limit=2.0, swiglu_alpha=1.3)
    theirs = GptOssExperts(config).double()
    both = torch.stack((ours.gate.weight, ours.up.weight), 1).flatten(0, 1)
    theirs.gate_up_proj.data[0] = both.T
    theirs.gate_up_proj_bias.data[0] = torch.stack((ours.gate.bias, ours.up.bias), 1).flatten()
    theirs.down_proj.data[0], theirs.down_proj_bias.data[0] = ours.down.weight.T, ours.down.bias
    x = 2 * torch.randn(7, 6, dtype=torch.float64)
    chosen, weights = torch.zeros(7, 1, dtype=torch.int64), torch.ones(7, 1).double()
    torch.testing.assert_close(ours(x), theirs(x, chosen, weights), rtol=1e-12, atol=1e-12)


def test_large_inputs_are_bounded_and_by_hand() -> None:
    """One unit: with y = min(x, 7) it is (y + 1) · y σ(1.702 y), so 56 from 7 on."""
    layer = ClampedGatedMLP(1, 1, bias=False)
    for part in (layer.gate, layer.up, layer.down):
        part.weight.data.fill_(1)
    got = layer(torch.tensor([[0.0], [1.0], [7.0], [1e6]])).flatten()
    want = torch.tensor([0.0, 2 / (1 + 2.718281828**-1.702), 56.0, 56.0])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert abs(float(layer(torch.tensor([[-1e6]])).detach())) < 1e-3  # the gate closes


@pytest.mark.parametrize("bad", [{"d_ff": 0}, {"d_ff": 4, "limit": 0.0}, {"d_ff": 4, "slope": -1}])
def test_bad_settings_are_refused(bad) -> None:
    with pytest.raises(ValueError, match=next(reversed(bad))):
        ClampedGatedMLPConfig(**bad)
