"""Chapter 09, the transformer: what a model costs, by arithmetic on its configuration alone.

Each number is derived here from the sizes, and measured in the tests: parameters against the
built model, FLOPs against torch's counter, activations against the memory that a pass took.

Write N = batch · seq for the number of tokens, V for vocab_size, d for d_model, and d_kv for
n_kv_heads · head_dim, the width of the keys, which is d where no heads share them.
"""

from dataclasses import dataclass

import torch

from llmtutor.model.config import ModelConfig
from llmtutor.model.parts import SHAW_DISTANCE, T5_BUCKETS

GATED = ("glu", "reglu", "geglu", "swiglu")
# Inner vectors of width d_ff that the backward pass wants back. Gates keep the two factors and
# their product; silu and gelu also their own input, sigmoid and relu have their derivative in
# their output. Without a gate: the input of the activation and of the second matrix.
SAVED_BY_FFN = {
    "relu": 1,
    "relu2": 2,
    "gelu": 2,
    "gelu_tanh": 2,
    "silu": 2,
    "glu": 3,
    "reglu": 3,
    "geglu": 4,
    "swiglu": 4,
}


@dataclass(frozen=True)
class Parameters:
    """How many parameters sit where; a tied output layer counts as the embedding."""

    embedding: int
    """V · d"""
    position: int
    """Tables of the position scheme, all layers together."""
    mixers: int
    """All attention layers."""
    ffns: int
    """All feed-forward layers."""
    norms: int
    """All gains (and biases) of norms, the last one included."""
    head: int
    """V · d, or 0 when tied."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.non_embedding

    @property
    def non_embedding(self) -> int:
        """All but the token embedding."""
        return self.position + self.mixers + self.ffns + self.norms + self.head


def parameters(config: ModelConfig) -> Parameters:
    """Exact counts.

    >>> from llmtutor.model.presets import preset
    >>> parameters(preset("gpt2")).total
    124439808
    """
    d, f, layers, bias = config.d_model, config.d_ff, config.n_layers, int(config.bias)
    branches = 2 if config.ffn in GATED else 1
    norm = d * (1 + bias) if config.norm == "layernorm" else d
    last = int(config.norm_placement == "pre")
    gains = 2 * config.head_dim * config.qk_norm
    position = {
        "learned": config.max_seq_len * d,
        "shaw": layers * (2 * SHAW_DISTANCE + 1) * config.head_dim,
        "t5": T5_BUCKETS * config.n_heads,
    }
    return Parameters(
        embedding=config.vocab_size * d,
        position=position.get(config.position, 0),
        mixers=layers * (2 * (d + config.kv_dim) * d + 2 * bias * (d + config.kv_dim) + gains),
        ffns=layers * ((branches + 1) * d * f + bias * (branches * f + d)),
        norms=(2 * layers + last) * norm,
        head=0 if config.tie_weights else config.vocab_size * d,
    )


def forward_flops(config: ModelConfig, batch: int, seq: int) -> int:
    """Floating-point operations in the matrix products of one forward pass.

    A product with a matrix takes one multiplication and one addition for each of its entries and
    each token. In each layer the scores and the weighted values take 2 · seq · d a token *each*.
    The whole square of scores is counted, as torch's counter does, although a causal kernel can
    leave out nearly half; norms, activations and the softmax are not (they cost time all the
    same, mostly for moving memory).

    Raises:
        ValueError: ``batch`` or ``seq`` below 1, or ``seq`` beyond max_seq_len.
    """
    tokens = _tokens(config, batch, seq)
    d = config.d_model
    matrices = 2 * d * (d + config.kv_dim) + (3 if config.ffn in GATED else 2) * d * config.d_ff
    scores = 2 * seq * d
    if config.position == "shaw":
        scores += (2 * SHAW_DISTANCE + 1) * d
    return 2 * tokens * (config.n_layers * (matrices + scores) + config.vocab_size * d)


def backward_flops(config: ModelConfig, batch: int, seq: int) -> int:
    """Operations of one backward pass: twice the forward pass.

    Each product C = A B gives back two, for the gradients of A and of B. A fused attention kernel
    that computes its scores again does 5 products where 4 are counted here.
    """
    return 2 * forward_flops(config, batch, seq)


def activation_bytes(
    config: ModelConfig, batch: int, seq: int, dtype: torch.dtype = torch.float32
) -> int:
    """Bytes that are alive when a forward pass ends: what the backward pass needs, and the logits.

    Parameters are not counted. Attention is the fused kernel, which keeps queries, keys, values,
    its output and one float32 a query and head, but not the (seq, seq) weights. With a bias on
    the scores (``alibi``, ``t5``, ``shaw``) torch takes another path and keeps these too.

    Raises:
        ValueError: as ``forward_flops``; a dtype that is not float32 or float64 (the norms of half
            precision keep copies that are not counted here).
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    tokens = _tokens(config, batch, seq)
    d, size = config.d_model, dtype.itemsize
    rms = 3 * d + 1  # what comes in, the same divided by its size, what goes out; 1 / size
    norm = 2 * d + 2 if config.norm == "layernorm" else rms  # in, out; mean, 1 / deviation
    heads = 2 * (d + config.kv_dim) + config.n_heads * 4 / size
    if config.qk_norm:
        heads += 2 * (d + config.kv_dim) + config.n_heads + config.kv_dim // config.head_dim
    ffn = SAVED_BY_FFN[config.ffn] * config.d_ff
    last = norm if config.norm_placement == "pre" else d
    a_token = config.n_layers * (2 * norm + heads + ffn) + last + config.vocab_size
    return round(size * tokens * a_token) + config.n_layers * _score_bytes(config, batch, seq, size)


def _score_bytes(config: ModelConfig, batch: int, seq: int, size: int) -> int:
    """What one layer keeps for a bias on the scores."""
    if config.position not in ("alibi", "t5", "shaw"):
        return 0
    kept = size * batch * config.n_heads * seq * seq
    if config.position == "alibi":
        return kept
    kept += (8 + 1) * seq * seq  # which row each score takes (int64), and the mask
    if config.position == "shaw":  # queries, and their products with each row
        rows = 2 * SHAW_DISTANCE + 1
        kept += size * batch * seq * (config.d_model + config.n_heads * rows)
    return kept


def kv_cache_bytes(
    config: ModelConfig, batch: int, seq: int, dtype: torch.dtype = torch.float32
) -> int:
    """Bytes of the keys and values of ``seq`` past tokens: 2 · n_layers · N · d_kv numbers.

    >>> from llmtutor.model.presets import preset
    >>> kv_cache_bytes(preset("gpt2"), 1, 1024, torch.bfloat16) / 2**20  # MiB
    36.0
    """
    return 2 * config.n_layers * _tokens(config, batch, seq) * config.kv_dim * dtype.itemsize


def _tokens(config: ModelConfig, batch: int, seq: int) -> int:
    if batch < 1 or not 1 <= seq <= config.max_seq_len:
        raise ValueError(
            f"need batch >= 1 and 1 <= seq <= max_seq_len = {config.max_seq_len}, "
            f"got batch = {batch}, seq = {seq}"
        )
    return batch * seq
