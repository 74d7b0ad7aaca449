"""Rows side by side: the gradients of the whole batch, at the same time, the same each time."""

import shutil
import sys
import threading

import pytest
import torch
from torch import Tensor, nn

from llmtutor.fast.compiling import compiled
from llmtutor.fast.threads import equal_parts, side_by_side, threads
from llmtutor.model.losses import Batch, Losses, batch_losses
from llmtutor.model.presets import build, preset
from llmtutor.train.step import train_step

SMALL = {"vocab_size": 11, "max_seq_len": 8, "n_layers": 2, "d_model": 8, "n_heads": 2, "d_ff": 16}
NO_COMPILER = shutil.which("g++") is None or sys.platform == "win32"
PRESETS = ("gpt2-nano", "llama-nano")


def model(name: str = "llama-nano", dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return build(preset(name, **SMALL)).to(dtype)


def batch(rows: int) -> Batch:
    ids = torch.randint(11, (rows, 9), generator=torch.Generator().manual_seed(rows))
    return ids[:, :-1], ids[:, 1:]


def only(total: Tensor) -> Losses:
    return Losses(total, total, {}, {})


def gradients(net: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in net.parameters()]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_loss_and_gradients_are_those_of_the_batch(name, parts) -> None:
    whole, cut = model(name), model(name)
    want = batch_losses(whole, batch(6))
    (want.total / 48).backward()
    with side_by_side(batch_losses, parts) as loss:
        for _ in range(2):  # the first call makes the parts one after the other
            cut.zero_grad()
            got = loss(cut, batch(6), torch.float32)
            (got.total / 48).backward()
            assert got.auxiliary == got.statistics == {}
            torch.testing.assert_close(got.total, want.total, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(got.nats, want.nats, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(gradients(cut), gradients(whole), rtol=1e-12, atol=1e-14)


def test_by_hand() -> None:
    """w x with x = 1, 2, 3, 4: the loss is 10 w, its gradient 10, and 5 of half the loss."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 3.0)
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    with side_by_side(lambda m, b, _: only(m(b[0]).sum()), 2) as loss:
        value = loss(net, (x, x), torch.float32).total
        assert value.item() == 30
        (value / 2).backward()
        assert net.weight.grad is not None and net.weight.grad.item() == 5
        loss(net, (x, x), torch.float32).total.backward()
        assert net.weight.grad.item() == 15  # added, as every backward pass does


def test_what_layers_add_is_lowered_and_shown_apart_from_the_plain_loss() -> None:
    """A term of w² for each token, 0.5 of it in the loss: means of the parts, which are equal."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 3.0)
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])

    def loss(m: nn.Module, b: Batch, _: torch.dtype) -> Losses:
        nats, term = m(b[0]).sum(), 0.5 * m.weight.square().sum()
        return Losses(nats + len(b[0]) * term, nats, {"size": term}, {"most": b[0].max()})

    with side_by_side(loss, 2) as cut:
        for _ in range(2):
            net.zero_grad()
            got = cut(net, (x, x), torch.float32)
            got.total.backward()
            assert (got.total.item(), got.nats.item()) == (30 + 4 * 4.5, 30)
            assert got.auxiliary == {"size": torch.tensor(4.5)}
            assert got.statistics == {"most": torch.tensor(3.0)}  # of 2 and 4
            assert not got.nats.requires_grad and not got.auxiliary["size"].requires_grad
            assert net.weight.grad is not None and net.weight.grad.item() == 10 + 4 * 3


def test_parameters_may_share_a_gradient() -> None:
    """Σ (p + q) has one gradient for both, which takes no memory of its own: ones, expanded."""
    net = nn.ParameterDict({name: nn.Parameter(torch.zeros(3)) for name in "pq"})
    x = torch.zeros(4, 1)
    with side_by_side(lambda m, b, _: only((m["p"] + m["q"]).sum() * len(b[0])), 2) as loss:
        for _ in range(2):
            net.zero_grad()
            loss(net, (x, x), torch.float32).total.backward()
            for parameter in net.values():
                assert parameter.grad is not None and parameter.grad.tolist() == [4.0] * 3


def test_the_parts_are_computed_at_the_same_time() -> None:
    """Each waits until the others are there, too; one after the other they would wait for ever."""
    meeting, calls = threading.Barrier(3), []

    def loss(net: nn.Module, pair: Batch, precision: torch.dtype) -> Losses:
        calls.append(threading.current_thread())
        if len(calls) > 3:
            meeting.wait(timeout=30)
        return batch_losses(net, pair, precision)

    with side_by_side(loss, 3) as cut:
        for _ in range(2):
            cut(model(), batch(6), torch.float32)
    assert {*calls[:3]} == {threading.main_thread()}  # a program is made once, not by all
    assert len({*calls[3:]}) == 3


def test_the_cores_are_divided_and_given_back() -> None:
    seen = []

    def loss(net: nn.Module, pair: Batch, precision: torch.dtype) -> Losses:
        seen.append(torch.get_num_threads())
        return batch_losses(net, pair, precision)

    before = torch.get_num_threads()
    with threads(5):
        with side_by_side(loss, 2) as cut:
            for _ in range(2):
                cut(model(), batch(2), torch.float32)
        assert torch.get_num_threads() == 5
    assert seen == [2, 2, 2, 2] and torch.get_num_threads() == before
    with threads(3), side_by_side(loss, 1) as cut:
        assert cut is loss and torch.get_num_threads() == 3


def test_the_same_to_the_bit_each_time() -> None:
    def after(steps: int) -> list[Tensor]:
        net = model(dtype=torch.float32)
        sgd = torch.optim.SGD(net.parameters(), lr=0.5)
        with side_by_side(batch_losses, 4) as loss:
            for _ in range(steps):
                train_step(net, [batch(8)], sgd, clip=1.0, loss=loss)
        return [p.detach() for p in net.parameters()]

    first = after(10)
    for _ in range(2):
        assert all(map(torch.equal, first, after(10)))


def test_micro_batches_add_up() -> None:
    whole, cut = model(), model()
    inputs, targets = batch(8)
    micro = list(zip(inputs.chunk(2), targets.chunk(2), strict=True))
    sgds = [torch.optim.SGD(net.parameters(), lr=0.5) for net in (whole, cut)]
    one = train_step(whole, [(inputs, targets)], sgds[0])
    with side_by_side(batch_losses, 2) as loss:
        two = train_step(cut, micro, sgds[1], loss=loss)
    assert two.loss == pytest.approx(one.loss, abs=1e-12)
    torch.testing.assert_close(
        list(cut.parameters()), list(whole.parameters()), rtol=1e-12, atol=1e-12
    )


def test_the_precision_reaches_the_parts() -> None:
    """Told by what the linear layer gives, in each thread, whatever a processor rounds to."""
    net, seen = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 11)), []

    def note(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        seen.append((threading.current_thread(), output.dtype))

    net[1].register_forward_hook(note)
    with side_by_side(batch_losses, 2) as loss:
        for precision in (torch.bfloat16, torch.bfloat16, torch.float32):
            loss(net, batch(4), precision)
    assert len({thread for thread, _ in seen[2:4]}) == 2
    assert [dtype for _, dtype in seen] == 4 * [torch.bfloat16] + 2 * [torch.float32]


@pytest.mark.skipif(NO_COMPILER, reason="torch.compile needs g++ here, and there is none")
def test_a_compiled_program_serves_all_parts(own_programs) -> None:
    """The one test of training that generates code: operations alone would not show it."""
    torch.compiler.reset()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 11))
    exact = batch_losses(net, batch(4)).total
    want = torch.autograd.grad(exact, [*net.parameters()])
    program = compiled(batch_losses, torch.device("cpu"))
    with threads(2), side_by_side(program, 2) as loss:
        for again in range(3):
            net.zero_grad()
            # Should the second thread make a program of its own, it would be refused.
            with torch.compiler.set_stance("fail_on_recompile" if again else "default"):
                value = loss(net, batch(4), torch.float32).total
            value.backward()
            assert value.item() == pytest.approx(exact.item(), rel=1e-6)
            torch.testing.assert_close(gradients(net), [*want], rtol=1e-5, atol=1e-6)


def test_frozen_and_unused_parameters_get_no_gradient() -> None:
    net = model()
    net.blocks[0].requires_grad_(False)  # type: ignore[index]
    net.extra = nn.Parameter(torch.ones(2))
    with side_by_side(batch_losses, 2) as loss:
        for _ in range(2):
            loss(net, batch(4), torch.float32).total.backward()
    assert net.extra.grad is None
    assert all(p.grad is None for p in net.blocks[0].parameters())  # type: ignore[index]
    assert all(p.grad is not None for p in net.blocks[1].parameters())  # type: ignore[index]


def test_an_error_in_a_part_is_told_and_the_cores_come_back() -> None:
    def loss(net: nn.Module, pair: Batch, _: torch.dtype) -> Losses:
        if threading.current_thread() is not threading.main_thread():
            raise ArithmeticError("no loss here")
        return batch_losses(net, pair)

    before = torch.get_num_threads()
    with pytest.raises(ArithmeticError, match="no loss here"), side_by_side(loss, 2) as cut:
        for _ in range(2):
            cut(model(), batch(2), torch.float32)
    assert torch.get_num_threads() == before


def test_rows_that_do_not_divide_are_refused() -> None:
    with (
        side_by_side(batch_losses, 2) as loss,
        pytest.raises(ValueError, match=r"5 rows cannot be cut into 2 equal parts; take side"),
    ):
        loss(model(), batch(5), torch.float32)


@pytest.mark.parametrize(
    ("rows", "at_most", "cores", "want"),
    [
        (12, 1, 8, 1),
        (12, 2, 8, 2),
        (12, 5, 8, 4),
        (12, 5, 3, 3),
        (12, 5, 1, 1),
        (7, 2, 8, 1),
        (7, 8, 8, 7),
        (1, 64, 8, 1),
    ],
)
def test_equal_parts(rows, at_most, cores, want) -> None:
    with threads(cores):
        assert equal_parts(rows, at_most) == want


def test_as_it_comes_a_batch_is_cut_in_two() -> None:
    """Cut further it has been measured nowhere."""
    with threads(8):
        assert [equal_parts(rows) for rows in (12, 7, 1)] == [2, 1, 1]
