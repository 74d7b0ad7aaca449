"""Planted leaks are found and named, correct models pass, and nothing is left changed."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from llmtutor.evaluate import causality
from llmtutor.evaluate.causality import Leak, assert_causal, find_leak
from llmtutor.layers.attention import Attention, attention, causal_mask
from llmtutor.layers.basic import Embedding, Linear
from llmtutor.layers.ffn import MLP, GatedMLP
from llmtutor.layers.norms import LayerNorm, RMSNorm, RMSNormConfig
from llmtutor.layers.positions.alibi import Alibi
from llmtutor.layers.positions.learned import LearnedPosition
from llmtutor.layers.positions.relative import ShawPosition, T5Bias
from llmtutor.layers.positions.rope import Rope

VOCAB, D_MODEL, N_HEADS, HEAD_DIM = 11, 12, 3, 4


class Mixed(nn.Module):
    """ids → embedding → one layer with a residual → logits."""

    def __init__(self, layer: nn.Module, embedding: type = Embedding) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.layer = embedding(VOCAB, D_MODEL), layer
        self.unembedding = Linear(D_MODEL, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        return self.unembedding(x + self.layer(x))


class Do(nn.Module):
    """A function (batch, seq, d_model) → the same, as a layer."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def heads(**options) -> Attention:
    torch.manual_seed(1)
    return Attention(D_MODEL, N_HEADS, **options)


class BatchNorm(nn.BatchNorm1d):
    """Over batch and sequence: (batch, seq, d_model) → (batch, d_model, seq) and back."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def masked_one_too_far(x: Tensor) -> Tensor:
    return attention(x, x, x, mask=torch.ones(x.shape[1], x.shape[1]).tril(1).bool())


def one_hole(x: Tensor) -> Tensor:
    mask = causal_mask(x.shape[1])
    mask[6, 9] = True
    return attention(x, x, x, mask=mask)


def norm_over_sequence(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean((-2, -1), keepdim=True) + 1e-5)


def token_shift(x: Tensor) -> Tensor:
    return torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)


LEAKS = {
    "mask shifted by one": (lambda: Do(masked_one_too_far), 0, 1),
    "norm over (seq, d_model)": (lambda: Do(norm_over_sequence), 0, 1),
    "relative bias without a mask": (
        lambda: heads(causal=False, position=T5Bias(N_HEADS)),
        0,
        1,
    ),
    "token shift of +1": (lambda: Do(token_shift), 0, 1),
    "batch-norm over the sequence": (
        lambda: BatchNorm(D_MODEL, track_running_stats=False),
        0,
        1,
    ),
    "one hole in the mask": (lambda: Do(one_hole), 6, 9),
    "two steps ahead, from position 3 on": (
        lambda: Do(lambda x: x.roll(-2, 1) * torch.arange(16)[:, None].ge(3)),
        3,
        5,
    ),
}


def without(monkeypatch: pytest.MonkeyPatch, method: str | None) -> None:
    if method:
        monkeypatch.setattr(causality, f"_by_{method}", lambda *args: None)


@pytest.mark.parametrize("off", [None, "jacobian", "perturbation"])
@pytest.mark.parametrize("name", LEAKS)
def test_planted_leak_is_found_and_named(name, off, monkeypatch) -> None:
    """By both experiments together, and by each with the other switched off."""
    without(monkeypatch, off)
    make, position, source = LEAKS[name]
    leak = find_leak(Mixed(make()), VOCAB)
    assert leak is not None
    assert (leak.position, leak.source) == (position, source)
    assert leak.method == ("jacobian" if off == "perturbation" else "perturbation")
    assert 1e-4 < leak.size <= 2


@pytest.mark.parametrize("off", [None, "jacobian", "perturbation"])
def test_statistics_of_the_batch_show_in_training_mode_alone(off, monkeypatch) -> None:
    without(monkeypatch, off)
    model = Mixed(BatchNorm(D_MODEL))
    leak = find_leak(model.eval(), VOCAB)
    assert leak is not None and leak.training
    assert (leak.position, leak.source) == (0, 1)
    assert str(leak).endswith("in training mode)")


@given(st.data())
@settings(deadline=None, max_examples=20)
def test_any_single_connection_is_found_exactly(data) -> None:
    position = data.draw(st.integers(0, 8))
    source = data.draw(st.integers(position + 1, 9))
    later = data.draw(st.integers(position + 1, 10))

    def connect(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, position] += 1e-3 * x[:, source]
        if later < 9:
            y[:, later] += x[:, 9]  # a stronger leak further on is not the first
        return y

    leak = find_leak(Mixed(Do(connect)), VOCAB, seq_len=10)
    assert leak is not None
    assert (leak.position, leak.source) == (position, source)


def straight_through(x: Tensor) -> Tensor:
    """Adds exactly 0 that has a derivative by the next input."""
    return x + token_shift(x) - token_shift(x).detach()


def test_each_experiment_sees_what_the_other_cannot() -> None:
    leak = find_leak(Mixed(Do(straight_through)), VOCAB)
    assert leak is not None and leak.method == "jacobian"
    assert "has a derivative by the input at position 1" in str(leak)
    detached = find_leak(Mixed(Do(lambda x: x + token_shift(x).detach())), VOCAB)
    assert detached is not None and detached.method == "perturbation"


def test_ids_shifted_before_the_embedding() -> None:
    class Shifted(Mixed):
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids.roll(-1, 1))

    leak = find_leak(Shifted(Do(torch.tanh)), VOCAB)
    assert leak is not None
    assert (leak.position, leak.source, leak.method) == (0, 1, "perturbation")


# --- what passes -----------------------------------------------------------------------------


def layers(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(*parts)


CORRECT = {
    "attention": lambda: heads(),
    "window": lambda: heads(window=3, qk_norm=RMSNormConfig(), bias=True),
    "rope": lambda: heads(position=Rope(HEAD_DIM)),
    "alibi": lambda: heads(position=Alibi(N_HEADS)),
    "shaw": lambda: heads(position=ShawPosition(HEAD_DIM, 4)),
    "t5": lambda: heads(position=T5Bias(N_HEADS)),
    "block": lambda: layers(
        RMSNorm(D_MODEL), heads(), LayerNorm(D_MODEL), MLP(D_MODEL, 20), heads(), GatedMLP(12, 8)
    ),
    "dropout": lambda: layers(heads(), nn.Dropout(0.5), heads()),
    "the past alone": lambda: Do(lambda x: x.roll(3, 1) * torch.arange(16)[:, None].ge(3)),
    "running mean": lambda: Do(lambda x: x.cumsum(1)),
}


@pytest.mark.parametrize("embedding", [Embedding, nn.Embedding])
@pytest.mark.parametrize("name", CORRECT)
def test_correct_model_passes(name, embedding) -> None:
    assert_causal(Mixed(CORRECT[name](), embedding), VOCAB)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deep_model_of_any_precision_passes(dtype) -> None:
    parts = [part for _ in range(6) for part in (RMSNorm(D_MODEL), heads(), GatedMLP(D_MODEL, 16))]
    assert_causal(Mixed(layers(*parts)).to(dtype), VOCAB, seq_len=32)


class Composite(nn.Module):
    """Embedding inside a wrapper, positions added in place, head tied to it, parameters frozen."""

    def __init__(self, leak: bool) -> None:
        super().__init__()
        self.bottom = nn.Sequential(Embedding(VOCAB, D_MODEL))
        self.position = LearnedPosition(32, D_MODEL)
        self.layer = heads(causal=not leak)
        self.requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.bottom(ids)
        x += self.position.embed(torch.zeros_like(x), torch.arange(ids.shape[1]))
        return (x + self.layer(x)) @ self.bottom[0].weight.T


@pytest.mark.parametrize("off", [None, "jacobian", "perturbation"])
def test_frozen_tied_wrapped(off, monkeypatch) -> None:
    without(monkeypatch, off)
    assert_causal(Composite(leak=False), VOCAB)
    leak = find_leak(Composite(leak=True), VOCAB)
    assert leak is not None and (leak.position, leak.source) == (0, 1)


def test_any_callable_will_do() -> None:
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0))
    assert_causal(lambda ids: table[ids], VOCAB)
    leak = find_leak(lambda ids: table[ids].flip(1), VOCAB, seq_len=6)
    assert leak is not None and (leak.position, leak.source) == (0, 5)
    with torch.no_grad():
        assert_causal(Mixed(heads()), VOCAB)


# --- nothing is left changed -------------------------------------------------------------------


@pytest.mark.parametrize("leaky", [False, True])
def test_model_and_random_state_are_as_before(leaky) -> None:
    model = Mixed(layers(BatchNorm(D_MODEL), nn.Dropout(0.5), heads(causal=not leaky)))
    model.train()
    model.layer[1].eval()  # a mixture of modes, as when a part is frozen
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    random_state = torch.get_rng_state()
    find_leak(model, VOCAB)
    assert [module.training for module in model.modules()] == modes
    assert set(state) == set(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_modes_and_hooks_come_back_after_an_error() -> None:
    def explode(x: Tensor) -> Tensor:
        if x.requires_grad:  # only in the second experiment
            raise RuntimeError("broken layer")
        return x

    model = Mixed(Do(explode)).train()
    with pytest.raises(RuntimeError, match="broken layer"):
        find_leak(model, VOCAB)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_same_seed_same_answer() -> None:
    model = Mixed(Do(norm_over_sequence))
    first, again = (find_leak(model, VOCAB, seed=3) for _ in range(2))
    assert isinstance(first, Leak) and first == again
    other = find_leak(model, VOCAB, seed=4)
    assert other is not None and other.size != first.size


def test_dropout_follows_the_seed_and_not_the_random_numbers_outside() -> None:
    model = Mixed(layers(nn.Dropout(0.5), BatchNorm(D_MODEL)))
    found = []
    for outside in (1, 2):
        torch.manual_seed(outside)
        found.append(find_leak(model, VOCAB, seed=3))
    assert found[0] is not None and found[0].training and found[0] == found[1]


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Embedding(9, 9), {"vocab_size": 1}, "vocab_size >= 2.*got 1 and 16"),
        (nn.Embedding(9, 9), {"seq_len": 1}, "seq_len >= 2.*got 9 and 1"),
        (lambda ids: torch.zeros(2, 9), {}, r"logits \(batch, seq, vocab\).*\(2, 9\)"),
        (lambda ids: torch.zeros(2, 15, 9), {}, r"ids \(2, 16\), got .*\(2, 15, 9\)"),
        (lambda ids: ids[..., None], {}, "torch.int64"),
        (lambda ids: torch.full((2, 16, 9), torch.nan), {}, "nan or infinite"),
    ],
)
def test_refuses(model, options, message) -> None:
    for function in (find_leak, assert_causal):
        with pytest.raises(ValueError, match=message):
            function(model, **{"vocab_size": 9, **options})


def test_message_says_where_to_look() -> None:
    with pytest.raises(AssertionError) as raised:
        assert_causal(Mixed(Do(one_hole)), VOCAB)
    assert re.fullmatch(
        r"not causal: the output at position 6 changes with the input at position 9, which comes "
        r"later \(relative size \d\.\de-0\d, by perturbation, in evaluation mode\); look for .+",
        str(raised.value),
    )
