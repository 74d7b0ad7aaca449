"""Chapter 03: how long a step may be, sums that are one, and numbers that its prose says."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from llmtutor.data import load_corpus, tales
from llmtutor.experiments.study import load_record
from llmtutor.layers.basic import log_softmax
from llmtutor.model.language_modelling import LinearBigram, NGram
from llmtutor.tokenizer import BPETokenizer, CharTokenizer


@pytest.fixture(scope="module")
def works() -> tuple[np.ndarray, np.ndarray, int]:
    """Characters of the training works, of the held-out works, and how many kinds."""
    corpus = load_corpus()
    chars = CharTokenizer.from_text(corpus.train)
    train, valid = (np.array(chars.encode(text)) for text in (corpus.train, corpus.valid))
    return train, valid, chars.vocab_size


@pytest.fixture(scope="module")
def pairs(works: tuple[np.ndarray, np.ndarray, int]) -> torch.Tensor:
    """How often each character of the training works follows each."""
    ids, _, vocab_size = works
    counted = np.bincount(ids[:-1] * vocab_size + ids[1:], minlength=vocab_size**2)
    return torch.tensor(counted).view(vocab_size, vocab_size)


def losses(pairs: torch.Tensor, rate: float, steps: int = 1000) -> np.ndarray:
    """The training loss at each step of plain gradient descent."""
    linear = LinearBigram(len(pairs))
    (weight,) = linear.parameters()
    values = []
    for _ in range(steps):
        loss = -(pairs * log_softmax(linear(torch.arange(len(pairs))))).sum() / pairs.sum()
        (gradient,) = torch.autograd.grad(loss, weight)
        with torch.no_grad():
            weight -= rate * gradient
        values.append(loss.item())
    return np.array(values)


def test_descent_falls_at_every_step_only_below_a_rate_of_106(pairs: torch.Tensor) -> None:
    below, above = losses(pairs, 100), losses(pairs, 120)
    assert (np.diff(below) < 0).all()
    assert (np.diff(above) > 0).any() and above[-1] > below[-1]


class KneserNey(NGram):
    """Interpolated Kneser-Ney with three discounts (Chen and Goodman 1999, their "modified").

    A run of full order is counted by how often it came, a shorter one by how many different
    tokens stood before it. Of a run counted 1, 2, or at least 3 times a discount is taken off, and
    what a context's runs lost together is the weight of its shorter context.
    """

    def fit(self, ids: np.ndarray) -> "KneserNey":
        self.levels = []
        for length in range(1, self.order + 1):
            runs = self._keys(ids, length)
            if length < self.order:
                longer = np.unique(self._keys(ids, length + 1))
                runs = longer % self.vocab_size**length
            runs, n = np.unique(runs, return_counts=True)
            off = discounts(n)[np.minimum(n, 3)]
            self.levels.append((runs, np.append(0, n.cumsum()), np.append(0, off.cumsum())))
        self._counts = [(runs, n) for runs, n, _ in self.levels]
        return self

    def _probs(self, keys: np.ndarray, length: int) -> np.ndarray:
        if length == 0:
            return np.full(len(keys), 1 / self.vocab_size)
        runs, n, off = self.levels[length - 1]

        def between(sums: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
            return sums[np.searchsorted(runs, high)] - sums[np.searchsorted(runs, low)]

        first = keys - keys % self.vocab_size
        last = first + self.vocab_size
        shorter, place = np.unique(keys % self.vocab_size ** (length - 1), return_inverse=True)
        base = self._probs(shorter, length - 1)[place]
        total = between(n, first, last)
        kept = between(n, keys, keys + 1) - between(off, keys, keys + 1)
        known = total > 0
        mixed = (kept + between(off, first, last) * base) / np.where(known, total, 1)
        return np.where(known, mixed, base)


def discounts(n: np.ndarray) -> np.ndarray:
    """What is taken off a count of 0, 1, 2, and 3 or more, from how many counts are 1, 2, 3, 4."""
    ones, twos, threes, fours = (int((n == k).sum()) for k in (1, 2, 3, 4))
    share = ones / (ones + 2 * twos)
    found = (1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos)
    return np.array([0, *found, 3 - 4 * share * fours / threes])


def test_kneser_ney_has_no_turning_point(works: tuple[np.ndarray, np.ndarray, int]) -> None:
    train, valid, vocab_size = works
    model = KneserNey(3, vocab_size).fit(train[:300_000])
    assert math.isclose(model.next_probs(train[400_000:400_005]).sum(), 1)
    losses = {n: KneserNey(n, vocab_size).fit(train).loss(valid) for n in (4, 7, 8)}
    assert {n: round(loss, 2) for n, loss in losses.items()} == {4: 1.76, 7: 1.51, 8: 1.51}


def test_each_longer_context_pays_with_ten_to_twenty_times_the_text(
    works: tuple[np.ndarray, np.ndarray, int],
) -> None:
    train, valid, vocab_size = works

    def longer_is_better(order: int, n: int) -> bool:
        shorter, longer = (NGram(k, vocab_size).fit(train[:n]) for k in (order - 1, order))
        return longer.loss(valid) < shorter.loss(valid)

    taken_over = {4: (15_000, 17_000), 5: (240_000, 275_000), 6: (4_200_000, 4_500_000)}
    for order, (too_few, enough) in taken_over.items():
        assert not longer_is_better(order, too_few) and longer_is_better(order, enough)
    for shorter, longer in ((4, 5), (5, 6)):
        assert taken_over[longer][0] / taken_over[shorter][1] > 10
        assert taken_over[longer][1] / taken_over[shorter][0] < 20


def test_on_the_staircase_the_network_read_the_text_once_and_keeps_fewer_numbers() -> None:
    record = load_record("staircase")
    runs = {r["settings"]["rung"]: r["result"] for r in record.runs}
    assert runs["mlp"]["bytes_seen"] == runs["trigram"]["bytes_seen"]
    assert (runs["mlp"]["n_params"], runs["trigram"]["n_params"]) == (230_592, 713_635)


def test_texts_of_one_length_share_a_sum_and_an_end_token_makes_it_one_for_all() -> None:
    model = NGram(2, vocab_size=3).fit([0, 1, 2, 0, 0, 2, 1, 0, 2])
    end = 2

    def probability(text: tuple[int, ...]) -> float:
        return math.prod(model.next_probs(text[:t])[text[t]] for t in range(len(text)))

    for length in (1, 2, 3, 4):
        assert math.isclose(sum(map(probability, product(range(3), repeat=length))), 1)

    complete = [text for n in range(9) for text in product((0, 1), repeat=n)]
    finished = sum(probability((*text, end)) for text in complete)
    unfinished = sum(map(probability, product((0, 1), repeat=9)))
    assert math.isclose(finished + unfinished, 1) and unfinished < 0.1


def test_the_wrong_way_round_costs_a_quarter_of_a_bit() -> None:
    counted, model = np.array([1 / 2, 1 / 4, 1 / 4]), np.array([1 / 4, 1 / 4, 1 / 2])
    cross_entropy = -(counted * np.log2(model)).sum()
    entropy = -(counted * np.log2(counted)).sum()
    assert (cross_entropy, entropy) == (1.75, 1.5)
    assert cross_entropy - entropy == (counted * np.log2(counted / model)).sum() == 0.25


def held_out_loss(old: str, new: str, n: int) -> tuple[float, float]:
    """The colleague's mean over n-grams that were seen, and the share of them."""
    grams = Counter(old[i : i + n] for i in range(len(old) - n + 1))
    contexts = Counter(old[i : i + n - 1] for i in range(len(old) - n + 1))
    asked = [new[i : i + n] for i in range(len(new) - n + 1)]
    scored = [gram for gram in asked if grams[gram] > 0]
    losses = [-math.log(grams[gram] / contexts[gram[:-1]]) for gram in scored]
    return sum(losses) / len(losses), len(scored) / len(asked)


def test_leaving_out_what_was_not_seen_beats_the_floor_and_gets_worse_with_more_text() -> None:
    stories = tales.generate(2500, seed=3)
    few, more, test = map(tales.stream, (stories[:50], stories[:200], stories[2000:2020]))
    loss, share = held_out_loss(few, test, 20)
    assert loss < tales.floor(stories[2000:2020]).nats_per_char and share < 0.5
    assert held_out_loss(more, test, 20)[0] > loss


def test_three_tokens_of_the_staircase_are_about_seven_characters() -> None:
    corpus = load_corpus()
    tokenizer = BPETokenizer.train(corpus.train, vocab_size=1024)
    assert 6.5 < 3 * len(corpus.valid) / len(tokenizer.encode(corpus.valid)) < 7.5
