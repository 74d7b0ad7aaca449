"""Chapter 03, language modelling: counting models, and the first one trained by gradient descent.

``NGram`` predicts the next token from the ``order − 1`` tokens before it by counting;
``LinearBigram`` learns the same table from the gradient of the loss.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.layers.basic import Embedding

Smoothing = float | Literal["witten-bell"]
Ids = npt.NDArray[np.integer] | Sequence[int]


class NGram:
    """Next-token probabilities from counts of ``order`` tokens in a row.

    order 0 is uniform, 1 looks at nothing (unigram), 2 at the token before (bigram), 3 at two.
    With N(h, w) the count of token w after context h, N(h) its sum over w, T(h) the number of
    *distinct* tokens seen after h, and V the vocabulary size, ``smoothing`` is one of

    - a number α ≥ 0, additive: p(w|h) = (N(h, w) + α) / (N(h) + α V). With α = 0 this is the
      maximum-likelihood estimate, whose loss on new text is usually infinite; a context never
      seen gives 1/V, the limit of small α.
    - ``"witten-bell"`` (default), interpolated: p(w|h) = (N(h, w) + T(h) p(w|h')) / (N(h) + T(h)),
      with h' one token shorter and p = 1/V at the bottom. A new token has followed h on T(h) of
      N(h) occasions, so that is the weight of the shorter context (Witten and Bell 1991, method C;
      interpolated as in Chen and Goodman 1999). No parameter to tune, never zero.

    The key of an n-gram is its number in base V, so those of one context have keys in a row. Of
    each length the sorted keys of those seen are kept, and how often all before each were seen:
    memory grows with the n-grams seen, never with V^order.

    >>> model = NGram(2, vocab_size=2, smoothing=0).fit([0, 1, 0, 0])
    >>> model.next_probs([0])  # 0 was followed by 1 once and by 0 once
    array([0.5, 0.5])

    Raises:
        ValueError: order below 0, an empty vocabulary, V^order beyond 64 bits, bad smoothing.
    """

    def __init__(self, order: int, vocab_size: int, smoothing: Smoothing = "witten-bell") -> None:
        if order < 0 or vocab_size < 1:
            raise ValueError(f"need order >= 0 and vocab_size >= 1, got {order} and {vocab_size}")
        if vocab_size**order > np.iinfo(np.int64).max:
            raise ValueError(
                f"vocab_size ** order must fit in 64 bits, got {vocab_size} ** {order}; "
                "lower the order"
            )
        if smoothing != "witten-bell" and not (
            isinstance(smoothing, float | int) and 0 <= smoothing < np.inf
        ):
            raise ValueError(f"smoothing must be a number >= 0 or 'witten-bell', got {smoothing!r}")
        self.order, self.vocab_size, self.smoothing = order, vocab_size, smoothing
        self._counts: list[tuple[np.ndarray, np.ndarray]] = []

    def fit(self, ids: Ids) -> "NGram":
        """Count the n-grams of every length up to ``order`` in ``ids`` (seq,); returns the model.

        Raises:
            ValueError: no ids, not one-dimensional, not integers, or outside the vocabulary.
        """
        ids = self._checked(ids, at_least=1)
        self._counts = []
        for length in range(1, self.order + 1):
            ngrams, n = np.unique(self._keys(ids, length), return_counts=True)
            self._counts.append((ngrams, np.append(0, n.cumsum())))
        return self

    @property
    def n_counts(self) -> int:
        """How many counts the model keeps: the distinct n-grams it has seen, of every length.

        >>> NGram(2, vocab_size=2).fit([0, 1, 0, 0]).n_counts  # 0, 1 and 00, 01, 10
        5
        """
        return sum(len(ngrams) for ngrams, _ in self._counts)

    def loss(self, ids: Ids) -> float:
        """Nats per token: mean of −log p(ids[t] | up to ``order − 1`` tokens before) for t ≥ 1.

        The first token is given, not predicted, whatever the order, so that all orders (and
        neural models, whose targets also start at the second token) are scored on the same
        tokens. inf when something impossible under the model happens.

        Raises:
            ValueError: fewer than two ids, wrong ids, or a model that was not fitted.
        """
        ids = self._checked(ids, at_least=2)
        length = max(self.order, 1)
        # Equal n-grams have equal probabilities: one look-up for each distinct one.
        ngrams, n = np.unique(
            self._keys(ids[1:] if length == 1 else ids, length), return_counts=True
        )
        with np.errstate(divide="ignore"):
            total = -(n * np.log(self._probs(ngrams, self.order))).sum()
            for t in range(1, min(length - 1, len(ids))):  # the start has shorter contexts
                total -= np.log(self._probs(self._keys(ids[: t + 1], t + 1), t + 1)).sum()
        return float(total / (len(ids) - 1))

    def next_probs(self, context: Ids = ()) -> Float[np.ndarray, " vocab"]:
        """Distribution (vocab_size,) of the token after ``context``, float64, sum 1.

        Only the last ``order − 1`` tokens matter; after a shorter context the shorter n-grams
        answer.

        Raises:
            ValueError: ids outside the vocabulary, or a model that was not fitted.
        """
        context = self._checked(context, at_least=0)
        context = context[max(0, len(context) - max(self.order - 1, 0)) :]
        probs = np.full(self.vocab_size, 1 / self.vocab_size)
        for length in range(1, min(self.order, len(context) + 1) + 1):
            probs = self._row(context[len(context) - length + 1 :], probs)
        return probs

    def sample(self, n: int, rng: np.random.Generator, context: Ids = ()) -> list[int]:
        """``n`` tokens drawn one after the other, continuing ``context`` (not returned).

        >>> NGram(1, vocab_size=3).fit([2, 2, 0]).sample(5, np.random.default_rng(0))
        [2, 0, 0, 0, 2]
        """
        tokens = [int(token) for token in context]
        for _ in range(n):
            cumulative = self.next_probs(tokens[-max(self.order, 1) :]).cumsum()
            draw = rng.random() * cumulative[-1]
            tokens.append(int(np.searchsorted(cumulative, draw, side="right")))
        return tokens[len(tokens) - n :]

    def _row(self, context: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """All of ``_probs`` after one context at once, given those after the shorter one.

        The n-grams of a context stand in a row: two look-ups find them, whatever the vocabulary.
        """
        if not self._counts:
            raise ValueError("the model has no counts yet: call fit(ids) first")
        ngrams, seen_before = self._counts[len(context)]
        first = int(self._keys(context, len(context))[0]) * self.vocab_size if len(context) else 0
        start, end = np.searchsorted(ngrams, [first, first + self.vocab_size])
        n = np.zeros(self.vocab_size)
        n[ngrams[start:end] - first] = np.diff(seen_before[start : end + 1])
        weight, base = float(end - start), shorter
        if self.smoothing != "witten-bell":
            weight, base = self.smoothing * self.vocab_size, np.full_like(n, 1 / self.vocab_size)
        total = seen_before[end] - seen_before[start] + weight
        return (n + weight * base) / total if total > 0 else base

    def _probs(self, keys: np.ndarray, length: int) -> np.ndarray:
        """p(last token | the ones before) for keys of n-grams of ``length`` tokens."""
        uniform = np.full(len(keys), 1 / self.vocab_size)
        if length == 0:
            return uniform
        if not self._counts:
            raise ValueError("the model has no counts yet: call fit(ids) first")
        n, _ = self._between(keys, keys + 1, length)
        first = keys - keys % self.vocab_size  # of the n-grams with the same context
        context_n, followers = self._between(first, first + self.vocab_size, length)
        if self.smoothing == "witten-bell":
            weight = followers.astype(float)
            base = self._probs(keys % self.vocab_size ** (length - 1), length - 1)
        else:
            weight = np.full(len(keys), float(self.smoothing) * self.vocab_size)
            base = uniform
        total = context_n + weight
        known = total > 0
        return np.where(known, (n + weight * base) / np.where(known, total, 1), base)

    def _between(
        self, low: np.ndarray, high: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """How often n-grams with keys of low … high − 1 were seen, and how many distinct ones."""
        ngrams, seen_before = self._counts[length - 1]
        start, end = np.searchsorted(ngrams, low), np.searchsorted(ngrams, high)
        return seen_before[end] - seen_before[start], end - start

    def _keys(self, ids: np.ndarray, length: int) -> np.ndarray:
        """Keys of all runs of ``length`` tokens: [a, b, c], 2 → [a V + b, b V + c]."""
        keys = np.zeros(max(len(ids) - length + 1, 0), dtype=np.int64)
        for i in range(length):
            keys = keys * self.vocab_size + ids[i : i + len(keys)]
        return keys

    def _checked(self, ids: Ids, at_least: int) -> np.ndarray:
        array = np.asarray(ids)
        if array.ndim != 1 or len(array) < at_least:
            raise ValueError(
                f"ids must be one sequence of at least {at_least}, got shape {array.shape}"
            )
        if len(array) == 0:
            return np.zeros(0, dtype=np.int64)
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"ids must be integers, got {array.dtype}")
        if array.min() < 0 or array.max() >= self.vocab_size:
            raise ValueError(
                f"ids must lie in 0 … {self.vocab_size - 1}, got {array.min()} … {array.max()}"
            )
        return array.astype(np.int64)


class LinearBigram(nn.Module):
    """Logits of the next token from the present one alone: one-hot(id) W, W (vocab, vocab).

    Multiplying a one-hot vector picks a row, so the layer is an ``Embedding`` whose vectors are
    logits. W starts at 0, every token equally likely: the first loss is exactly log(vocab_size).
    The loss is convex in W, and the lowest value that it approaches is that of the counted bigram
    (``NGram`` with smoothing 0). A pair never seen needs a logit of −∞ there, so no step arrives.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.rows = Embedding(vocab_size, vocab_size)
        nn.init.zeros_(self.rows.weight)

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch vocab"]:
        """Logits (batch, seq, vocab) for the token after each id."""
        return self.rows(ids)
