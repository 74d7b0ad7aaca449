"""Counts checked by hand with fractions, by a naive dictionary model, and by gradient descent."""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtutor.evaluate.perplexity import evaluate_loss
from llmtutor.layers.basic import cross_entropy, log_softmax
from llmtutor.model.language_modelling import LinearBigram, NGram

SMOOTHINGS = [0, 0.5, 1, "witten-bell"]


def naive_prob(
    train: Sequence[int], context: tuple[int, ...], token: int, vocab_size: int, smoothing
) -> Fraction:
    """The formulas of the docstring, one dictionary at a time, in exact fractions."""
    size = len(context) + 1
    grams = Counter(tuple(train[i : i + size]) for i in range(len(train) - size + 1))
    followers = {gram[-1]: n for gram, n in grams.items() if gram[:-1] == context}
    total, n = sum(followers.values()), followers.get(token, 0)
    if smoothing != "witten-bell":
        alpha = Fraction(smoothing)
        if total + alpha == 0:
            return Fraction(1, vocab_size)
        return (n + alpha) / (total + alpha * vocab_size)
    if context:
        lower = naive_prob(train, context[1:], token, vocab_size, smoothing)
    else:
        lower = Fraction(1, vocab_size)
    if total == 0:
        return lower
    return (n + len(followers) * lower) / (total + len(followers))


def naive_loss(train, test, order, vocab_size, smoothing) -> float:
    surprises = []
    for t in range(1, len(test)):
        if order == 0:
            p = Fraction(1, vocab_size)
        else:
            context = tuple(test[max(0, t - order + 1) : t])
            p = naive_prob(train, context, test[t], vocab_size, smoothing)
        surprises.append(-math.log(p) if p else math.inf)
    return sum(surprises) / len(surprises)


def random_ids(n: int, vocab_size: int, seed: int = 0) -> np.ndarray:
    """A chain that prefers the next id, so that contexts matter."""
    rng = np.random.default_rng(seed)
    ids = [0]
    for _ in range(n - 1):
        ids.append(int((ids[-1] + rng.choice([0, 1, 1, 1, 3])) % vocab_size))
    return np.array(ids)


# --- by hand -------------------------------------------------------------------------------


def test_witten_bell_by_hand():
    # abracadabra with a=0 b=1 c=2 d=3 r=4, V = 5. After a: b twice, c once, d once: N=4, T=3.
    # Unigram: a 5, b 2, c 1, d 1, r 2 of 11, T = 5, so p(w) = (N(w) + 5/5) / 16.
    ids = ["abcdr".index(c) for c in "abracadabra"]
    model = NGram(2, 5).fit(ids)
    p = [Fraction(n + 1, 16) for n in (5, 2, 1, 1, 2)]
    want = [(n + 3 * q) / 7 for n, q in zip((0, 2, 1, 1, 0), p, strict=True)]
    assert sum(want) == 1
    np.testing.assert_allclose(model.next_probs([0]), [float(w) for w in want], rtol=1e-14)
    np.testing.assert_allclose(model.next_probs([]), [float(q) for q in p], rtol=1e-14)


def test_additive_by_hand():
    ids = ["abcdr".index(c) for c in "abracadabra"]
    np.testing.assert_allclose(
        NGram(2, 5, 1).fit(ids).next_probs([0]), [1 / 9, 3 / 9, 2 / 9, 2 / 9, 1 / 9], rtol=1e-14
    )
    # Trigram "ab" → r twice.
    np.testing.assert_allclose(
        NGram(3, 5, 0.5).fit(ids).next_probs([4, 0, 1]), np.array([1, 1, 1, 1, 5]) / 9, rtol=1e-14
    )


def test_uniform_costs_log_of_the_vocabulary():
    assert NGram(0, 7).loss([1, 2, 3]) == pytest.approx(math.log(7), abs=1e-14)
    assert NGram(0, 7).fit([0]).next_probs([1, 2]).tolist() == [1 / 7] * 7


def test_maximum_likelihood_loss_is_the_conditional_entropy():
    # 0 1 0 1 0 0: after 0 come 1, 1, 0; after 1 come 0, 0.
    model = NGram(2, 2, 0).fit([0, 1, 0, 1, 0, 0])
    want = (2 * math.log(3 / 2) + math.log(3)) / 5
    assert model.loss([0, 1, 0, 1, 0, 0]) == pytest.approx(want, abs=1e-14)


def test_unsmoothed_model_is_infinitely_surprised():
    assert NGram(2, 3, 0).fit([0, 1, 0]).loss([0, 2]) == math.inf
    assert NGram(2, 3, 0).fit([0, 1, 0]).loss([2, 1]) == pytest.approx(math.log(3))  # 1/V


# --- against the naive dictionary model ----------------------------------------------------


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_equals_naive(order, smoothing):
    train, test = random_ids(60, 4), random_ids(30, 4, seed=1)
    model = NGram(order, 4, smoothing).fit(train)
    want = naive_loss(train.tolist(), test.tolist(), order, 4, smoothing)
    assert model.loss(test) == pytest.approx(want, rel=1e-12)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.lists(st.integers(0, 3), min_size=2, max_size=6),
    st.integers(0, 4),
    st.sampled_from(SMOOTHINGS),
)
@settings(max_examples=150, deadline=None)
def test_equals_naive_on_tiny_texts(train, test, order, smoothing):
    model = NGram(order, 4, smoothing).fit(train)
    want = naive_loss(train, test, order, 4, smoothing)
    assert model.loss(test) == pytest.approx(want, rel=1e-12)
    assert model.next_probs(test).sum() == pytest.approx(1, abs=1e-12)


# --- properties ----------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_probabilities_sum_to_one_after_every_context(order, smoothing):
    model = NGram(order, 6, smoothing).fit(random_ids(80, 6))
    contexts = [[], *([a] for a in range(6)), *([a, b] for a in range(6) for b in range(6))]
    for context in contexts:
        probs = model.next_probs(context)
        assert probs.shape == (6,)
        assert probs.sum() == pytest.approx(1, abs=1e-12)
        assert probs.min() >= 0
        if smoothing:
            assert probs.min() > 0 or order == 0


@pytest.mark.parametrize("order", [1, 2, 3])
def test_loss_is_the_mean_surprise_of_next_probs(order):
    model, test = NGram(order, 5).fit(random_ids(100, 5)), random_ids(40, 5, seed=2)
    surprises = [-math.log(model.next_probs(test[:t])[test[t]]) for t in range(1, 40)]
    assert model.loss(test) == pytest.approx(np.mean(surprises), rel=1e-12)


def test_only_the_last_tokens_matter():
    model = NGram(3, 5).fit(random_ids(200, 5))
    np.testing.assert_array_equal(model.next_probs([4, 4, 1, 2]), model.next_probs([1, 2]))
    assert np.abs(model.next_probs([0, 1]) - model.next_probs([2, 1])).max() > 1e-3


def test_longer_contexts_fit_the_training_text_better():
    ids = random_ids(2000, 5)
    losses = [NGram(order, 5, 0).fit(ids).loss(ids) for order in range(5)]
    assert losses == sorted(losses, reverse=True)


def test_witten_bell_beats_additive_where_counts_are_thin():
    train, test = random_ids(3000, 60), random_ids(3000, 60, seed=5)
    witten_bell = NGram(3, 60).fit(train).loss(test)
    assert witten_bell < min(NGram(3, 60, a).fit(train).loss(test) for a in (0.01, 0.1, 1)) - 0.05


def test_large_vocabulary_stays_sparse():
    ids = random_ids(100_000, 5000)
    model = NGram(3, 5000).fit(ids)  # a dense table would need 125 thousand million entries
    assert model.loss(ids[:5000]) < math.log(5000) / 2
    assert model.next_probs([3, 4]).sum() == pytest.approx(1, abs=1e-12)


def test_fit_starts_afresh_and_takes_any_integers():
    ids = random_ids(50, 4)
    model = NGram(2, 4).fit([3, 3, 3]).fit(ids.astype(np.uint16))
    assert model.loss(ids.tolist()) == NGram(2, 4).fit(ids).loss(ids)


def test_samples_follow_the_probabilities():
    model = NGram(2, 4).fit(random_ids(300, 4))
    sample = model.sample(20_000, np.random.default_rng(0), context=[1])
    assert sample == model.sample(20_000, np.random.default_rng(0), context=[1])
    pairs = Counter(zip([1, *sample], sample, strict=False))
    for a in range(4):
        n = sum(pairs[a, b] for b in range(4))
        p = model.next_probs([a])
        share = np.array([pairs[a, b] / n for b in range(4)])
        assert (np.abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / n)).all()


def test_never_samples_the_impossible():
    model = NGram(2, 5, 0).fit([1, 3, 1, 3, 1])
    assert model.sample(6, np.random.default_rng(0), context=[1]) == [3, 1, 3, 1, 3, 1]
    assert model.sample(0, np.random.default_rng(0)) == []


def test_a_draw_of_zero_does_not_pick_what_has_no_probability():
    class Zero:
        def random(self) -> float:
            return 0.0

    assert NGram(1, 3, 0).fit([1, 2]).sample(2, Zero()) == [1, 1]


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 5), "order >= 0"),
        ((2, 0), "vocab_size >= 1"),
        ((2, 5, -0.1), "smoothing"),
        ((2, 5, math.nan), "smoothing"),
        ((2, 5, "kneser"), "smoothing"),
        ((6, 5000), "64 bits"),
    ],
)
def test_bad_models_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NGram(*arguments)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "at least 1"),
        ([[0, 1]], "one sequence"),
        ([0.5], "integers"),
        ([5], "0 … 4"),
        ([-1, 2], "0 … 4"),
    ],
)
def test_bad_ids_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        NGram(2, 5).fit(ids)


def test_too_little_to_score_and_unfitted_models_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        NGram(1, 5).fit([0]).loss([0])
    with pytest.raises(ValueError, match="fit"):
        NGram(2, 5).loss([0, 1])
    with pytest.raises(ValueError, match="0 … 4"):
        NGram(2, 5).fit([0]).next_probs([7])


# --- the linear bigram ---------------------------------------------------------------------


def test_linear_bigram_starts_at_log_vocabulary():
    ids = torch.tensor(random_ids(50, 6))[None]
    report = evaluate_loss(LinearBigram(6), [(ids[:, :-1], ids[:, 1:])])
    assert report.nats_per_token == pytest.approx(math.log(6), abs=1e-6)


def test_counted_log_probabilities_are_a_linear_bigram():
    ids = random_ids(300, 6)
    counted = NGram(2, 6).fit(ids)
    model = LinearBigram(6).double()
    with torch.no_grad():
        rows = np.stack([counted.next_probs([a]) for a in range(6)])
        model.rows.weight.copy_(torch.tensor(rows).log())
    seq = torch.tensor(ids)[None]
    report = evaluate_loss(model, [(seq[:, :-1], seq[:, 1:])])
    assert report.nats_per_token == pytest.approx(counted.loss(ids), abs=1e-12)
    assert report.n_tokens == 299


def test_gradient_descent_meets_the_counts():
    # Every pair occurs in this text, so the best logits are finite and can be met closely.
    text = random_ids(2000, 5).tolist() + [a for i in range(5) for j in range(5) for a in (i, j)]
    ids = torch.tensor(text)
    counted = NGram(2, 5, 0).fit(text)
    model = LinearBigram(5).double()
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=200,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
    )

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(ids[:-1]), ids[1:])
        loss.backward()
        return loss

    optimizer.step(closure)
    assert closure().item() == pytest.approx(counted.loss(text), abs=1e-10)
    learnt = log_softmax(model.rows.weight.detach()).exp().numpy()
    want = np.stack([counted.next_probs([a]) for a in range(5)])
    np.testing.assert_allclose(learnt, want, atol=1e-5)


def test_adam_comes_near_the_counts_from_above():
    ids = torch.tensor(random_ids(2000, 8))
    floor = NGram(2, 8, 0).fit(ids.numpy()).loss(ids.numpy())
    model = LinearBigram(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss = cross_entropy(model(ids[:-1]), ids[1:])
        loss.backward()
        optimizer.step()
    assert floor - 1e-6 < loss.item() < floor + 2e-3  # pairs never seen keep a little probability


def test_linear_bigram_refuses_foreign_ids():
    with pytest.raises(ValueError, match="0 … 3"):
        LinearBigram(4)(torch.tensor([[4]]))
