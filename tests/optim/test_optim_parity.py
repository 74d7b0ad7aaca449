"""Each optimizer takes the steps of torch's, of its own formula, and of a case done by hand."""

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from llmtutor.layers.basic import cross_entropy
from llmtutor.model.presets import build, preset
from llmtutor.optim import SGD, AdamW, Muon, clip_grad_norm, make_optimizer
from llmtutor.optim.adamw import adamw_
from llmtutor.optim.sgd import sgd_

STEPS = 200
SHAPES = [(3, 4), (5,), (2, 3, 4), ()]
MATRICES = [(4, 6), (6, 4), (5, 5), (3, 9), (1, 7)]  # no two make one stack but the first two
EXACT = {"rtol": 0, "atol": 1e-6}


def weights(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=random).to(dtype)) for s in shapes]


def give_gradients(step: int, *rows: list[Tensor]) -> None:
    """The same gradients to each row of parameters: noise around the gradient of |p|⁴ / 4."""
    random = torch.Generator().manual_seed(step)
    for same in zip(*rows, strict=True):
        noise = torch.randn(same[0].shape, generator=random, dtype=torch.float64)
        for p in same:
            p.grad = (p.detach() ** 3 + noise).to(p.dtype)


def lr_at(step: int) -> float:
    return 0.02 * (1 + math.cos(step / 20)) / 2 + 0.001


def race(
    ours: torch.optim.Optimizer,
    theirs: torch.optim.Optimizer,
    ps: list[Tensor],
    qs: list[Tensor],
    steps: int = 50,
    **tolerance: float,
) -> None:
    for step in range(steps):
        give_gradients(step, ps, qs)
        for optimizer in (ours, theirs):
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step)
            optimizer.step()
        torch.testing.assert_close(ps, qs, **tolerance)
    fresh = weights([tuple(p.shape) for p in ps], ps[0].dtype)
    assert not any(torch.equal(p, start) for p, start in zip(ps, fresh, strict=True))


# --- against torch -------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "settings", [{}, {"betas": (0.8, 0.999), "eps": 1e-3}, {"weight_decay": 0}]
)
def test_adamw_is_torchs(settings: dict, fused: bool, monkeypatch) -> None:
    monkeypatch.setattr("llmtutor.optim.adamw.has_kernel", lambda params: fused)
    ps, qs = weights(SHAPES), weights(SHAPES)
    common = {"betas": (0.9, 0.95), "weight_decay": 0.1} | settings
    race(
        AdamW(ps, 1.0, **settings),
        torch.optim.AdamW(qs, 1.0, **common),
        ps,
        qs,
        **EXACT,
    )


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True},
    ],
)
def test_sgd_is_torchs(settings: dict, fused: bool, monkeypatch) -> None:
    monkeypatch.setattr("llmtutor.optim.sgd.has_kernel", lambda params: fused)
    ps, qs = weights(SHAPES), weights(SHAPES)
    race(SGD(ps, 1.0, **settings), torch.optim.SGD(qs, 1.0, **settings), ps, qs, **EXACT)


MUON_SETTINGS = [
    {},
    {"nesterov": False, "momentum": 0.5},
    {"weight_decay": 0.0, "ns_steps": 3},
    {"adjust_lr_fn": "match_rms_adamw"},
]


@pytest.mark.parametrize("settings", MUON_SETTINGS)
def test_muon_of_one_matrix_is_torchs_bit_for_bit(settings: dict) -> None:
    for shape, dtype in itertools.product(MATRICES, (torch.float64, torch.float32)):
        ps, qs = weights([shape], dtype), weights([shape], dtype)
        ours, theirs = Muon(ps, 1.0, **settings), torch.optim.Muon(qs, 1.0, **settings)
        race(ours, theirs, ps, qs, steps=20, rtol=0, atol=0)


@pytest.mark.parametrize("settings", MUON_SETTINGS)
def test_muon_in_stacks_is_torchs(settings: dict) -> None:
    """Products of a stack may be summed in another order; bfloat16 has 8 bits for the result."""
    shapes = MATRICES * 2
    ps, qs = weights(shapes), weights(shapes)
    give_gradients(0, ps, qs)
    for step in range(20):
        give_gradients(step, ps, qs)
        ours, theirs = Muon(ps, 0.01, **settings), torch.optim.Muon(qs, 0.01, **settings)
        ours.step()
        theirs.step()
        torch.testing.assert_close(ps, qs, rtol=0, atol=0.01 * 2**-6 * (step + 1))


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 3.0, 1e9])
def test_clipping_is_torchs(max_norm: float) -> None:
    for step in range(20):
        ps, qs = weights(SHAPES), weights(SHAPES)
        give_gradients(step, ps, qs)
        want = torch.nn.utils.clip_grad_norm_(qs, max_norm)
        torch.testing.assert_close(clip_grad_norm(ps, max_norm), want, **EXACT)
        torch.testing.assert_close([p.grad for p in ps], [q.grad for q in qs], **EXACT)


def losses(
    make: Callable[[nn.Module], torch.optim.Optimizer], clip: Callable, seed: int
) -> list[float]:
    torch.manual_seed(seed)
    config = preset("llama-nano", vocab_size=11, max_seq_len=8, n_layers=1, d_model=16, d_ff=24)
    model = build(config).double()
    optimizer = make(model)
    random = torch.Generator().manual_seed(seed)
    table = torch.randint(11, (11,), generator=random)  # each token decides the next one
    curve = []
    for _ in range(STEPS):
        ids = torch.randint(11, (4, 8), generator=random)
        loss = cross_entropy(model(ids), table[ids])
        optimizer.zero_grad()
        loss.backward()
        clip(model.parameters(), 0.5)
        optimizer.step()
        curve.append(loss.item())
    return curve


def torchs(model: nn.Module, name: str) -> torch.optim.Optimizer:
    ours = make_optimizer(model, name, 0.01)
    groups = [
        {k: v for k, v in group.items() if k in ("params", "weight_decay")}
        for group in ours.param_groups
    ]
    if name == "adamw":
        return torch.optim.AdamW(groups, 0.01, betas=(0.9, 0.95))
    return torch.optim.SGD(groups, 0.01, momentum=0.9)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_model_trained_with_ours_and_torchs_has_one_loss_curve(name: str) -> None:
    ours = losses(lambda m: make_optimizer(m, name, 0.01), clip_grad_norm, 0)
    theirs = losses(lambda m: torchs(m, name), torch.nn.utils.clip_grad_norm_, 0)
    assert ours == pytest.approx(theirs, rel=0, abs=1e-6)
    assert ours[-1] < ours[0] - 0.1  # and it learns


class Pair:
    """Two optimizers that torch's user steps one after the other."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()


def torchs_muon(model: nn.Module) -> Pair:
    hidden, head, rest = (g["params"] for g in make_optimizer(model, "muon", 0.01).param_groups)
    groups = [{"params": head, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return Pair(
        torch.optim.Muon(hidden, 0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, 0.003, betas=(0.9, 0.95)),
    )


def test_a_model_trained_with_muon_and_torchs_has_one_loss_curve() -> None:
    """Bit for bit where stacked products are; elsewhere bfloat16 may round another way."""
    make = lambda m: make_optimizer(m, "muon", 0.01, adam_lr=0.003)  # noqa: E731
    ours = losses(make, clip_grad_norm, 0)
    theirs = losses(torchs_muon, torch.nn.utils.clip_grad_norm_, 0)
    assert ours[:20] == pytest.approx(theirs[:20], rel=0, abs=0.01)
    assert sum(ours[-20:]) / 20 == pytest.approx(sum(theirs[-20:]) / 20, abs=0.02)
    assert ours[-1] < 0.2


# --- the kernel is the formula -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_kernels_are_the_formulas(dtype: torch.dtype) -> None:
    ps, qs, ms, vs = (weights(SHAPES, dtype) for _ in range(4))
    for x in ms + vs:
        x.data.zero_()
    optimizer = AdamW(ps, 0.01)
    plain = {"lr": 0.01, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
    for step in range(50):
        give_gradients(step, ps, qs)
        optimizer.step()
        with torch.no_grad():
            for q, m, v in zip(qs, ms, vs, strict=True):
                adamw_(q, q.grad, m, v, step + 1, **plain)
    torch.testing.assert_close(ps, qs, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)


# --- by hand -------------------------------------------------------------------------------------


def test_two_steps_of_sgd_by_hand() -> None:
    for nesterov, want in ((False, 1 - 0.1 * 4 - 0.1 * 5), (True, 1 - 0.1 * 6 - 0.1 * 5.5)):
        p, v = torch.tensor(1.0).double(), torch.zeros(()).double()
        for grad in (4.0, 3.0):  # v = 4, then 0.5 · 4 + 3 = 5
            g = torch.tensor(grad).double()
            sgd_(p, g, v, lr=0.1, momentum=0.5, weight_decay=0.0, nesterov=nesterov)
        assert v.item() == 5
        assert p.item() == pytest.approx(want, abs=1e-12)


def test_the_first_step_of_adamw_is_lr_for_a_gradient_of_any_size() -> None:
    for size in (1e-5, 1.0, 1e5):
        p = nn.Parameter(torch.tensor([1.0, 1.0]).double())
        p.grad = torch.tensor([size, -size]).double()
        AdamW([p], 0.1, eps=0.0, weight_decay=0.0).step()
        torch.testing.assert_close(p.data, torch.tensor([0.9, 1.1]).double())


def test_decay_does_not_pass_through_the_second_moment() -> None:
    """Without a gradient the weight shrinks by lr · λ a step, and by nothing else."""
    p = nn.Parameter(torch.tensor([3.0]).double())
    optimizer = AdamW([p], 0.1, weight_decay=0.2)
    for _ in range(10):
        p.grad = torch.zeros_like(p)
        optimizer.step()
    assert p.item() == pytest.approx(3 * 0.98**10, abs=1e-12)


# --- one optimizer among many --------------------------------------------------------------------


@pytest.mark.parametrize(
    "ours, theirs", [(AdamW, torch.optim.AdamW), (SGD, torch.optim.SGD), (Muon, torch.optim.Muon)]
)
def test_state_travels_to_torch_and_back(ours: type, theirs: type) -> None:
    settings = {"lr": 0.01} | ({"momentum": 0.9} if ours is not AdamW else {})
    shape = [(4, 6)]
    ps, qs, rs = weights(shape), weights(shape), weights(shape)
    mine, other, again = (
        ours(ps, **settings),
        theirs(qs, **settings, weight_decay=0.1),
        ours(rs, **settings),
    )
    for step in range(3):
        give_gradients(step, ps, qs, rs)
        mine.step()
    names = {k for state in mine.state.values() for k in state}
    other.load_state_dict(
        {**other.state_dict(), "state": copy.deepcopy(mine.state_dict())["state"]}
    )
    assert names == {k for state in other.state.values() for k in state}
    again.load_state_dict(copy.deepcopy(mine.state_dict()))
    rs[0].data.copy_(ps[0].data)
    for step in range(3, 6):
        give_gradients(step, ps, rs)
        mine.step()
        again.step()
    torch.testing.assert_close(ps, rs, rtol=0, atol=0)


def test_a_loaded_state_stands_where_the_parameters_do() -> None:
    """The count of steps too, which torch leaves where it was unless a group is called fused."""
    (p,), q = weights([(2,)]), nn.Parameter(torch.zeros(2, device="meta"))
    give_gradients(0, [p])
    here, there = AdamW([p], 0.1), AdamW([q], 0.1)
    here.step()
    there.load_state_dict(here.state_dict())
    assert {x.device.type for x in there.state[q].values()} == {"meta"}


def test_parameters_without_gradient_stay_and_closure_is_called() -> None:
    p, q = weights([(2, 3), (2, 3)])
    before = q.detach().clone()
    for optimizer in (SGD([p, q], 0.1, 0.9), AdamW([p, q], 0.1), Muon([p, q], 0.1)):
        optimizer.zero_grad()

        def closure() -> Tensor:
            loss = p.square().sum()
            loss.backward()
            return loss

        assert optimizer.step(closure).requires_grad
        torch.testing.assert_close(q.data, before, rtol=0, atol=0)
        assert q not in optimizer.state
        assert p in optimizer.state
