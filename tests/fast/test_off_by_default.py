"""What exists for speed alone is in one package, which nobody enters unasked."""

import ast
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import llmtutor
from llmtutor import fast
from llmtutor.data import tales
from llmtutor.fast.compiling import prepared
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.layers.attention import Attention, fused_attention
from llmtutor.model.presets import build, preset
from llmtutor.train.config import TrainConfig
from llmtutor.train.loop import train

PACKAGE = Path(llmtutor.__file__).parent
FAST = str(Path(fast.__file__).parent)
SMALL = {"vocab_size": 11, "max_seq_len": 16, "n_layers": 1, "d_model": 8, "n_heads": 2, "d_ff": 16}

# --- no form for the compiler, no threads, no allocator elsewhere ---------------------------------

FOR_SPEED = {
    "is_compiling",
    "is_dynamo_compiling",
    "set_num_threads",
    "set_num_interop_threads",
    "ThreadPoolExecutor",
    "mallopt",
    "malloc_trim",
    "set_float32_matmul_precision",
}
ASKED_FOR = {
    ("cli/experiment.py", "set_num_threads"): "the reader says --threads; a record says how many",
    ("experiments/making.py", "set_num_threads"): "runs side by side are set as the first process",
    ("experiments/choosing/cost.py", "set_num_threads"): "what is measured, in its own process",
    ("train/ranks.py", "set_num_threads"): "processes that stand for machines share the cores",
}


def names(path: Path) -> set[str]:
    """All that is called by name in a file, in its code and not in its sentences."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
            if node.attr == "compile" and ast.unparse(node.value) == "torch":
                found.add("torch.compile")
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_other_package_knows_what_is_for_speed_alone() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in PACKAGE.rglob("*.py")
        if not path.is_relative_to(FAST)
        for name in names(path) & {*FOR_SPEED, "torch.compile"}
    }
    assert found == set(ASKED_FOR)


def test_the_words_looked_for_are_those_of_the_package() -> None:
    """Should the package do it by another name, the test above would look for nothing."""
    here = set().union(*(names(path) for path in Path(FAST).glob("*.py")))
    assert {"torch.compile", "mallopt", "malloc_trim"} <= here
    assert "is_compiling" not in here  # other forms are chosen, not found out


# --- nobody enters unasked ------------------------------------------------------------------------


def entered(act: Callable[[], object]) -> set[str]:
    """The functions of the package that are called meanwhile, by any thread."""
    found: set[str] = set()

    def watch(frame, event: str, _) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(FAST):
            found.add(frame.f_code.co_name)

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        act()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def test_who_trains_is_not_made_fast_unasked(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LLMTUTOR_MIRROR", raising=False)
    corpus = tmp_path / "mine.txt"
    corpus.write_bytes("<|endoftext|>".join(tales.generate(20, 1)).encode("utf-8"))
    config = TrainConfig(
        corpus=str(corpus),
        model={name: SMALL[name] for name in ("n_layers", "d_model", "n_heads", "d_ff")},
        seq_len=8,
        batch_size=4,
        steps=2,
        eval_every=1,
        eval_tokens=20,
        device="cpu",
        out=str(tmp_path / "run"),
    )
    assert entered(lambda: train(config, quiet=True)) == set()


def test_who_generates_is_not_made_fast_unasked() -> None:
    model = build(preset("llama-nano", **SMALL))

    def act() -> None:
        generate(model, [[1, 2, 3], [4]], max_new_tokens=4, sampler=Sampler(greedy=True))

    assert entered(act) == set()
    mixers = [m for m in model.modules() if isinstance(m, Attention)]
    assert mixers and all(m.attend is fused_attention for m in mixers)
    prepared(model)
    assert {"compiled_attention", "rotate"} <= entered(act)


@pytest.mark.parametrize("name", ["gpt2-nano", "llama-nano", "baseline-nano"])
def test_presets_are_built_of_plain_parts(name) -> None:
    def act() -> None:
        build(preset(name, **SMALL))(torch.tensor([[1, 2, 3]])).sum().backward()

    assert entered(act) == set()
