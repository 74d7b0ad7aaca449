"""Chapter 21, generation: somebody guesses ahead, the model checks all guesses at once.

Reading several tokens costs a model about as much time as reading one, because the time goes into
fetching its weights. So a draft proposes a few tokens, and the model accepts or rejects them by a
rule after which the text has exactly the distribution of its own (Leviathan et al. 2023).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_integer
from llmtutor.generate.drafts import Draft, HeadDraft, ModelDraft
from llmtutor.generate.reader import Model, Reader, Row, prompt_ids
from llmtutor.generate.sampling import PAD, Sampler, draw
from llmtutor.generate.stopping import Stop, ends
from llmtutor.model.multi_token import MultiToken


@dataclass(frozen=True)
class Speculation:
    """A text and what it took."""

    ids: list[int]
    """The new ids."""
    n_rounds: int
    """Passes of the large model; plain decoding takes one a token."""
    n_accepted: int
    """Proposals that were accepted."""
    n_rejected: int
    """Proposals that were rejected, one a round at most: those after it are never looked at."""


def accept(
    p: Float[Tensor, "batch n_plus_1 vocab"],
    q: Float[Tensor, "batch n vocab"],
    proposed: Int[Tensor, "batch n"],
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "batch"], Int[Tensor, "batch"]]:
    """How many proposals of each row are accepted, and the id that comes after them.

    ``proposed`` was drawn from ``q``; ``p`` is what the text should follow, one position further.
    A proposal x is accepted with probability min(1, p(x) / q(x)). After the first rejected one, the
    next id is drawn from what ``q`` gave too little, max(0, p − q); after n accepted, from the last
    ``p``. Either way each id is distributed as ``p`` (Leviathan et al. 2023, appendix A.1).

    >>> p = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    >>> accept(p, torch.tensor([[[1.0, 0.0]]]), torch.tensor([[0]]))
    (tensor([0]), tensor([1]))
    """
    n = proposed.shape[1]
    device = p.device if generator is None else generator.device
    luck = torch.rand(proposed.shape, generator=generator, device=device).to(p.device)
    chosen = proposed[..., None]
    accepted = luck * q.gather(-1, chosen)[..., 0] < p[:, :n].gather(-1, chosen)[..., 0]
    n_accepted = accepted.cumprod(1).sum(1)
    here = torch.arange(len(p), device=p.device), n_accepted
    # Where all are accepted nothing was proposed after them: q is 0 there, and p − q is p.
    lacking = (p - torch.cat([q, torch.zeros_like(p[:, :1])], dim=1)).clamp(min=0)[here]
    # Rounding can reject a proposal of q = p; then nothing is lacking.
    lacking = torch.where(lacking.sum(-1, keepdim=True) > 0, lacking, p[here])
    return n_accepted, draw(lacking, generator)


@torch.inference_mode()
def speculative(
    model: Model,
    draft: Model | MultiToken | Draft,
    prompt: Row,
    *,
    max_new_tokens: int,
    sampler: Sampler,
    n_draft: int = 4,
    n_ids: int | None = None,
    stop: Stop = (),
    generator: torch.Generator | None = None,
    on_token: Callable[[int], None] | None = None,
    use_cache: bool = True,
) -> Speculation:
    """One text from ``model``, with ``n_draft`` tokens of ``draft`` proposed a round.

    ``draft`` is a smaller model, or ``model`` itself with its second head, a ``MultiToken``, which
    proposes one token whatever ``n_draft`` is, or what needs no network: an ``NGramDraft``, a
    ``LookupDraft``.

    Distributed as the text of ``generate``, though other draws make it; decoded greedily it is the
    same text, ties in the last bit aside. The sampler's knobs are applied to both (its
    penalties not to an ``NGramDraft``). The text
    ends as with ``generate``; ``on_token(id)`` is called for each.
    ``n_ids`` is the tokenizer's ``vocab_size``, needed where a vocabulary is padded.

    Raises:
        ValueError: models of different vocabularies and no ``n_ids``, the second head of another
            model, ``n_draft`` below 1, and what ``generate`` refuses, for either model.
    """
    n_draft = check_integer("n_draft", n_draft, least=1)
    ids = prompt_ids(model, [prompt], max_new_tokens, n_ids)
    end = ids.shape[1]
    last = end + max_new_tokens
    options: dict[str, Any] = {"use_cache": use_cache, "n_ids": n_ids}
    guess: Draft
    if isinstance(draft, MultiToken):
        model = guess = HeadDraft(_of(draft, model), last, **options)
    elif isinstance(draft, Model):
        if n_ids is None:
            _check_one_tokenizer(draft.config.vocab_size, model.config.vocab_size)
        prompt_ids(draft, [prompt], max_new_tokens, n_ids)
        guess = ModelDraft(Reader(draft, ids, last, n_snapshots=n_draft, **options))
    else:
        _check_one_tokenizer(draft.vocab_size, n_ids or model.config.vocab_size)
        guess = draft
    read = Reader(model, ids, last, n_snapshots=n_draft, **options)
    ids = torch.cat([ids, ids.new_zeros(1, max_new_tokens)], dim=1)
    new: list[int] = []
    has_ended = ends(stop)
    n_rounds = n_accepted = n_rejected = 0
    while end < last and not (new and has_ended(new)):
        most = min(n_draft, last - end - 1)  # the round adds one token of the model's own
        q = guess.propose(ids, end, most, sampler, generator)
        n = len(q)
        p = sampler.probabilities(read(ids[:, : end + n], n + 1)[0], _histories(ids, end, n + 1))
        stand, after = accept(p[None], q[None], ids[:, end : end + n], generator)
        k = int(stand)
        ids[0, end + k] = after[0]
        n_rounds, n_accepted, n_rejected = n_rounds + 1, n_accepted + k, n_rejected + (k < n)
        for id in ids[0, end : end + k + 1].tolist():
            new.append(id)
            if on_token is not None:
                on_token(id)
            if has_ended(new):
                break
        end += k + 1
    return Speculation(new, n_rounds, n_accepted, n_rejected)


def _check_one_tokenizer(draft_size: int, size: int) -> None:
    if draft_size != size:
        raise ValueError(
            f"the draft has {draft_size} tokens and the model {size}: both must come from one "
            "tokenizer (if they do and one is padded, say how many ids the tokenizer has with "
            "n_ids)"
        )


def _of(draft: MultiToken, model: Model) -> MultiToken:
    """``draft``, if it has a head on ``model``."""
    if model is not draft and model is not draft.model:
        raise ValueError(
            "a second head goes on from the hidden states of its own model: give that one, "
            "speculative(multi.model, multi, …)"
        )
    return draft


def _histories(ids: Int[Tensor, "one max_len"], end: int, n: int) -> Int[Tensor, "n seq"]:
    """The text before each of the ``n`` positions from ``end`` on, padded behind with ``PAD``.

    >>> _histories(torch.tensor([[5, 6, 7, 0]]), 2, 2)
    tensor([[ 5,  6, -1],
            [ 5,  6,  7]])
    """
    length = end + n - 1
    position = torch.arange(length, device=ids.device)
    limits = torch.arange(end, end + n, device=ids.device)[:, None]
    return torch.where(position < limits, ids[:, :length], PAD)
