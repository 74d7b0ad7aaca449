"""The shapes written in the signatures are true: a fresh process checks them as the code runs."""

import json
import subprocess
import sys
import textwrap

import pytest

CHECKED = (
    "llmtutor.layers.basic",
    "llmtutor.layers.attention",
    "llmtutor.layers.norms",
    "llmtutor.layers.ffn",
    "llmtutor.layers.positions",
    "llmtutor.model.block",
    "llmtutor.model.caches",
    "llmtutor.model.transformer",
    "llmtutor.data.batches",
    "llmtutor.evaluate.perplexity",
    "llmtutor.evaluate.causality",
    "llmtutor.generate",
)

PREPARED = f"""
from beartype import BeartypeConf, beartype
from jaxtyping import TypeCheckError, install_import_hook
import contextlib, io, json, sys, traceback, types

strict = types.ModuleType("strict")
strict.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float
sys.modules["strict"] = strict
install_import_hook({CHECKED!r}, "strict.check")

import torch
from llmtutor.data import batches
from llmtutor.evaluate.perplexity import evaluate_loss
from llmtutor.layers import basic

ids = torch.arange(23) % 7
model = torch.nn.Sequential(basic.Embedding(7, 4), basic.Linear(4, 7, bias=True))
prepared = dict(globals())
said = {{}}
for name, program in json.load(sys.stdin).items():
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            exec(program, dict(prepared))
        except Exception:
            traceback.print_exc(file=output)
    said[name] = output.getvalue()
print(json.dumps(said))
"""

PROGRAMS = {
    "functions": """
        generator = torch.Generator().manual_seed(0)
        inputs, targets = next(batches.random_batches(ids, 3, 5, generator=generator))
        logits = model(inputs)
        basic.cross_entropy(logits, targets)
        basic.cross_entropy(logits, targets, reduction="none")
        basic.softmax(logits), basic.log_softmax(logits, dim=0)
        print(evaluate_loss(model, batches.sequential_batches(ids, 2, 5)).n_tokens)
    """,
    "another shape": """
        try:
            basic.cross_entropy(torch.zeros(3, 5, 7), torch.zeros(3, 4).long())
        except TypeCheckError as error:
            print("noticed")
    """,
    "block": """
        from torch import nn
        from llmtutor.evaluate.causality import assert_causal
        from llmtutor.layers.attention import *
        from llmtutor.layers.ffn import MLP, GatedMLP
        from llmtutor.layers.norms import LayerNorm, RMSNorm

        q, k, v = torch.zeros(2, 3, 5, 4), torch.zeros(2, 3, 6, 4), torch.zeros(2, 3, 6, 7)
        mask = causal_mask(5, 6) & padding_mask(torch.tensor([2, 6]), 6)
        for path in (attention, fused_attention):
            path(q, k, v, mask=mask, bias=torch.zeros(3, 5, 6), scale=0.5)
        heads = MultiHeadAttention(4, 2, window=2, qk_norm=True)
        heads.weights(torch.zeros(2, 5, 4))
        parts = nn.Sequential(RMSNorm(4), heads, MLP(4, 6), LayerNorm(4), GatedMLP(4, 6))
        assert_causal(nn.Sequential(model[0], parts, model[1]), 7, seq_len=5)
        try:
            heads(torch.zeros(5, 4))
        except TypeCheckError as error:
            print("noticed")
    """,
    "positions": """
        from llmtutor.layers.positions import *
        from llmtutor.model.config import ModelConfig
        from llmtutor.model.parts import POSITIONS
        from llmtutor.model.transformer import Transformer

        x, five, seven = torch.zeros(2, 3, 5, 8), torch.arange(5), torch.arange(7)
        slower = [LinearScaling(2), NtkScaling(2, 4), YarnScaling(2, 4)]
        ropes = [Rope(8, pairing="half", fraction=0.5), *(Rope(8, scaling=s) for s in slower)]
        for made in (NoPosition(), Alibi(3), T5Bias(3), ShawPosition(8, 2), *ropes):
            made.rotate(x, five), made.score_bias(x, five, seven)
            made.rotate(x[0], five), made.score_bias(x[0], five, seven)
        for made in (LearnedPosition(5, 8), SinusoidalPosition(8)):
            made.embed(x[0], five)
        convert_pairing(torch.zeros(24, 5), 3, "half", "interleaved")
        convert_pairing(torch.zeros(24), 3, "half", "interleaved", fraction=0.5)
        sizes = dict(vocab_size=7, max_seq_len=6, n_layers=1, d_model=8, n_heads=2, d_ff=12)
        for name in POSITIONS:
            model = Transformer(ModelConfig(**sizes, position=name, mixer="gqa", n_kv_heads=1))
            model(ids[:6].expand(2, 6))
            cache = model.make_caches(2, starts=torch.tensor([0, 1]))
            model(ids[:5].expand(2, 5), cache=cache), model(ids[:1].expand(2, 1), cache=cache)
        try:
            Rope(8).rotate(x, five[None])
        except TypeCheckError as error:
            print("noticed")
    """,
    "decoding": """
        from llmtutor.generate import sampling
        from llmtutor.generate.generate import generate
        from llmtutor.generate.reader import Reader, prompt_ids
        from llmtutor.generate.speculative import accept, speculative
        from llmtutor.model.config import ModelConfig
        from llmtutor.model.transformer import Transformer

        sizes = dict(vocab_size=7, max_seq_len=12, n_layers=1, d_model=8, n_heads=2, d_ff=12)
        large, small = (Transformer(ModelConfig(**sizes)) for _ in range(2))
        knobs = dict(temperature=2.0, top_k=5, top_p=0.9, min_p=0.1, repetition_penalty=1.5)
        for sampler in (sampling.Sampler(**knobs), sampling.Sampler(greedy=True)):
            for use_cache in (True, False):
                settings = dict(max_new_tokens=6, sampler=sampler, use_cache=use_cache)
                generate(large, [[1, 2, 3], [4]], **settings)
                speculative(large, small, [1, 2, 3], n_draft=3, **settings)
        sampling.sample(torch.zeros(2, 7))
        ids = prompt_ids(large, [[1, 2], [3]], 1)
        Reader(large, ids, 4, use_cache=True)(ids, n=2)
        p = torch.full((3, 2, 7), 1 / 7)
        accept(p, p[:, :1], torch.zeros(3, 1).long())
        for wrong in (
            lambda: sampling.top_p(torch.zeros(7), 0.5),
            lambda: sampling.repetition_penalty(torch.zeros(2, 7), torch.zeros(3, 4).long(), 2.0),
            lambda: accept(p, p[:, :1, :5], torch.zeros(3, 1).long()),
        ):
            try:
                wrong()
            except TypeCheckError as error:
                print("noticed")
    """,
}


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What each program printed, or the traceback that it ended with; one process runs them all."""
    programs = {name: textwrap.dedent(program) for name, program in PROGRAMS.items()}
    done = subprocess.run(
        [sys.executable, "-c", PREPARED],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("functions", "22\n"),
        ("another shape", "noticed\n"),
        ("block", "noticed\n"),
        ("positions", "noticed\n"),
        ("decoding", "noticed\n" * 3),
    ],
)
def test_shapes_are_those_of_the_signatures_and_others_are_noticed(
    name: str, expected: str, said: dict[str, str]
) -> None:
    assert said[name] == expected
