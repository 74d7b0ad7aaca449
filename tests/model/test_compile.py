"""Models go through torch.compile in one graph: no check looks at a value while it is traced."""

import itertools
import shutil
import sys

import pytest
import torch

from llmtutor.layers.positions import LearnedPosition
from llmtutor.model.presets import build, preset

NO_COMPILER = shutil.which("g++") is None and shutil.which("clang++") is None


@pytest.mark.skipif(
    NO_COMPILER or sys.platform == "win32", reason="torch.compile needs a C++ compiler on a CPU"
)
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("gpt2-nano", {}),
        ("llama-nano", {}),
        ("llama-nano", {"n_kv_heads": 1}),
        ("baseline-nano", {}),
    ],
)
def test_compiled_model_gives_the_same_logits_and_gradients(
    name: str, parts: dict, own_programs
) -> None:
    torch.manual_seed(0)
    sizes = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32, "vocab_size": 19}
    model = build(preset(name, **sizes, **parts))
    ids = torch.randint(19, (2, 12))
    upstream = torch.randn(2, 12, 19)
    plain = model(ids)
    wanted = torch.autograd.grad(plain, list(model.parameters()), upstream)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True)(ids)
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad(compiled, list(model.parameters()), upstream)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2-nano", "llama-nano"])
def test_decoding_with_a_cache_is_two_graphs_however_long_the_text(name: str) -> None:
    """One for the prompt, one for every later token: the length of the past is left open."""
    graphs = []

    def counting(graph, _):
        graphs.append(graph)
        return graph.forward

    torch.manual_seed(0)
    model = build(preset(name, n_layers=1, d_model=16, n_heads=2, d_ff=32, vocab_size=19))
    ids = torch.randint(19, (2, 12))
    torch.compiler.reset()
    compiled = torch.compile(model, backend=counting, fullgraph=True, dynamic=True)
    cache = model.make_caches(2, 12)
    cuts = [0, *range(5, 13)]
    got = [compiled(ids[:, a:b], cache=cache) for a, b in itertools.pairwise(cuts)]
    torch.testing.assert_close(torch.cat(got, dim=1), model(ids), rtol=1e-5, atol=1e-5)
    assert len(graphs) == 2


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2-nano", "llama-nano"])
def test_a_batch_may_have_more_tokens_than_the_context(name: str) -> None:
    """4 rows of 8 are 32 tokens, and none of them stands beyond place 7."""
    torch.manual_seed(0)
    sizes = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32, "vocab_size": 19}
    model = build(preset(name, **sizes, max_seq_len=16))
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for seq in (3, 8, 16):
        ids = torch.randint(19, (4, seq))
        got = compiled(ids, cache=model.make_caches(4))
        torch.testing.assert_close(got, model(ids), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_compiled_table_is_not_read_past_its_end() -> None:
    learned = LearnedPosition(4, 2)
    torch.compiler.reset()
    compiled = torch.compile(learned.embed, backend="eager", fullgraph=True)
    with pytest.raises((IndexError, ValueError)):
        compiled(torch.zeros(2, 2), torch.tensor([3, 4]))
