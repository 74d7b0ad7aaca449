"""Chapter 21, generation: drafts that cost next to nothing, since no network is behind them.

A draft need not be good, only cheap: what it proposes wrongly the model puts right. Counts of
training text know which tokens often follow the last two (chapter 03); the text itself knows what
came after these tokens when they stood there before.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_integer
from llmtutor.generate.sampling import Sampler, draw
from llmtutor.model.language_modelling import NGram


class NGramDraft:
    """Counts of a corpus: each proposal is drawn from the distribution after the last tokens."""

    def __init__(self, counts: NGram) -> None:
        self.counts, self.vocab_size = counts, counts.vocab_size

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
        for i in range(n):
            text = ids[:, : end + i]
            last = text[0, max(0, end + i - before) :].tolist()
            probs = torch.from_numpy(self.counts.next_probs(last)).to(q)
            q[i] = sampler.probabilities(probs.log()[None], text)[0]
            ids[0, end + i] = draw(q[i][None], generator)[0]
        return q


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
