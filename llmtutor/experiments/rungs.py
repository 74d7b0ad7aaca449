"""The model so far, every chapter from 03 on: the rungs of its staircase, one thing new on each.

All rungs predict the same tokens and are trained on as many bytes, but for the last, which is
larger and trains longer. Up to chapter 08 a rung is one layer; what its chapter has not brought yet
is taken out of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from llmtutor.layers.basic import HEAD, RESIDUAL, has_tag
from llmtutor.layers.ffn import swiglu_width
from llmtutor.model.config import ModelConfig
from llmtutor.model.language_modelling import NGram
from llmtutor.model.mlp import WindowMLP
from llmtutor.model.presets import build, preset
from llmtutor.model.transformer import Transformer

SEQ_LEN = 64
"""Tokens of a training window, and the longest context of all rungs but the last."""
D_MODEL, N_HEADS, N_LAYERS = 128, 4, 4
RATES = (0.002, 0.004, 0.008, 0.016)
"""Peak learning rates tried for a rung; the best one has to lie inside."""

Counted = Callable[[int], NGram]
Built = Callable[[int], nn.Module]
"""From the size of the vocabulary to the model, its weights from torch's global generator."""


@dataclass(frozen=True)
class Recipe:
    """How a rung is trained, but for its learning rate."""

    optimizer: str = "adamw"
    schedule: str = "warmup_cosine"
    warmup: float = 0.05
    """Share of the steps."""
    decay: float = 0.0
    """Share of the steps in which "wsd" falls."""
    final: float = 0.1
    """Part of the peak at the end."""
    batch_size: int = 16
    """Windows of a step."""
    seq_len: int = SEQ_LEN
    times: int = 1
    """How often as many bytes as the training works have are seen."""


@dataclass(frozen=True)
class Rung:
    """A model of the staircase."""

    chapter: int
    """The first that can explain it whole."""
    new: str
    """What the rung before does not have."""
    count: Counted | None = None
    """For a model that counts; else there is ``build``."""
    build: Built | None = None
    recipe: Recipe = Recipe()
    rates: tuple[float, ...] = RATES


class Nothing(nn.Module):
    """Stands where a part was taken out that adds to the residual stream."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x)


def counted(order: int) -> Counted:
    """Runs of ``order`` tokens, Witten–Bell."""
    return lambda vocab_size: NGram(order, vocab_size)


def small_mlp(vocab_size: int) -> WindowMLP:
    """The last four tokens."""
    return WindowMLP(vocab_size, window=4, d_embedding=64, d_hidden=128)


def one_layer(*, position: str, norms: bool = False, ffn: bool = False) -> Built:
    """A transformer of one layer without its norms and its feed-forward part, where not asked."""

    def made(vocab_size: int) -> Transformer:
        sizes = {"vocab_size": vocab_size, "max_seq_len": SEQ_LEN, "n_layers": 1}
        shape = {"d_model": D_MODEL, "n_heads": N_HEADS, "d_ff": 4 * D_MODEL}
        parts = {"position": position, "norm": "layernorm", "ffn": "gelu"}
        changes: dict[str, Any] = {**parts, "init": "glorot", "tie_weights": False}
        model = build(ModelConfig.uniform(**sizes, **shape, **changes))
        (block,) = model.blocks
        if not ffn:
            block.ffn, block.norm_2 = Nothing(), nn.Identity()
        if not norms:
            block.norm_1 = model.norm = nn.Identity()
        return model

    return made


def stack(name: str, n_layers: int = N_LAYERS, d_model: int = D_MODEL, **changes: Any) -> Built:
    """A preset at the size of the staircase: heads of 32 channels, an output layer of its own."""
    d_ff = swiglu_width(d_model, 8) if name == "llama" else 4 * d_model
    shape = {"n_layers": n_layers, "d_model": d_model, "n_heads": d_model // 32, "d_ff": d_ff}
    given = {"max_seq_len": SEQ_LEN, "tie_weights": False, **shape, **changes}
    return lambda vocab_size: build(preset(name, vocab_size=vocab_size, **given))


def from_zeros(built: Built) -> Built:
    """The same model, but each block begins as the identity and all logits are equal."""

    def made(vocab_size: int) -> nn.Module:
        model = built(vocab_size)
        for module in model.modules():
            if has_tag(module, RESIDUAL) or has_tag(module, HEAD):
                nn.init.zeros_(module.get_parameter("weight"))
        return model

    return made


BETTER = Recipe("muon", "wsd", warmup=0.02, decay=0.6, final=0.0, batch_size=32)
LONG = 256
RUNGS: Mapping[str, Rung] = {
    "uniform": Rung(3, "every token is equally likely", count=counted(0)),
    "unigram": Rung(3, "how often each token occurs", count=counted(1)),
    "bigram": Rung(3, "the token before", count=counted(2)),
    "trigram": Rung(3, "the two tokens before", count=counted(3)),
    "mlp": Rung(3, "embeddings of the last four tokens, and a hidden layer", build=small_mlp),
    "attention": Rung(
        4, "one layer of attention over 64 tokens, nothing else", build=one_layer(position="none")
    ),
    "positions": Rung(5, "learned positions", build=one_layer(position="learned")),
    "rope": Rung(6, "rotations in their place", build=one_layer(position="rope")),
    "norms": Rung(
        7, "LayerNorm before attention and output", build=one_layer(position="rope", norms=True)
    ),
    "feed-forward": Rung(
        8,
        "a feed-forward part after attention",
        build=one_layer(position="rope", norms=True, ffn=True),
    ),
    "gpt2": Rung(9, "four blocks, the parts of GPT-2", build=stack("gpt2")),
    "modern": Rung(
        9, "the parts of Llama: RoPE, RMSNorm, SwiGLU", build=stack("llama", init="glorot")
    ),
    "training": Rung(
        11,
        "Muon, decay to zero, larger batch, zeros at the start",
        build=from_zeros(stack("llama", init="glorot")),
        recipe=BETTER,
    ),
    "longer": Rung(
        12,
        "a larger model, a longer context, more text",
        build=from_zeros(stack("llama", n_layers=6, d_model=192, max_seq_len=LONG, init="glorot")),
        recipe=replace(BETTER, seq_len=LONG, batch_size=8, times=4),
    ),
}
"""By name, from the lowest."""
LAST = "longer"
