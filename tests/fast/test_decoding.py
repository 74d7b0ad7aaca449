"""A compiled step against the model itself: the same ids, from one program at any length."""

import shutil
import sys

import pytest
import torch

from llmtutor.fast.decoding import Compiled
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.layers.attention import fused_attention
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer

NO_COMPILER = shutil.which("g++") is None or sys.platform == "win32"
GREEDY = Sampler(greedy=True)
PROMPTS = {
    "one": [[3, 1, 4]],
    "alike": [[3, 1, 4], [1, 5, 9]],
    "padded": [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5]],
}
PARTS = {
    "gpt2": {"position": "learned", "ffn": "mlp", "norm": "layernorm"},
    "window": {"window": 4},
    "grouped": {
        "position": "alibi",
        "n_layers": 2,
        "n_kv_heads": 2,
        "softcap": 20.0,
        "sinks": True,
    },
}


def make_model(**changes) -> Transformer:
    """With weights so large that one token is often much the likeliest."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "max_seq_len": 32, "n_layers": 1, "d_model": 16, "n_heads": 4}
    config = ModelConfig.uniform(**{**sizes, "d_ff": 32, "tie_weights": False, **changes})
    model = Transformer(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(20)
    return model.eval()


@pytest.fixture
def graphs(monkeypatch) -> list[torch.fx.GraphModule]:
    """What is compiled from now on: captured, and run operation by operation."""
    made: list[torch.fx.GraphModule] = []

    def keep(graph, _):
        made.append(graph)
        return graph.forward

    real = torch.compile
    torch.compiler.reset()
    monkeypatch.setenv("CXX", sys.executable)  # any program: no code is generated

    def capture(f, *, dynamic, options):  # the options are those of the usual backend
        return real(f, dynamic=dynamic, backend=keep, fullgraph=True)

    monkeypatch.setattr(torch, "compile", capture)
    return made


@pytest.mark.parametrize(
    ("parts", "prompts"),
    [("window", "one"), ("grouped", "padded"), ("gpt2", "padded")],
)
def test_ids_are_those_of_the_model_and_one_graph_serves_all_lengths(
    graphs, parts: str, prompts: str
) -> None:
    model = make_model(**PARTS[parts])
    fast = Compiled(model)
    for times, n in [(1, 20), (2, 15)]:
        text = [times * prompt for prompt in PROMPTS[prompts]]
        want = generate(model, text, max_new_tokens=n, sampler=GREEDY)
        assert generate(fast, text, max_new_tokens=n, sampler=GREEDY) == want
    assert len({*want[0]}) > 1  # not one token over and over
    assert len(graphs) == 1


def test_a_compiled_step_changes_no_draw(graphs) -> None:
    model, texts = make_model(), []
    for reader in (model, Compiled(model)):
        generator = torch.Generator().manual_seed(3)
        sampler = Sampler(temperature=1.3, top_k=12)
        prompts = PROMPTS["padded"]
        texts.append(
            generate(reader, prompts, max_new_tokens=25, sampler=sampler, generator=generator)
        )
    assert texts[0] == texts[1]
    assert graphs


def test_the_model_stays_as_it_is(graphs) -> None:
    model = make_model()
    fast = Compiled(model)
    assert fast.config is model.config and fast.embedding is model.embedding
    assert all(block.mixer.attend is fused_attention for block in model.blocks)
    model.head.weight.data.mul_(-1.0)  # trained further: the step sees it
    got, want = (generate(m, [[3, 1, 4]], max_new_tokens=9, sampler=GREEDY) for m in (fast, model))
    assert got == want


def test_what_is_not_one_more_token_is_read_as_before(graphs) -> None:
    model = make_model()
    fast, ids = Compiled(model), torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        cache = fast.make_caches(1)
        assert torch.equal(fast(ids), model(ids))
        want = model(ids, cache=model.make_caches(1))
        assert torch.equal(fast(ids, cache=cache), want)
        last = fast(ids, cache=fast.make_caches(1), logits_to_keep=2)
        torch.testing.assert_close(last, want[:, -2:])
        with pytest.raises(ValueError, match=r"ids must be \(batch, seq\)"):
            fast(ids[0], cache=cache)
        assert not graphs
        fast(ids[:, :1], cache=cache)
        fast(ids[:, :1], cache=cache, logits_to_keep=1)  # the same program
    assert len(graphs) == 1 and cache.length == 7


@pytest.mark.skipif(NO_COMPILER, reason="there is no C++ compiler")
def test_the_program_itself_gives_the_same_ids(own_programs) -> None:
    model = make_model()
    torch.compiler.reset()
    fast = Compiled(model)
    for n in (5, 20):
        want = generate(model, PROMPTS["alike"], max_new_tokens=n, sampler=GREEDY)
        assert generate(fast, PROMPTS["alike"], max_new_tokens=n, sampler=GREEDY) == want


def test_without_a_compiler_it_says_so(monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"no 'no-such-compiler': install .* variable CXX"):
        Compiled(make_model())
