"""A second head sees the hidden state and the next token, predicts the one after, and no other."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llmtutor.evaluate.causality import assert_causal
from llmtutor.evaluate.perplexity import evaluate_loss
from llmtutor.layers.extras import Extras
from llmtutor.model.config import ModelConfig
from llmtutor.model.losses import batch_losses
from llmtutor.model.multi_token import (
    MultiToken,
    SecondHead,
    multi_token_losses,
    second_head_costs,
)
from llmtutor.model.presets import build
from llmtutor.optim import make_optimizer
from llmtutor.train.step import train_step

VOCAB, SEQ, D = 11, 9, 16
BASE = ModelConfig.uniform(VOCAB, SEQ + 1, n_layers=2, d_model=D, n_heads=4, d_ff=24, n_kv_heads=2)
SHAPES = {
    "llama": BASE,
    "gpt2": BASE.replace(position="learned", norm="layernorm", ffn="gelu", bias=True),
    "post": BASE.replace(norm_placement="post", position="alibi"),
    "gemma": BASE.replace(norm_placement="sandwich", logit_softcap=3.0, embedding_scale=4.0),
    "untied, t5": BASE.replace(tie_weights=False, position="t5"),
}
EACH = pytest.mark.parametrize("config", SHAPES.values(), ids=list(SHAPES))


def made(config: ModelConfig, weight: float = 0.3) -> MultiToken:
    """Gains, biases and small weights all matter."""
    torch.manual_seed(0)
    multi = MultiToken(build(config), weight).double().eval()
    with torch.no_grad():
        for parameter in multi.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return multi


def tokens(batch: int = 3, seq: int = SEQ) -> Tensor:
    return torch.randint(VOCAB, (batch, seq), generator=torch.Generator().manual_seed(batch))


def both(multi: MultiToken, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the two heads: of token t + 1 at t, and of token t + 2 at t, where t + 1 is."""
    logits, hidden, _ = multi.read(ids)
    return logits, multi.ahead(hidden[:, :-1], ids[:, 1:])[0]


# --- what each head may see ----------------------------------------------------------------------


class Shifted(nn.Module):
    """The second head as a causal model: its logits at the place of the last token they see."""

    def __init__(self, multi: MultiToken) -> None:
        super().__init__()
        self.multi = multi

    def forward(self, ids: Tensor) -> Tensor:
        ahead = both(self.multi, ids)[1]
        return torch.cat([torch.zeros_like(ahead[:, :1]), ahead], dim=1)


@EACH
def test_neither_head_sees_the_token_it_predicts(config: ModelConfig) -> None:
    multi = made(config)
    assert_causal(multi, VOCAB, seq_len=SEQ)
    assert_causal(Shifted(multi), VOCAB, seq_len=SEQ)


@EACH
def test_by_derivative_the_second_head_sees_one_token_more_and_no_other(config) -> None:
    """The derivative of its logits at t by the embedding at s is zero exactly if s > t + 1."""
    multi, ids = made(config), tokens(1)
    nudge = torch.zeros(1, SEQ, D, dtype=torch.float64, requires_grad=True)
    # Embeddings are looked up twice: for the model, and one further for the second head.
    hook = multi.embedding.register_forward_hook(
        lambda layer, given, x: x + nudge[:, SEQ - x.shape[1] :]
    )
    first, second = both(multi, ids)
    hook.remove()
    for logits, further in ((first, 0), (second, 1)):
        direction = torch.randn(VOCAB, generator=torch.Generator().manual_seed(1)).double()
        for t in range(logits.shape[1]):
            (gradient,) = torch.autograd.grad(logits[0, t] @ direction, nudge, retain_graph=True)
            sizes = gradient[0].abs().amax(-1)
            assert (sizes[: t + further + 1] > 1e-9).all()
            assert (sizes[t + further + 1 :] == 0).all()


# --- what it computes ----------------------------------------------------------------------------


@torch.no_grad()
def test_a_slow_loop_over_positions_says_the_same() -> None:
    """Every position from its own prefix, every product written out; attention without positions.

    A published implementation is no help: transformers reads DeepSeek-V3 without this part.
    """
    multi = made(BASE.replace(position="none", n_kv_heads=4))
    head, block, ids = multi.second, multi.second.block, tokens(1)

    def rms(x: Tensor, norm: nn.Module) -> Tensor:
        return x / (x.pow(2).mean() + norm.eps).sqrt() * norm.weight

    def slow(t: int) -> Tensor:
        states = [multi.read(ids[:, : s + 1])[1][0, -1] for s in range(t + 1)]
        left, right = head.projection.weight[:, :D], head.projection.weight[:, D:]
        x = [
            left @ rms(state, head.norm_hidden)
            + right @ rms(multi.embedding.weight[ids[0, s + 1]], head.norm_next)
            for s, state in enumerate(states)
        ]
        read = [rms(row, block.norm_1) for row in x]
        q, k, v = (
            [getattr(block.mixer, name).weight @ row for row in read]
            for name in ("query", "key", "value")
        )
        mixed = []
        for h in range(4):
            part = slice(4 * h, 4 * h + 4)
            scores = torch.stack([q[t][part] @ key[part] / math.sqrt(4) for key in k])
            weights = scores.exp() / scores.exp().sum()
            mixed.append(sum(w * value[part] for w, value in zip(weights, v, strict=True)))
        y = x[t] + block.mixer.output.weight @ torch.cat(mixed)
        inner = rms(y, block.norm_2)
        gate, up = block.ffn.gate.weight @ inner, block.ffn.up.weight @ inner
        y = y + block.ffn.down.weight @ (gate * gate.sigmoid() * up)
        return multi.model.head.weight @ rms(y, head.norm)

    want = torch.stack([slow(t) for t in range(SEQ - 1)])
    torch.testing.assert_close(both(multi, ids)[1][0], want, rtol=1e-9, atol=1e-9)


def counting(step_of_hidden: int, step_of_next: int) -> MultiToken:
    """By hand: the stream holds the token itself, and the second head adds steps on a clock.

    Embeddings are one-hot and the block adds nothing, so the logits of the second head are largest
    at token t plus ``step_of_hidden`` and at token t + 1 plus ``step_of_next``; 0 switches one off.
    """
    config = ModelConfig.uniform(8, 32, n_layers=1, d_model=8, n_heads=2, d_ff=8)
    multi = MultiToken(build(config)).eval()
    clock = torch.eye(8)
    with torch.no_grad():
        for block in (multi.model.blocks[0], multi.second.block):
            block.mixer.output.weight.zero_()
            block.ffn.down.weight.zero_()
        multi.embedding.weight.copy_(clock)
        halves = [
            clock.roll(step, 0) if step else torch.zeros(8, 8)
            for step in (step_of_hidden, step_of_next)
        ]
        multi.second.projection.weight.copy_(torch.cat(halves, dim=1))
    return multi


def test_off_by_one_by_hand() -> None:
    """On 0, 1, 2, …: from h_t two steps, from token t + 1 one; the target is token t + 2."""
    ids = torch.arange(12)[None] % 8
    batch = ids[:, :-1], ids[:, 1:]
    for steps in ((2, 0), (0, 1)):
        multi = counting(*steps)
        assert both(multi, ids)[1].argmax(-1).tolist() == [[(t + 2) % 8 for t in range(11)]]
        right = multi_token_losses(multi, batch).statistics["second_loss"]
        # The right logit is √8 and the seven others are 0, after the norm of a one-hot vector.
        assert right == pytest.approx(math.log(1 + 7 * math.exp(-math.sqrt(8))), abs=1e-4)
    for steps in ((1, 0), (3, 0), (0, 2), (0, 8)):
        wrong = multi_token_losses(counting(*steps), batch).statistics["second_loss"]
        assert wrong == pytest.approx(float(right) + math.sqrt(8), abs=1e-4)


# --- beside the model ----------------------------------------------------------------------------


@EACH
def test_the_model_answers_as_without_it_and_the_plain_loss_stays(config: ModelConfig) -> None:
    multi, ids = made(config, weight=0.25), tokens()
    batch = ids[:, :-1], ids[:, 1:]
    assert torch.equal(multi(ids), multi.model(ids))
    caches = multi.make_caches(3, SEQ)
    multi(ids[:, :4], cache=caches)
    torch.testing.assert_close(
        multi(ids[:, 4:], cache=caches, logits_to_keep=2), multi.model(ids)[:, -2:]
    )
    assert not multi.model.blocks[-1]._forward_hooks
    logits, hidden, _ = multi.read(ids)
    bound = config.logit_softcap or 1e9  # the hidden states are those that the logits are made of
    made_again = bound * (multi.model.head(multi.model.norm(hidden)) / bound).tanh()
    torch.testing.assert_close(made_again, logits, rtol=1e-5, atol=1e-6)
    plain, found = batch_losses(multi.model, batch), multi_token_losses(multi, batch)
    assert torch.equal(found.nats, plain.nats)
    assert evaluate_loss(multi, [batch]) == evaluate_loss(multi.model, [batch])
    ahead = both(multi, torch.cat([ids, ids[:, :1]], 1)[:, :SEQ])[1][:, : SEQ - 2]
    second = nn.functional.cross_entropy(ahead.flatten(0, 1), ids[:, 2:].flatten())
    torch.testing.assert_close(found.statistics["second_loss"], second)
    torch.testing.assert_close(found.auxiliary["multi_token"], 0.25 * second)
    torch.testing.assert_close(found.total, plain.nats + 0.25 * second * batch[1].numel())


def test_a_step_moves_both_heads_and_logs_the_plain_loss() -> None:
    torch.manual_seed(0)
    multi, ids = MultiToken(build(BASE)), tokens(4)
    batch = ids[:, :-1], ids[:, 1:]
    before = batch_losses(multi.model, batch).nats.item() / batch[1].numel()
    optimizer = make_optimizer(multi, "adamw", 1e-2)
    steps = [train_step(multi, [batch], optimizer, loss=multi_token_losses) for _ in range(8)]
    assert steps[0].loss == pytest.approx(before)
    assert steps[0].auxiliary["multi_token"] == pytest.approx(
        0.3 * steps[0].statistics["second_loss"]
    )
    assert steps[-1].loss < steps[0].loss - 0.2
    assert steps[-1].statistics["second_loss"] < steps[0].statistics["second_loss"] - 0.2
    for name, parameter in multi.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_terms_of_the_layers_stay_beside_its_own() -> None:
    class Balanced(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> tuple[Tensor, Extras]:
            return self.inner(x), Extras({"balance": x.square().mean()}, {})

    multi, ids = made(BASE), tokens()
    for block in (*multi.model.blocks, multi.second.block):
        block.ffn = Balanced(block.ffn)
    found = multi_token_losses(multi, (ids[:, :-1], ids[:, 1:]))
    places = ["blocks.0.ffn", "blocks.1.ffn", "second.ffn"]
    assert list(found.auxiliary) == [*(f"{place}.balance" for place in places), "multi_token"]
    terms = sum(found.auxiliary.values())
    torch.testing.assert_close(found.total, found.nats + ids[:, 1:].numel() * terms)


@EACH
def test_its_costs(config: ModelConfig) -> None:
    head, multi = SecondHead(config), made(config)
    assert second_head_costs(config, 5).parameters == sum(p.numel() for p in head.parameters())
    assert len(list(multi.parameters())) == len(list(multi.model.parameters())) + len(
        list(head.parameters())
    )
    hidden, ids = multi.read(tokens(1, 6))[1], tokens(1, 6)
    cache = multi.second.block.mixer.make_cache(1, 6)
    assert cache.nbytes == 2 * second_head_costs(config, 6).cache_bytes  # of float64
    multi.ahead(hidden[:, :5], ids[:, :5], cache=cache)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        last = multi.ahead(hidden[:, 5:], ids[:, 5:], cache=cache)[0]
    torch.testing.assert_close(last, multi.ahead(hidden, ids)[0][:, 5:])
    counted = second_head_costs(config, 6).flops
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.01)


def test_bad_input() -> None:
    multi, one = made(BASE), tokens(2, 1)
    with pytest.raises(ValueError, match="weight must be above 0, got -1"):
        MultiToken(build(BASE), -1.0)
    with pytest.raises(
        ValueError, match=r"expected a MultiToken, got Transformer: put the head on"
    ):
        multi_token_losses(multi.model, (one, one))
    with pytest.raises(ValueError, match="at least two tokens, got 1: take a larger seq_len"):
        multi_token_losses(multi, (one, one))
