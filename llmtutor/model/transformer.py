"""Chapter 09, the transformer: ids in, logits out, and blocks in between."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.layers.basic import Embedding, Linear
from llmtutor.layers.positions import NoPosition, Position
from llmtutor.model.block import Block
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
            or are more than ``max_seq_len`` in a row.
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

    def forward(self, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        """Logits of the token after each position: (batch, seq) → (batch, seq, vocab_size)."""
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
        x = self.embedding(ids)
        x = self.position.embed(x, torch.arange(seq, device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
