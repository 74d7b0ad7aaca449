"""What every scheme has in common: which hook it fills, what it saves, what it refuses."""

import copy

import pytest
import torch
from torch import Tensor

from llmtutor.layers.positions import (
    Alibi,
    LearnedPosition,
    LinearScaling,
    Llama3Scaling,
    NoPosition,
    Position,
    Rope,
    ShawPosition,
    SinusoidalPosition,
    T5Bias,
    YarnScaling,
)
from llmtutor.layers.positions.base import check_positions, relative_positions

HEADS, WIDTH, SEQ = 3, 8, 5
SCHEMES = {
    "none": (NoPosition, None),
    "learned": (lambda: LearnedPosition(16, WIDTH), "embed"),
    "sinusoidal": (lambda: SinusoidalPosition(WIDTH), "embed"),
    "shaw": (lambda: ShawPosition(WIDTH, 3), "score_bias"),
    "t5": (lambda: T5Bias(HEADS), "score_bias"),
    "alibi": (lambda: Alibi(HEADS), "score_bias"),
    "rope": (lambda: Rope(WIDTH), "rotate"),
    "rope-half": (lambda: Rope(WIDTH, pairing="half"), "rotate"),
    "rope-part": (lambda: Rope(WIDTH, fraction=0.5), "rotate"),
    "rope-linear": (lambda: Rope(WIDTH, scaling=LinearScaling(2)), "rotate"),
    "rope-yarn": (lambda: Rope(WIDTH, scaling=YarnScaling(4, 64)), "rotate"),
    "rope-llama3": (lambda: Rope(WIDTH, scaling=Llama3Scaling(4, 64)), "rotate"),
}
FILLED = [name for name in SCHEMES if SCHEMES[name][1]]


def make(name: str) -> Position:
    torch.manual_seed(0)
    return SCHEMES[name][0]()


def call(position: Position, hook: str, x: Tensor, positions: Tensor) -> Tensor | None:
    if hook == "score_bias":
        return position.score_bias(x, positions, positions)
    return getattr(position, hook)(x, positions)


def inputs(dtype=torch.float64) -> tuple[Tensor, Tensor]:
    x = torch.randn(2, HEADS, SEQ, WIDTH, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return x, torch.arange(SEQ)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_fills_one_hook_and_the_others_do_nothing(name):
    position, (x, positions) = make(name).double(), inputs()
    filled = SCHEMES[name][1]
    for hook in ("embed", "rotate", "score_bias"):
        got = call(position, hook, x, positions)
        if hook == filled:
            assert got is not None
            want = (SEQ, SEQ) if hook == "score_bias" else (SEQ, WIDTH)
            assert got.shape[-2:] == want
            assert not torch.equal(got, torch.zeros_like(got) if hook == "score_bias" else x)
        else:
            assert got is (None if hook == "score_bias" else x)


@pytest.mark.parametrize("name", FILLED)
def test_only_what_is_learned_is_saved_and_it_comes_back(name):
    position, (x, positions) = make(name).double(), inputs()
    before = call(position, SCHEMES[name][1], x, positions)
    state = copy.deepcopy(position.state_dict())
    assert list(state) == (["weight"] if name in ("learned", "shaw", "t5") else [])
    assert not list(position.buffers())
    other = SCHEMES[name][0]().double()
    other.load_state_dict(state, strict=True)
    assert torch.equal(call(other, SCHEMES[name][1], x, positions), before)
    assert torch.equal(call(copy.deepcopy(position), SCHEMES[name][1], x, positions), before)


@pytest.mark.parametrize("name", FILLED)
def test_output_has_the_dtype_of_the_input(name):
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        x, positions = inputs(dtype)
        assert call(make(name).to(dtype), SCHEMES[name][1], x, positions).dtype == dtype


@pytest.mark.parametrize("name", SCHEMES)
def test_queries_and_keys_together_are_each_by_itself(name):
    """Also where several heads of queries share one of keys."""
    position, (x, positions) = make(name).double(), inputs()
    both = position.rotate_both(x, -x[:, :1], positions)
    assert torch.equal(both[0], position.rotate(x, positions))
    assert torch.equal(both[1], position.rotate(-x[:, :1], positions))


@pytest.mark.parametrize("name", [name for name in FILLED if name not in ("learned", "shaw", "t5")])
def test_a_detour_through_bfloat16_loses_nothing_that_is_fixed(name):
    """A buffer would come back rounded to 8 bits, and from the meta device with rubbish."""
    x, positions = inputs()
    want = call(make(name), SCHEMES[name][1], x, positions)
    position = make(name)
    position.to(torch.bfloat16).double()
    assert torch.equal(call(position, SCHEMES[name][1], x, positions), want)
    with torch.device("meta"):
        position = SCHEMES[name][0]()
    position.to_empty(device="cpu")
    assert torch.equal(call(position, SCHEMES[name][1], x, positions), want)


@pytest.mark.parametrize("name", FILLED)
def test_part_of_a_sequence_gets_what_it_gets_in_the_whole(name):
    """A text continued token by token: the positions say where, not the place in the tensor."""
    position, hook = make(name).double(), SCHEMES[name][1]
    x, positions = inputs()
    whole = call(position, hook, x, positions)
    last = x[..., -1:, :]
    if hook == "score_bias":
        part = position.score_bias(last, positions[-1:], positions)
    else:
        part = call(position, hook, last, positions[-1:])
    torch.testing.assert_close(part, whole[..., -1:, :], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", FILLED)
def test_any_integer_dtype_means_the_same_positions(name):
    position, (x, positions) = make(name).double(), inputs()
    want = call(position, SCHEMES[name][1], x, positions)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(call(position, SCHEMES[name][1], x, positions.to(dtype)), want)


@pytest.mark.parametrize("name", FILLED)
def test_wrong_positions(name):
    position, hook, x = make(name).double(), SCHEMES[name][1], inputs()[0]
    calls = [lambda p: call(position, hook, x, p)]
    if hook == "rotate":
        calls.append(lambda p: position.rotate_both(x, x, p))
    for positions, message in [
        (torch.arange(4), r"shape \(5,\).*got \(4,\)"),
        (torch.arange(5)[None], r"shape .*got \(1, 5\)"),
        (torch.arange(5.0), r"must be integers \(torch.int64\), got torch.float32"),
    ]:
        for one in calls:
            with pytest.raises(ValueError, match=message):
                one(positions)


@pytest.mark.parametrize("name", ["rope", "rope-half", "rope-part"])
def test_keys_are_looked_at_as_queries_are(name):
    position, (x, positions) = make(name).double(), inputs()
    for keys, shape in [(x[:, :, :1], "2, 3, 1, 8"), (x[..., :6], "2, 3, 5, 6")]:
        message = rf"agree in \(seq, head_dim\), got shapes \(2, 3, 5, 8\) and \({shape}\)"
        with pytest.raises(ValueError, match=message):
            position.rotate_both(x, keys, positions)


@pytest.mark.parametrize("name", ["shaw", "t5", "alibi"])
def test_wrong_positions_of_the_keys(name):
    x, positions = inputs()
    with pytest.raises(ValueError, match="must be integers"):
        make(name).double().score_bias(x, positions, positions * 1.0)
    with pytest.raises(ValueError, match=r"shape .* got \(1, 5\)"):
        make(name).double().score_bias(x, positions, positions[None])


@pytest.mark.parametrize("name", ["learned", "sinusoidal", "shaw", "rope", "rope-part"])
def test_wrong_width(name):
    x, positions = inputs()
    with pytest.raises(ValueError, match=r"= 8\), got \(2, 3, 5, 6\)"):
        call(make(name).double(), SCHEMES[name][1], x[..., :6], positions)


@pytest.mark.parametrize("name", ["t5", "alibi"])
def test_wrong_number_of_heads(name):
    x, positions = inputs()
    with pytest.raises(ValueError, match=r"n_heads = 3, .*got \(2, 2, 5, 8\)"):
        make(name).score_bias(x[:, :2], positions, positions)
    with pytest.raises(ValueError, match=r"n_heads = 3, .*got \(5, 8\)"):
        make(name).score_bias(x[0, 0], positions, positions)


@pytest.mark.parametrize("name", ["learned", "sinusoidal", "rope"])
def test_integers_are_refused(name):
    x, positions = inputs()
    with pytest.raises(ValueError, match=r"floating point, got torch\.int64"):
        call(make(name), SCHEMES[name][1], x.long(), positions)


def test_no_tokens_are_no_error():
    empty = torch.arange(0)
    check_positions(empty, 0)
    for name in FILLED:
        got = call(make(name).double(), SCHEMES[name][1], inputs()[0][..., :0, :], empty)
        assert got.numel() == 0


def test_relative_positions_by_hand():
    got = relative_positions(torch.zeros(1, 4), torch.tensor([7]), torch.tensor([5, 7, 10]))
    assert got.tolist() == [[-2, 0, 3]]
