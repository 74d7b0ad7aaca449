"""Chapter 03: how long a step may be, sums that are one, and numbers that its prose says."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from llmtutor.data import load_corpus, tales
from llmtutor.layers.basic import log_softmax
from llmtutor.model.language_modelling import LinearBigram, NGram
from llmtutor.tokenizer import BPETokenizer, CharTokenizer


@pytest.fixture(scope="module")
def pairs() -> torch.Tensor:
    """How often each character of the training works follows each."""
    text = load_corpus().train
    chars = CharTokenizer.from_text(text)
    ids, vocab_size = np.array(chars.encode(text)), chars.vocab_size
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
