"""Chapter 20, comparison: what is compared, variant by variant, each at the baseline's size.

A variant changes one thing in ``BASELINE``. What that adds in parameters, or saves, is made up for
in ``d_ff``, so that no variant wins by being larger.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from llmtutor.checks import check_name
from llmtutor.layers.part import field_names
from llmtutor.model.accounting import forward_flops, parameters
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer

SEQ_LEN = 64
BATCH_SIZE = 8
VOCAB_SIZE = 512
BASELINE = ModelConfig.uniform(
    vocab_size=VOCAB_SIZE,
    max_seq_len=SEQ_LEN,
    n_layers=2,
    d_model=64,
    n_heads=8,
    d_ff=256,
    ffn="relu",
    norm="layernorm",
    norm_placement="pre",
    position="sinusoidal",
    tie_weights=False,
    bias=True,
    init="glorot",
)
"""The transformer of Vaswani et al. (2017) as a decoder, but with pre-norm, which trains without
a long warm-up; post-norm is one of the variants."""


@dataclass(frozen=True)
class Variant:
    """What differs from the baseline."""

    kind: Literal["baseline", "position", "attention", "feed-forward", "norm", "stack", "planted"]
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the configuration, all but ``d_ff``."""
    match: Literal["parameters", "flops"] = "parameters"
    """What ``d_ff`` is chosen to keep equal to the baseline's."""
    weights_seed: int = 0
    """Added to the seed that the weights are drawn from, not to the one of the batches."""
    zeroed_head: Literal["never", "training", "evaluation"] = "never"
    """From when on the first head of every block gives nothing: a defect, planted to see whether
    it is noticed."""
    rate_of: str | None = None
    """Takes the learning rate that was chosen for this other variant."""


_MODERN = {"position": "rope", "norm": "rmsnorm", "ffn": "swiglu", "bias": False}
VARIANTS: Mapping[str, Variant] = {
    "baseline": Variant("baseline"),
    "learned": Variant("position", {"position": "learned"}),
    "learned, equal FLOPs": Variant(
        "position", {"position": "learned"}, match="flops", rate_of="learned"
    ),
    "shaw": Variant("position", {"position": "shaw"}),
    "shaw, equal FLOPs": Variant("position", {"position": "shaw"}, match="flops", rate_of="shaw"),
    "t5": Variant("position", {"position": "t5"}),
    "alibi": Variant("position", {"position": "alibi"}),
    "rope": Variant("position", {"position": "rope"}),
    "no position": Variant("position", {"position": "none"}),
    "mqa": Variant("attention", {"n_kv_heads": 1}),
    "gqa-2": Variant("attention", {"n_kv_heads": 2}),
    "gqa-4": Variant("attention", {"n_kv_heads": 4}),
    "gelu": Variant("feed-forward", {"ffn": "gelu"}),
    "swiglu": Variant("feed-forward", {"ffn": "swiglu"}),
    "rmsnorm": Variant("norm", {"norm": "rmsnorm"}),
    "post-norm": Variant("norm", {"norm_placement": "post"}),
    "modern": Variant("stack", _MODERN),
    "modern, gqa-2": Variant("stack", {**_MODERN, "n_kv_heads": 2}),
    "baseline again": Variant("planted", weights_seed=1000, rate_of="baseline"),
    "head missing": Variant("planted", zeroed_head="training", rate_of="baseline"),
    "head lost": Variant("planted", zeroed_head="evaluation", rate_of="baseline"),
}
"""By name, the baseline first. ``baseline again`` is the baseline with other weights at the start:
its difference from the baseline is what chance alone makes. ``head missing`` trains without one of
its heads, ``head lost`` loses it when it has been trained."""


def variant_config(name: str) -> ModelConfig:
    """The configuration of a variant: its changes, and the ``d_ff`` that keeps the size.

    >>> names = ("baseline", "mqa", "swiglu", "learned")
    >>> [variant_config(name).blocks[0].ffn.d_ff for name in names]
    [256, 312, 170, 240]

    Raises:
        ValueError: an unknown name, with the nearest one; a feed-forward part without ``d_ff``, or
            one that no ``d_ff`` brings to the size.
    """
    variant = VARIANTS[check_name("variant", name, VARIANTS)]
    config = BASELINE.replace(**variant.changes)
    if lacking := {b.ffn.kind for b in config.blocks if "d_ff" not in field_names(type(b.ffn))}:
        raise ValueError(
            f"variant {name!r} is to have the baseline's size, but its {', '.join(lacking)} has no "
            "d_ff to change for it"
        )

    def size(config: ModelConfig) -> int:
        by_flops = variant.match == "flops"
        return forward_flops(config, 1, SEQ_LEN) if by_flops else parameters(config).total

    one, two = (size(config.replace(d_ff=d_ff)) for d_ff in (1, 2))  # linear in d_ff
    sized = config.replace(d_ff=max(1, 1 + round((size(BASELINE) - one) / (two - one))))
    if 2 * abs(size(sized) - size(BASELINE)) > two - one:
        raise ValueError(
            f"variant {name!r}: no d_ff gives it the {size(BASELINE):,} {variant.match} of the "
            f"baseline; with d_ff = 1 there are {one:,}"
        )
    return sized


def build_variant(name: str, seed: int) -> Transformer:
    """The model of a variant (see ``variant_config``), its weights drawn from ``seed``."""
    config = variant_config(name)
    torch.manual_seed(seed + VARIANTS[name].weights_seed)
    model = build(config)
    if VARIANTS[name].zeroed_head == "training":
        zero_first_head(model)
    return model


def zero_first_head(model: Transformer) -> None:
    """Silence the first head of every block: its output is 0 whatever it attends to."""

    def silence(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        keep = torch.ones(inputs[0].shape[-1])
        keep[:head_dim] = 0
        return (inputs[0] * keep.to(inputs[0]),)

    for block in model.blocks:
        head_dim = block.get_submodule("mixer").head_dim
        block.get_submodule("mixer.output").register_forward_pre_hook(silence)
