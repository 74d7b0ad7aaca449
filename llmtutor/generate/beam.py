"""Chapter 21, generation: beam search, which looks for the likeliest text and not for a likely one.

The likeliest next token may lead into a poor text. So the best few beginnings are kept, each is
continued by every token, and the best few of all these are kept again.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from llmtutor.checks import check_integer, check_number
from llmtutor.generate.reader import Model, Row, prompt_ids
from llmtutor.generate.sampling import check_distribution
from llmtutor.generate.stopping import Stop, ends


@dataclass(frozen=True)
class Beam:
    """A text that beam search has found."""

    ids: list[int]
    """The new ids, with the one that ended it."""
    log_prob: float
    """Of all of them after the prompt, in nats."""
    score: float
    """``log_prob / len(ids) ** length_penalty``."""


@torch.inference_mode()
def beam_search(
    model: Model,
    prompt: Row,
    *,
    max_new_tokens: int,
    n_beams: int,
    length_penalty: float = 1.0,
    stop: Stop = (),
    n_ids: int | None = None,
) -> list[Beam]:
    """Up to ``n_beams`` texts, the best score first.

    Every token makes a text less likely, so that by its probability alone a short text wins. Its
    log-probability is therefore divided by its length to the power of ``length_penalty``: 0 leaves
    it, 1 makes it a mean per token, more favours long texts (Wu et al. 2016, in the form that
    other libraries use). Only finished texts are compared by it: those that ``stop`` ends, and
    those of ``max_new_tokens``. Beginnings of equal length need none.

    The search ends when no beginning can become better than the finished texts. With one beam and
    no ``stop`` it is greedy decoding. Beams change places from token to token and a cache does not
    follow them, so each token costs a pass over the whole texts.

    Raises:
        ValueError: ``n_beams`` below 1, a ``length_penalty`` that is no number, what
            ``generate`` refuses.
    """
    n_beams = check_integer("n_beams", n_beams, least=1)
    check_number("length_penalty", length_penalty)
    ids = prompt_ids(model, [prompt], max_new_tokens, n_ids)
    has_ended = ends(stop)
    finished: list[Beam] = []
    live = [Beam([], 0.0, 0.0)]
    for length in range(1, max_new_tokens + 1):
        new = ids.new_tensor([beam.ids for beam in live])
        texts = torch.cat([ids.expand(len(live), -1), new], dim=1) if length > 1 else ids
        logits = model(texts, logits_to_keep=1)[:, -1, :n_ids]
        totals, live, before = _totals(logits, live), [], live
        order = totals.flatten().argsort(descending=True, stable=True)
        for rank, place in enumerate(order):
            if len(live) == n_beams or (length == max_new_tokens and rank == n_beams):
                break
            row, id = divmod(int(place), totals.shape[1])
            log_prob = float(totals[row, id])
            longer = [*before[row].ids, id]
            beam = Beam(longer, log_prob, log_prob / length**length_penalty)
            if not has_ended(longer) and length < max_new_tokens:
                live.append(beam)
            elif rank < n_beams:  # further down it is only read on for those that live
                finished.append(beam)
        finished = sorted(finished, key=lambda beam: -beam.score)[:n_beams]
        if not live or _cannot_win(live[0], finished, n_beams, max_new_tokens, length_penalty):
            break
    return finished


def _totals(logits: Tensor, live: list[Beam]) -> Float[Tensor, "beams vocab"]:
    """Log-probability of each beginning with each token behind it."""
    check_distribution(logits.amax(-1).isfinite())
    so_far = torch.tensor([[beam.log_prob] for beam in live], dtype=torch.float64)
    return so_far + logits.double().log_softmax(-1).cpu()


def _cannot_win(
    best: Beam, finished: list[Beam], n_beams: int, longest: int, length_penalty: float
) -> bool:
    """Whether the best beginning, were all its next tokens certain, stays behind all finished."""
    if len(finished) < n_beams:
        return False
    length = longest if length_penalty > 0 else len(best.ids)
    worst = min((beam.score for beam in finished), default=-math.inf)
    return best.log_prob / length**length_penalty <= worst
