"""Chapter 20, comparison: what there is to choose from, each at the size of one baseline.

The baseline is a modern block (RoPE, RMSNorm, SwiGLU, no biases, tied weights): it is what a
builder starts from today, so that every difference reads as "if you change this". The stacks of
2017 and of GPT-2 are options beside the others. An option changes one thing; what that adds in
parameters, or saves, is made up for in the width of the feed-forward parts, so that none wins by
being larger. So a state space layer stands where attention stood, before a feed-forward part; the
published Mamba has no such parts, and more layers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from llmtutor.checks import check_name
from llmtutor.experiments.choosing.defects import zero_first_head
from llmtutor.layers.ffn import swiglu_width
from llmtutor.model.accounting import parameters
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import build, preset
from llmtutor.model.transformer import Transformer

Group = Literal[
    "baseline", "position", "attention", "state", "feed-forward", "norm", "stack", "training"
]
Changes = Mapping[str, Any] | Callable[[int], Mapping[str, Any]]
"""For ``ModelConfig.replace``; those that depend on it are a function of d_model."""
LOCAL_OF = 4
"""Of so many blocks in a row the last stays as it is where an option is for the others alone."""


@dataclass(frozen=True)
class Size:
    """How large a model is, and how much text it reads at a time."""

    d_model: int
    n_layers: int = 4
    n_heads: int = 4
    vocab_size: int = 512
    seq_len: int = 256
    batch_size: int = 8
    tokens_per_parameter: int = 10
    """Of the baseline; every option is trained on as many tokens as the baseline."""

    @property
    def baseline(self) -> ModelConfig:
        """The modern block at this size."""
        return preset(
            "llama",
            vocab_size=self.vocab_size,
            max_seq_len=self.seq_len,
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_ff=swiglu_width(self.d_model, 8),
            tie_weights=True,
            init="glorot",
        )

    @property
    def steps(self) -> int:
        """Of a training run."""
        n_tokens = self.tokens_per_parameter * parameters(self.baseline).total
        return round(n_tokens / (self.batch_size * self.seq_len))


SIZES: Mapping[str, Size] = {"small": Size(48), "middle": Size(64), "large": Size(80)}
"""136, 234 and 351 thousand parameters: what two cores train in five hours, all runs together."""


@dataclass(frozen=True)
class Option:
    """What differs from the baseline."""

    group: Group
    says: str
    """What differs, in words."""
    changes: Changes = field(default_factory=dict)
    """In every block; all but the width that is fitted."""
    local: Changes | None = None
    """In three blocks of four, beside the others."""
    width: str = "d_ff"
    """The field that brings the option to the size of the baseline."""
    match: Literal["total", "active"] = "total"
    """Which parameters are as many as the baseline's: all, or those that one token uses."""
    optimizer: str = "adamw"
    weights_seed: int = 0
    """Added to the seed that the weights are drawn from, not to the one of the batches."""
    larger: float = 1.0
    """Times the baseline's parameters, and times its text: above 1 only to see whether a gap of
    known worth is found."""
    zeroed_head: Literal["never", "training", "evaluation"] = "never"
    """From when on the first head of every block gives nothing: a defect, planted to see whether
    it is noticed."""
    rate_of: str | None = None
    """Takes the learning rate that was chosen for this other option."""
    tuned_at: str = "small"
    """The size at which its learning rate is found; there is none of it at a smaller one."""


_EXPERTS = {"ffn": "moe", "n_experts": 8, "top_k": 2}


def _sinusoids(d_model: int) -> dict[str, Any]:
    """With the embedding times √d_model, as published: else waves of amplitude 1 drown it."""
    return {"position": "sinusoidal", "embedding_scale": d_model**0.5}


_OLD = {"norm": "layernorm", "bias": True}
OPTIONS: Mapping[str, Option] = {
    "baseline": Option("baseline", "RoPE, RMSNorm, SwiGLU, no biases, tied embeddings"),
    "baseline again": Option(
        "baseline", "nothing: other weights at the start", weights_seed=1000, rate_of="baseline"
    ),
    "gqa-2": Option(
        "attention", "two heads of keys and values for four of queries", {"n_kv_heads": 2}
    ),
    "mqa": Option(
        "attention", "one head of keys and values for four of queries", {"n_kv_heads": 1}
    ),
    "mla": Option("attention", "keys and values from a small latent with a norm", {"mixer": "mla"}),
    "window 3 : 1, sinks": Option(
        "attention",
        "three blocks of four look back 64 tokens; heads may attend to nothing",
        local={"window": 64, "sinks": True},
    ),
    "linformer in blocks": Option(
        "attention",
        "a window of 32 tokens; what is farther, compressed four to one",
        {"mixer": "blockwise-linformer", "block": 16, "compressed": 4, "window": 32},
    ),
    "qk-norm": Option("attention", "RMSNorm of queries and keys", {"qk_norm": "rmsnorm"}),
    "gated": Option("attention", "what attention gives out, times a gate", {"gate": True}),
    "convolution": Option(
        "attention",
        "queries, keys and values mixed over the last four tokens",
        {"mixer": "convolved-attention"},
    ),
    "differential": Option(
        "attention", "one attention minus another, as first published", {"mixer": "differential"}
    ),
    "differential v2": Option(
        "attention",
        "the second form, with twice the heads of queries",
        {"mixer": "differential-v2"},
    ),
    "s4d": Option("state", "a state with fixed decay in the place of attention", {"mixer": "s4d"}),
    "mamba": Option(
        "state", "a state that chooses what it keeps, in the place of attention", {"mixer": "mamba"}
    ),
    "mamba, no convolution": Option(
        "state",
        "Mamba without the convolution in front of its state",
        {"mixer": "mamba", "d_conv": 1},
    ),
    "mamba 3 : 1": Option("state", "Mamba in three blocks of four", local={"mixer": "mamba"}),
    "deltanet": Option(
        "state",
        "a state that corrects itself (gated DeltaNet), in the place of attention",
        {"mixer": "delta-net"},
    ),
    "deltanet 3 : 1": Option(
        "state", "gated DeltaNet in three blocks of four", local={"mixer": "delta-net"}
    ),
    "deltanet 3 : 1, retuned": Option(
        "state",
        "the same, its learning rate found at the middle size",
        local={"mixer": "delta-net"},
        tuned_at="middle",
    ),
    "no position": Option("position", "no positions", {"position": "none"}),
    "learned": Option("position", "learned positions for RoPE", {"position": "learned"}),
    "sinusoidal": Option("position", "sinusoids for RoPE", _sinusoids),
    "alibi": Option("position", "ALiBi's slopes for RoPE", {"position": "alibi"}),
    "t5": Option("position", "T5's biases for RoPE", {"position": "t5"}),
    "shaw": Option("position", "Shaw's distances for RoPE", {"position": "shaw"}),
    "relu": Option("feed-forward", "ReLU and two matrices for SwiGLU", {"ffn": "relu"}),
    "gelu": Option("feed-forward", "GELU and two matrices for SwiGLU", {"ffn": "gelu"}),
    "squared relu": Option(
        "feed-forward", "squared ReLU and two matrices for SwiGLU", {"ffn": "relu2"}
    ),
    "moe, equal total": Option(
        "feed-forward", "eight experts, two a token; as many parameters in all", _EXPERTS
    ),
    "moe, equal active": Option(
        "feed-forward",
        "eight experts, two a token; as many parameters for a token",
        _EXPERTS,
        match="active",
    ),
    "layernorm": Option("norm", "LayerNorm for RMSNorm", {"norm": "layernorm"}),
    "post-norm": Option(
        "norm", "norms behind each part, as published in 2017", {"norm_placement": "post"}
    ),
    "gpt2": Option(
        "stack",
        "GPT-2's block: learned positions, LayerNorm, GELU, biases",
        {**_OLD, "position": "learned", "ffn": "gelu"},
    ),
    "2017": Option(
        "stack",
        "the block of 2017, norms in front: sinusoids, LayerNorm, ReLU, biases",
        lambda d_model: {**_OLD, **_sinusoids(d_model), "ffn": "relu"},
    ),
    "muon": Option("training", "Muon for AdamW", optimizer="muon"),
    "a quarter more": Option(
        "baseline",
        "a larger baseline, longer trained: a quarter more operations",
        larger=1.149,
        rate_of="baseline",
    ),
    "head missing": Option(
        "baseline",
        "the first head of each block is silenced throughout",
        zeroed_head="training",
        rate_of="baseline",
    ),
    "head lost": Option(
        "baseline",
        "the first head of each block is silenced after training",
        zeroed_head="evaluation",
        rate_of="baseline",
    ),
}
"""By name, the baseline first. ``baseline again`` is the baseline with other weights at the start:
its difference from the baseline is what chance alone makes. ``a quarter more`` is the baseline with
more parameters and text, a quarter more operations in all: its gap is known beforehand. ``head
missing`` trains without one of its heads, ``head lost`` loses it when it has been trained."""


def option_config(name: str, size: Size) -> ModelConfig:
    """The configuration of an option: its changes, and the width that keeps the size.

    >>> [option_config(n, SIZES["small"]).blocks[0].ffn.d_ff for n in ("baseline", "mqa", "gelu")]
    [128, 152, 192]

    Raises:
        ValueError: an unknown name, with the nearest one; an option that no width brings to the
            size of the baseline.
    """
    option = OPTIONS[check_name("option", name, OPTIONS)]
    config = size.baseline.replace(**_at(option.changes, size))
    if option.local is not None:
        local = config.replace(**_at(option.local, size))
        pairs = zip(local.blocks, config.blocks, strict=True)
        blocks = tuple(two[i % LOCAL_OF == LOCAL_OF - 1] for i, two in enumerate(pairs))
        config = replace(config, blocks=blocks)

    def count(config: ModelConfig) -> int:
        found = parameters(config)
        return found.total if option.match == "total" else found.active

    wanted = round(parameters(size.baseline).total * option.larger)
    one, two = (count(config.replace(**{option.width: width})) for width in (1, 2))  # it is linear
    fitted = config.replace(**{option.width: max(1, 1 + round((wanted - one) / (two - one)))})
    if 2 * abs(count(fitted) - wanted) > two - one:
        raise ValueError(
            f"option {name!r}: no {option.width} gives it the {wanted:,} {option.match} parameters "
            f"of the baseline; with {option.width} = 1 there are {one:,}"
        )
    return fitted


def option_steps(name: str, size: Size) -> int:
    """Of a training run: the baseline's, but for an option that is to be larger."""
    return round(size.steps * OPTIONS[name].larger)


def _at(changes: Changes, size: Size) -> Mapping[str, Any]:
    return changes(size.d_model) if callable(changes) else changes


def build_option(name: str, size: Size, seed: int) -> Transformer:
    """The model of an option (see ``option_config``), its weights drawn from ``seed``."""
    config = option_config(name, size)
    torch.manual_seed(seed + OPTIONS[name].weights_seed)
    model = build(config)
    if OPTIONS[name].zeroed_head == "training":
        zero_first_head(model)
    return model
