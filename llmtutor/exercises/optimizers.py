"""Chapter 10, optimizers: its exercises and the mistakes learners make there."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Wrong

BETA1, BETA2, EPS = 0.9, 0.95, 1e-8
State = tuple[Tensor, Tensor, Tensor]


def _draw(*shape: int, seed: int, size: float = 1.0) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(0.0, size, size=shape))


# Exercise 1: one step of AdamW.


def _step_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, int, float, float]]:
    one, zero = torch.ones(1).double(), torch.zeros(1).double()
    yield one, 4 * one, zero, zero, 1, 0.1, 0.0
    yield one, zero, zero, zero, 1, 0.1, 0.5
    for t in (1, 2, 30):
        w, grad, m = (_draw(3, 4, seed=10 * t + i) for i in range(3))
        yield w, grad, 0.5 * m, _draw(3, 4, seed=10 * t + 3).square(), t, 0.01, 0.3
    tiny = _draw(5, seed=7, size=1e-8)
    yield _draw(5, seed=6), tiny, tiny, tiny.square(), 3, 0.1, 0.2


def adamw_step(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    """The new w, m and v after step number t, the first of which is 1.

    >>> one, zero = torch.ones(1), torch.zeros(1)
    >>> adamw_step(one, 4 * one, zero, zero, 1, 0.1, 0.0)[0]
    tensor([0.9000])
    """
    m = BETA1 * m + (1 - BETA1) * grad
    v = BETA2 * v + (1 - BETA2) * grad**2
    step = m / (1 - BETA1**t) / ((v / (1 - BETA2**t)).sqrt() + EPS)
    return w - lr * decay * w - lr * step, m, v


def _no_correction(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    m = BETA1 * m + (1 - BETA1) * grad
    v = BETA2 * v + (1 - BETA2) * grad**2
    return w - lr * decay * w - lr * m / (v.sqrt() + EPS), m, v


def _through_the_gradient(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    return adamw_step(w, grad + decay * w, m, v, t, lr, 0.0)


def _decay_without_lr(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    return adamw_step(w, grad, m, v, t, lr, decay / lr)


def _no_root(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    m = BETA1 * m + (1 - BETA1) * grad
    v = BETA2 * v + (1 - BETA2) * grad**2
    step = m / (1 - BETA1**t) / (v / (1 - BETA2**t) + EPS)
    return w - lr * decay * w - lr * step, m, v


def _eps_inside(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    m = BETA1 * m + (1 - BETA1) * grad
    v = BETA2 * v + (1 - BETA2) * grad**2
    step = m / (1 - BETA1**t) / (v / (1 - BETA2**t) + EPS).sqrt()
    return w - lr * decay * w - lr * step, m, v


def _corrected_memory(
    w: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float
) -> State:
    w, m, v = adamw_step(w, grad, m, v, t, lr, decay)
    return w, m / (1 - BETA1**t), v / (1 - BETA2**t)


# Exercise 2: one step of Muon.

MU = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
Step = tuple[Tensor, Tensor]


def _muon_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, float, float]]:
    g = torch.tensor([[3.0, 1.0], [1.0, 3.0]]).double()
    yield torch.zeros(2, 2).double(), g, torch.zeros(2, 2).double(), 1.0, 0.0
    for i, (rows, columns) in enumerate(((4, 4), (3, 7), (6, 2))):
        w, g, b = (_draw(rows, columns, seed=20 + 3 * i + j) for j in range(3))
        yield w, g, 0.3 * b, 0.1, 0.2


def _orthogonal(x: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    x = x / x.norm()
    for _ in range(5):
        square = x @ x.T
        x = a * x + b * square @ x + c * square @ square @ x
    return x


def muon_step(w: Tensor, grad: Tensor, b: Tensor, lr: float, decay: float) -> Step:
    """The new w and b.

    >>> g = torch.tensor([[3.0, 1.0], [1.0, 3.0]])
    >>> muon_step(torch.zeros(2, 2), g, torch.zeros(2, 2), 1.0, 0.0)[0]
    tensor([[-0.2550,  0.0602],
            [ 0.0602, -0.2550]])
    """
    b = MU * b + (1 - MU) * grad
    step = _orthogonal(MU * b + (1 - MU) * grad)
    return (1 - lr * decay) * w - lr * 0.2 * max(w.shape) ** 0.5 * step, b


def _not_ahead(w: Tensor, grad: Tensor, b: Tensor, lr: float, decay: float) -> Step:
    b = MU * b + (1 - MU) * grad
    return (1 - lr * decay) * w - lr * 0.2 * max(w.shape) ** 0.5 * _orthogonal(b), b


def _of_entries(w: Tensor, grad: Tensor, b: Tensor, lr: float, decay: float) -> Step:
    b = MU * b + (1 - MU) * grad
    x = MU * b + (1 - MU) * grad
    x = x / x.norm()
    for _ in range(5):
        x = sum(c * x**power for c, power in zip(COEFFICIENTS, (1, 3, 5), strict=True))
    return (1 - lr * decay) * w - lr * 0.2 * max(w.shape) ** 0.5 * x, b


def _exact(w: Tensor, grad: Tensor, b: Tensor, lr: float, decay: float) -> Step:
    b = MU * b + (1 - MU) * grad
    u, _, vt = torch.linalg.svd(MU * b + (1 - MU) * grad, full_matrices=False)
    return (1 - lr * decay) * w - lr * 0.2 * max(w.shape) ** 0.5 * u @ vt, b


def _unscaled(w: Tensor, grad: Tensor, b: Tensor, lr: float, decay: float) -> Step:
    b = MU * b + (1 - MU) * grad
    return (1 - lr * decay) * w - lr * _orthogonal(MU * b + (1 - MU) * grad), b


def _remembers_the_step(w: Tensor, grad: Tensor, b: Tensor, lr: float, decay: float) -> Step:
    w, b = muon_step(w, grad, b, lr, decay)
    return w, _orthogonal(MU * b + (1 - MU) * grad)


# Exercise 3: signal and noise of gradients.

Figures = tuple[float, float]


def _noise_cases() -> Iterator[tuple[Tensor, int]]:
    yield torch.tensor([[3.0, 0.0], [1.0, 0.0]]).double(), 2
    for seed, (n, batch) in enumerate(((5, 1), (8, 4), (20, 16))):
        yield _draw(n, 6, seed=40 + seed) + 0.5, batch


def noise(grads: Tensor, batch: int) -> Figures:
    """Squared length of the true gradient, and the noise of one window, from means of batches.

    >>> noise(torch.tensor([[3.0, 0.0], [1.0, 0.0]]), 2)  # mean 2, variance 2
    (3.0, 4.0)
    """
    n = len(grads)
    variance = float(grads.var(0).sum())
    return float(grads.mean(0).square().sum()) - variance / n, batch * variance


def _biased(grads: Tensor, batch: int) -> Figures:
    return float(grads.mean(0).square().sum()), noise(grads, batch)[1]


def _of_a_batch(grads: Tensor, batch: int) -> Figures:
    return noise(grads, 1)


def _mean_of_squares(grads: Tensor, batch: int) -> Figures:
    return float(grads.square().sum(1).mean()), noise(grads, batch)[1]


def _whole_variance(grads: Tensor, batch: int) -> Figures:
    variance = float(grads.var(0).sum())
    return float(grads.mean(0).square().sum()) - variance, batch * variance


EXERCISES = [
    Exercise(
        name="optimizers.adamw_step",
        cases=_step_cases,
        reference=adamw_step,
        wrong=[
            Wrong(
                _no_correction,
                "The means are used as they are. They began at 0, so at step t they hold only "
                "1 − β^t of what they should: divide by that.",
            ),
            Wrong(
                _through_the_gradient,
                "The decay went in with the gradient and was divided by the root of v like "
                "everything there. That is L2 with Adam; in AdamW it acts on w directly.",
            ),
            Wrong(
                _decay_without_lr,
                "The decay is not multiplied by lr. Both shrink together when the learning rate "
                "falls: w loses lr · decay · w.",
            ),
            Wrong(
                _no_root,
                "The mean is divided by v itself. Only its square root has the size of a "
                "gradient, and makes the step independent of that size.",
            ),
            Wrong(
                _eps_inside,
                "eps stands under the root here. There 1e-8 counts like a gradient of 1e-4; it "
                "belongs outside, after the root.",
            ),
            Wrong(
                _corrected_memory,
                "The step is right, but the corrected means are returned. The memory stays as it "
                "is; the correction is made anew at each step.",
            ),
        ],
        mutation="Your function changes its inputs; compute new tensors and return them.",
    ),
    Exercise(
        name="optimizers.muon_step",
        cases=_muon_cases,
        reference=muon_step,
        wrong=[
            Wrong(
                _not_ahead,
                "The momentum itself was made orthogonal. Nesterov's look ahead adds the gradient "
                "once more: μ b + (1 − μ) g, with the new b.",
            ),
            Wrong(
                _of_entries,
                "The powers were taken of each entry. x³ of a matrix is (x xᵀ) x, which acts on "
                "singular values and leaves their directions.",
            ),
            Wrong(
                _exact,
                "All singular values are exactly 1. That is what Muon aims at, but five rounds of "
                "the polynomial end anywhere from 0.7 to 1.2.",
            ),
            Wrong(
                _unscaled,
                "The factor 0.2 √max(rows, columns) is missing: entries of large matrices would "
                "hardly move.",
            ),
            Wrong(
                _remembers_the_step,
                "The orthogonal matrix is returned as the memory. What is kept is the momentum; "
                "it is made orthogonal anew at each step.",
            ),
        ],
        mutation="Your function changes its inputs; compute new tensors and return them.",
    ),
    Exercise(
        name="optimizers.noise",
        cases=_noise_cases,
        reference=noise,
        wrong=[
            Wrong(
                _biased,
                "The mean of a few batches still holds noise: its squared length is too large by "
                "the variance divided by the number of batches.",
            ),
            Wrong(
                _of_a_batch,
                "That is the variance of a batch. A window is noisier by the size of the batch.",
            ),
            Wrong(
                _mean_of_squares,
                "The signal is the mean of squared lengths. First the mean of the gradients, "
                "then its squared length: else all the noise is in it.",
            ),
            Wrong(
                _whole_variance,
                "Too much was taken off: the mean of n batches holds only one nth of the "
                "variance of one.",
            ),
        ],
    ),
]
