"""Routers against those of five published models, by hand, and what they refuse."""

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    DeepseekV2Config,
    DeepseekV3Config,
    GptOssConfig,
    MixtralConfig,
    Qwen3MoeConfig,
)
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssTopKRouter
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from llmtutor.layers.moe import Router, RouterConfig

D, N, K = 12, 8, 3
MIXTRAL = {"hidden_size": D, "num_experts_per_tok": K, "num_local_experts": N}
QWEN = {"hidden_size": D, "num_experts_per_tok": K, "num_experts": N}
V2 = {"hidden_size": D, "num_attention_heads": 4, "num_experts_per_tok": K, "n_routed_experts": N}
GROUPS = {"n_group": 4, "topk_group": 2}
THEIRS = {
    "mixtral": (lambda: MixtralTopKRouter(MixtralConfig(**MIXTRAL)), {}),
    "qwen3": (
        lambda: Qwen3MoeTopKRouter(Qwen3MoeConfig(**QWEN, norm_topk_prob=True)),
        {},
    ),
    "qwen3, not normalised": (
        lambda: Qwen3MoeTopKRouter(Qwen3MoeConfig(**QWEN, norm_topk_prob=False)),
        {"normalise": False},
    ),
    "deepseek v2": (
        lambda: DeepseekV2TopkRouter(
            DeepseekV2Config(**V2, routed_scaling_factor=1.5, topk_method="greedy")
        ),
        {"normalise": False, "routed_scale": 1.5},
    ),
    "deepseek v2, groups": (
        lambda: DeepseekV2TopkRouter(
            DeepseekV2Config(
                **V2, **GROUPS, routed_scaling_factor=16.0, topk_method="group_limited_greedy"
            )
        ),
        {"normalise": False, "routed_scale": 16.0, "n_groups": 4, "top_groups": 2},
    ),
    "deepseek v3": (
        lambda: DeepseekV3TopkRouter(DeepseekV3Config(**V2, **GROUPS, routed_scaling_factor=2.5)),
        {
            "score": "sigmoid",
            "routed_scale": 2.5,
            "n_groups": 4,
            "top_groups": 2,
            "group_score": "top-2",
            "bias_rate": 0.001,
        },
    ),
    "gpt-oss": (lambda: GptOssTopKRouter(GptOssConfig(**MIXTRAL)), {"logit_bias": True}),
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", THEIRS)
def test_router_equals_the_published_one(case: str) -> None:
    make, options = THEIRS[case]
    theirs, ours = make(), Router(D, N, top_k=K, **options)
    for i, parameter in enumerate(theirs.parameters()):
        parameter.data = draw(*parameter.shape, seed=i + 1)
    ours.linear.weight.data = theirs.weight.data
    if ours.linear.bias is not None:
        ours.linear.bias.data = theirs.bias.data
    if ours.correction is not None:
        theirs.e_score_correction_bias.copy_(0.3 * draw(N, seed=9))
        ours.correction.copy_(theirs.e_score_correction_bias)
    x = draw(50, D)
    _, weights, experts = theirs(x)
    routing = ours(x)
    spread = torch.zeros(2, 50, N)  # the order among the chosen says nothing
    spread[0].scatter_(1, experts, weights.detach())
    spread[1].scatter_(1, routing.experts, routing.weights.detach())
    torch.testing.assert_close(spread[0], spread[1], rtol=1e-5, atol=1e-6)
    assert len(experts.unique()) > 5


def identity(n: int, **options) -> Router:
    router = Router(n, n, **options)
    router.linear.weight.data = torch.eye(n)
    return router


def test_by_hand() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0]]).log1p()  # scores 2 : 4 : 3 : 1
    routing = identity(4)(logits)
    assert routing.experts.tolist() == [[1, 2]]
    assert routing.weights.tolist() == [pytest.approx([4 / 7, 3 / 7])]
    assert routing.scores.tolist() == [pytest.approx([0.2, 0.4, 0.3, 0.1])]
    whole = identity(4, normalise=False, routed_scale=2.0)(logits)
    assert whole.weights.tolist() == [pytest.approx([0.8, 0.6])]
    # Groups (0, 1) and (2, 3): the best expert is in the first, so both come from there.
    inside = identity(4, n_groups=2)(logits)
    assert inside.experts.tolist() == [[1, 0]]


def test_group_of_two_good_experts_beats_one_of_the_best() -> None:
    logits = torch.tensor([[0.9, 0.1, 0.6, 0.6]]).logit()
    by_best = identity(4, score="sigmoid", n_groups=2, top_k=1)
    by_two = identity(4, score="sigmoid", n_groups=2, top_k=1, group_score="top-2")
    assert by_best(logits).experts.item() == 0
    assert by_two(logits).experts.item() in (2, 3)


def test_only_chosen_experts_teach_the_router() -> None:
    """Not normalised, sigmoid scores: no gradient reaches the rows of the others."""
    router = Router(3, 5, top_k=2, score="sigmoid", normalise=False)
    routing = router(draw(1, 3))
    routing.weights.sum().backward()
    rows = router.linear.weight.grad.abs().sum(1)
    assert set(rows.nonzero().flatten().tolist()) == set(routing.experts.flatten().tolist())


def test_one_normalised_weight_is_always_one_and_teaches_nothing() -> None:
    """What Switch avoids by leaving the probability as it is."""
    for normalise in (True, False):
        router = Router(3, 5, top_k=1, normalise=normalise)
        routing = router(draw(4, 3))
        (routing.weights * draw(4, 1, seed=1)).sum().backward()
        assert bool(router.linear.weight.grad.abs().max() < 1e-7) == normalise


# Balance by a bias --------------------------------------------------------------------------------


def test_correction_chooses_and_does_not_weigh() -> None:
    router = identity(4, score="sigmoid", bias_rate=0.1)
    logits = torch.tensor([[0.8, 0.7, 0.6, 0.1]]).logit()
    before = router(logits)
    router.correction.copy_(torch.tensor([0.0, -0.2, 0.0, 0.0]))
    after = router(logits)
    assert before.experts.tolist() == [[0, 1]] and after.experts.tolist() == [[0, 2]]
    assert after.weights.tolist() == [pytest.approx([0.8 / 1.4, 0.6 / 1.4])]
    assert torch.equal(before.scores, after.scores)


def test_correction_moves_by_the_sign_alone() -> None:
    router = Router(3, 4, bias_rate=0.001)
    router.correct(torch.tensor([3.5, 0.4, 0.1, 0.0]))
    assert router.correction.tolist() == pytest.approx([-0.001, 0.001, 0.001, 0.001])
    router.correct(torch.ones(4))  # even: nothing moves
    assert router.correction.tolist() == pytest.approx([-0.001, 0.001, 0.001, 0.001])
    with pytest.raises(ValueError, match=r"each of 4 experts, got shape \(3,\)"):
        router.correct(torch.ones(3))
    with pytest.raises(ValueError, match="give it a bias_rate"):
        Router(3, 4).correct(torch.ones(4))
    assert "correction" in router.state_dict() and "correction" not in Router(3, 4).state_dict()


def test_correction_alone_brings_the_loads_together() -> None:
    """Fixed tokens that all like expert 0 best: after some steps each has a quarter."""
    torch.manual_seed(0)
    x = torch.rand(400, 4) + torch.tensor([1.0, 0.0, 0.0, 0.0])
    router = identity(4, top_k=1, score="sigmoid", normalise=False, bias_rate=0.01)
    loads = []
    for _ in range(200):
        load = router(x).experts.flatten().bincount(minlength=4) / 100
        router.correct(load)
        loads.append(float(load.max()))
    assert loads[0] > 3.9 and max(loads[-20:]) < 1.3


# Refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 9}, "top_k = 9 experts for each token, but there are 8: take a smaller"),
        ({"n_groups": 4, "top_k": 3}, "top_k = 3 .* there are 2 in the 1 best groups"),
        ({"n_groups": 3}, "n_groups must divide n_experts, got 3 groups of 8 experts"),
        ({"top_groups": 2}, "n_groups must be at least 2, got 1"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"score": "sigmiod"}, "unknown score 'sigmiod'; did you mean 'sigmoid'"),
        ({"group_score": "sum"}, "group_score must be one of 'max', 'top-2', got 'sum'"),
        ({"routed_scale": 0.0}, "routed_scale must be above 0"),
        ({"bias_rate": -1.0}, "bias_rate must be at least 0, got -1"),
    ],
)
def test_refuses(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Router(4, 8, **options)


def test_scores_are_taken_in_float32_at_least() -> None:
    for dtype, wide in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        router: nn.Module = Router(4, 8).to(dtype)
        routing = router(torch.ones(2, 4, dtype=dtype))
        assert routing.scores.dtype == routing.weights.dtype == wide
    assert RouterConfig().top_k == 2
