"""Chapter 06, rope: rotary embeddings in a ``config.json``, in both of its forms.

Version 5 of ``transformers`` writes one object, ``rope_parameters``; older files have
``rope_theta`` and ``rope_scaling``. A file that says something twice must say the same.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from llmtutor.interop.hf.keys import LONGEST, Keys, listed
from llmtutor.layers.positions import (
    LinearScaling,
    Llama3Scaling,
    RopeConfig,
    RopeScaling,
    YarnScaling,
)

THETA = 10_000.0


class Shape(NamedTuple):
    """What a scaling may want to know of its model."""

    max_seq_len: int
    """Longest text, in tokens."""
    head_dim: int
    """Components of a head, all of which turn."""


def read_rope(keys: Keys, shape: Shape, default: float = THETA) -> RopeConfig:
    """RoPE of all layers; ``default`` is the library's base of the family.

    Raises:
        KeyRefusedError: an option that we do not have, or two statements that differ.
    """
    theta = keys.number("rope_theta", above=1) if "rope_theta" in keys else None
    new = keys.inside("rope_parameters")
    old = keys.inside("rope_scaling")
    if new is None:
        return RopeConfig(theta or default) if old is None else one_rope(old, theta, shape, default)
    found = one_rope(new, theta, shape, default)
    if old is not None:
        same_again(old, found, theta, shape, default)
    return found


def same_again(
    old: Keys, found: RopeConfig, theta: float | None, shape: Shape, default: float = THETA
) -> None:
    """Refuse a ``rope_scaling`` beside ``rope_parameters`` that says something else.

    The library would take ``rope_scaling`` then, and forget the other.
    """
    values = dict(old.left)
    if one_rope(old, theta, shape, default) != found:
        raise Keys({}, old.where).refused(
            "rope_scaling", values, "what rope_parameters says, or nothing: keep one of the two"
        )


def one_rope(
    options: Keys, theta: float | None, shape: Shape, default: float = THETA
) -> RopeConfig:
    """RoPE as one object says; ``theta`` is the base that stands outside of it, if any does."""
    base = options.number("rope_theta", theta or default, above=1)
    if theta is not None and base != theta:
        raise options.refused("rope_theta", base, f"the {theta:g} that stands outside, or nothing")
    options.only({"partial_rotary_factor": 1.0})
    kind = _kind(options)
    scaling = SCALINGS[kind](options, base, shape)
    options.finish(harmless=[key for key, value in options.left.items() if value is None])
    return RopeConfig(base, scaling=scaling)


def _kind(options: Keys) -> str:
    """``rope_type``, or ``type`` as it was called before."""
    found = {key: options.take(key) for key in ("rope_type", "type") if key in options}
    if not found:
        for key, value in options.left.items():
            if value is not None:
                raise options.refused(key, value, "a rope_type beside it that has a use for it")
    for key, kind in found.items():
        if not isinstance(kind, str) or kind not in SCALINGS:
            reason = f" ({REASONS[kind]})" if isinstance(kind, str) and kind in REASONS else ""
            raise options.refused(key, kind, listed(SCALINGS) + reason)
        if kind != (first := next(iter(found.values()))):
            raise options.refused(key, kind, f"the {first!r} of rope_type, or nothing")
    return next(iter(found.values()), "default")


def _default(options: Keys, base: float, shape: Shape) -> None:
    return None


def _linear(options: Keys, base: float, shape: Shape) -> RopeScaling:
    options.take("original_max_position_embeddings", None)  # it does not look at it
    return LinearScaling(_factor(options))


def _llama3(options: Keys, base: float, shape: Shape) -> RopeScaling:
    factor, trained = _factor(options), _trained(options, shape)
    low, high = options.number("low_freq_factor"), options.number("high_freq_factor")
    if high <= low:
        raise options.refused("high_freq_factor", high, f"more than low_freq_factor = {low:g}")
    return Llama3Scaling(factor, trained, low, high)


def _yarn(options: Keys, base: float, shape: Shape) -> RopeScaling:
    trained = _trained(options, shape)
    factor = _yarn_factor(options, shape, trained)
    fast, slow = _rounds(options, "beta_fast", 32), _rounds(options, "beta_slow", 1)
    if fast <= slow:
        raise options.refused("beta_fast", fast, f"more than beta_slow = {slow:g}")
    sharpen = options.number_or_none("attention_factor", None)
    scale = options.number_or_none("mscale", None)
    scale_all = options.number_or_none("mscale_all_dim", None)
    if sharpen is None and scale is not None and scale_all is not None:
        sharpen = (0.1 * scale * math.log(factor) + 1) / (0.1 * scale_all * math.log(factor) + 1)
    scaling = YarnScaling(factor, trained, fast, slow, sharpen, options.flag("truncate", True))
    first, last = scaling.ramp(shape.head_dim, base)
    if max(first, 0) > min(last, shape.head_dim - 1):
        raise options.refused(
            "original_max_position_embeddings",
            trained,
            f"a length for which, with rope_theta = {base:g}, the ramp from beta_fast to beta_slow "
            f"meets the {shape.head_dim} components of a head (the library turns it round else)",
        )
    return scaling


def _yarn_factor(options: Keys, shape: Shape, trained: int) -> float:
    """Null stands for what the two lengths say."""
    if "factor" not in options or options.left["factor"] is not None:
        return _factor(options)
    options.take("factor")
    if trained > shape.max_seq_len:
        raise options.refused(
            "original_max_position_embeddings",
            trained,
            f"at most max_position_embeddings = {shape.max_seq_len}, as factor is null",
        )
    return shape.max_seq_len / trained


def _factor(options: Keys) -> float:
    factor = options.number("factor")
    if factor < 1:
        raise options.refused("factor", factor, "new length / trained length, so 1 or more")
    return factor


def _trained(options: Keys, shape: Shape) -> int:
    return options.size("original_max_position_embeddings", shape.max_seq_len, most=LONGEST)


def _rounds(options: Keys, key: str, default: float) -> float:
    """Null and 0 stand for the default."""
    if options.left.get(key) in (None, 0):
        options.take(key, None)
        return default
    return options.number(key, most=1e9)


SCALINGS: dict[str, Callable[[Keys, float, Shape], RopeScaling | None]] = {
    "default": _default,
    "linear": _linear,
    "yarn": _yarn,
    "llama3": _llama3,
}
REASONS = {
    "dynamic": "its frequencies change with the length of the text; for texts of up to "
    "max_position_embeddings tokens it is 'default': write that if they are enough",
    "longrope": "its frequencies change with the length of the text, and ours are fixed",
}
"""Why we do not have a scaling that the library has."""


def write_rope(rope: RopeConfig) -> dict[str, object]:
    """The content of ``rope_parameters``.

    Raises:
        ValueError: a scaling that the library does not have.
    """
    return {"rope_theta": rope.base, **_write_scaling(rope.scaling)}


def _write_scaling(scaling: RopeScaling | None) -> dict[str, object]:
    match scaling:
        case None:
            return {"rope_type": "default"}
        case LinearScaling(factor):
            return {"rope_type": "linear", "factor": factor}
        case Llama3Scaling(factor, trained, low, high):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "original_max_position_embeddings": trained,
                "low_freq_factor": low,
                "high_freq_factor": high,
            }
        case YarnScaling(factor, trained, fast, slow, sharpen, truncate):
            return {
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": trained,
                "beta_fast": fast,
                "beta_slow": slow,
                **({} if sharpen is None else {"attention_factor": float(sharpen)}),
                **({} if truncate else {"truncate": False}),
            }
    raise ValueError(f"scaling must be one of {listed(SCALINGS)}, got {scaling}")
