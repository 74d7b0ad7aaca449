"""`transformers` in both pairings, complex numbers, relative distance, and exact conversion."""

import cmath
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmtutor.layers.positions import (
    LinearScaling,
    Llama3Scaling,
    NtkScaling,
    Rope,
    YarnScaling,
    convert_pairing,
)
from llmtutor.layers.positions.rope import rotary_dim, rotate_pairs

PAIRINGS = ("interleaved", "half")
SCALINGS = {
    "none": (None, {"rope_type": "default"}),
    "linear": (LinearScaling(4), {"rope_type": "linear", "factor": 4.0}),
    "ntk": (NtkScaling(5, 50), {"rope_type": "dynamic", "factor": 2.0}),
    "yarn": (
        YarnScaling(4, 50),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 50},
    ),
    "llama3": (
        Llama3Scaling(4, 50, 1, 4),
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "original_max_position_embeddings": 50,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    ),
}
evens = st.integers(1, 12).map(lambda n: 2 * n)
pairings = st.sampled_from(PAIRINGS)


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def doubled(cos: Tensor, pairing: str) -> Tensor:
    """Each pair's value on both of its components, as the libraries lay it out."""
    return cos.repeat_interleave(2, -1) if pairing == "interleaved" else torch.cat((cos, cos), -1)


def turn(rope: Rope, x: Tensor, position: int) -> Tensor:
    """One vector at one position."""
    return rope.rotate(x[None], torch.tensor([position]))[0]


# --- against transformers ------------------------------------------------------------------


def test_half_equals_llama():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    rope = Rope(16, base=5000.0, pairing="half")
    q, k = draw(2, 3, 40, 16), draw(2, 1, 40, 16, seed=1)
    positions = torch.arange(7, 47)
    angles = positions[:, None] * 5000.0 ** (-torch.arange(0, 16, 2).double() / 16)
    cos, sin = (doubled(t, "half")[None] for t in (angles.cos(), angles.sin()))
    want = apply_rotary_pos_emb(q, k, cos, sin)
    for x, theirs in zip((q, k), want, strict=True):
        torch.testing.assert_close(rope.rotate(x, positions), theirs, rtol=1e-12, atol=1e-12)


def test_interleaved_equals_gptj():
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb

    rope = Rope(16, base=5000.0)
    x = draw(2, 3, 40, 16)
    positions = torch.arange(7, 47)
    angles = positions[:, None] * 5000.0 ** (-torch.arange(0, 16, 2).double() / 16)
    want = apply_rotary_pos_emb(x.transpose(1, 2), angles.sin()[None], angles.cos()[None])
    got = rope.rotate(x, positions)
    torch.testing.assert_close(got, want.transpose(1, 2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("name", SCALINGS)
def test_whole_layer_equals_llama(name, pairing):
    """Frequencies, table, factor and rotation in one go; theirs is float32 inside."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import (
        LlamaRotaryEmbedding,
        apply_rotary_pos_emb,
    )

    scaling, options = SCALINGS[name]
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=2,
        max_position_embeddings=200 if name in ("yarn", "llama3") else 50,
        rope_parameters={"rope_theta": 10_000.0, **options},
    )
    x = draw(2, 2, 150, 32).float()
    positions = torch.arange(150)
    theirs = LlamaRotaryEmbedding(config)
    want, _ = apply_rotary_pos_emb(x, x, *theirs(x, positions[None]))
    if pairing == "half":
        got = Rope(32, pairing=pairing, scaling=scaling).rotate(x, positions)
    else:
        back = torch.arange(32).unflatten(0, (2, 16)).T.flatten()  # half → interleaved
        got = Rope(32, scaling=scaling).rotate(x[..., back], positions)
        want = want[..., back]
    # Their angles are float32 products: at position 149 they are off by up to 149 · 2⁻²⁴ ≈ 1e-5.
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * want.abs().max().item())


@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_part_of_the_head_equals_gpt_neox(fraction):
    """The first components turn, by frequencies of so many, and the others stay."""
    from transformers import GPTNeoXConfig
    from transformers.models.gpt_neox.modeling_gpt_neox import (
        GPTNeoXRotaryEmbedding,
        apply_rotary_pos_emb,
    )

    config = GPTNeoXConfig(
        hidden_size=64,
        num_attention_heads=2,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": fraction,
        },
    )
    x, positions = draw(2, 2, 20, 32).float(), torch.arange(20)
    cos, sin = GPTNeoXRotaryEmbedding(config)(x, positions[None])
    assert cos.shape[-1] == 32 * fraction
    want, _ = apply_rotary_pos_emb(x, x, cos, sin)
    got = Rope(32, pairing="half", fraction=fraction).rotate(x, positions)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    turned = int(32 * fraction)
    assert torch.equal(got[..., turned:], x[..., turned:])
    small = Rope(turned, pairing="half").rotate(x[..., :turned], positions)
    assert torch.equal(got[..., :turned], small)


# --- by hand and by complex numbers --------------------------------------------------------


def test_by_hand():
    """d = 4, base 100: at position 2 the pairs turn by 2 and by 0.2 radians."""
    x = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    got = turn(Rope(4, base=100), x, 2)  # pairs (1, 0) and (0, 1)
    assert got.tolist() == pytest.approx([math.cos(2), math.sin(2), -math.sin(0.2), math.cos(0.2)])
    got = turn(
        Rope(4, base=100, pairing="half"), x, 2
    )  # pairs (x0, x2) = (1, 0), (x1, x3) = (0, 1)
    assert got.tolist() == pytest.approx([math.cos(2), -math.sin(0.2), math.sin(2), math.cos(0.2)])


def test_position_zero_turns_nothing():
    for pairing in PAIRINGS:
        x = draw(8)
        assert torch.equal(turn(Rope(8, pairing=pairing), x, 0), x)


@given(evens, pairings, st.integers(0, 3000), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_a_pair_is_a_complex_number_times_a_phase(head_dim, pairing, position, seed):
    x = draw(head_dim, seed=seed)
    got = turn(Rope(head_dim, pairing=pairing), x, position).tolist()
    for i in range(head_dim // 2):
        first, second = (2 * i, 2 * i + 1) if pairing == "interleaved" else (i, i + head_dim // 2)
        phase = cmath.exp(1j * position * 10_000.0 ** (-2 * i / head_dim))
        want = complex(x[first], x[second]) * phase
        assert complex(got[first], got[second]) == pytest.approx(want, abs=1e-10)


# --- properties ----------------------------------------------------------------------------


@given(
    evens,
    pairings,
    st.sampled_from(list(SCALINGS)),
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.integers(0, 3000),
)
@settings(max_examples=40, deadline=None)
def test_scores_depend_on_the_distance_alone(head_dim, pairing, name, p, q, shift):
    if name == "ntk" and head_dim == 2:
        head_dim = 4
    rope = Rope(head_dim, pairing=pairing, scaling=SCALINGS[name][0])
    a, b = draw(head_dim), draw(head_dim, seed=1)
    score = turn(rope, a, p) @ turn(rope, b, q)
    moved = turn(rope, a, p + shift) @ turn(rope, b, q + shift)
    torch.testing.assert_close(moved, score, rtol=0, atol=1e-9)


def test_scores_do_depend_on_the_distance():
    """The property above would hold for no rotation too."""
    for pairing in PAIRINGS:
        rope, a = Rope(8, pairing=pairing), draw(8)
        scores = torch.stack([turn(rope, a, p) @ turn(rope, a, 10) for p in range(20)])
        assert scores.argmax() == 10
        assert scores[10] - scores[9] > 0.1


@given(evens, pairings, st.integers(0, 5000), st.sampled_from([0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_norms_are_preserved(quarter, pairing, position, fraction):
    x = draw(2 * quarter)
    got = turn(Rope(2 * quarter, pairing=pairing, fraction=fraction), x, position)
    assert got.norm().item() == pytest.approx(x.norm().item(), rel=1e-12)


def test_yarn_lengthens_by_its_factor_and_only_what_turns():
    scaling = YarnScaling(8, 64)
    x = draw(16)
    got = turn(Rope(16, fraction=0.5, scaling=scaling), x, 33)
    assert (got[:8].norm() / x[:8].norm()).item() == pytest.approx(0.1 * math.log(8) + 1)
    assert torch.equal(got[8:], x[8:])


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_gradient(pairing, fraction):
    x = draw(1, 2, 3, 8).requires_grad_()
    rope, positions = Rope(8, pairing=pairing, fraction=fraction), torch.tensor([0, 5, 77])
    assert torch.autograd.gradcheck(lambda x: rope.rotate(x, positions), x)
    assert torch.autograd.gradgradcheck(lambda x: rope.rotate(x, positions), x)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_any_layout_in_memory(pairing):
    """Heads cut out of a projection are views with odd strides and offsets."""
    rope, positions = Rope(6, pairing=pairing), torch.arange(5)
    storage = draw(2, 5, 3 * 7 + 1)
    x = storage[..., 1:].unflatten(-1, (3, 7)).transpose(1, 2)[..., 1:]
    assert not x.is_contiguous() and x.storage_offset() % 2 == 0
    for view in (x, storage[..., 2:8], x.flip(-1)):
        got = rope.rotate(view, positions)
        torch.testing.assert_close(got, rope.rotate(view.clone().contiguous(), positions))
    odd = storage[..., 1:7]
    assert odd.storage_offset() % 2 == 1
    assert torch.equal(rope.rotate(odd, positions), rope.rotate(odd.contiguous(), positions))


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("fraction", [0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype, fraction, pairing):
    """As computed in float64 and rounded at the end, up to the rare tie that float32 moves."""
    rope = Rope(16, pairing=pairing, fraction=fraction)
    x, positions = draw(4, 300, 16).to(dtype), torch.arange(1000, 1300)
    got = rope.rotate(x, positions)
    want = rope.rotate(x.double(), positions).to(dtype)
    assert got.dtype == dtype
    assert (got != want).float().mean() < 0.001
    torch.testing.assert_close(got, want, rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_float32_is_precise_far_out(pairing):
    """Angles made in float32 would be wrong in the third digit at position 100,000."""
    rope, positions = Rope(16, pairing=pairing), torch.tensor([100_000])
    x = draw(1, 16)
    got = rope.rotate(x.float(), positions).double()
    torch.testing.assert_close(got, rope.rotate(x, positions), rtol=0, atol=1e-6)


# --- converting weights --------------------------------------------------------------------


@given(st.integers(1, 4), evens, st.sampled_from([1.0, 0.5]), pairings, st.integers(0, 500))
@settings(max_examples=30, deadline=None)
def test_converted_weights_give_the_same_scores(n_heads, half, fraction, source, start):
    head_dim, target = 2 * half, PAIRINGS[1 - PAIRINGS.index(source)]
    x, positions = draw(3, 5), torch.arange(start, start + 3)
    weights = draw(2, n_heads * head_dim, 5, seed=1)
    biases = draw(2, n_heads * head_dim, seed=2)

    def scores(pairing, weights, biases):
        rope = Rope(head_dim, pairing=pairing, fraction=fraction)
        q, k = (
            rope.rotate((x @ w.T + b).unflatten(-1, (n_heads, head_dim)).transpose(0, 1), positions)
            for w, b in zip(weights, biases, strict=True)
        )
        return q @ k.transpose(-1, -2)

    def converted(tensors, source, target):
        return [convert_pairing(t, n_heads, source, target, fraction=fraction) for t in tensors]

    there = converted(weights, source, target), converted(biases, source, target)
    torch.testing.assert_close(
        scores(target, *there), scores(source, weights, biases), rtol=0, atol=1e-10
    )
    for moved, before in zip(there, (weights, biases), strict=True):
        for back, original in zip(converted(moved, target, source), before, strict=True):
            assert torch.equal(back, original)


def test_without_conversion_the_scores_differ():
    q, k = draw(2, 6, 8)
    positions = torch.arange(6)
    scores = []
    for pairing in PAIRINGS:
        rope = Rope(8, pairing=pairing)
        scores.append(rope.rotate(q, positions) @ rope.rotate(k, positions).T)
    assert (scores[0] - scores[1]).abs().max() > 0.5


def test_conversion_by_hand():
    rows = torch.arange(16.0)[:, None]
    want = [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]
    there = convert_pairing(rows, 2, "interleaved", "half")
    assert there.flatten().tolist() == want
    assert torch.equal(convert_pairing(there, 2, "half", "interleaved"), rows)
    part = convert_pairing(rows[:8, 0], 1, "interleaved", "half", fraction=0.5)
    assert part.tolist() == [0, 2, 1, 3, 4, 5, 6, 7]


def test_conversion_is_the_one_of_the_llama_checkpoints():
    """As (heads, pairs, 2, d_model) with the middle swapped: from Meta's weights to the Hub's."""
    weight = draw(3 * 8, 5)
    want = weight.view(3, 4, 2, 5).transpose(1, 2).reshape(24, 5)
    assert torch.equal(convert_pairing(weight, 3, "interleaved", "half"), want)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_conversion_to_itself_is_a_copy(pairing):
    weight = draw(8, 3)
    same = convert_pairing(weight, 2, pairing, pairing)
    assert torch.equal(same, weight)
    assert same.data_ptr() != weight.data_ptr()


# --- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize("head_dim", [-4, 0, 1, 7])
def test_odd_head(head_dim):
    with pytest.raises(ValueError, match=f"head_dim must be an even number.* got {head_dim}"):
        Rope(head_dim)


@pytest.mark.parametrize(
    ("head_dim", "fraction", "message"),
    [
        (12, 0.25, r"fraction · head_dim = 0\.25 · 12 must be an even .* got 3"),
        (10, 0.25, r"must be an even .* got 2\.5"),
        (4, 0.1, r"must be an even .* got 0\.4"),
        (8, 0.0, r"must lie in \(0, 1\], got 0\.0"),
        (8, 1.5, r"must lie in \(0, 1\], got 1\.5"),
        (8, -0.5, r"must lie in \(0, 1\], got -0\.5"),
        (8, math.nan, r"must lie in \(0, 1\], got nan"),
    ],
)
def test_odd_part(head_dim, fraction, message):
    with pytest.raises(ValueError, match=message):
        Rope(head_dim, fraction=fraction)
    with pytest.raises(ValueError, match=message):
        convert_pairing(torch.zeros(head_dim), 1, "half", "interleaved", fraction=fraction)


def test_a_part_that_is_whole_only_up_to_rounding():
    assert rotary_dim(80, 0.4) == 32
    assert rotary_dim(6, 1 / 3) == 2
    assert rotary_dim(100, 0.58) == 58  # 0.58 · 100 is 57.99999999999999


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("interleave", "did you mean 'interleaved'"),
        ("Half", "did you mean 'half'"),
        ("rotate_half", "did you mean 'half'"),
        ("xyz", "unknown pairing 'xyz'; .*There are interleaved, half"),
        (None, "unknown pairing None"),
    ],
)
def test_unknown_pairing(name, message):
    with pytest.raises(ValueError, match=message):
        Rope(8, pairing=name)
    with pytest.raises(ValueError, match=message):
        convert_pairing(torch.zeros(8), 1, name, "half")
    with pytest.raises(ValueError, match=message):
        convert_pairing(torch.zeros(8), 1, "half", name)


def test_weights_that_are_no_projection():
    with pytest.raises(ValueError, match=r"n_heads = 3, got shape \(8, 2\)"):
        convert_pairing(torch.zeros(8, 2), 3, "half", "interleaved")
    with pytest.raises(ValueError, match="n_heads must be at least 1, got 0"):
        convert_pairing(torch.zeros(8, 2), 0, "half", "interleaved")
    with pytest.raises(ValueError, match=r"got shape \(\)"):
        convert_pairing(torch.tensor(1.0), 1, "half", "interleaved")


def test_base():
    with pytest.raises(ValueError, match="base must be above 1, got 1"):
        Rope(8, base=1)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_quarter_turn(pairing):
    x, zero, one = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 1), torch.ones(1, 1)
    assert rotate_pairs(x, zero, one, pairing).tolist() == [[-4.0, 3.0]]
    two = torch.zeros(1, 2), torch.ones(1, 2)
    want = {"interleaved": [[-2.0, 1.0, -4.0, 3.0]], "half": [[-3.0, -4.0, 1.0, 2.0]]}
    assert (
        rotate_pairs(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), *two, pairing).tolist() == want[pairing]
    )
