"""S4D: scipy's filters, recurrence = convolution, the need for padding, what it starts with."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F

from llmtutor.layers.recurrent.s4d import S4D, S4DConfig, causal_convolution

D, N, SEQ = 3, 4, 50


@pytest.fixture
def layer() -> S4D:
    torch.manual_seed(0)
    return S4D(D, N, longest=64).double().requires_grad_(False)


def x(seq: int = SEQ) -> torch.Tensor:
    return torch.randn(2, seq, D, generator=torch.Generator().manual_seed(1)).double()


def test_it_is_a_sum_of_scipys_filters(layer: S4D) -> None:
    inputs = x()
    got = layer.convolved(inputs)
    a = torch.complex(-layer.log_decay.exp(), layer.frequency)
    read = torch.view_as_complex(layer.readout)
    for row, channel in ((0, 0), (1, 2)):
        want = np.zeros(SEQ)
        for n in range(N):
            system = [np.array([[v]]) for v in (a[channel, n].item(), 1 + 0j, 1.0, 0.0)]
            step = layer.log_step[channel].exp().item()
            stays, enters, *_ = scipy.signal.cont2discrete(system, step, "zoh")
            h = scipy.signal.lfilter(
                [enters[0, 0]], [1, -stays[0, 0]], inputs[row, :, channel].numpy().astype(complex)
            )
            want += 2 * (read[channel, n].item() * h).real
        assert np.abs(got[row, :, channel].numpy() - want).max() < 1e-14


def test_recurrence_is_convolution(layer: S4D) -> None:
    inputs = x()
    cache = layer.make_cache(2, SEQ)
    got = torch.cat([layer(part, cache=cache) for part in inputs.split([1, 7, 42], 1)], dim=1)
    torch.testing.assert_close(got, layer(inputs), rtol=0, atol=1e-13)
    assert cache.nbytes == 2 * 2 * D * N * 8  # as before the first token


def test_gradients_of_both_ways_agree() -> None:
    torch.manual_seed(0)
    layer, inputs = S4D(D, N).double(), x(12)

    class Kept(dict):  # a cache that lets gradients through
        real = staticmethod(lambda new: None)
        keep = staticmethod(lambda *_, **__: None)

    zeros = torch.zeros(2, D, N, dtype=torch.float64)
    learned = layer.log_step, layer.log_decay, layer.frequency, layer.readout
    ways = layer.convolved(inputs), layer.continued(inputs, Kept(real=zeros, imaginary=zeros))
    grads = [torch.autograd.grad(y.square().sum(), learned) for y in ways]
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_the_convolution_is_the_sum_and_needs_its_padding() -> None:
    kernel = 0.9 ** torch.arange(SEQ, dtype=torch.float64)[:, None].expand(-1, D)
    inputs = x()
    want = F.conv1d(
        F.pad(inputs.mT, (SEQ - 1, 0)), kernel.flip(0).T[:, None].contiguous(), groups=D
    ).mT
    torch.testing.assert_close(causal_convolution(inputs, kernel), want, rtol=0, atol=1e-13)
    spectra = torch.fft.rfft(inputs, dim=1) * torch.fft.rfft(kernel, dim=0)
    round_the_circle = torch.fft.irfft(spectra, n=SEQ, dim=1)
    assert (round_the_circle - want)[:, :10].abs().max() > 0.5  # the end reaches the beginning


def test_one_number_by_hand() -> None:
    """A = −1, Δ = log 2, C = 1/2: half stays, half enters; ``2 Re`` makes C a 1."""
    layer = S4D(1, 1, "real").double().requires_grad_(False)
    layer.log_step.fill_(math.log(math.log(2)))
    layer.readout.copy_(torch.tensor([[[0.5, 0.0]]]))
    assert layer.kernel(4).flatten().tolist() == pytest.approx([0.5, 0.25, 0.125, 0.0625])
    got = layer.convolved(torch.tensor([[[8.0], [0.0], [4.0]]], dtype=torch.float64))
    assert got.flatten().tolist() == pytest.approx([4.0, 2.0, 3.0])


def test_what_it_starts_with() -> None:
    lin, real = S4D(5, 3), S4D(5, 3, "real")
    torch.testing.assert_close(lin.log_decay.exp(), torch.full((5, 3), 0.5))
    torch.testing.assert_close(lin.frequency[2], math.pi * torch.arange(3.0))
    torch.testing.assert_close(real.log_decay.exp()[0], torch.tensor([1.0, 2.0, 3.0]))
    assert not real.frequency.any()
    assert lin.log_step.exp().min() >= 1e-3 and lin.log_step.exp().max() <= 1e-1


def test_a_state_of_no_numbers_is_refused_by_name() -> None:
    for made in (lambda: S4DConfig(d_state=0), lambda: S4D(4, 0)):
        with pytest.raises(ValueError, match="d_state must be at least 1, got 0"):
            made()
    with pytest.raises(ValueError, match="spectrum must be one of 'lin', 'real', got 'inv'"):
        S4DConfig(spectrum="inv")
    with pytest.raises(ValueError, match="d_model = 3, got shape"):
        S4D(3)(torch.zeros(1, 2, 4))
