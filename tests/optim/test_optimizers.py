"""Parts of optimizers: orthogonal matrices, clipping, schedules, groups, and what is refused."""

import copy
import doctest
import importlib
import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

from llmtutor.layers.attention import Attention
from llmtutor.layers.basic import HEAD, Linear, tag
from llmtutor.layers.positions import LearnedPosition, T5Bias
from llmtutor.model.presets import build, preset
from llmtutor.optim import SGD, AdamW, Muon, clip_grad_norm, make_optimizer, newton_schulz
from llmtutor.optim.groups import MuonWithAdamW, split
from llmtutor.optim.muon import ADJUST, COEFFICIENTS
from llmtutor.optim.schedules import (
    SCHEDULES,
    Schedule,
    constant,
    inverse_sqrt,
    make_schedule,
    warmup_cosine,
    wsd,
)

EXACT = {"rtol": 0, "atol": 1e-10}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- Newton–Schulz -------------------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 7), st.integers(0, 9999))
@settings(deadline=None, max_examples=20)
def test_newton_schulz_is_a_polynomial_of_the_singular_values(rows, columns, steps, seed) -> None:
    g = draw(rows, columns, seed=seed)
    u, s, vt = torch.linalg.svd(g, full_matrices=False)
    a, b, c = COEFFICIENTS
    s = s / s.square().sum().sqrt()
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    want = u @ torch.diag(s) @ vt
    torch.testing.assert_close(newton_schulz(g, steps, torch.float64), want, **EXACT)


def test_singular_values_end_near_1_in_bfloat16() -> None:
    for shape in [(64, 64), (32, 100), (100, 32)]:
        values = torch.linalg.svdvals(newton_schulz(draw(*shape)).float())
        assert values.quantile(0.1) > 0.6 and values.max() < 1.3


def test_scale_does_not_matter_and_zero_stays() -> None:
    g = draw(5, 7)
    torch.testing.assert_close(
        newton_schulz(1e-4 * g, 5, torch.float64), newton_schulz(g, 5, torch.float64), **EXACT
    )
    assert newton_schulz(torch.zeros(3, 4)).eq(0).all()


def test_a_stack_is_its_matrices_one_by_one() -> None:
    for shape in [(3, 4, 6), (3, 6, 4), (2, 3, 4, 6), (2, 2, 6, 4)]:
        stack = draw(*shape)
        got = newton_schulz(stack, 5, torch.float64).flatten(0, -3)
        each = [newton_schulz(g, 5, torch.float64) for g in stack.flatten(0, -3)]
        torch.testing.assert_close(got, torch.stack(each), **EXACT)


def test_muon_takes_stacks_of_matrices_as_matrices() -> None:
    stack, others = nn.Parameter(draw(3, 4, 6)), [nn.Parameter(m) for m in draw(3, 4, 6)]
    for params in ([stack], others):
        optimizer = Muon(params, 0.1)
        for step in range(3):
            g = draw(3, 4, 6, seed=step + 1)
            for p, grad in zip(params, [g] if p_is_stack(params) else g, strict=True):
                p.grad = grad.clone()
            optimizer.step()
    torch.testing.assert_close(stack.data, torch.stack([m.data for m in others]), rtol=0, atol=0.01)


def p_is_stack(params: list[nn.Parameter]) -> bool:
    return params[0].ndim == 3


def test_adjusted_steps_have_the_size_they_promise() -> None:
    """0.2 for every entry with match_rms_adamw; original is 1 times the root of rows / columns."""
    for shape in [(20, 80), (80, 20), (40, 40)]:
        for name, want in (("match_rms_adamw", 0.2), ("original", None)):
            p = nn.Parameter(torch.zeros(shape))
            p.grad = draw(*shape).float()
            Muon([p], 1.0, weight_decay=0, adjust_lr_fn=name).step()
            if want:
                assert p.data.square().mean().sqrt() == pytest.approx(want, rel=0.25)
            else:
                top = torch.linalg.matrix_norm(p.data, 2)
                assert top == pytest.approx(math.sqrt(max(1, shape[0] / shape[1])), rel=0.25)
    assert ADJUST["original"](20, 80) == 1 and ADJUST["original"](80, 20) == 2


# --- clipping ------------------------------------------------------------------------------------


def test_clipping_by_hand_and_the_direction_stays() -> None:
    p, q = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(2))
    p.grad, q.grad = torch.tensor([2.0]), torch.tensor([3.0, 6.0])  # √(4 + 9 + 36) = 7
    assert clip_grad_norm([p, q], 3.5).item() == 7
    assert torch.cat([p.grad, q.grad]).tolist() == pytest.approx([1.0, 1.5, 3.0], rel=1e-5)
    assert clip_grad_norm([p, q], 3.5).item() == pytest.approx(3.5, rel=1e-5)
    before = q.grad.clone()
    clip_grad_norm([p, q], 10.0)
    assert torch.equal(q.grad, before)


def test_clipping_without_gradients_and_with_bad_ones() -> None:
    p = nn.Parameter(torch.zeros(2))
    assert clip_grad_norm([p], 1.0) == 0
    q = nn.Parameter(torch.zeros(2))
    for bad in (math.nan, math.inf):
        p.grad, q.grad = torch.tensor([1.0, bad]), torch.tensor([1.0, bad])
        assert not clip_grad_norm([p], 1.0).isfinite()
        torch.nn.utils.clip_grad_norm_([q], 1.0)
        torch.testing.assert_close(p.grad, q.grad, equal_nan=True)
    with pytest.raises(ValueError, match="max_norm must be at least 0, got -1"):
        clip_grad_norm([p], -1)


# --- schedules -----------------------------------------------------------------------------------


def torchs(name: str, o: torch.optim.Optimizer, steps: int, warmup: int) -> LRScheduler:
    rise = LinearLR(o, 1 / (warmup + 1), total_iters=warmup)
    if name == "constant":
        return rise
    if name == "warmup_cosine":
        fall = CosineAnnealingLR(o, steps - warmup, eta_min=0.2)  # a tenth of the peak, 2
        return SequentialLR(o, [rise, fall], [warmup])
    if name == "wsd":
        level, fall = ConstantLR(o, 1.0, 1), LinearLR(o, 1.0, 0.0, steps // 5)
        return SequentialLR(o, [rise, level, fall], [warmup, steps - steps // 5])
    # Vaswani et al. (2017), equation 3, in units of its peak; their first step is 1.
    peak = (warmup + 1) ** -0.5
    return LambdaLR(o, lambda i: min((i + 1) ** -0.5, (i + 1) * (warmup + 1) ** -1.5) / peak)


@pytest.mark.parametrize("warmup", [1, 20])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_torchs_over_200_steps(name: str, warmup: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    theirs = torchs(name, optimizer, 200, warmup)
    ours = make_schedule(name, steps=200, warmup=warmup)
    for step in range(200):
        assert 2 * ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=0, abs=1e-9)
        optimizer.step()
        theirs.step()


SOME: dict[str, Schedule] = {
    "constant": constant(10),
    "warmup_cosine": warmup_cosine(100, 10),
    "wsd": wsd(100, 10, 30),
    "inverse_sqrt": inverse_sqrt(10),
}


@pytest.mark.parametrize("name", SOME)
def test_schedules_rise_to_1_and_never_rise_again(name: str) -> None:
    factors = [SOME[name](step) for step in range(120)]
    assert factors[10] == 1 == max(factors) and min(factors) >= 0
    assert all(x < y for x, y in itertools.pairwise(factors[:11]))
    assert all(x >= y for x, y in itertools.pairwise(factors[10:]))
    assert factors == [SOME[name](step) for step in range(120)]  # it remembers nothing


def test_ends_of_schedules() -> None:
    assert (
        warmup_cosine(100, 10, final=0.25)(100) == warmup_cosine(100, 10, final=0.25)(500) == 0.25
    )
    assert wsd(100, 0, 50, final=0.5)(75) == 0.75 and wsd(100, 0, 50, final=0.5)(999) == 0.5
    assert wsd(10, 2, 8)(2) == 1 and wsd(10, 0, 10)(9) == pytest.approx(0.1)
    assert make_schedule("warmup_cosine", steps=10, final=0.5)(10) == 0.5
    assert make_schedule("wsd", steps=3, decay=None)(2) == 1


def test_schedules_refuse() -> None:
    with pytest.raises(
        ValueError, match="unknown schedule 'warmup_cosin'; did you mean 'warmup_cosine'"
    ):
        make_schedule("warmup_cosin", steps=10)
    with pytest.raises(ValueError, match=r"warmup = 10 do.* not fit into steps = 10"):
        warmup_cosine(10, 10)
    with pytest.raises(ValueError, match="warmup = 6 and decay = 5 do not fit into steps = 10"):
        wsd(10, 6, 5)
    with pytest.raises(ValueError, match="decay must be at least 1 step, got 0"):
        wsd(10, 2, 0)
    with pytest.raises(ValueError, match="warmup must be at least 0, got -1"):
        make_schedule("constant", steps=10, warmup=-1)
    with pytest.raises(ValueError, match=r"final must be at least 0, got -0\.5"):
        make_schedule("wsd", steps=10, final=-0.5)


# --- groups --------------------------------------------------------------------------------------


def names_of(model: nn.Module) -> dict[str, set[str]]:
    of = {p: name for name, p in model.named_parameters()}
    return {part: {of[p] for p in params} for part, params in split(model).items()}


def test_each_parameter_has_its_part() -> None:
    model = build(preset("llama-nano", n_layers=1))
    parts = names_of(model)
    mixer = {f"blocks.0.mixer.{part}.weight" for part in ("query", "key", "value", "output")}
    assert parts["hidden"] == mixer | {
        f"blocks.0.ffn.{part}.weight" for part in ("gate", "up", "down")
    }
    assert parts["head"] == {"head.weight"}
    assert parts["rest"] == {
        "embedding.weight",
        "norm.weight",
        "blocks.0.norm_1.weight",
        "blocks.0.norm_2.weight",
    }
    tied = names_of(build(preset("gpt2-nano", n_layers=1)))  # and biases, and a table of positions
    assert tied["head"] == set()
    assert {"embedding.weight", "position.weight", "blocks.0.ffn.up.bias"} < tied["rest"]
    assert len(tied["hidden"]) == 6


def test_position_tables_inside_attention_are_tables_still() -> None:
    assert names_of(LearnedPosition(8, 4))["rest"] == {"weight"}
    attention = Attention(8, 2, position=T5Bias(2, n_buckets=4), sinks=True)
    assert all("position" not in name for name in names_of(attention)["hidden"])
    assert len(names_of(attention)["hidden"]) == 4
    assert names_of(attention)["rest"] == {"position.weight", "sinks"}


class Own(nn.Module):
    """A model of one's own, in which names mislead: modules say what they are."""

    no_decay = ("rows",)

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = (nn.Parameter(torch.zeros(3, 2)) for _ in range(2))
        self.to_words = tag(Linear(2, 3, bias=True), HEAD)
        self.head, self.embedding = Linear(2, 2), Linear(2, 2)
        self.table = nn.Embedding(3, 2)


def test_parts_are_told_by_what_modules_say_and_not_by_names() -> None:
    model = Own()
    parts = names_of(model)
    assert parts["head"] == {"to_words.weight"}
    assert parts["rest"] == {"rows", "table.weight", "to_words.bias"}
    assert parts["hidden"] == {"columns", "head.weight", "embedding.weight"}
    wrapped = nn.ModuleList([Linear(2, 2), tag(nn.Sequential(nn.LayerNorm(2), Linear(2, 3)), HEAD)])
    assert names_of(wrapped)["head"] == {"1.1.weight"}
    model.to_words.weight = model.table.weight  # tied: a table first of all
    assert names_of(model)["head"] == set()
    matrices = make_optimizer(model, "adamw", 0.1).param_groups[0]["params"]
    assert set(matrices) == {model.columns, model.head.weight, model.embedding.weight}


def test_frozen_parameters_are_left_out_and_none_is_refused() -> None:
    model = nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    assert names_of(model)["rest"] == {"bias"}
    model.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        make_optimizer(model, "adamw", 0.1)


@pytest.mark.parametrize("name, kind", [("sgd", SGD), ("adamw", AdamW), ("muon", MuonWithAdamW)])
def test_optimizers_by_name(name: str, kind: type) -> None:
    model = build(preset("llama-nano", n_layers=1))
    optimizer = make_optimizer(model, name, 0.01, weight_decay=0.2)
    assert type(optimizer) is kind
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len(set(held)) and set(held) == set(model.parameters())
    for group in optimizer.param_groups:
        assert group["initial_lr"] == group["lr"] == 0.01
        assert group["weight_decay"] == (0.0 if group["name"] == "rest" else 0.2)
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    assert json.loads(json.dumps(settings)) == [s | betas_as_list(s) for s in settings]


def betas_as_list(settings: dict) -> dict:
    return {"betas": list(settings["betas"])} if "betas" in settings else {}


def test_muon_has_two_learning_rates_and_state_that_travels() -> None:
    def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = build(preset("llama-nano", n_layers=1, vocab_size=7, d_model=8, n_heads=2, d_ff=8))
        return model, make_optimizer(model, "muon", 0.02, adam_lr=0.003)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
        for seed in seeds:
            for p, g in zip(model.parameters(), draw(30, 64, seed=seed), strict=False):
                p.grad = g[: p.numel()].view_as(p).float() if p.numel() <= 64 else None
            optimizer.step()

    (model, optimizer), (other, resumed) = model_and_optimizer(), model_and_optimizer()
    assert [g["lr"] for g in optimizer.param_groups] == [0.02, 0.003, 0.003]
    train(model, optimizer, range(3))
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for pair in ((model, optimizer), (other, resumed)):
        train(*pair, range(3, 6))
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_refuses_by_name() -> None:
    p = [nn.Parameter(torch.zeros(2, 2))]
    for make, message in [
        (lambda: AdamW(p, -1.0), "lr must be at least 0, got -1"),
        (lambda: AdamW(p, math.nan), "lr must be at least 0, got nan"),
        (lambda: AdamW(p, 0.1, betas=(0.9, 1.0)), r"betas\[1\] must be at least 0 and below 1"),
        (lambda: AdamW(p, 0.1, eps=-1e-8), "eps must be at least 0"),
        (lambda: AdamW(p, 0.1, weight_decay=-0.1), "weight_decay must be at least 0, got -0.1"),
        (lambda: SGD(p, 0.1, momentum=1.0), "momentum must be at least 0 and below 1, got 1.0"),
        (lambda: SGD(p, 0.1, nesterov=True), "nesterov needs a momentum above 0"),
        (lambda: Muon(p, 0.1, ns_steps=0), "ns_steps must be from 1 to 99, got 0"),
        (lambda: Muon(p, 0.1, adjust_lr_fn="orignal"), "did you mean 'original'"),
        (lambda: Muon([nn.Parameter(torch.zeros(3))], 0.1), r"for matrices, got .* shape \(3,\)"),
        (lambda: make_optimizer(nn.Linear(2, 2), "adamW2", 0.1), "did you mean 'adamw'"),
        (lambda: make_optimizer(nn.Linear(2, 2), "muon", 0.1, adam_lr=-1), "lr must be at least 0"),
        (lambda: make_optimizer(nn.Embedding(2, 2), "muon", 0.1), "the model has none"),
        (lambda: newton_schulz(torch.zeros(3)), r"a matrix or a stack of them, got shape \(3,\)"),
        (lambda: MuonWithAdamW([{"params": p, "rule": "moun"}]), "did you mean 'muon'"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize("name", ["base", "sgd", "adamw", "muon", "clip", "schedules", "groups"])
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"llmtutor.optim.{name}"))
    assert result.failed == 0 and result.attempted > 0
