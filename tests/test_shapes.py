"""The shapes written in the signatures are true: a fresh process checks them as the code runs."""

import json
import subprocess
import sys

import pytest

CHECKED = (
    "llmtutor.layers.attention",
    "llmtutor.layers.basic",
    "llmtutor.layers.extras",
    "llmtutor.layers.ffn",
    "llmtutor.layers.mixer",
    "llmtutor.layers.ngram",
    "llmtutor.layers.norms",
    "llmtutor.layers.positions",
    "llmtutor.model.block",
    "llmtutor.model.caches",
    "llmtutor.model.losses",
    "llmtutor.model.transformer",
    "llmtutor.fast.attention",
    "llmtutor.fast.forms",
    "llmtutor.data.batches",
    "llmtutor.evaluate.perplexity",
    "llmtutor.evaluate.causality",
    "llmtutor.generate",
)

HOOK = f"""
import contextlib, io, json, sys, traceback, types
from beartype import BeartypeConf, beartype
from jaxtyping import TypeCheckError, install_import_hook

strict = types.ModuleType("strict")
strict.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float
sys.modules["strict"] = strict
install_import_hook({CHECKED!r}, "strict.check")

import torch
from torch import nn
from llmtutor.data import batches
from llmtutor.layers import basic
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer

ids = torch.arange(23) % 7
SIZES = dict(vocab_size=7, max_seq_len=12, n_layers=1, d_model=8, n_heads=2, d_ff=12)

def model_of(**changes):
    return Transformer(ModelConfig.uniform(**SIZES, **changes))

def noticed(wrong):
    try:
        wrong()
    except TypeCheckError as error:
        print("noticed")

said = {{}}
for name, code in json.load(sys.stdin).items():
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            exec(code, dict(globals()))
        except Exception:
            traceback.print_exc(file=out)
    said[name] = out.getvalue()
print(json.dumps(said))
"""

PARTS = {
    "basic": """
from llmtutor.evaluate.perplexity import evaluate_loss

generator = torch.Generator().manual_seed(0)
inputs, targets = next(batches.random_batches(ids, 3, 5, generator=generator))
model = nn.Sequential(basic.Embedding(7, 4), basic.Linear(4, 7, bias=True))
logits = model(inputs)
basic.cross_entropy(logits, targets)
basic.cross_entropy(logits, targets, reduction="none")
basic.softmax(logits), basic.log_softmax(logits, dim=0)
assert evaluate_loss(model, batches.sequential_batches(ids, 2, 5)).n_tokens == 22
noticed(lambda: basic.cross_entropy(torch.zeros(3, 5, 7), torch.zeros(3, 4).long()))
""",
    "block": """
from llmtutor.evaluate.causality import assert_causal
from llmtutor.layers.attention import *
from llmtutor.layers.ffn import MLP, GatedMLP
from llmtutor.layers.ngram import NgramEmbedding
from llmtutor.layers.norms import LayerNorm, RMSNorm, RMSNormConfig

q, k, v = torch.zeros(2, 4, 5, 4), torch.zeros(2, 2, 6, 4), torch.zeros(2, 2, 6, 7)
mask = causal_mask(5, 6) & padding_mask(torch.tensor([2, 6]), 6)
rules = dict(mask=mask, bias=torch.zeros(4, 5, 6), scale=0.5)
for path in (attention, fused_attention):
    path(q, k, v, **rules), path(q, k, v, **rules, softcap=2.0, sinks=torch.zeros(4))
for over in ("head", "heads"):
    heads = Attention(
        4, 2, n_kv_heads=1, head_dim=3, window=2, qk_norm=RMSNormConfig(), qk_norm_over=over,
        softcap=2.0, sinks=True,
    )
    heads.weights(torch.zeros(2, 5, 4))
    cache = heads.make_cache(2, 5, starts=torch.tensor([0, 1]))
    heads(torch.zeros(2, 3, 4), cache=cache), heads(torch.zeros(2, 1, 4), cache=cache)
mean_pool_heads(torch.zeros(8, 2), 4, 2), first_heads(torch.zeros(8), 4, 2)
norms = RMSNorm(4), RMSNorm(4, offset=True), LayerNorm(4)
parts = nn.Sequential(norms[0], heads, MLP(4, 6), norms[1], GatedMLP(4, 6), norms[2])
whole = nn.Sequential(NgramEmbedding(7, 4, (5,)), parts, basic.Linear(4, 7))
assert_causal(whole, 7, seq_len=5)
noticed(lambda: heads(torch.zeros(5, 4)))
""",
    "positions": """
from llmtutor.layers.positions import *
from llmtutor.layers.registry import kinds

x, five, seven = torch.zeros(2, 3, 5, 8), torch.arange(5), torch.arange(7)
scalings = LinearScaling(2), NtkScaling(2, 4), YarnScaling(2, 4), Llama3Scaling(2, 4)
ropes = [Rope(8, pairing="half", fraction=0.5), *(Rope(8, scaling=s) for s in scalings)]
for made in (NoPosition(), Alibi(3), T5Bias(3), ShawPosition(8, 2), *ropes):
    made.rotate(x, five), made.score_bias(x, five, seven), made.rotate_both(x, x[:, :1], five)
    made.rotate(x[0], five), made.score_bias(x[0], five, seven)
for made in (LearnedPosition(5, 8), SinusoidalPosition(8)):
    made.embed(x[0], five)
convert_pairing(torch.zeros(24, 5), 3, "half", "interleaved")
convert_pairing(torch.zeros(24), 3, "half", "interleaved", fraction=0.5)
for name in [*kinds(EmbeddingPositionConfig), *kinds(AttentionPositionConfig)]:
    model = model_of(position=name, n_kv_heads=1, window=3)
    model(ids[:6].expand(2, 6))
    cache = model.make_caches(2, starts=torch.tensor([0, 1]))
    model(ids[:5].expand(2, 5), cache=cache), model(ids[:1].expand(2, 1), cache=cache)
noticed(lambda: Rope(8).rotate(x, five[None]))
""",
    "decoding": """
from llmtutor.generate import sampling
from llmtutor.generate.generate import generate
from llmtutor.generate.reader import Reader, prompt_ids
from llmtutor.generate.speculative import accept, speculative

large, small = model_of(), model_of()
knobs = dict(temperature=2.0, top_k=5, top_p=0.9, min_p=0.1, repetition_penalty=1.5)
for sampler in (sampling.Sampler(**knobs), sampling.Sampler(greedy=True)):
    for use_cache in (True, False):
        settings = dict(max_new_tokens=6, sampler=sampler, use_cache=use_cache)
        generate(large, [[1, 2, 3], [4]], **settings)
        speculative(large, small, [1, 2, 3], n_draft=3, **settings)
sampling.draw(torch.ones(2, 7))
prompts = prompt_ids(large, [[1, 2], [3]], 1)
Reader(large, prompts, 4, use_cache=True)(prompts, n=2)
p = torch.full((3, 2, 7), 1 / 7)
accept(p, p[:, :1], torch.zeros(3, 1).long())
noticed(lambda: sampling.top_p(torch.zeros(7), 0.5))
noticed(
    lambda: sampling.repetition_penalty(torch.zeros(2, 7), torch.zeros(3, 4).long(), 2.0)
)
noticed(lambda: accept(p, p[:, :1, :5], torch.zeros(3, 1).long()))
""",
    "what is fast": """
from llmtutor.fast.attention import *
from llmtutor.fast.forms import TableRope, compiled_cross_entropy, sigmoid_gelu
from llmtutor.layers.positions import Rope

q, k = torch.zeros(2, 4, 5, 8), torch.zeros(2, 2, 5, 8)
compiled_attention(q, k, k[..., :3], causal=True), compiled_attention(q[:, :, :1], k, k)
compiled_attention(q, k, k, mask=torch.ones(5, 5).bool(), softcap=2.0, sinks=torch.zeros(4))
TableRope(Rope(8), 9, torch.float32).rotate_both(q, k, torch.arange(5))
sigmoid_gelu(q), compiled_cross_entropy(torch.zeros(5, 7), ids[:5])
noticed(lambda: compiled_cross_entropy(torch.zeros(5, 7), ids[:4]))
""",
}


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What each part printed: how often a wrong shape was noticed, or an error."""
    done = subprocess.run(
        [sys.executable, "-c", HOOK],
        input=json.dumps(PARTS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("part", PARTS)
def test_shapes_are_those_of_the_signatures_and_others_are_noticed(part, said) -> None:
    assert said[part] == "noticed\n" * PARTS[part].count("\nnoticed(")
