"""Chapter 21, generation: from the logits of the next token to one token, by every usual knob.

Each filter is a pure function from logits to logits, (batch, vocab) → (batch, vocab); a token that
it rules out gets −inf. Logits of less than float32 become float32 first: a sum of 32,000
probabilities of 8 bits each is far from 1. ``Sampler`` holds the settings and applies the filters
in the order that other libraries use, so that the same numbers mean the same there: repetition
penalty, presence and frequency penalty, temperature, top-k, top-p, min-p.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llmtutor.checks import check_integer, check_number
from llmtutor.layers.basic import softmax

PAD = -1
"""Stands where a shorter row of a batch has no token; never given to a model."""
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "temperature": (lambda t: t > 0, "be above 0, got {}; for the likeliest token decode greedily"),
    "top_p": (lambda p: 0 < p <= 1, "lie in (0, 1], got {}; 1 keeps everything"),
    "min_p": (lambda p: 0 <= p <= 1, "lie in [0, 1], got {}; 0 keeps everything"),
    "repetition_penalty": (  # beyond, a product could overflow
        lambda penalty: 1e-6 <= penalty <= 1e6,
        "lie in 1e-6 … 1e6, got {}; 1 changes nothing",
    ),
    "presence_penalty": (lambda x: -2 <= x <= 2, "lie in -2 … 2, got {}; 0 changes nothing"),
    "frequency_penalty": (lambda x: -2 <= x <= 2, "lie in -2 … 2, got {}; 0 changes nothing"),
}
"""What each knob may be, and what it must."""


def _check(knob: str, value: float) -> float:
    inside, words = RANGES[knob]
    if not inside(check_number(knob, value)):
        raise ValueError(f"{knob} must {words.format(value)}")
    return value


def temperature(logits: Float[Tensor, "batch vocab"], value: float) -> Float[Tensor, "batch vocab"]:
    """Logits divided by ``value``: below 1 the likely gain, above 1 the unlikely do.

    Raises:
        ValueError: a temperature that is not above 0.
    """
    logits = _at_least_float32(logits)
    if _check("temperature", value) < 1e-20:
        # The largest would overflow. Only differences matter, and from itself it differs by 0.
        logits = logits - logits.amax(-1, keepdim=True)
    return logits / _representable(value, logits.dtype)


def top_k(logits: Float[Tensor, "batch vocab"], k: int) -> Float[Tensor, "batch vocab"]:
    """Keep the ``k`` largest logits, and all that equal the last of them (Fan et al. 2018).

    A ``k`` above the vocabulary keeps everything.

    >>> top_k(torch.tensor([[3.0, 1.0, 2.0]]), 2)
    tensor([[3., -inf, 2.]])

    Raises:
        ValueError: ``k`` below 1.
    """
    k = min(check_integer("top_k", k, least=1), logits.shape[-1])
    logits = _at_least_float32(logits)
    smallest = logits.topk(k).values[:, -1:]
    return logits.masked_fill(logits < smallest, -math.inf)


def top_p(logits: Float[Tensor, "batch vocab"], p: float) -> Float[Tensor, "batch vocab"]:
    """Keep the nucleus: the fewest likely tokens with probability ``p`` or more together.

    Going from the likeliest down, a token stays if those before it hold less than ``p`` (Holtzman
    et al. 2020), so the likeliest always stays. Of equal tokens at the edge some may go.

    >>> top_p(torch.tensor([[0.5, 0.2, 0.3]]).log(), 0.6).isfinite()
    tensor([[ True, False,  True]])

    Raises:
        ValueError: ``p`` outside (0, 1].
    """
    logits = _at_least_float32(logits)
    if _check("top_p", p) == 1:
        return logits
    p = _representable(p, logits.dtype)
    ordered, order = logits.sort(descending=True, stable=True)
    probs = softmax(ordered)
    before = probs.cumsum(-1) - probs
    outside = (before >= p).scatter(1, order, before >= p)
    return logits.masked_fill(outside, -math.inf)


def min_p(logits: Float[Tensor, "batch vocab"], p: float) -> Float[Tensor, "batch vocab"]:
    """Keep tokens at least ``p`` times as likely as the likeliest (Nguyen et al. 2025).

    The threshold moves with the model's confidence. A ratio of probabilities is a difference of
    logits, so no softmax is needed.

    >>> min_p(torch.tensor([[0.5, 0.1, 0.4]]).log(), 0.3).isfinite()
    tensor([[ True, False,  True]])

    Raises:
        ValueError: ``p`` outside [0, 1].
    """
    logits = _at_least_float32(logits)
    if _check("min_p", p) == 0:
        return logits
    floor = logits.amax(-1, keepdim=True) + math.log(p)
    return logits.masked_fill(logits < floor, -math.inf)


def repetition_penalty(
    logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch seq"], penalty: float
) -> Float[Tensor, "batch vocab"]:
    """Make the tokens in ``ids`` less likely: divide a positive logit, multiply a negative one.

    However often a token came, it pays once (Keskar et al. 2019); ``PAD`` is no token. A penalty
    between 0 and 1 is a reward. Unlike every other knob, this one depends on where the logits'
    zero lies.

    >>> repetition_penalty(torch.tensor([[2.0, 2.0, -2.0]]), torch.tensor([[0, 2, PAD]]), 2.0)
    tensor([[ 1.,  2., -4.]])

    Raises:
        ValueError: a penalty outside 1e-6 … 1e6.
    """
    _check("repetition_penalty", penalty)
    logits = _at_least_float32(logits)
    paid = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(_counts(ids, logits) > 0, paid, logits)


def presence_penalty(
    logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch seq"], penalty: float
) -> Float[Tensor, "batch vocab"]:
    """Take ``penalty`` off the logits of tokens in ``ids``, however often each came.

    This and ``frequency_penalty`` are the two of OpenAI's interface, and take off nats where
    ``repetition_penalty`` divides; below 0 they are rewards. ``ids`` is the whole text, prompt
    included; ``PAD`` is no token.

    >>> presence_penalty(torch.zeros(1, 3), torch.tensor([[0, 0, 2]]), 0.5)
    tensor([[-0.5000,  0.0000, -0.5000]])

    Raises:
        ValueError: a penalty outside −2 … 2.
    """
    _check("presence_penalty", penalty)
    logits = _at_least_float32(logits)
    return logits - penalty * (_counts(ids, logits) > 0)


def frequency_penalty(
    logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch seq"], penalty: float
) -> Float[Tensor, "batch vocab"]:
    """Take ``penalty`` off the logit of a token for each time that it stands in ``ids``.

    >>> frequency_penalty(torch.zeros(1, 3), torch.tensor([[0, 0, 2]]), 0.5)
    tensor([[-1.0000,  0.0000, -0.5000]])

    Raises:
        ValueError: a penalty outside −2 … 2.
    """
    _check("frequency_penalty", penalty)
    logits = _at_least_float32(logits)
    return logits - penalty * _counts(ids, logits)


def _counts(ids: Int[Tensor, "batch seq"], logits: Tensor) -> Int[Tensor, "batch vocab"]:
    """How often each token stands in each row."""
    vocab = logits.shape[-1]
    # One column more, where the padding goes.
    counts = torch.zeros(len(logits), vocab + 1, dtype=torch.int64, device=logits.device)
    places = torch.where(ids == PAD, vocab, ids)
    return counts.scatter_add_(1, places, torch.ones_like(places))[:, :vocab]


def draw(
    probs: Float[Tensor, "batch vocab"], generator: torch.Generator | None = None
) -> Int[Tensor, "batch"]:
    """One id a row, drawn with these probabilities (any positive multiple of them will do).

    Drawn where the generator lives, so that one on the CPU gives the same on any device.

    Raises:
        ValueError: a row that is no distribution.
    """
    device = probs.device if generator is None else generator.device
    probs = _at_least_float32(probs)
    total = probs.sum(-1)
    check_distribution(total.isfinite() & (total > 0))
    return torch.multinomial(probs.to(device), 1, generator=generator)[:, 0].to(probs.device)


def _at_least_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _representable(value: float, dtype: torch.dtype) -> float:
    """``value`` above 0, or the nearest that is neither 0 nor infinite in ``dtype``."""
    limits = torch.finfo(dtype)
    return min(max(value, limits.tiny), limits.max)


def check_distribution(is_one: Bool[Tensor, "batch"]) -> None:
    """Raise ``ValueError`` unless each row ``is_one``."""
    if not bool(is_one.all()):
        raise ValueError(
            "expected logits with a finite largest value in each row, found nan, +inf or nothing "
            "but -inf: the model's weights or activations have overflowed"
        )


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How the next token is chosen; as it stands, a draw from the model's own distribution.

    >>> Sampler(top_k=2).probabilities(torch.zeros(1, 2), torch.tensor([[0]]))
    tensor([[0.5000, 0.5000]])

    Raises:
        ValueError: a setting outside its range.
    """

    greedy: bool = False
    """Always the likeliest token, of equal ones the first; of the rest only the penalties can
    change it."""
    temperature: float = 1.0
    """Logits are divided by it: below 1 is safer, above 1 is bolder."""
    top_k: int | None = None
    """Draw from so many of the likeliest tokens."""
    top_p: float = 1.0
    """Draw from the fewest tokens that hold this much probability."""
    min_p: float = 0.0
    """Draw from tokens at least so many times as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that are in the text already become less likely."""
    presence_penalty: float = 0.0
    """Taken off the logits of tokens that are in the text already: −2 … 2."""
    frequency_penalty: float = 0.0
    """Taken off the logit of a token for each time that it is in the text already: −2 … 2."""

    def __post_init__(self) -> None:
        for knob in RANGES:
            _check(knob, getattr(self, knob))
        if self.top_k is not None:
            check_integer("top_k", self.top_k, least=1)

    def filtered(
        self, logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch vocab"]:
        """The logits after every knob, given the text so far (padded with ``PAD``)."""
        logits = self._penalised(logits, ids)
        if self.greedy:
            everything = torch.arange(logits.shape[-1], device=logits.device)
            return logits.masked_fill(everything != logits.max(-1, True).indices, -math.inf)
        logits = temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = top_k(logits, self.top_k)
        return min_p(top_p(logits, self.top_p), self.min_p)

    def probabilities(
        self, logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch vocab"]:
        """The distribution that ``choose`` draws from."""
        return softmax(self.filtered(logits, ids))

    def choose(
        self,
        logits: Float[Tensor, "batch vocab"],
        ids: Int[Tensor, "batch seq"],
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "batch"]:
        """The next id of each row, given its logits and its text so far (padded with ``PAD``).

        Raises:
            ValueError: logits that give no distribution.
        """
        if not self.greedy:
            return draw(self.probabilities(logits, ids), generator)
        logits = self._penalised(logits, ids)  # of one token nothing need be drawn
        largest = logits.max(-1)  # of equal ones the first, as torch promises
        check_distribution(largest.values.isfinite())
        return largest.indices

    def _penalised(self, logits: Tensor, ids: Tensor) -> Tensor:
        if self.repetition_penalty != 1:
            logits = repetition_penalty(logits, ids, self.repetition_penalty)
        if self.presence_penalty:
            logits = presence_penalty(logits, ids, self.presence_penalty)
        if self.frequency_penalty:
            logits = frequency_penalty(logits, ids, self.frequency_penalty)
        return logits
