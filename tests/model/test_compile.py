"""Models go through torch.compile in one graph: no check looks at a value while it is traced."""

import shutil
import sys

import pytest
import torch

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
        ("llama-nano", {"mixer": "gqa", "n_kv_heads": 1}),
        ("baseline-nano", {}),
    ],
)
def test_compiled_model_gives_the_same_logits_and_gradients(name: str, parts: dict) -> None:
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
