"""Chapter 07, norms: its exercises and the mistakes learners make there."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Wrong

EPS = 1e-5


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(1.0, 2.0, size=shape))


# Exercise 1: LayerNorm without gain and bias.


def _vector_cases() -> Iterator[tuple[Tensor]]:
    yield (torch.tensor([1.0, 3.0]),)
    yield (_draw(3, 4, seed=0),)
    yield (_draw(2, 3, 5, seed=1),)
    yield (torch.full((2, 3), 7.0),)
    yield (torch.tensor([[1e-3, -1e-3, 2e-3]]),)


def layer_norm(x: Tensor) -> Tensor:
    """``(x − mean) / √(var + 1e-5)`` over the last dimension, any shape (..., d_model).

    >>> layer_norm(torch.tensor([0.0, 20.0])).round().tolist()
    [-1.0, 1.0]
    """
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt()


def _unbiased(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + EPS).sqrt()


def _whole_tensor(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.var(correction=0) + EPS).sqrt()


def _variance_alone(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + EPS)


def _eps_outside(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, correction=0, keepdim=True) + EPS)


def _no_eps(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, correction=0, keepdim=True)


# Exercise 2: RMSNorm with its gain.


def _gain_cases() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.tensor([3.0, -3.0]), torch.ones(2)
    yield _draw(3, 4, seed=2), _draw(4, seed=3)
    yield _draw(2, 3, 5, seed=4), _draw(5, seed=5)
    yield torch.zeros(2, 3), torch.ones(3)


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """``x / √(mean(x²) + 1e-5) · gain`` over the last dimension; gain (d_model,).

    >>> rms_norm(torch.tensor([30.0, -30.0]), torch.tensor([1.0, 2.0])).round().tolist()
    [1.0, -2.0]
    """
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * gain


def _centred(x: Tensor, gain: Tensor) -> Tensor:
    return layer_norm(x) * gain


def _length(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + EPS).sqrt() * gain


def _over_everything(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean() + EPS).sqrt() * gain


def _without_gain(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def _no_root(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS) * gain


# Exercise 3: a pre-norm block.

Layer = Callable[[Tensor], Tensor]


def _double(x: Tensor) -> Tensor:
    return 2 * x


def _turn(x: Tensor) -> Tensor:
    return x.flip(-1) + 1


def _block_cases() -> Iterator[tuple[Tensor, Layer, Layer]]:
    yield _draw(2, 4, seed=6), _double, _turn
    yield _draw(1, 3, 4, seed=7), _turn, _double
    yield _draw(3, 5, seed=8), torch.tanh, _turn


def pre_norm_block(x: Tensor, attention: Layer, feed_forward: Layer) -> Tensor:
    """A block whose two layers read a normalised copy of x and add to x itself.

    >>> pre_norm_block(torch.tensor([2.0, 8.0]), lambda x: 0 * x, lambda x: 0 * x)
    tensor([2., 8.])
    """
    x = x + attention(layer_norm(x))
    return x + feed_forward(layer_norm(x))


def _overwritten(x: Tensor, attention: Layer, feed_forward: Layer) -> Tensor:
    x = layer_norm(x)
    x = x + attention(x)
    x = layer_norm(x)
    return x + feed_forward(x)


def _post(x: Tensor, attention: Layer, feed_forward: Layer) -> Tensor:
    x = layer_norm(x + attention(x))
    return layer_norm(x + feed_forward(x))


def _no_residual(x: Tensor, attention: Layer, feed_forward: Layer) -> Tensor:
    return feed_forward(layer_norm(attention(layer_norm(x))))


def _normed_once(x: Tensor, attention: Layer, feed_forward: Layer) -> Tensor:
    x = x + attention(layer_norm(x))
    return x + feed_forward(x)


def _parallel(x: Tensor, attention: Layer, feed_forward: Layer) -> Tensor:
    normed = layer_norm(x)
    return x + attention(normed) + feed_forward(normed)


EXERCISES = [
    Exercise(
        name="norms.layer_norm",
        cases=_vector_cases,
        reference=layer_norm,
        wrong=[
            Wrong(
                _unbiased,
                "The variance divides by d_model − 1, which torch.var does unless told otherwise. "
                "LayerNorm describes these d_model numbers and estimates nothing: divide by "
                "d_model.",
            ),
            Wrong(
                _whole_tensor,
                "One mean and one variance for the whole tensor: positions and examples are mixed. "
                "Each vector of the last dimension is normalised by itself.",
            ),
            Wrong(
                _variance_alone,
                "This divides by the variance. The standard deviation, its square root, has the "
                "unit of x.",
            ),
            Wrong(
                _eps_outside,
                "eps is added to the standard deviation. It belongs under the root, next to the "
                "variance; for small vectors the two differ a lot.",
            ),
            Wrong(
                _no_eps,
                "There is no eps, so a vector of equal numbers is divided 0 by 0 and becomes nan.",
            ),
        ],
    ),
    Exercise(
        name="norms.rms_norm",
        cases=_gain_cases,
        reference=rms_norm,
        wrong=[
            Wrong(
                _centred,
                "The mean is subtracted, so this is LayerNorm with a gain. RMSNorm leaves the mean "
                "where it is.",
            ),
            Wrong(
                _length,
                "This divides by the length of the vector, the root of the sum of squares. RMS is "
                "the root of the mean of squares, so that entries stay near 1 at any width.",
            ),
            Wrong(
                _over_everything,
                "The mean runs over all positions. Each would be divided by a number that depends "
                "on the others, also on later ones.",
            ),
            Wrong(
                _without_gain,
                "The gain is missing: multiply each of the d_model entries by its own number.",
            ),
            Wrong(
                _no_root,
                "The root is missing: this divides by the mean square, so doubling x would halve "
                "the result.",
            ),
        ],
    ),
    Exercise(
        name="norms.pre_norm_block",
        cases=_block_cases,
        reference=pre_norm_block,
        wrong=[
            Wrong(
                _overwritten,
                "x itself was replaced by its normalised copy before the sum. In pre-norm only the "
                "layer reads the copy; what travels on is x, untouched.",
            ),
            Wrong(
                _post,
                "This normalises after each sum, which is post-norm. In pre-norm the norm stands "
                "on the branch, before the layer.",
            ),
            Wrong(
                _no_residual,
                "The sums are missing: each layer must add to x, or the path that carries the "
                "gradient down is cut.",
            ),
            Wrong(
                _normed_once,
                "The second layer reads x without a norm. Each of the two layers has its own.",
            ),
            Wrong(
                _parallel,
                "Both layers read the same input here. The feed-forward layer comes second and "
                "reads x after attention has added to it.",
            ),
        ],
    ),
]
