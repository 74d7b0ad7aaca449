"""A compiled step against the model itself: the same ids, from one program at any length."""

import shutil
import sys

import pytest
import torch

from llmtutor.fast.decoding import Compiled
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler

NO_COMPILER = shutil.which("g++") is None or sys.platform == "win32"
GREEDY = Sampler(greedy=True)
PROMPTS = {
    "one": [[3, 1, 4]],
    "alike": [[3, 1, 4], [1, 5, 9]],
    "padded": [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5]],
}
PARTS = {
    "gpt2": {"position": "learned"},
    "llama": {"position": "rope", "ffn": "swiglu", "norm": "rmsnorm"},
    "grouped": {"position": "alibi", "mixer": "gqa", "n_kv_heads": 2},
}


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


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_ids_are_those_of_the_model_and_one_graph_serves_all_lengths(
    make_model, graphs, parts: dict, prompts: list[list[int]]
) -> None:
    model = make_model(**parts)
    fast = Compiled(model)
    for text, n in [(prompts, 20), ([2 * prompt for prompt in prompts], 15)]:
        want = generate(model, text, max_new_tokens=n, sampler=GREEDY)
        assert generate(fast, text, max_new_tokens=n, sampler=GREEDY) == want
    assert len({*want[0]}) > 2  # not one token over and over
    assert len(graphs) == 1


def test_a_compiled_step_changes_no_draw(make_model, graphs) -> None:
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


def test_what_is_not_one_more_token_is_read_as_before(make_model, graphs) -> None:
    model = make_model()
    fast, ids = Compiled(model), torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        cache = fast.make_caches(1)
        assert torch.equal(fast(ids), model(ids))
        want = model(ids, cache=model.make_caches(1))
        assert torch.equal(fast(ids, cache=cache), want)
        last = fast(ids, cache=fast.make_caches(1), n_last=2)
        torch.testing.assert_close(last, want[:, -2:])
        with pytest.raises(ValueError, match=r"ids must be \(batch, seq\)"):
            fast(ids[0], cache=cache)
        assert not graphs
        fast(ids[:, :1], cache=cache)
        fast(ids[:, :1], cache=cache, n_last=1)  # the same program
    assert len(graphs) == 1 and cache.length == 7


@pytest.mark.skipif(NO_COMPILER, reason="there is no C++ compiler")
def test_the_program_itself_gives_the_same_ids(make_model) -> None:
    model = make_model(n_layers=1)
    torch.compiler.reset()
    fast = Compiled(model)
    for n in (5, 20):
        want = generate(model, PROMPTS["padded"], max_new_tokens=n, sampler=GREEDY)
        assert generate(fast, PROMPTS["padded"], max_new_tokens=n, sampler=GREEDY) == want


def test_without_a_compiler_it_says_so(make_model, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"no 'no-such-compiler': install .* variable CXX"):
        Compiled(make_model())
