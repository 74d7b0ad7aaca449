"""Chapter 21, generation: drafts that cost next to nothing, since no network is behind them.

A draft need not be good, only cheap: what it proposes wrongly the model puts right. Counts of
training text know which tokens often follow the last two (chapter 03); the text itself knows what
came after these tokens when they stood there before.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_integer
from llmtutor.generate.sampling import Sampler
from llmtutor.model.language_modelling import NGram

KEPT = 2000
"""Contexts whose distribution is kept: 100 MB with a vocabulary of 4,096."""


class NGramDraft:
    """Counts of a corpus: each proposal is drawn from the distribution after the last tokens.

    The last tokens decide, so a distribution is made once and kept (of ``KEPT`` contexts). Hence
    penalties, which look at the whole text, are left to the model: whatever a draft proposes, the
    text follows the model.
    """

    def __init__(self, counts: NGram) -> None:
        self.counts, self.vocab_size = counts, counts.vocab_size
        self._after = lru_cache(KEPT)(self._distribution)

    def propose(
        self,
        ids: Int[Tensor, "one max_len"],
        end: int,
        n: int,
        sampler: Sampler,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "n vocab"]:
        """``n`` tokens, one after the other."""
        q = torch.zeros(n, self.vocab_size, device=ids.device)
        before = max(self.counts.order - 1, 0)
        device = ids.device if generator is None else generator.device
        text = ids[0, max(0, end - before) : end].tolist()
        for i, luck in enumerate(torch.rand(n, generator=generator, device=device).tolist()):
            context = tuple(text[max(0, len(text) - before) :])
            q[i], cumulative = self._after(context, sampler)
            text.append(int(np.searchsorted(cumulative, luck * cumulative[-1], side="right")))
        ids[0, end : end + n] = ids.new_tensor(text[len(text) - n :])
        return q

    def _distribution(
        self, context: tuple[int, ...], sampler: Sampler
    ) -> tuple[Float[Tensor, " vocab"], Float[np.ndarray, " vocab"]]:
        """After a context, and its running sums, in which a number from 0 to 1 finds a token."""
        alone = replace(
            sampler, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0
        )
        probs = torch.from_numpy(self.counts.next_probs(context)).float()
        q = alone.probabilities(probs.log()[None], torch.tensor([context], dtype=torch.int64))[0]
        return q, q.double().cumsum(0).numpy()


class LookupDraft:
    """The text itself: what came behind its last tokens when they stood there before.

    Of its last ``longest`` tokens, or else of fewer, the latest earlier place is taken, and what
    follows there is proposed as if it were certain. Where not even the last token came before,
    there is no proposal. It pays where texts repeat themselves: code, lists, a summary of the
    prompt (Saxena 2023, prompt lookup decoding).
    """

    def __init__(self, vocab_size: int, longest: int = 3) -> None:
        self.vocab_size = check_integer("vocab_size", vocab_size, least=1)
        self.longest = check_integer("longest", longest, least=1)

    def propose(
        self,
        ids: Int[Tensor, "one max_len"],
        end: int,
        n: int,
        sampler: Sampler,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "at_most_n vocab"]:
        """What followed, as far as it is known."""
        text = ids[0, :end].tolist()
        found = ids.new_tensor(follows(text, self.longest)[:n])
        ids[0, end : end + len(found)] = found
        q = torch.zeros(len(found), self.vocab_size, device=ids.device)
        return q.scatter_(1, found[:, None], 1.0)


def follows(text: list[int], longest: int) -> list[int]:
    """All that came behind the last ``longest`` ids, or else fewer, the last time before.

    >>> follows([1, 2, 3, 4, 9, 2, 3], 2)
    [4, 9, 2, 3]
    """
    for n in range(min(longest, len(text) - 1), 0, -1):
        last = text[-n:]
        for start in range(len(text) - n - 1, -1, -1):
            if text[start : start + n] == last:
                return text[start + n :]
    return []
