"""The benchmark of norms: what it times is the same norm each time, and its ratios are by hand."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from llmtutor.layers.norms import RMSNorm, rms_norm

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))
spec = importlib.util.spec_from_file_location("bench_norms", FOLDER / "norms.py")
assert spec and spec.loader
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)
sys.path.remove(str(FOLDER))


def test_works_of_a_shape_give_one_output_and_leave_fresh_gradients() -> None:
    made = bench.works((2, 3, 8))
    assert next(iter(made)) == "layernorm torch" and len(made) == 6
    torch.manual_seed(0)
    x = 3 * torch.randn(2, 3, 8) + 1
    for name in ("rmsnorm torch", "rmsnorm ours", "rmsnorm as written"):
        y, *gradients = made[name]()
        torch.testing.assert_close(y, rms_norm(x, torch.ones(8)))
        again = made[name]()[1:]
        assert len(gradients) == 2 and all(map(torch.equal, gradients, again))


def test_another_norm_is_noticed_before_anything_is_timed(monkeypatch) -> None:
    monkeypatch.setattr(RMSNorm, "forward", lambda self, x: x)
    with pytest.raises(AssertionError, match="rmsnorm, ours"):
        bench.works((2, 3, 8))


def test_ratios_by_hand(capsys) -> None:
    times = {f"layernorm {who}": [2.0, 4.0, 3.0] for who in bench.WHO}
    times |= {f"rmsnorm {who}": [1.5] for who in bench.WHO} | {"layernorm ours": [6.0]}
    figures, seconds = bench.table((8, 256, 128), times)
    assert figures["8x256x128_layernorm_time_to_torch"] == 2
    assert figures["8x256x128_rmsnorm_torch_time_to_layernorm"] == 0.5
    assert figures["8x256x128_rmsnorm_ours_time_to_layernorm"] == 0.25
    assert list(seconds["8x256x128_rmsnorm"]) == list(bench.WHO)
    assert "2,048 vectors of 128 numbers" in capsys.readouterr().out
