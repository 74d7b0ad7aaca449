"""Chapter 21, generation: a model as the reader of a growing text, with a cache or without.

Without a cache every new token costs a pass over the whole text; with one, a pass over itself.
The slow way is kept because it is plainly right: the fast one is tested against it.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_integer
from llmtutor.generate.sampling import PAD
from llmtutor.layers.basic import Embedding
from llmtutor.model.caches import Caches
from llmtutor.model.config import ModelConfig

Row = Sequence[int] | Tensor | np.ndarray
Prompts = Sequence[Row] | Tensor | np.ndarray
"""Ids of one prompt a row: lists, arrays, or all of them as one array (batch, seq)."""


@runtime_checkable
class Model(Protocol):
    """What can read a text: a ``Transformer``, or one compiled for it."""

    @property
    def config(self) -> ModelConfig:
        """Its context and vocabulary."""

    @property
    def embedding(self) -> Embedding:
        """Its first layer, which stands on the device where the ids go."""

    def make_caches(
        self, batch: int, max_len: int | None, starts: Int[Tensor, " batch"] | None
    ) -> Caches:
        """Room for the keys and values of the texts."""

    def __call__(
        self,
        ids: Int[Tensor, "batch seq"],
        *,
        cache: Caches | None = None,
        logits_to_keep: int | None,
    ) -> Float[Tensor, "batch logits_to_keep vocab"]:
        """Logits of the token after each of the last ``logits_to_keep`` positions; None: of all."""


class Reader:
    """Logits at the end of texts that grow: call it with all of the text, it reads what is new.

    Texts are rows of ids, padded on the left with ``PAD``. Between two calls the end of a text may
    be replaced (a draft that was refused): what a call asks logits for is always read afresh, and
    all before it must be what it was. ``n_ids`` is how many of the model's ids get logits.

    Where the caches cannot go back by forgetting the last tokens (a recurrent state), the Reader
    keeps snapshots of them, the last ``n_snapshots``; a text that went back behind all of these is
    read again from its beginning.
    """

    def __init__(
        self,
        model: Model,
        ids: Int[Tensor, "batch seq"],
        max_len: int,
        *,
        use_cache: bool,
        n_ids: int | None = None,
        n_snapshots: int = 0,
    ) -> None:
        self.model = model
        self.starts = (ids == PAD).sum(1)
        self.n_ids = n_ids
        self.caches = model.make_caches(len(ids), max_len, self.starts) if use_cache else None
        self.snapshots: deque[tuple[int, Any]] = deque(maxlen=n_snapshots)

    def __call__(self, ids: Int[Tensor, "batch seq"], n: int = 1) -> Float[Tensor, "batch n vocab"]:
        """Logits of what comes after each of the last ``n`` ids."""
        if self.caches is None:
            # Each row by itself from its first token, as if there were no batch.
            rows = [row[start:][None] for row, start in zip(ids, self.starts, strict=True)]
            return torch.cat([self.model(row, logits_to_keep=n) for row in rows])[..., : self.n_ids]
        same = ids.shape[1] - n  # so many ids will be the same at the next call
        self._go_back(self.caches, min(self.caches.length, same))
        if self.snapshots.maxlen and not self.caches.always_crops:
            if self.caches.length < same:
                self._read_on(self.caches, ids[:, :same], 1)
            if same not in [length for length, _ in self.snapshots]:
                self.snapshots.append((same, self.caches.snapshot()))
        return self._read_on(self.caches, ids, n)[..., : self.n_ids]

    def _go_back(self, caches: Caches, length: int) -> None:
        """To ``length``, or to a snapshot before it."""
        while self.snapshots and self.snapshots[-1][0] > length:
            self.snapshots.pop()
        if caches.can_crop(length):
            caches.crop(length)
        elif self.snapshots:
            caches.restore(self.snapshots[-1][1])
        else:
            caches.reset()

    def _read_on(self, caches: Caches, ids: Tensor, n: int) -> Tensor:
        # Whatever stands in for the padding: the cache hides it.
        return self.model(ids[:, caches.length :].clamp(min=0), cache=caches, logits_to_keep=n)


def prompt_ids(
    model: Model, prompts: Prompts, max_new_tokens: int, n_ids: int | None = None
) -> Int[Tensor, "batch seq"]:
    """The prompts on the model's device, padded on the left with ``PAD`` to the longest.

    Raises:
        ValueError: no prompt or an empty one; ids that are not whole numbers, or none of the first
            ``n_ids`` of the model's; not one new token asked for; a prompt that, with the new
            tokens, is longer than the model's context.
    """
    context, vocab_size = model.config.max_seq_len, model.config.vocab_size
    max_new_tokens = check_integer("max_new_tokens", max_new_tokens, least=1)
    if n_ids is not None and check_integer("n_ids", n_ids, least=1) > vocab_size:
        raise ValueError(
            f"n_ids is {n_ids}, but the model's vocabulary is {vocab_size}: it was trained with "
            "another tokenizer"
        )
    vocab_size = n_ids or vocab_size
    rows = _plain(prompts)
    if not rows or not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ValueError(
            f"prompts must be one list of ids for each row, got {prompts!r:.60}; one prompt alone "
            "is [prompt]"
        )
    for i, prompt in enumerate(rows):
        which = f"prompt {i}" if len(rows) > 1 else "the prompt"
        if not prompt:
            raise ValueError(
                f"{which} is empty: the model needs at least one token to go on from, such as "
                "the token that separates documents"
            )
        for id in prompt:
            if not 0 <= check_integer(f"an id of {which}", id) < vocab_size:
                raise ValueError(
                    f"{which} holds the id {id}, but the model's are 0 … {vocab_size - 1}: was it "
                    "encoded with another tokenizer?"
                )
        if (room := context - len(prompt)) < max_new_tokens:
            raise ValueError(
                f"{which} of {len(prompt)} tokens and {max_new_tokens} new ones are longer than "
                f"the model's context of {context}; keep its last part"
                + (f", or ask for at most {room}" if room > 0 else "")
            )
    longest = max(map(len, rows))
    padded = [[PAD] * (longest - len(row)) + row for row in rows]
    return torch.tensor(padded, device=model.embedding.weight.device)


def _plain(values: Any) -> Any:
    """Arrays and sequences as lists, at every depth; anything else as it is."""
    if isinstance(values, Tensor | np.ndarray):
        return values.tolist()
    if isinstance(values, str) or not isinstance(values, Sequence):
        return values
    return [_plain(value) for value in values]
