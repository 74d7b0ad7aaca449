"""Frequencies of `transformers`, the formulas one hand at a time, and the ends of each scale."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtutor.layers.positions import LinearScaling, NtkScaling, Rope, YarnScaling
from llmtutor.layers.positions.angles import geometric_frequencies

SCALINGS = LinearScaling(4), NtkScaling(4, 64), YarnScaling(4, 64)


def theirs(kind, head_dim=64, base=10_000.0, seq_len=None, trained=64, **options):
    """Frequencies and factor of `transformers` for a model trained on ``trained`` tokens."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_type": kind, "rope_theta": base, "factor": 1.0, **options}
    if kind == "yarn":
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


@pytest.mark.parametrize("head_dim", [4, 32, 64, 128])
@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
@pytest.mark.parametrize("factor", [1.0, 2.0, 8.5])
class TestAgainstTransformers:
    def test_linear(self, head_dim, base, factor):
        want, one = theirs("linear", head_dim, base, factor=factor)
        same(ours(LinearScaling(factor), head_dim, base), want)
        assert LinearScaling(factor).attention_factor == one

    @pytest.mark.parametrize("seq_len", [10, 64, 65, 200, 1024])
    def test_dynamic_ntk_at_a_length(self, head_dim, base, factor, seq_len):
        want, one = theirs("dynamic", head_dim, base, seq_len, factor=factor)
        scaling = NtkScaling.for_length(seq_len, factor, 64)
        same(ours(scaling, head_dim, base), want)
        assert scaling.attention_factor == one

    def test_fixed_ntk_is_the_dynamic_one_at_the_new_length(self, head_dim, base, factor):
        want, _ = theirs("dynamic", head_dim, base, round(64 * factor), factor=1.0)
        same(ours(NtkScaling(factor, 64), head_dim, base), want)

    @pytest.mark.parametrize("trained", [16, 64, 4096, 131_072])
    @pytest.mark.parametrize(("fast", "slow"), [(32, 1), (4, 0.5), (64, 1e-4)])
    def test_yarn(self, head_dim, base, factor, trained, fast, slow):
        options = {"factor": factor, "beta_fast": fast, "beta_slow": slow, "trained": trained}
        want, factor_on_vectors = theirs("yarn", head_dim, base, **options)
        scaling = YarnScaling(factor, trained, fast, slow)
        same(ours(scaling, head_dim, base), want)
        assert scaling.attention_factor == pytest.approx(factor_on_vectors, rel=1e-12)


# --- formulas and properties ---------------------------------------------------------------


def test_linear_by_hand():
    got = ours(LinearScaling(2), head_dim=4, base=100)
    assert got.tolist() == pytest.approx([0.5, 0.05])


def test_ntk_by_hand():
    """d = 4, base 100, factor 9: base' = 100 · 9^(4/2) = 8100, so frequencies 1 and 1/90."""
    got = ours(NtkScaling(9, 64), head_dim=4, base=100)
    assert got.tolist() == pytest.approx([1, 1 / 90])


def test_yarn_by_hand():
    """d = 8, base 10^4, 2000 tokens: rounds of the hands 318, 31.8, 3.18 and 0.318.

    32 rounds lie at index 0.998 (down to 0), 1 round at 2.503 (up to 3): the ramp is 0, 1/3, 2/3, 1
    and with factor 10 a hand keeps 1 − 0.9 · ramp of its speed.
    """
    got = ours(YarnScaling(10, 2000), head_dim=8)
    assert got.tolist() == pytest.approx([1, 0.1 * 0.7, 0.01 * 0.4, 0.001 * 0.1])
    assert YarnScaling(10, 2000).attention_factor == pytest.approx(1.230258509)


@given(st.integers(2, 64), st.floats(10, 1e6), st.floats(1, 100))
@settings(max_examples=60, deadline=None)
def test_ntk_is_a_larger_base(pairs, base, factor):
    dim = 2 * pairs
    want = geometric_frequencies(dim, base * factor ** (dim / (dim - 2)))
    got = NtkScaling(factor, 64).scale(geometric_frequencies(dim, base), base)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0)
    plain = geometric_frequencies(dim, base)
    assert got[0] == plain[0]
    assert (plain[-1] / got[-1]).item() == pytest.approx(factor)


@given(st.integers(2, 64), st.floats(10, 1e6), st.floats(1, 100), st.integers(8, 10**6))
@settings(max_examples=60, deadline=None)
def test_each_scale_stays_between_none_and_linear(pairs, base, factor, trained):
    plain = geometric_frequencies(2 * pairs, base)
    for scaling in (NtkScaling(factor, trained), YarnScaling(factor, trained)):
        got = scaling.scale(plain, base)
        assert (got <= plain * (1 + 1e-12)).all()
        assert (got >= plain / factor * (1 - 1e-12)).all()


@given(st.integers(2, 64), st.floats(10, 1e6), st.floats(1, 100), st.integers(8, 10**6))
@settings(max_examples=60, deadline=None)
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


@pytest.mark.parametrize("factor", [0.99, 0, -2, math.inf, math.nan])
@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: type(s).__name__)
def test_factor_below_one(scaling, factor):
    with pytest.raises(ValueError, match=f"new length / trained length.* got {factor}"):
        dataclasses.replace(scaling, factor=factor)


def test_dynamic_factor_below_one():
    with pytest.raises(ValueError, match=r"got 0\.5"):
        NtkScaling.for_length(1024, 0.5, 64)


@pytest.mark.parametrize("scaling", SCALINGS[1:], ids=lambda s: type(s).__name__)
def test_trained_length(scaling):
    with pytest.raises(ValueError, match="original_max_seq_len must be at least 1, got 0"):
        dataclasses.replace(scaling, original_max_seq_len=0)
    with pytest.raises(ValueError, match="original_max_seq_len must be at least 1, got 0"):
        NtkScaling.for_length(10, 1, 0)


def test_ntk_needs_two_pairs():
    with pytest.raises(ValueError, match="at least 4 components, got 2"):
        Rope(2, scaling=NtkScaling(2, 64))


@pytest.mark.parametrize(("fast", "slow"), [(1, 1), (1, 32), (32, 0), (32, -1)])
def test_betas(fast, slow):
    with pytest.raises(ValueError, match=f"got beta_fast = {fast}, beta_slow = {slow}"):
        YarnScaling(2, 64, beta_fast=fast, beta_slow=slow)
