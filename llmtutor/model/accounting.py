"""Chapter 09, the transformer: what a model costs, by arithmetic on its configuration alone.

Each part declares its own costs; here they are added up, with the embedding and the logits around
them. Each number is measured in the tests: parameters against the built model, FLOPs against
torch's counter, activations against the memory that a pass took.
"""

from dataclasses import dataclass, replace

import torch

from llmtutor.layers.part import Costs, Load
from llmtutor.model.config import ModelConfig


@dataclass(frozen=True)
class Parameters:
    """How many parameters sit where; a tied output layer counts as the embedding."""

    embedding: int
    """vocab_size · d_model"""
    position: int
    """Tables of the position schemes, all layers together."""
    mixers: int
    """All mixers, such as attention."""
    ffns: int
    """All feed-forward layers."""
    norms: int
    """All gains (and biases) of norms outside of the parts, the last one included."""
    head: int
    """vocab_size · d_model, or 0 when tied."""
    idle: int = 0
    """Those that one token does not use, such as experts that it is not sent to."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.non_embedding

    @property
    def non_embedding(self) -> int:
        """All but the token embedding."""
        return self.position + self.mixers + self.ffns + self.norms + self.head

    @property
    def active(self) -> int:
        """All that one token uses, the embedding counted whole."""
        return self.total - self.idle


def parameters(config: ModelConfig) -> Parameters:
    """Exact counts.

    >>> from llmtutor.model.presets import preset
    >>> parameters(preset("gpt2")).total
    124439808
    """
    load = Load(batch=1, seq=1)
    sites = [(block, config.site.at(i)) for i, block in enumerate(config.blocks)]
    mixers = sum((block.mixer.costs(site, load) for block, site in sites), Costs())
    ffns = sum((block.ffn.costs(site, load) for block, site in sites), Costs())
    norms = sum((block.norm_costs(site, load) for block, site in sites), _last_norm(config, load))
    # Layers that share a table name it alike.
    tables = dict(block.mixer.position_table(site) for block, site in sites)
    below = 0 if config.position is None else config.position.table(config.site)
    return Parameters(
        embedding=config.vocab_size * config.d_model,
        position=below + sum(tables.values()),
        mixers=mixers.parameters,
        ffns=ffns.parameters,
        norms=norms.parameters,
        head=0 if config.tie_weights else config.vocab_size * config.d_model,
        idle=mixers.parameters + ffns.parameters - mixers.active - ffns.active,
    )


def token_flops(config: ModelConfig, seq: int) -> int:
    """Floating-point operations in the matrix products for one token that comes after seq − 1.

    A product with a matrix takes one multiplication and one addition for each of its entries. In
    each attention layer the scores and the weighted values take 2 · n_heads · head_dim for each
    token looked at *each*. Norms, activations and the softmax are not counted (they cost time all
    the same, mostly for moving memory).

    Raises:
        ValueError: ``seq`` below 1 or beyond max_seq_len.
    """
    return _stack(config, _load(config, 1, seq)).flops + 2 * config.vocab_size * config.d_model


def forward_flops(config: ModelConfig, batch: int, seq: int) -> int:
    """Operations of one forward pass over ``batch`` texts: those of the last token, for all.

    So the whole square of scores is counted, as torch's counter does, although a causal kernel can
    leave out nearly half. Behind a sliding window it is the band that the window lets through.
    Latent attention reads a whole text another way than one more token.

    Raises:
        ValueError: ``batch`` or ``seq`` below 1, or ``seq`` beyond max_seq_len.
    """
    load = replace(_load(config, batch, seq), at_once=True)
    return batch * seq * (_stack(config, load).flops + 2 * config.vocab_size * config.d_model)


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
    load = _load(config, batch, seq, dtype.itemsize)
    last = _last_norm(config, load).activation_bytes or config.d_model * load.tokens_bytes
    logits = (1 if config.logit_softcap is None else 2) * config.vocab_size * load.tokens_bytes
    return _stack(config, load).activation_bytes + last + logits


def training_bytes(config: ModelConfig, batch: int, seq: int) -> dict[str, int]:
    """What memory holds when the forward pass of a step ends, with AdamW in float32.

    A number for each parameter, one for its gradient and two for its moments, and
    ``activation_bytes``.

    >>> from llmtutor.model.presets import preset
    >>> sizes = training_bytes(preset("gpt2"), 1, 1024)
    >>> sizes["weights"] // 4, sizes["optimizer state"] // sizes["gradients"]
    (124439808, 2)
    """
    weights = 4 * parameters(config).total
    return {
        "weights": weights,
        "gradients": weights,
        "optimizer state": 2 * weights,
        "activations": activation_bytes(config, batch, seq),
    }


def cache_bytes(
    config: ModelConfig, batch: int, seq: int, dtype: torch.dtype = torch.float32
) -> int:
    """Bytes that decoding keeps of ``batch`` texts of ``seq`` tokens, in all layers.

    Of attention these are keys and values, 2 · n_kv_heads · head_dim numbers for each token; behind
    a sliding window those of its last tokens.

    >>> from llmtutor.model.presets import preset
    >>> cache_bytes(preset("gpt2"), 1, 1024, torch.bfloat16) / 2**20  # MiB
    36.0
    """
    return _stack(config, _load(config, batch, seq, dtype.itemsize)).cache_bytes


def _stack(config: ModelConfig, load: Load) -> Costs:
    """All blocks."""
    return sum(
        (block.costs(config.site.at(i), load) for i, block in enumerate(config.blocks)), Costs()
    )


def _last_norm(config: ModelConfig, load: Load) -> Costs:
    if config.norm is None:
        return Costs()
    return config.norm.costs(config.d_model, load.tokens_bytes)


def _load(config: ModelConfig, batch: int, seq: int, itemsize: int = 4) -> Load:
    if batch < 1 or not 1 <= seq <= config.max_seq_len:
        raise ValueError(
            f"need batch >= 1 and 1 <= seq <= max_seq_len = {config.max_seq_len}, "
            f"got batch = {batch}, seq = {seq}"
        )
    return Load(batch, seq, itemsize)
