"""What is compiled for which device, from which forms, and what it says where it cannot be."""

import sys

import pytest
import torch
from torch import Tensor, nn

from llmtutor.fast.attention import compiled_attention
from llmtutor.fast.compiling import compiled, compiled_loss, prepared, twin
from llmtutor.fast.forms import TableRope, sigmoid_gelu
from llmtutor.layers.attention import Attention, LatentAttention, fused_attention
from llmtutor.layers.basic import RESIDUAL, has_tag
from llmtutor.layers.ffn import MLP, GatedMLP, gelu_tanh
from llmtutor.layers.positions import Alibi, Rope
from llmtutor.model.losses import batch_losses
from llmtutor.model.presets import build, preset
from llmtutor.model.transformer import Transformer

SMALL = {"vocab_size": 11, "max_seq_len": 8, "n_layers": 2, "d_model": 16, "n_heads": 4, "d_ff": 24}
MODELS = {
    "gpt2": ("gpt2-nano", {}),
    "llama": ("llama-nano", {"n_kv_heads": 2}),
    "latent": ("llama-nano", {"mixer": "mla", "q_rank": 6}),
    "alibi, all options": (
        "llama-nano",
        {"position": "alibi", "window": 3, "softcap": 2.0, "sinks": True, "scale": 0.9},
    ),
}
ATTENTIONS = (Attention, LatentAttention)
IDS = torch.randint(11, (3, 8), generator=torch.Generator().manual_seed(1))


def model(name: str, **sizes: int) -> Transformer:
    torch.manual_seed(0)
    kind, changes = MODELS[name]
    made = build(preset(kind, **{**SMALL, **sizes}, **changes))
    for p in made.parameters():
        p.data += 0.3 * torch.randn(p.shape)
    return made


def parts(of: nn.Module, kind: type | tuple[type, ...]) -> list:
    return [m for m in of.modules() if isinstance(m, kind)]


# --- other forms of the parts ---------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_prepared_model_is_itself_in_other_forms(name) -> None:
    plain, made = model(name), model(name)
    before = dict(made.named_parameters()), [*made.state_dict()]
    assert prepared(made) is made
    after = dict(made.named_parameters()), [*made.state_dict()]
    assert after[1] == before[1] and all(after[0][n] is before[0][n] for n in before[0])
    assert all(a.attend is compiled_attention for a in parts(made, ATTENTIONS))
    assert len(parts(made, TableRope)) == (2 if name in ("llama", "latent") else 0) and not parts(
        made, Rope
    )
    assert all(m.act is sigmoid_gelu for m in parts(made, MLP))
    assert all(m.act is not sigmoid_gelu for m in parts(made, GatedMLP))

    got, want = made(IDS), plain(IDS)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(2))
    slopes = [
        torch.autograd.grad(y, [*m.parameters()], upstream) for y, m in ((got, made), (want, plain))
    ]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        cache = made.make_caches(3)
        pieces = [made(ids, cache=cache) for ids in IDS.split([3, 1, 4], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), want, rtol=1e-4, atol=1e-5)


def test_a_gated_layer_with_gelu_changes_its_form_and_another_activation_does_not() -> None:
    gated, relu = GatedMLP(4, 8, "gelu_tanh"), GatedMLP(4, 8, "relu")
    prepared(nn.Sequential(gated, relu))
    assert gated.act is sigmoid_gelu and relu.act is nn.functional.relu


def test_a_layer_alone_keeps_its_positions_of_which_nobody_knows_the_last() -> None:
    layer = prepared(Attention(8, 2, position=Rope(4)))
    assert layer.attend is compiled_attention and type(layer.position) is Rope
    assert type(prepared(Attention(8, 2, position=Alibi(2))).position) is Alibi


def test_tables_have_the_precision_of_the_rotation() -> None:
    for dtype, wide in [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)]:
        (first, _) = parts(prepared(model("llama").to(dtype)), TableRope)
        assert first.cos.dtype == first.sin.dtype == wide and len(first.cos) == 8


def test_on_another_device_and_without_parameters_nothing_changes() -> None:
    with torch.device("meta"):
        elsewhere = prepared(Transformer(preset("gpt2-nano", **SMALL)))
    assert all(a.attend is fused_attention for a in parts(elsewhere, ATTENTIONS))
    assert all(m.act is gelu_tanh for m in parts(elsewhere, MLP))
    nothing = nn.Identity()
    assert prepared(nothing) is nothing


@pytest.mark.parametrize("name", MODELS)
def test_a_twin_shares_the_parameters_and_leaves_the_model_as_it_is(name) -> None:
    made = model(name).eval()
    text, logits = repr(made), made(IDS)
    other = twin(made)
    ours, theirs = dict(made.named_parameters()), dict(other.named_parameters())
    assert ours.keys() == theirs.keys() and all(ours[n] is theirs[n] for n in ours)
    assert (other.head.weight is other.embedding.weight) == made.config.tie_weights
    assert not other.training and has_tag(other.blocks[0].mixer.output, RESIDUAL)
    modules = {id(m) for m in made.modules()}
    assert not any(id(m) in modules for m in other.modules())
    prepared(other).train()
    assert repr(made) == text and torch.equal(made(IDS), logits) and not made.training
    assert all(a.attend is fused_attention for a in parts(made, ATTENTIONS))
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(1.5)  # as a step of training
    torch.testing.assert_close(other(IDS), made(IDS), rtol=1e-4, atol=1e-5)


def test_a_twin_shares_buffers_and_not_what_is_set_on_its_modules() -> None:
    layer = nn.BatchNorm1d(2)
    other = twin(layer)
    assert other.running_mean is layer.running_mean
    other.eps = 3.0
    assert layer.eps != 3.0


# --- one program ----------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """What ``torch.compile`` was asked for, in place of compiling."""
    calls: list[dict] = []
    monkeypatch.setattr(torch, "compile", lambda f, **options: calls.append(options) or f)
    return calls


def test_for_a_cpu_what_calls_the_operations_is_compiled_too(asked, monkeypatch) -> None:
    monkeypatch.setenv("CXX", sys.executable)
    assert compiled(torch.cos, torch.device("cpu"), dynamic=True) is torch.cos
    assert asked == [{"dynamic": True, "options": {"cpp_wrapper": True}}]


def test_another_device_needs_no_compiler_of_ours_and_no_other_forms(asked, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiled(torch.cos, torch.device("cuda")) is torch.cos
    with torch.device("meta"):
        elsewhere = Transformer(preset("gpt2-nano", **SMALL))
    assert compiled_loss(elsewhere, torch.device("cuda")) is batch_losses
    assert asked == [{"dynamic": None}, {"dynamic": None}]


def test_without_a_compiler_it_says_so(asked, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    for make in (lambda d: compiled(torch.cos, d), lambda d: compiled_loss(model("gpt2"), d)):
        with pytest.raises(ValueError, match=r"no 'no-such-compiler': install .* variable CXX"):
            make(torch.device("cpu"))
    assert not asked


@pytest.mark.parametrize("name", MODELS)
def test_a_compiled_loss_is_the_loss_in_one_graph(name, monkeypatch) -> None:
    """Run operation by operation: no code is generated."""
    real = torch.compile
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(torch, "compile", lambda f, **_: real(f, backend="eager", fullgraph=True))
    torch.compiler.reset()
    plain, made = model(name, n_layers=1), model(name, n_layers=1)
    batch = IDS[:, :-1], IDS[:, 1:]
    want, got = (
        batch_losses(plain, batch),
        compiled_loss(made, torch.device("cpu"))(made, batch, torch.float32),
    )
    torch.testing.assert_close(got.nats, want.nats, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.total, got.nats)
    slopes: list[tuple[Tensor, ...]] = [
        torch.autograd.grad(losses.total, [*m.parameters()])
        for losses, m in ((got, made), (want, plain))
    ]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-4)
