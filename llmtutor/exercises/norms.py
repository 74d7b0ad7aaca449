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


# Exercise 2: a sub-layer with its norms in one of five places.

Layer = Callable[[Tensor], Tensor]


def _double(x: Tensor) -> Tensor:
    return 2 * x


def _turn(x: Tensor) -> Tensor:
    return x.flip(-1) + 1


def _sub_layer_cases() -> Iterator[tuple[Tensor, Layer, str]]:
    for seed, placement in enumerate(("pre", "post", "res-post", "sandwich", "none")):
        yield _draw(2, 4, seed=seed), _turn, placement
        yield _draw(1, 3, 5, seed=10 + seed), _double, placement


def sub_layer(x: Tensor, f: Layer, placement: str) -> Tensor:
    """``x`` after the sub-layer ``f`` has added to it; all norms are ``layer_norm``.

    >>> sub_layer(torch.tensor([2.0, 8.0]), lambda x: 0 * x, "pre")
    tensor([2., 8.])
    """
    y = f(layer_norm(x) if placement in ("pre", "sandwich") else x)
    if placement in ("res-post", "sandwich"):
        y = layer_norm(y)
    return layer_norm(x + y) if placement == "post" else x + y


def _overwritten(x: Tensor, f: Layer, placement: str) -> Tensor:
    if placement in ("pre", "sandwich"):
        x = layer_norm(x)
        y = f(x)
        return x + (layer_norm(y) if placement == "sandwich" else y)
    return sub_layer(x, f, placement)


def _res_post_is_post(x: Tensor, f: Layer, placement: str) -> Tensor:
    return sub_layer(x, f, "post" if placement == "res-post" else placement)


def _post_on_the_branch(x: Tensor, f: Layer, placement: str) -> Tensor:
    return sub_layer(x, f, "res-post" if placement == "post" else placement)


def _no_sum(x: Tensor, f: Layer, placement: str) -> Tensor:
    return f(layer_norm(x)) if placement == "pre" else sub_layer(x, f, placement)


def _sandwich_on_the_stream(x: Tensor, f: Layer, placement: str) -> Tensor:
    if placement == "sandwich":
        return layer_norm(x + f(layer_norm(x)))
    return sub_layer(x, f, placement)


# Exercise 3: the gradient through RMSNorm.


def _gradient_cases() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.tensor([[3.0, -3.0]]), torch.tensor([[1.0, 0.0]])
    yield _draw(3, 4, seed=2), _draw(3, 4, seed=3)
    yield 100 * _draw(2, 8, seed=4), _draw(2, 8, seed=5)
    yield _draw(1, 6, seed=6), torch.ones(1, 6)


def rms_norm_gradient(x: Tensor, upstream: Tensor) -> Tensor:
    """The gradient by ``x`` of a loss whose gradient by ``RMSNorm(x)`` is ``upstream``.

    Both are (seq, d_model); the norm has no gain, and an eps of 1e-5.

    >>> rms_norm_gradient(torch.tensor([[1.0, -1.0]]), torch.tensor([[3.0, 1.0]])).round().tolist()
    [[2.0, 2.0]]
    """
    size = (x.square().mean(-1, keepdim=True) + EPS).sqrt()
    y = x / size
    return (upstream - y * (upstream * y).mean(-1, keepdim=True)) / size


def _size_is_constant(x: Tensor, upstream: Tensor) -> Tensor:
    return upstream / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def _not_divided(x: Tensor, upstream: Tensor) -> Tensor:
    y = x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()
    return upstream - y * (upstream * y).mean(-1, keepdim=True)


def _sum_for_mean(x: Tensor, upstream: Tensor) -> Tensor:
    size = (x.square().mean(-1, keepdim=True) + EPS).sqrt()
    y = x / size
    return (upstream - y * (upstream * y).sum(-1, keepdim=True)) / size


def _along_x(x: Tensor, upstream: Tensor) -> Tensor:
    size = (x.square().mean(-1, keepdim=True) + EPS).sqrt()
    return (upstream - x * (upstream * x).mean(-1, keepdim=True)) / size


def _centred(x: Tensor, upstream: Tensor) -> Tensor:
    gradient = rms_norm_gradient(x, upstream)
    return gradient - gradient.mean(-1, keepdim=True)


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
        name="norms.sub_layer",
        cases=_sub_layer_cases,
        reference=sub_layer,
        wrong=[
            Wrong(
                _overwritten,
                "x itself was replaced by its normalised copy before the sum. A norm in front of f "
                "is for f alone: what travels on is x, untouched.",
            ),
            Wrong(
                _res_post_is_post,
                'For "res-post" the sum is normalised, which is post-norm. Here the norm is on the '
                "branch: what f returns is normalised, and then added.",
            ),
            Wrong(
                _post_on_the_branch,
                'For "post" the norm is on the branch, which is res-post. Post-norm normalises '
                "the sum itself, x and all.",
            ),
            Wrong(
                _no_sum,
                "The sum is missing: f must add to x, or the path that carries the gradient down "
                "is cut.",
            ),
            Wrong(
                _sandwich_on_the_stream,
                "The second norm of the sandwich is on the stream. Both of its norms are on the "
                "branch, one on either side of f.",
            ),
        ],
    ),
    Exercise(
        name="norms.rms_norm_gradient",
        cases=_gradient_cases,
        reference=rms_norm_gradient,
        wrong=[
            Wrong(
                _size_is_constant,
                "This takes the size for a constant. It depends on x too: the quotient rule adds a "
                "second term, which removes what points along x.",
            ),
            Wrong(
                _not_divided,
                "The direction is right and the length is not: all of it is divided by the size, "
                "so that large vectors get small gradients.",
            ),
            Wrong(
                _sum_for_mean,
                "This subtracts the sum over the entries where the mean belongs: the derivative of "
                "the size by an entry is y divided by d_model.",
            ),
            Wrong(
                _along_x,
                "The part along x is measured with x itself. It takes the normalised vector, "
                "y = x / size, in both places; for x of another size the two differ.",
            ),
            Wrong(
                _centred,
                "The mean of the gradient was subtracted. That is LayerNorm's, which ignores "
                "shifts; RMSNorm does not.",
            ),
        ],
    ),
]
