"""Chapter 21, generation: who guesses ahead, and from what.

A draft is a smaller model that reads the text by itself, or a second head of the very model whose
text it is: that one reads nothing, it goes on from the hidden states of the model's last pass.
Those that need no network are in ``free_drafts``.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.generate.reader import Reader
from llmtutor.generate.sampling import Sampler, draw
from llmtutor.layers.basic import Embedding
from llmtutor.model.caches import Caches
from llmtutor.model.config import ModelConfig
from llmtutor.model.multi_token import MultiToken


@runtime_checkable
class Draft(Protocol):
    """What proposes tokens for one text."""

    vocab_size: int
    """How many ids it gives probabilities of."""

    def propose(
        self,
        ids: Int[Tensor, "one max_len"],
        end: int,
        n: int,
        sampler: Sampler,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "at_most_n vocab"]:
        """Write proposals into ``ids`` from ``end`` on; returns what each was drawn from.

        ``n`` at most. All ids before ``end`` are settled: they belong to the text.
        """


class ModelDraft:
    """Another model, which reads the text and its own proposals."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.vocab_size = reader.n_ids or reader.model.config.vocab_size

    def propose(
        self,
        ids: Int[Tensor, "one max_len"],
        end: int,
        n: int,
        sampler: Sampler,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "n vocab"]:
        """``n`` tokens, one after the other."""
        guess = self.reader
        q = torch.zeros(n, self.vocab_size, device=ids.device)
        for i in range(n):
            text = ids[:, : end + i]
            q[i] = sampler.probabilities(guess(text)[:, -1], text)[0]
            ids[0, end + i] = draw(q[i][None], generator)[0]
        return q


class HeadDraft:
    """The second head of a model: one token, from what the model's last pass left behind.

    It stands in for the model (``reader.Model``) while the text is read, and keeps the hidden state
    of each position. A proposal for place t then takes the state of t − 2 and the id at t − 1. Both
    are settled, so its cache never goes back. Before the model's first pass there is no state, and
    no proposal.
    """

    def __init__(
        self, multi: MultiToken, max_len: int, *, use_cache: bool, n_ids: int | None = None
    ) -> None:
        self.multi, self.n_ids = multi, n_ids
        self.vocab_size = n_ids or multi.config.vocab_size
        width, like = multi.config.d_model, multi.embedding.weight
        self.hidden = like.new_zeros(1, max_len, width)
        self.n_hidden = 0
        mixer = multi.second.block.get_submodule("mixer")
        self.cache = mixer.make_cache(1, max_len) if use_cache else None  # type: ignore[operator]

    @property
    def config(self) -> ModelConfig:
        """The model's."""
        return self.multi.config

    @property
    def embedding(self) -> Embedding:
        """The model's."""
        return self.multi.embedding

    def make_caches(
        self, batch: int, max_len: int | None, starts: Int[Tensor, " batch"] | None
    ) -> Caches:
        """The model's."""
        return self.multi.make_caches(batch, max_len, starts)

    def __call__(
        self,
        ids: Int[Tensor, "batch seq"],
        *,
        cache: Caches | None = None,
        logits_to_keep: int | None,
    ) -> Float[Tensor, "batch logits_to_keep vocab"]:
        """The model's logits; the hidden states are kept at their places in the text."""
        start = 0 if cache is None else cache.length
        logits, hidden, _ = self.multi.read(ids, cache=cache, logits_to_keep=logits_to_keep)
        self.n_hidden = start + ids.shape[1]
        self.hidden[:, start : self.n_hidden] = hidden
        return logits

    def propose(
        self,
        ids: Int[Tensor, "one max_len"],
        end: int,
        n: int,
        sampler: Sampler,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "at_most_one vocab"]:
        """One token, however many are asked for."""
        if n == 0 or self.n_hidden == 0:
            return torch.zeros(0, self.vocab_size, device=ids.device)
        start = 0 if self.cache is None else self.cache.length
        pairs = self.hidden[:, start : end - 1], ids[:, start + 1 : end]
        logits, _ = self.multi.ahead(*pairs, cache=self.cache)
        q = sampler.probabilities(logits[:, -1, : self.n_ids], ids[:, :end])
        ids[0, end] = draw(q, generator)[0]
        return q
