"""Frequencies of `transformers`, the formulas one pair at a time, and the ends of each scale."""

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtutor.layers.positions import (
    LinearScaling,
    Llama3Scaling,
    NtkScaling,
    Rope,
    YarnScaling,
)
from llmtutor.layers.positions.angles import geometric_frequencies

SCALINGS = LinearScaling(4), NtkScaling(4, 64), YarnScaling(4, 64), Llama3Scaling(4, 64)


def theirs(kind, head_dim=64, base=10_000.0, seq_len=None, trained=64, **options):
    """Frequencies and factor of `transformers` for a model trained on ``trained`` tokens."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_type": kind, "rope_theta": base, "factor": 1.0, **options}
    if kind in ("yarn", "llama3"):
        parameters["original_max_position_embeddings"] = trained
        longest = round(trained * parameters["factor"])
    else:
        longest = trained
    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=longest,
        rope_parameters=parameters,
    )
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=seq_len)
    return frequencies.double(), factor


def ours(scaling, head_dim=64, base=10_000.0):
    return Rope(head_dim, base=base, scaling=scaling).frequencies


def same(got, want):
    """Theirs are made in float32: 1e-6 of each frequency, the slowest are 1e-4 and smaller."""
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


@pytest.fixture(params=list(itertools.product([4, 64, 128], [10_000.0, 500_000.0])), ids=str)
def sizes(request):
    """``head_dim`` and ``base``."""
    return request.param


FACTORS = [1.0, 2.0, 8.5]


def test_linear_equals_transformers(sizes):
    for factor in FACTORS:
        want, one = theirs("linear", *sizes, factor=factor)
        same(ours(LinearScaling(factor), *sizes), want)
        assert LinearScaling(factor).attention_factor == one


def test_ntk_equals_transformers(sizes):
    """Its dynamic one, at our new length."""
    for factor in FACTORS:
        want, one = theirs("dynamic", *sizes, round(64 * factor), factor=1.0)
        scaling = NtkScaling(factor, 64)
        same(ours(scaling, *sizes), want)
        assert scaling.attention_factor == one


def test_yarn_equals_transformers(sizes):
    betas = [(32, 1), (4, 0.5), (64, 1e-4)]
    for factor, trained, (fast, slow) in itertools.product(FACTORS, [16, 4096, 131_072], betas):
        options = {"factor": factor, "beta_fast": fast, "beta_slow": slow, "trained": trained}
        want, factor_on_vectors = theirs("yarn", *sizes, **options)
        scaling = YarnScaling(factor, trained, fast, slow)
        same(ours(scaling, *sizes), want)
        assert scaling.attention_factor == pytest.approx(factor_on_vectors, rel=1e-12)
        further = {"truncate": False, "attention_factor": 1.25}
        want, factor_on_vectors = theirs("yarn", *sizes, **options, **further)
        scaling = dataclasses.replace(scaling, truncate=False, sharpen=1.25)
        same(ours(scaling, *sizes), want)
        assert scaling.attention_factor == factor_on_vectors


def test_llama3_equals_transformers(sizes):
    factors = [(1.0, 4.0), (0.5, 32.0), (1e-3, 1.5)]
    for factor, trained, (low, high) in itertools.product(FACTORS, [16, 64, 8192], factors):
        options = {"factor": factor, "low_freq_factor": low, "high_freq_factor": high}
        want, one = theirs("llama3", *sizes, trained=trained, **options)
        scaling = Llama3Scaling(factor, trained, low, high)
        same(ours(scaling, *sizes), want)
        assert scaling.attention_factor == one


# --- formulas and properties ---------------------------------------------------------------


def test_linear_by_hand():
    got = ours(LinearScaling(2), head_dim=4, base=100)
    assert got.tolist() == pytest.approx([0.5, 0.05])


def test_ntk_by_hand():
    """d = 4, base 100, factor 9: base' = 100 · 9^(4/2) = 8100, so frequencies 1 and 1/90."""
    got = ours(NtkScaling(9, 64), head_dim=4, base=100)
    assert got.tolist() == pytest.approx([1, 1 / 90])


def test_yarn_by_hand():
    """d = 8, base 10^4, 2000 tokens: turns of the pairs 318, 31.8, 3.18 and 0.318.

    32 rounds lie at index 0.998 (down to 0), 1 round at 2.503 (up to 3): the ramp is 0, 1/3, 2/3, 1
    and with factor 10 a pair keeps 1 − 0.9 · ramp of its speed.
    """
    got = ours(YarnScaling(10, 2000), head_dim=8)
    assert got.tolist() == pytest.approx([1, 0.1 * 0.7, 0.01 * 0.4, 0.001 * 0.1])
    assert YarnScaling(10, 2000).attention_factor == pytest.approx(1.230258509)
    assert YarnScaling(10, 2000, sharpen=1.5).attention_factor == 1.5
    # Not cut to whole indices, the ramp is (i − 0.99770) / 1.50515.
    got = ours(YarnScaling(10, 2000, truncate=False), head_dim=8)
    kept = [1 - 0.9 * ramp for ramp in (0.0, 0.00153, 0.66591, 1.0)]
    assert got.tolist() == pytest.approx([k / 10**i for i, k in enumerate(kept)], rel=1e-4)


def test_llama3_by_hand():
    """By turns in 100 tokens: more than 4 are kept, fewer than 1 divided, 2.5 half of both."""
    turns = torch.tensor([8.0, 2.5, 1.0, 0.5])
    got = Llama3Scaling(10, 100).scale(math.tau * turns / 100, base=7)
    want = math.tau / 100 * torch.tensor([8.0, 2.5 * (0.5 + 0.05), 0.1, 0.05])
    torch.testing.assert_close(got, want)


@given(st.integers(2, 64), st.floats(10, 1e6), st.floats(1, 100), st.integers(8, 10**6))
@settings(max_examples=30, deadline=None)
def test_llama3_keeps_the_fast_and_divides_the_slow(pairs, base, factor, trained):
    plain = geometric_frequencies(2 * pairs, base)
    got = Llama3Scaling(factor, trained).scale(plain, base)
    turns = plain * trained / math.tau
    torch.testing.assert_close(got[turns > 4], plain[turns > 4], rtol=1e-12, atol=0)
    torch.testing.assert_close(got[turns < 1], plain[turns < 1] / factor, rtol=1e-12, atol=0)
    assert (got.diff() <= 0).all()  # the order of the pairs stays


@given(st.integers(2, 64), st.floats(10, 1e6), st.floats(1, 100))
@settings(max_examples=30, deadline=None)
def test_ntk_is_a_larger_base(pairs, base, factor):
    dim = 2 * pairs
    want = geometric_frequencies(dim, base * factor ** (dim / (dim - 2)))
    got = NtkScaling(factor, 64).scale(geometric_frequencies(dim, base), base)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0)
    plain = geometric_frequencies(dim, base)
    assert got[0] == plain[0]
    assert (plain[-1] / got[-1]).item() == pytest.approx(factor)


@given(st.integers(2, 64), st.floats(10, 1e6), st.floats(1, 100), st.integers(1, 10**6))
@settings(max_examples=30, deadline=None)
def test_each_scale_stays_between_none_and_linear(pairs, base, factor, trained):
    plain = geometric_frequencies(2 * pairs, base)
    for scaling in (kind(factor, trained) for kind in (NtkScaling, YarnScaling, Llama3Scaling)):
        got = scaling.scale(plain, base)
        assert (got <= plain * (1 + 1e-12)).all()
        assert (got >= plain / factor * (1 - 1e-12)).all()


@given(st.integers(2, 64), st.floats(10, 1e6), st.floats(1, 100), st.integers(8, 10**6))
@settings(max_examples=30, deadline=None)
def test_yarn_keeps_the_fast_and_divides_the_slow(pairs, base, factor, trained):
    plain = geometric_frequencies(2 * pairs, base)
    got = YarnScaling(factor, trained).scale(plain, base)
    per_index = base ** (2 / (2 * pairs))  # the ramp begins and ends at whole indices
    rounds = plain * trained / math.tau
    kept, divided = rounds > 32 * per_index, rounds < 1 / per_index
    torch.testing.assert_close(got[kept], plain[kept], rtol=1e-12, atol=0)
    torch.testing.assert_close(got[divided], plain[divided] / factor, rtol=1e-9, atol=0)


def test_yarn_keeps_all_when_all_are_fast():
    """Base 10 in 20,000 tokens: the slowest of four components goes round 1,006 times."""
    got = ours(YarnScaling(4, 20_000), head_dim=4, base=10)
    assert torch.equal(got, geometric_frequencies(4, 10))


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: type(s).__name__)
def test_a_factor_of_one_changes_nothing(scaling):
    same_scaling = dataclasses.replace(scaling, factor=1)
    torch.testing.assert_close(ours(same_scaling), geometric_frequencies(64, 10_000))
    assert same_scaling.attention_factor == 1


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: type(s).__name__)
def test_plain_values(scaling):
    assert scaling == dataclasses.replace(scaling)
    assert type(scaling)(**dataclasses.asdict(scaling)) == scaling
    assert hash(scaling) == hash(dataclasses.replace(scaling))
    with pytest.raises(dataclasses.FrozenInstanceError):
        scaling.factor = 3


# --- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: type(s).__name__)
def test_factor_below_one(scaling):
    for factor in (0.99, 0, -2, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"new length / trained length.* got {factor}"):
            dataclasses.replace(scaling, factor=factor)


@pytest.mark.parametrize("scaling", SCALINGS[1:], ids=lambda s: type(s).__name__)
def test_trained_length(scaling):
    with pytest.raises(ValueError, match="original_max_seq_len must be at least 1, got 0"):
        dataclasses.replace(scaling, original_max_seq_len=0)
    assert dataclasses.replace(scaling, original_max_seq_len=1)


def test_sharpen():
    for wrong in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="sharpen must be "):
            YarnScaling(2, 64, sharpen=wrong)


def test_ntk_needs_two_pairs():
    with pytest.raises(ValueError, match="at least 4 components, got 2"):
        Rope(2, scaling=NtkScaling(2, 64))


@pytest.mark.parametrize(("fast", "slow"), [(1, 1), (1, 32), (32, 0), (32, -1)])
def test_betas(fast, slow):
    with pytest.raises(ValueError, match=f"got beta_fast = {fast}, beta_slow = {slow}"):
        YarnScaling(2, 64, beta_fast=fast, beta_slow=slow)
    with pytest.raises(
        ValueError, match=rf"high_freq_factor > low_freq_factor > 0 .* got {fast} and"
    ):
        Llama3Scaling(2, 64, low_freq_factor=slow, high_freq_factor=fast)
