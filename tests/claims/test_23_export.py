"""Chapter 23: what its text says of bits, of two weights, of the ladder and of published models."""

import importlib.util
import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from llmtutor.evaluate.compare import Comparison, compare
from llmtutor.experiments.kept import load_kept
from llmtutor.experiments.study import Record, load_record
from llmtutor.interop.onnx import NEEDED, export_onnx
from llmtutor.interop.quantize import Integers, nearest
from llmtutor.interop.quantize.gptq import gptq
from llmtutor.model.transformer import Transformer


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record("quantisation-ladder")


def cost(record: Record, model: str, scheme: str, part: str | None = None) -> float:
    """Bits per byte more than in float32, the mean over calibrations."""
    (plain,) = record.results(model=model, scheme="float32")
    found = [r["bits_per_byte"] for r in record.results(model=model, scheme=scheme, part=part)]
    return sum(found) / len(found) - plain["bits_per_byte"]


def stretches(record: Record, model: str, scheme: str, part: str | None = None) -> list[float]:
    """Of the first calibration, one number a stretch of the text."""
    return list(record.results(model=model, scheme=scheme, part=part)[0]["stretches"])


def paired(one: list[float], other: list[float]) -> Comparison:
    return compare(dict(enumerate(one)), dict(enumerate(other)))


def test_the_running_example() -> None:
    model, _ = load_kept()
    assert sum(p.numel() for p in model.parameters()) == 3_049_920
    assert model.config.blocks[0].mixer.position.pairing == "half"
    (kept,) = load_record("staircase").results(rung="longer", seed=0)
    assert (kept["bits_per_byte"], kept["int8_bits_per_byte"]) == (1.96806, 1.96792)


def test_knowing_nothing_costs_ten_bits_a_token_and_pairs_cost_2_56(record: Record) -> None:
    assert math.log2(load_kept()[0].config.vocab_size) == 10
    (bigram,) = load_record("staircase").results(rung="bigram", seed=0)
    assert round(bigram["bits_per_byte"], 2) == 2.56
    (plain,) = record.results(model="longer", scheme="float32")
    assert round(plain["bits_per_byte"], 3) == 1.974


def test_bits_a_weight() -> None:
    assert 4 + 16 / 32 == 4.5 and 4 + 32 / 64 == 4.5 and 4 + 8 / 32 == 4.25
    assert round(4 + 8 / 64 + 16 / (64 * 256), 2) == 4.13
    assert 4 + (16 + 8) / 32 == 4.75 and 4 + (16 + 4) / 32 == 4.625
    assert [bits + (16 + 8) / width for width in (32, 8) for bits in (8, 4)] == [8.75, 4.75, 11, 7]


def test_a_symmetric_grid_leaves_its_lowest_code_unused() -> None:
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    for bits, used in ((4, 15), (3, 7)):
        codes = nearest(x, Integers(bits, share=32)).codes
        assert len(codes.unique()) == used and codes.min() == 1


def test_two_weights() -> None:
    """δ₂ = 0.36 moves 1.2 to 1.56, which rounds to 2; the class does the same."""
    assert math.isclose(1.2 + 0.9 * 0.4, 1.56)
    assert math.isclose(0.4 + 0.9 * (1.2 - 1), 0.58)  # the other order, which ends at (1, 1)
    assert math.isclose(0.6**2 + 0.2**2 - 2 * 0.9 * 0.6 * 0.2, 0.184)
    bend = 2 * torch.block_diag(torch.tensor([[1, 0.9], [0.9, 1]]), torch.eye(1))
    row = torch.tensor([[0.4, 1.2, 7.0]])
    assert gptq(row, bend, Integers(4), damping=0.0).matrix().tolist() == [[0, 2, 7]]


def test_what_one_large_weight_does() -> None:
    """Half a step of four bits is a fourteenth of the largest; 8 bits: 127 / 7 = 18 times finer."""
    assert (round(30 / 14, 1), round(100 / 14)) == (2.1, 7)
    assert round(127 / 7) == 18
    row = torch.randn(1, 64, generator=torch.Generator().manual_seed(1))
    row[0, 0] = 100.0
    found = nearest(row, Integers(4, share=64)).matrix()
    assert not found[0, 1:].any()
    part = nearest(row, Integers(4, share=8)).matrix()
    assert not part[0, 1:8].any() and part[0, 8:].count_nonzero() > 45


def test_rank_of_150_inputs() -> None:
    inputs = torch.randn(150, 192, generator=torch.Generator().manual_seed(0)).double()
    assert torch.linalg.matrix_rank(inputs.T @ inputs) == 150


def test_the_ladders_text_is_as_long_as_said(record: Record) -> None:
    for run in record.runs:
        n = len(run["result"]["stretches"])
        assert n * (256 if run["settings"]["model"] == "stories260K" else 512) == 16_384


def test_in_an_asymmetric_grid_a_step_is_0_073() -> None:
    assert math.isclose((0.7 + 0.4) / 15, 0.073, abs_tol=5e-4)
    one = nearest(torch.tensor([[-0.4, 0.0, 0.7]]), Integers(4, symmetric=False, share=3))
    ends = one.grid.values(torch.tensor([[[0, 15]]], dtype=torch.uint8)).flatten()
    assert [round(x, 2) for x in ends.tolist()] == [-0.37, 0.73]


def test_the_best_end_of_a_grid_for_normal_numbers() -> None:
    """The open exercise: 0.52, 0.82, 0.95 and 1.00 of the largest for 2, 3, 4 and 8 bits."""
    x = torch.randn(8000, 32, generator=torch.Generator().manual_seed(0))
    factors = [round(0.4 + 0.01 * i, 2) for i in range(61)]
    for bits, best in ((2, 0.52), (3, 0.82), (4, 0.95), (8, 1.0)):
        top = 2 ** (bits - 1) - 1
        steps = [c * x.abs().amax(-1, keepdim=True) / top for c in factors]
        off = [float(((x / s).round().clamp(-top, top) * s - x).norm()) for s in steps]
        assert abs(factors[off.index(min(off))] - best) <= 0.025


@pytest.mark.parametrize("model", ["stories260K", "feed-forward", "longer"])
def test_three_bits_cost_five_to_thirteen_times_what_four_do(record: Record, model: str) -> None:
    for three, four in (("int3", "int4"), ("gptq-3", "gptq")):
        assert 4.5 < cost(record, model, three) / cost(record, model, four) < 13


def test_gptq_takes_a_quarter_or_half_of_the_cost_away(record: Record) -> None:
    kept = {
        model: cost(record, model, "gptq") / cost(record, model, "int4")
        for model in ("stories260K", "feed-forward", "longer")
    }
    assert 0.7 < kept["stories260K"] < 0.75
    assert 0.44 < kept["feed-forward"] < 0.5 < kept["longer"] < 0.55
    assert round(cost(record, "stories260K", "int4"), 2) == 0.11
    assert cost(record, "feed-forward", "int4") < cost(record, "longer", "int4")


def test_the_asymmetric_grid_against_nf4(record: Record) -> None:
    verdicts = {
        model: paired(*(stretches(record, model, s) for s in ("int4-asymmetric", "nf4"))).verdict
        for model in ("stories260K", "feed-forward", "longer")
    }
    assert verdicts == {"stories260K": "better", "feed-forward": "better", "longer": "worse"}


def test_eight_bits_cost_next_to_nothing(record: Record) -> None:
    for model in ("stories260K", "feed-forward", "longer"):
        for scheme in ("int8", "int8-dynamic", "int8-tensor"):
            assert cost(record, model, scheme) < 0.005
        assert cost(record, model, "cache-8") < 0.00105


def test_what_breaks_first(record: Record) -> None:
    parts = {
        run["settings"]["part"]: run["result"]["n_weights"]
        for run in record.runs
        if run["settings"]["part"]
    }
    costs = {part: cost(record, "longer", "int3", part) for part in parts}
    each = {part: costs[part] / parts[part] for part in parts}
    assert max(costs, key=costs.__getitem__) == "head" == max(each, key=each.__getitem__)
    assert round(3_047_424 / parts["head"]) in (15, 16)
    assert 0.3 < costs["head"] / cost(record, "longer", "int3") < 0.36
    assert abs(costs["first block"]) < 0.001 and costs["last block"] > 0.01
    kinds = [part for part in each if "block" not in part]
    assert len(kinds) == 7 and round(sum(costs[part] for part in kinds), 3) == 0.088
    assert round(cost(record, "longer", "int3"), 3) == 0.102
    exact = stretches(record, "longer", "float32")

    def by_weight(part: str) -> list[float]:
        found = stretches(record, "longer", "int3", part)
        return [1e6 * (x - y) / parts[part] for x, y in zip(found, exact, strict=True)]

    for part in kinds:
        if part not in ("head", "value"):
            assert paired(by_weight("value"), by_weight(part)).verdict == "worse"
    assert paired(by_weight("head"), by_weight("value")).verdict == "worse"
    alike = ("output", "down", "embedding")
    for one, other in zip(alike, (*alike[1:], alike[0]), strict=True):
        plain = [stretches(record, "longer", "int3", part) for part in (one, other)]
        assert paired(*plain).verdict == "not distinguishable"


def test_what_a_cache_in_four_bits_costs(record: Record) -> None:
    assert round(cost(record, "stories260K", "cache-4"), 2) == 0.31
    assert cost(record, "stories260K", "cache-4") > cost(record, "stories260K", "int4")
    for model in ("feed-forward", "longer"):
        assert cost(record, model, "cache-4") < 0.005


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in (*NEEDED, "onnxruntime")),
    reason="needs the packages of ONNX",
)
def test_the_operations_of_the_running_example(tmp_path: Path) -> None:
    """Its layers with narrow matrices: the operations are the same, only their sizes are not."""
    import onnx
    import onnxruntime

    config = load_kept()[0].config.replace(vocab_size=64, d_model=48, d_ff=64)
    torch.manual_seed(0)
    model, path = Transformer(config).eval(), tmp_path / "model.onnx"
    export_onnx(model, path)
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert kinds.total() == 444
    found = [kinds[kind] for kind in ("Mul", "MatMul", "Softmax", "Cos", "Sin")]
    assert found == [88, 55, 6, 1, 1]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for length in (3, 4, 64):
        ids = torch.arange(length)[None]
        (logits,) = session.run(None, {"ids": ids.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), model(ids), atol=1e-5, rtol=0)
