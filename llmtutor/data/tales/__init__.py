"""Chapter 03, language modelling: stories whose exact probability is known, hence the loss floor.

The stories come from a probabilistic grammar written for this project (``stories``). Names,
things and places chosen early come back hundreds of characters later, so a model that looks far
back has something to gain. Nothing in the grammar is ambiguous: a story tells, from left to
right, every choice that was made in writing it (``analysis.conflicts`` proves it), so
log p(story) is the sum of the log-probabilities of those choices, and no model can have a lower
expected loss than −log p.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

from llmtutor.data.tales import analysis
from llmtutor.data.tales.grammar import Choice, Tale, total_log_prob
from llmtutor.data.tales.stories import GRAMMAR
from llmtutor.tokenizer import Tokenizer

__all__ = [
    "GRAMMAR",
    "Choice",
    "Floor",
    "Tale",
    "entropy",
    "floor",
    "generate",
    "log_prob",
    "n_stories",
    "parse",
    "stream",
    "tales",
]


@dataclass(frozen=True)
class Floor:
    """The least loss that any model can expect, on a given set of stories. See ``floor``."""

    nats: float
    """−log p of all the stories together."""
    n_stories: int
    n_chars: int
    """Predicted characters, which are all of the stream but the first."""
    n_tokens: int | None
    """Predicted tokens, or None without a tokenizer."""

    @property
    def nats_per_story(self) -> float:
        """Mean of −log p(story); ``entropy()`` is its expectation."""
        return self.nats / self.n_stories

    @property
    def nats_per_char(self) -> float:
        """Floor of a character model's loss."""
        return self.nats / self.n_chars

    @property
    def nats_per_token(self) -> float:
        """Floor of the loss of a model on the tokenizer's ids; ``ValueError`` without one."""
        if self.n_tokens is None:
            raise ValueError("nats_per_token needs a tokenizer: floor(stories, tokenizer)")
        return self.nats / self.n_tokens


def tales(n: int, seed: int) -> Iterator[Tale]:
    """``n`` stories, each with the choices that made it; see ``generate``."""
    if n < 0 or seed < 0:
        raise ValueError(f"n and seed must not be negative, got {n} and {seed}")
    return islice(GRAMMAR.tales(seed), n)


def generate(n: int, seed: int) -> list[str]:
    """``n`` independent stories of one paragraph, 500 to 1,000 ASCII characters each.

    The same on every platform and Python version; ``generate(5, seed)`` begins
    ``generate(9, seed)``.

    >>> generate(1, seed=1)[0][:52]
    'Once upon a time, a stubborn boy named Ben lived in '

    Raises:
        ValueError: a negative number or seed (Python would take seed −1 for 1).
    """
    return [tale.text for tale in tales(n, seed)]


def parse(story: str) -> tuple[Choice, ...]:
    """The choices that made ``story``, found again in its text; ``ValueError`` if it is no tale."""
    return GRAMMAR.parse(story)


def log_prob(story: str) -> float:
    """log p(story) in nats, exact up to rounding, from the text alone.

    Raises:
        ValueError: the grammar cannot write this text; says how far it could follow.
    """
    return total_log_prob(parse(story))


@cache
def entropy() -> float:
    """Entropy of a story in nats: the expectation of −log p, by dynamic programming (seconds)."""
    return analysis.entropy(GRAMMAR)


@cache
def n_stories() -> int:
    """How many different stories there are, exactly: every derivation writes another text."""
    return analysis.n_derivations(GRAMMAR)


def stream(stories: Iterable[str], separator: str = "\n\n") -> str:
    """The stories as one text: a separator before the first, between them, and after the last.

    >>> stream(["A.", "B."], "|")
    '|A.|B.|'
    """
    return separator.join(["", *stories, ""])


def floor(
    stories: Iterable[str], tokenizer: Tokenizer | None = None, separator: str = "\n\n"
) -> Floor:
    """The loss of the best possible model on ``stream(stories, separator)``.

    Scored is every character (or token) but the first, as in ``evaluate_loss`` and ``NGram.loss``
    over the whole stream. The first one belongs to the separator, so each story is predicted
    whole. No story is the beginning of another, so the best model sees where a story ends: the
    separators cost nothing, but they count in the length.

    The floor is −log p of the *given* stories over their length. A model may come below it on
    them only by luck or by having seen them; on stories yet unseen its expected loss is at least
    the expected floor. The same holds for tokens: encoding is one to one (decoding undoes it), so
    the ids of the stream are as probable as its text. A model also spends probability on other
    ids that decode to the same text, which encoding never produces; that can only raise its loss.

    Raises:
        ValueError: no stories, one that the grammar cannot write, an empty separator, or a
            tokenizer that joins the first separator to the first story.
    """
    stories = list(stories)
    if not stories or not separator:
        raise ValueError("floor needs at least one story and a separator that is not empty")
    text = stream(stories, separator)
    n_tokens = None
    if tokenizer is not None:
        ids = tokenizer.encode(text)
        if not separator.startswith(tokenizer.decode(ids[:1])):
            raise ValueError(
                f"the tokenizer joins the separator {separator!r} to the story after it: "
                "choose another separator, such as one of its special tokens"
            )
        n_tokens = len(ids) - 1
    nats = -sum(log_prob(story) for story in stories)
    return Floor(nats, len(stories), len(text) - 1, n_tokens)
