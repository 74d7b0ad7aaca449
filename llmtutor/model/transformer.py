"""Chapter 09, the transformer: ids in, logits out, and blocks in between."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.layers.basic import Embedding, Linear
from llmtutor.layers.positions import NoPosition, Position
from llmtutor.model.block import Block
from llmtutor.model.caches import Caches
from llmtutor.model.config import ModelConfig
from llmtutor.model.init import INITS
from llmtutor.model.parts import FFNS, MIXERS, NORMS, POSITIONS


class Transformer(nn.Module):
    """A decoder: embedding, ``n_layers`` blocks, a last norm (pre-norm only), logits.

    All its shapes and parts come from ``config``; the weights from torch's global generator, so
    that ``torch.manual_seed`` before building makes it the same again. With ``tie_weights`` the
    embedding and the output layer are one matrix (Press and Wolf 2017). No dropout anywhere.

    >>> config = ModelConfig(
    ...     vocab_size=65, max_seq_len=32, n_layers=2, d_model=16, n_heads=4, d_ff=64
    ... )
    >>> Transformer(config)(torch.zeros(3, 32, dtype=torch.int64)).shape
    torch.Size([3, 32, 65])

    Raises:
        ValueError: ids that are not integers of shape (batch, seq), lie outside the vocabulary,
            or are more than ``max_seq_len`` in a row; ``n_last`` outside 1 … seq.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config.vocab_size, config.d_model)
        part = POSITIONS[config.position]
        scheme = part.build(config)
        self.position: Position = scheme if part.where == "embeddings" else NoPosition()
        self.blocks = nn.ModuleList()
        for _ in range(config.n_layers):
            if part.where == "each attention":
                scheme = part.build(config)
            self.blocks.append(self._block(None if part.where == "embeddings" else scheme))
        # After post-norm blocks the stream is normalised already.
        last = config.norm_placement == "pre"
        self.norm = NORMS[config.norm](config) if last else nn.Identity()
        self.head = Linear(config.d_model, config.vocab_size)
        if config.tie_weights:
            self.embedding.weight = self.head.weight
        INITS[config.init](self.embedding, self.blocks, self.head)

    def _block(self, position: Position | None) -> Block:
        config = self.config
        return Block(
            MIXERS[config.mixer](config, position),
            FFNS[config.ffn](config),
            NORMS[config.norm](config),
            NORMS[config.norm](config),
            config.norm_placement,
        )

    def forward(
        self,
        ids: Int[Tensor, "batch seq"],
        *,
        cache: Caches | None = None,
        n_last: int | None = None,
    ) -> Float[Tensor, "batch n_last vocab"]:
        """Logits of the token after each position: (batch, seq) → (batch, seq, vocab_size).

        With a ``cache`` from ``make_caches``, ``ids`` are the next tokens of each row, one or
        more; the cache then holds them too. Logits of padding mean nothing. With ``n_last`` only
        the last so many positions get logits: who reads a prompt needs those of its end alone.
        """
        if ids.ndim != 2 or 0 in ids.shape:
            raise ValueError(
                f"ids must be (batch, seq) with at least one token, got shape {tuple(ids.shape)}"
                + ("; add a batch axis with ids[None]" if ids.ndim == 1 else "")
            )
        seq = ids.shape[1]
        if seq > self.config.max_seq_len:
            raise ValueError(
                f"a sequence of {seq} tokens is longer than max_seq_len = "
                f"{self.config.max_seq_len}; cut it, or build the model with a larger max_seq_len"
            )
        if n_last is not None and not 1 <= n_last <= seq:
            raise ValueError(f"n_last must lie in 1 … seq = {seq}, got {n_last}")
        x = self.embedding(ids)
        if cache is None:
            x = self.position.embed(x, torch.arange(seq, device=ids.device))
            for block in self.blocks:
                x = block(x)
        else:
            cache.check(len(self.blocks), *ids.shape)
            # One row for each token: positions differ between rows padded on the left.
            positions = cache.positions(seq, ids.device).flatten()
            x = self.position.embed(x.flatten(0, 1), positions).view_as(x)
            for block, layer in zip(self.blocks, cache, strict=True):
                x = block(x, cache=layer)
        if n_last is not None:
            x = x[:, -n_last:]
        return self.head(self.norm(x))

    def make_caches(
        self,
        batch: int,
        max_len: int | None = None,
        starts: Int[Tensor, " batch"] | None = None,
    ) -> Caches:
        """Room for ``batch`` texts of up to ``max_len`` tokens (max_seq_len by default).

        ``starts`` says where each row begins when shorter prompts are padded on the left: the
        place of its first real token. Padding is never looked at, and positions count from there.

        Raises:
            ValueError: sizes below 1, more than max_seq_len; starts outside 0 … max_len − 1.
        """
        max_len = self.config.max_seq_len if max_len is None else max_len
        if not 1 <= max_len <= self.config.max_seq_len:
            raise ValueError(
                f"max_len must lie in 1 … max_seq_len = {self.config.max_seq_len}, got {max_len}"
            )
        mixers: list[Any] = [block.get_submodule("mixer") for block in self.blocks]
        layers = [mixer.make_cache(batch, max_len, starts=starts) for mixer in mixers]
        return Caches(layers, batch, max_len, starts)
