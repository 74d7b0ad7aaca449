"""Three scans: alike forwards and backwards, as a formula gives them, and how often each waits."""

import pytest
import torch
from torch import Tensor

from llmtutor.layers.recurrent import scan as scans
from llmtutor.layers.recurrent.scan import chunked_scan, parallel_scan, sequential_scan

SCANS = {
    "sequential": sequential_scan,
    "parallel": parallel_scan,
    "parallel, open length": lambda *x: parallel_scan(*x, longest=64),
    "chunked": chunked_scan,
    "chunked by 5": lambda *x: chunked_scan(*x, chunk=5),
}


def loop(a: Tensor, b: Tensor, start: Tensor | None = None) -> Tensor:
    """As it is written, for autograd to differentiate."""
    h, states = torch.zeros_like(b[:, 0]) if start is None else start, []
    for t in range(b.shape[1]):
        h = a[:, t] * h + b[:, t]
        states.append(h)
    return torch.stack(states, dim=1)


def drawn(seq: int, dtype: torch.dtype, *state: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seq)
    a = torch.rand(2, seq, *state, generator=generator, dtype=torch.float64)
    b, start = (
        torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        for shape in ((seq, *state), state)
    )
    return tuple(x.to(dtype).requires_grad_() for x in (a, b, start))


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scans_agree_forwards_and_backwards(name: str, dtype: torch.dtype) -> None:
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    for seq, state in ((1, ()), (2, (3,)), (37, (3, 4)), (48, ())):
        inputs = drawn(seq, dtype, *state)
        for given in (inputs, inputs[:2]):
            want, got = loop(*given), SCANS[name](*given)
            weights = torch.linspace(-1, 1, want.numel(), dtype=dtype).view_as(want)
            pairs = [(got, want)]
            pairs += zip(
                torch.autograd.grad((got * weights).sum(), given, materialize_grads=True),
                torch.autograd.grad((want * weights).sum(), given, materialize_grads=True),
                strict=True,
            )
            for mine, other in pairs:
                size = max(1.0, float(other.detach().abs().max()))
                assert float((mine - other).detach().abs().max()) <= tolerance * size


@pytest.mark.parametrize("name", SCANS)
def test_a_constant_decay_gives_powers(name: str) -> None:
    """b = 1 at the first token alone: h_t = a^t. And with a = 1 a sum of all that came."""
    b = torch.zeros(1, 20, dtype=torch.float64)
    b[0, 0] = 1
    got = SCANS[name](torch.full_like(b, 0.9), b)[0]
    torch.testing.assert_close(
        got, 0.9 ** torch.arange(20, dtype=torch.float64), rtol=1e-13, atol=0
    )
    ones = torch.ones_like(b)
    assert SCANS[name](ones, ones)[0].tolist() == list(range(1, 21))


def test_by_hand() -> None:
    a, b = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[8.0, 0.0, 2.0]])
    for one in SCANS.values():
        assert one(a, b, torch.tensor([4.0])).tolist() == [[10.0, 5.0, 2.0]]


def test_the_rounds_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubling takes log₂ seq rounds; chunks wait for seq / chunk pieces, not for seq tokens."""
    rounds: list[int] = []
    later = scans._later
    monkeypatch.setattr(scans, "_later", lambda *x: rounds.append(x[1]) or later(*x))
    a, b, _ = drawn(256, torch.float64)
    parallel_scan(a, b)
    assert rounds == [reach for k in range(8) for reach in (2**k, 2**k)]
    waits: list[int] = []
    monkeypatch.setattr(
        scans, "sequential_scan", lambda a, b: waits.append(b.shape[1]) or sequential_scan(a, b)
    )
    chunked_scan(a, b, chunk=16)
    assert waits == [16]


def test_one_token_needs_no_round(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, start = drawn(1, torch.float64, 3)
    monkeypatch.setattr(scans, "_later", None)
    got = parallel_scan(a, b, start, longest=8)
    assert torch.equal(got[:, 0], a[:, 0] * start + b[:, 0])


@pytest.mark.parametrize("one", [sequential_scan, parallel_scan, chunked_scan])
def test_what_does_not_fit_is_refused(one) -> None:
    a, b, start = drawn(4, torch.float64, 3)
    with pytest.raises(ValueError, match=r"one shape \(batch, seq, …\).*got a \(2, 3, 3\)"):
        one(a[:, 1:], b)
    with pytest.raises(ValueError, match="at least one token"):
        one(a[:, :0], b[:, :0])
    with pytest.raises(ValueError, match=r"shape of one token, \(2, 3\), got \(2, 2\)"):
        one(a, b, start[:, 1:])


def test_a_chunk_has_a_token() -> None:
    a, b, _ = drawn(4, torch.float64)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        chunked_scan(a, b, chunk=0)
