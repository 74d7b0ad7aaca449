"""Chapter 21, generation: a model as the reader of a growing text, with a cache or without.

Without a cache every new token costs a pass over the whole text; with one, a pass over itself.
The slow way is kept because it is plainly right: the fast one is tested against it.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.generate.sampling import PAD
from llmtutor.layers.basic import Embedding
from llmtutor.model.caches import Caches
from llmtutor.model.config import ModelConfig


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
        self, ids: Int[Tensor, "batch seq"], *, cache: Caches | None = None, n_last: int | None
    ) -> Float[Tensor, "batch n_last vocab"]:
        """Logits of the token after each of the last ``n_last`` positions, None: after all."""


class Reader:
    """Logits at the end of texts that grow: call it with all of the text, it reads what is new.

    Texts are rows of ids, padded on the left with ``PAD``. Between two calls the end of a text may
    be replaced (a draft that was refused): what a call asks logits for is always read afresh, and
    all before it must be what it was.
    """

    def __init__(
        self, model: Model, ids: Int[Tensor, "batch seq"], max_len: int, *, use_cache: bool
    ) -> None:
        self.model = model
        self.starts = (ids == PAD).sum(1)
        self.caches = None
        if use_cache:
            self.caches = model.make_caches(len(ids), max_len, self.starts)

    def __call__(self, ids: Int[Tensor, "batch seq"], n: int = 1) -> Float[Tensor, "batch n vocab"]:
        """Logits of what comes after each of the last ``n`` ids."""
        if self.caches is None:
            # Each row by itself from its first token, as if there were no batch.
            rows = [row[start:][None] for row, start in zip(ids, self.starts, strict=True)]
            return torch.cat([self.model(row, n_last=n) for row in rows])
        known = min(self.caches.length, ids.shape[1] - n)
        self.caches.rewind(known)
        # Whatever stands in for the padding: the cache hides it.
        return self.model(ids[:, known:].clamp(min=0), cache=self.caches, n_last=n)


def prompt_ids(
    model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> Int[Tensor, "batch seq"]:
    """The prompts on the model's device, padded on the left with ``PAD`` to the longest.

    Raises:
        ValueError: no prompt or an empty one; ids that are none of the model's; not one new token
            asked for; a prompt that, with the new tokens, is longer than the model's context.
    """
    context, vocab_size = model.config.max_seq_len, model.config.vocab_size
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if not prompts or any(isinstance(prompt, int | str) for prompt in prompts):
        raise ValueError(f"prompts must be one list of ids for each row, got {prompts!r:.60}")
    for i, prompt in enumerate(prompts):
        which = f"prompt {i}" if len(prompts) > 1 else "the prompt"
        if not len(prompt):
            raise ValueError(
                f"{which} is empty: the model needs at least one token to go on from, such as "
                "the token that separates documents"
            )
        if wrong := [id for id in prompt if not 0 <= id < vocab_size]:
            raise ValueError(
                f"{which} holds the id {wrong[0]}, but the model's are 0 … {vocab_size - 1}: was "
                "it encoded with another tokenizer?"
            )
        if len(prompt) > context:
            raise ValueError(
                f"{which} has {len(prompt)} tokens, more than the model's context of {context}; "
                "keep its last part"
            )
        if len(prompt) + max_new_tokens > context:
            raise ValueError(
                f"{which} of {len(prompt)} tokens and {max_new_tokens} new ones are longer than "
                f"the model's context of {context}; ask for at most {context - len(prompt)}, or "
                "keep the last part of the prompt"
            )
    longest = max(map(len, prompts))
    rows = [[PAD] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    return torch.tensor(rows, device=model.embedding.weight.device)
