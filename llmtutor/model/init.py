"""Chapter 09, the transformer: what the weights are before the first step.

Each function draws the matrices of linear layers and the embedding anew, from torch's global
generator; biases, gains and the tables of position schemes keep what their layers gave them.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from llmtutor.layers.basic import RESIDUAL, Embedding, Linear, has_tag

GPT2_STD = 0.02


def init_gpt2(embedding: Embedding, blocks: nn.ModuleList, head: Linear) -> None:
    """Every matrix normal with deviation 0.02, as in the code published with GPT-2.

    Matrices that write into the residual stream (their layers are tagged so) are divided by the
    root of the number of writes, √(2 · n_layers) where each block has a mixer and a feed-forward
    part, so that the variance of the stream does not grow with depth (Radford et al. 2019, section
    2.3; the published code leaves it out).
    The deviation is the same at every width; at GPT-2's 768 it is about half of 1/√d_model, at
    d_model = 128 less than a quarter.
    """
    writes = sum(1 if block.ffn is None else 2 for block in blocks)
    for layer in blocks.modules():
        if isinstance(layer, Linear):
            shrink = math.sqrt(writes) if has_tag(layer, RESIDUAL) else 1
            nn.init.normal_(layer.weight, std=GPT2_STD / shrink)
    nn.init.normal_(embedding.weight, std=GPT2_STD)
    if head.weight is not embedding.weight:
        nn.init.normal_(head.weight, std=GPT2_STD)


def init_glorot(embedding: Embedding, blocks: nn.ModuleList, head: Linear) -> None:
    """Linear layers with variance 2 / (d_in + d_out), the embedding with deviation 1.

    Normals, cut at three deviations. A tied matrix starts as the output layer it also is, with
    variance 2 / (d_model + vocab_size).
    """
    for layer in blocks.modules():
        if isinstance(layer, Linear):
            _glorot(layer)
    if head.weight is not embedding.weight:
        _cut_normal(embedding.weight, 1.0)
    _glorot(head)


def init_glorot_embedding(embedding: Embedding, blocks: nn.ModuleList, head: Linear) -> None:
    """As ``init_glorot``, but a tied matrix starts as the embedding it also is, with deviation 1.

    The first logits then have a deviation near √d_model, and that of the token just read stands far
    above the rest, since the stream still carries its row. So the first loss is far above
    log(vocab_size): what tying costs when nobody thinks of the output side.
    """
    init_glorot(embedding, blocks, head)
    _cut_normal(embedding.weight, 1.0)


INITS: dict[str, Callable[[Embedding, nn.ModuleList, Linear], None]] = {
    "gpt2": init_gpt2,
    "glorot": init_glorot,
    "glorot-embedding": init_glorot_embedding,
}


def _glorot(layer: Linear) -> None:
    d_out, d_in = layer.weight.shape[-2:]
    _cut_normal(layer.weight, math.sqrt(2 / (d_in + d_out)))


def _cut_normal(weight: torch.Tensor, std: float) -> None:
    """Normal of mean 0 and deviation ``std``, redrawn beyond ±3 ``std``."""
    nn.init.trunc_normal_(weight, 0.0, std, -3 * std, 3 * std)
