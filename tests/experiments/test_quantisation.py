"""The ladder of formats: what is recorded is whole, in the expected order, and made again."""

import os
from pathlib import Path

import pytest
import torch

from llmtutor.evaluate.compare import compare
from llmtutor.experiments.kept import load_kept
from llmtutor.experiments.quantisation import (
    CALIBRATION_SEEDS,
    FLOATS,
    LAST,
    MODELS,
    PARTS,
    as_floats,
    ladder_run,
)
from llmtutor.experiments.study import Record, load_record
from llmtutor.interop.llama2c import WEIGHTS
from llmtutor.interop.quantize.apply import matrices


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record("quantisation-ladder")


def result(record: Record, model: str, scheme: str, seed: int = 0):
    (one,) = record.results(model=model, scheme=scheme, part=None, seed=seed)
    return one


@pytest.mark.parametrize("model", MODELS)
def test_eight_bits_cost_at_most_five_thousandths(record: Record, model: str) -> None:
    plain = result(record, model, "float32")["bits_per_byte"]
    for scheme in (*FLOATS, "int8", "int8-tensor", "int8-dynamic"):
        assert result(record, model, scheme)["bits_per_byte"] - plain <= 0.005
    bits = [result(record, model, s)["bits_per_weight"] for s in ("float32", "int8", "int4")]
    assert bits[0] > 3 * bits[1] and bits[1] > 1.7 * bits[2]


def test_int8_cost_nothing_when_the_last_rung_was_kept() -> None:
    (kept,) = load_record("staircase").results(rung=LAST, seed=0)
    assert abs(kept["int8_bits_per_byte"] - kept["bits_per_byte"]) <= 0.005


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("better", "plain"), [("gptq", "int4"), ("gptq-3", "int3")])
def test_gptq_is_below_rounding_with_every_calibration(
    record: Record, model: str, better: str, plain: str
) -> None:
    rounded = dict(enumerate(result(record, model, plain)["stretches"]))
    for seed in range(CALIBRATION_SEEDS):
        found = dict(enumerate(result(record, model, better, seed)["stretches"]))
        one = compare(found, rounded)
        assert one.verdict == "better" and one.t_interval[1] < 0
        assert result(record, model, better, seed)["bytes"] == result(record, model, plain)["bytes"]


def test_parts_are_all_of_the_matrices() -> None:
    model, _ = load_kept()
    names, n_layers = set(matrices(model)), model.config.n_layers
    of = {part: {n for n in names if belongs(n, n_layers)} for part, belongs in PARTS.items()}
    blocks = {"first block", "last block"}
    assert set().union(*(some for part, some in of.items() if part not in blocks)) == names
    assert len(of["first block"]) == len(of["last block"]) == 7


def test_floats_are_rounded_and_the_model_is_left_alone() -> None:
    model, _ = load_kept()
    before = model.head.weight.clone()
    half = as_floats(model, torch.bfloat16)
    assert torch.equal(half.head.weight, before.bfloat16().float())
    assert torch.equal(model.head.weight, before) and torch.equal(
        half.norm.weight, model.norm.weight
    )


@pytest.mark.parametrize("scheme", ["int4", "cache-4"])
def test_the_record_is_made_again(record: Record, scheme: str) -> None:
    for name in (WEIGHTS.name, "tinystories_valid.txt"):
        if not (Path(os.environ.get("LLMTUTOR_MIRROR", "")) / name).is_file():
            pytest.skip(f"{name} is not in LLMTUTOR_MIRROR")
    new = ladder_run(model="stories260K", scheme=scheme, part=None, seed=0)
    old = result(record, "stories260K", scheme)
    assert new["bits_per_byte"] == pytest.approx(old["bits_per_byte"], abs=2e-4)
    assert new.keys() == old.keys()


def test_unknown_settings() -> None:
    with pytest.raises(ValueError, match="unknown model 'long'; did you mean 'longer'"):
        ladder_run(model="long", scheme="int4", part=None, seed=0)
