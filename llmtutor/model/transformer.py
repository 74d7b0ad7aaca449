"""Chapter 09, the transformer: ids in, logits out, and blocks in between."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.layers.basic import HEAD, Embedding, Linear, tag
from llmtutor.layers.extras import Extras, joined, named, split_extras
from llmtutor.layers.positions import NoPosition, Position
from llmtutor.model.caches import Caches
from llmtutor.model.config import ModelConfig
from llmtutor.model.init import INITS


class Transformer(nn.Module):
    """A decoder: embedding, blocks, a last norm where the configuration has one, logits.

    All its shapes and parts come from ``config``; the weights from torch's global generator, so
    that ``torch.manual_seed`` before building makes it the same again. With ``tie_weights`` the
    embedding and the output layer are one matrix (Press and Wolf 2017). No dropout anywhere.

    >>> config = ModelConfig.uniform(65, 32, n_layers=2, d_model=16, n_heads=4, d_ff=64)
    >>> Transformer(config)(torch.zeros(3, 32, dtype=torch.int64)).shape
    torch.Size([3, 32, 65])

    Raises:
        ValueError: ids that are not integers of shape (batch, seq), lie outside the vocabulary,
            or are more than ``max_seq_len`` in a row; ``logits_to_keep`` outside 1 … seq.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        site = config.site
        self.embedding = Embedding(config.vocab_size, config.d_model)
        position = NoPosition() if config.position is None else config.position.build(site)
        self.position: Position = position
        self.blocks = nn.ModuleList(
            block.build(site.at(layer)) for layer, block in enumerate(config.blocks)
        )
        self.norm = nn.Identity() if config.norm is None else config.norm.build(config.d_model)
        self.head = tag(Linear(config.d_model, config.vocab_size), HEAD)
        if config.tie_weights:
            self.embedding.weight = self.head.weight
        INITS[config.init](self.embedding, self.blocks, self.head)

    def forward(
        self,
        ids: Int[Tensor, "batch seq"],
        *,
        cache: Caches | None = None,
        logits_to_keep: int | None = None,
        with_extras: bool = False,
    ) -> (
        Float[Tensor, "batch logits_to_keep vocab"]
        | tuple[Float[Tensor, "batch logits_to_keep vocab"], Extras]
    ):
        """Logits of the token after each position: (batch, seq) → (batch, seq, vocab_size).

        With a ``cache`` from ``make_caches``, ``ids`` are the next tokens of each row, one or
        more; the cache then holds them too. Logits of padding mean nothing. With ``logits_to_keep``
        only the last so many positions get logits: who reads a prompt needs those of its end alone.
        ``with_extras`` gives logits and what else the layers return (``layers.extras``).
        """
        self._check(ids, logits_to_keep)
        x = self.embedding(ids)
        if (scale := self.config.embedding_scale) != 1:
            # Rounded to the dtype of x, as in the code published with Gemma.
            x = x * torch.full((), scale, dtype=x.dtype, device=x.device)
        batch, seq = ids.shape
        layers: list[dict[str, Any]] = [{} for _ in self.blocks]
        if cache is None:
            x = self.position.embed(x, torch.arange(seq, device=ids.device))
        else:
            cache.check(len(self.blocks), batch, seq)
            # One row for each token: positions differ between rows padded on the left.
            positions = cache.positions(seq, ids.device).flatten()
            x = self.position.embed(x.flatten(0, 1), positions).view_as(x)
            layers = [{"cache": layer} for layer in cache]
        extras = Extras()
        for i, (block, options) in enumerate(zip(self.blocks, layers, strict=True)):
            x, more = split_extras(block(x, **options))
            extras = joined(extras, named(more, f"blocks.{i}"))
        if logits_to_keep is not None:
            x = x[:, -logits_to_keep:]
        logits = self.head(self.norm(x))
        if (bound := self.config.logit_softcap) is not None:
            logits = bound * (logits / bound).tanh()
        return (logits, extras) if with_extras else logits

    def _check(self, ids: Tensor, logits_to_keep: int | None) -> None:
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
        if logits_to_keep is not None and not 1 <= logits_to_keep <= seq:
            raise ValueError(f"logits_to_keep must lie in 1 … seq = {seq}, got {logits_to_keep}")

    def make_caches(
        self, batch: int, max_len: int | None = None, starts: Int[Tensor, " batch"] | None = None
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
