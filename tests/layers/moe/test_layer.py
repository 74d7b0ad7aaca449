"""The layer of experts against published ones, a loop over tokens, and a case by hand."""

import pytest
import torch
from torch import Tensor, nn
from transformers import DeepseekV3Config, MixtralConfig, Qwen2MoeConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock

from llmtutor.layers.ffn import GatedMLPConfig, MLPConfig
from llmtutor.layers.moe import MoE, MoEConfig, RouterConfig
from llmtutor.layers.moe.dispatch import grouped
from llmtutor.layers.part import Load, Site

D, FF, N, K = 6, 10, 5, 2
SITE = Site(d_model=D, max_seq_len=32)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shaken(module: nn.Module) -> nn.Module:
    for i, parameter in enumerate(module.parameters()):
        parameter.data = draw(*parameter.shape, seed=20 + i, dtype=parameter.dtype)
    return module


def take_over(ours: MoE, theirs: nn.Module) -> MoE:
    """Their weights: experts are stacked there, gate above up."""
    ours.router.linear.weight.data = theirs.gate.weight.data
    stacks = zip(theirs.experts.gate_up_proj.data, theirs.experts.down_proj.data, strict=True)
    for expert, (both, down) in zip(ours.experts, stacks, strict=True):
        expert.gate.weight.data, expert.up.weight.data = both.chunk(2)
        expert.down.weight.data = down
    return ours


def same(ours: nn.Module, theirs: nn.Module) -> None:
    """Values, and gradients of the input."""
    x = draw(3, 20, D, dtype=torch.float32).requires_grad_()
    (got, _), want = ours(x), theirs(x)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    direction = draw(*want.shape, seed=3, dtype=torch.float32)
    (mine,) = torch.autograd.grad((got * direction).sum(), x)
    (wanted,) = torch.autograd.grad((want * direction).sum(), x)
    torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-3)


def test_layer_equals_mixtral() -> None:
    config = MixtralConfig(
        hidden_size=D, intermediate_size=FF, num_local_experts=N, num_experts_per_tok=K
    )
    theirs = shaken(MixtralSparseMoeBlock(config))
    same(take_over(MoEConfig(GatedMLPConfig(FF), N).build(SITE), theirs), theirs)


def test_shared_expert_behind_its_gate_equals_qwen2() -> None:
    config = Qwen2MoeConfig(
        hidden_size=D, moe_intermediate_size=FF, shared_expert_intermediate_size=7,
        num_experts=N, num_experts_per_tok=K, norm_topk_prob=False,
    )  # fmt: skip
    theirs = shaken(Qwen2MoeSparseMoeBlock(config))
    router, shared = RouterConfig(normalise=False), GatedMLPConfig(7)
    ours = MoEConfig(GatedMLPConfig(FF), N, router, shared, shared_gate=True).build(SITE)
    take_over(ours, theirs)
    state = theirs.shared_expert.state_dict()
    ours.shared.load_state_dict({name.replace("_proj", ""): x for name, x in state.items()})
    ours.shared_gate.weight.data = theirs.shared_expert_gate.weight.data
    same(ours, theirs)


def test_shared_experts_of_deepseek_are_one_of_their_common_width() -> None:
    config = DeepseekV3Config(
        hidden_size=D, moe_intermediate_size=FF, n_shared_experts=2, n_routed_experts=8,
        num_experts_per_tok=3, n_group=4, topk_group=2, routed_scaling_factor=2.5,
    )  # fmt: skip
    theirs = shaken(DeepseekV3MoE(config))
    router = RouterConfig(3, "sigmoid", True, 2.5, False, 4, 2, "top-2", bias_rate=0.0)
    ours = MoEConfig(GatedMLPConfig(FF), 8, router, shared=GatedMLPConfig(2 * FF)).build(SITE)
    take_over(ours, theirs)
    state = theirs.shared_experts.state_dict()
    ours.shared.load_state_dict({name.replace("_proj", ""): x for name, x in state.items()})
    same(ours, theirs)


# --- a loop over tokens ---------------------------------------------------------------------------


def one_by_one(experts: nn.ModuleList, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    rows = []
    for token, its, w in zip(x, chosen.tolist(), weights, strict=True):
        nothing = torch.zeros_like(token)
        outputs = [experts[e](token) if e < len(experts) else nothing for e in its]
        rows.append(sum(w[i] * output for i, output in enumerate(outputs)))
    return torch.stack(rows)


def test_sorted_tokens_give_bit_by_bit_what_a_loop_over_tokens_gives() -> None:
    """Small fractions of powers of two: no product or sum is rounded, in whatever order."""
    experts = MoEConfig(GatedMLPConfig(FF, "relu"), N).build(SITE).double().experts
    generator = torch.Generator().manual_seed(0)
    for parameter in experts.parameters():
        parameter.data = torch.randint(-8, 9, parameter.shape, generator=generator).double() / 8
    x = (torch.randint(-8, 9, (40, D), generator=generator).double() / 8).requires_grad_()
    chosen = draw(40, N).topk(3).indices
    chosen[5, 1] = N  # refused
    weights = torch.randint(1, 9, (40, 3), generator=generator).double() / 8
    got, want = (f(experts, x, chosen, weights) for f in (grouped, one_by_one))
    assert torch.equal(got, want) and got.std() > 0.1
    inputs = [x, *experts.parameters()]
    grads = [torch.autograd.grad(y.sum(), inputs, retain_graph=True) for y in (got, want)]
    assert all(map(torch.equal, *grads))


def test_however_uneven() -> None:
    """All tokens at one expert, none at others; with and without gradients."""
    layer = shaken(MoEConfig(GatedMLPConfig(FF), N).build(SITE)).double()
    x, weights = draw(7, D), torch.ones(7, 1, dtype=torch.float64)
    chosen = torch.full((7, 1), 3)
    y = grouped(layer.experts, x, chosen, weights)
    torch.testing.assert_close(y, layer.experts[3](x))
    y.sum().backward()
    grads = [expert.up.weight.grad for expert in layer.experts]
    assert [bool(grad.any()) for grad in grads] == [i == 3 for i in range(N)]
    with torch.no_grad():
        torch.testing.assert_close(grouped(layer.experts, x, chosen, weights), y)


def test_by_hand() -> None:
    """Two experts, 2x and 10x behind a relu, the router sees which component is larger."""
    config = MoEConfig(MLPConfig(2, "relu"), 2, RouterConfig(top_k=1, normalise=False))
    layer = config.build(Site(d_model=2, max_seq_len=4)).eval()
    layer.router.linear.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    for expert, factor in zip(layer.experts, (2.0, 10.0), strict=True):
        expert.up.weight.data, expert.down.weight.data = torch.eye(2), factor * torch.eye(2)
    y, extras = layer(torch.tensor([[[3.0, 3.0 - 1.0986123], [0.0, 0.0 + 1.0986123]]]))
    # The better expert has a probability of 3/4 in both cases.
    assert y.tolist() == [[pytest.approx([4.5, 2.852082]), pytest.approx([0, 8.239592])]]
    assert extras.statistics["load"].tolist() == [1, 1]
    assert extras.losses["balance"].item() == pytest.approx(0.01)


# --- around it ------------------------------------------------------------------------------------


def test_losses_are_those_with_a_weight_above_0() -> None:
    x = draw(2, 8, D, dtype=torch.float32)
    weights = {"balance_loss": 0.3, "sequence_loss": 0.2, "z_loss": 0.1}
    base = MoEConfig(GatedMLPConfig(FF), N, balance_loss=0.0)
    torch.manual_seed(0)
    assert base.build(SITE)(x)[1].losses == {}
    torch.manual_seed(0)
    _, extras = MoEConfig(GatedMLPConfig(FF), N, **weights).build(SITE)(x)
    assert list(extras.losses) == ["balance", "sequence", "z"]
    assert float(extras.losses["balance"]) * 1.0001 >= 0.3
    assert float(extras.losses["sequence"]) * 1.0001 >= 0.2


def test_after_a_step_the_bias_moves_and_other_layers_stay() -> None:
    layer = MoEConfig(GatedMLPConfig(FF), 2, RouterConfig(bias_rate=0.5)).build(SITE)
    layer.after_step({"load": torch.tensor([1.5, 0.5])})
    assert layer.router.correction.tolist() == [-0.5, 0.5]
    plain = MoEConfig(GatedMLPConfig(FF), 2).build(SITE)
    plain.after_step({})
    assert plain.router.correction is None


def test_costs_are_those_of_the_experts_that_a_token_uses() -> None:
    expert, shared = GatedMLPConfig(FF), GatedMLPConfig(3)
    config = MoEConfig(expert, N, RouterConfig(top_k=2), shared, shared_gate=True)
    load = Load(1, 1)
    one, always = expert.costs(SITE, load), shared.costs(SITE, load)
    costs = config.costs(SITE, load)
    router = D * N + D  # and the gate of the shared expert
    assert costs.parameters == N * one.parameters + always.parameters + router
    assert costs.active == 2 * one.parameters + always.parameters + router
    assert costs.flops == 2 * costs.active
    assert costs.parameters == sum(p.numel() for p in config.build(SITE).parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_experts": 1}, "top_k = 2 experts for each token, but there are 1"),
        ({"n_experts": 0}, "n_experts must be at least 1, got 0"),
        ({"capacity_factor": 0.0}, "capacity_factor must be above 0"),
        ({"balance_loss": -1.0}, "balance_loss must be at least 0, got -1"),
        ({"shared_gate": True}, "shared_gate is for a shared expert, and there is none"),
        ({"shared": MoEConfig(GatedMLPConfig(FF))}, "must be a feed-forward part by itself"),
    ],
)
def test_refuses(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        MoEConfig(GatedMLPConfig(FF), **options)
