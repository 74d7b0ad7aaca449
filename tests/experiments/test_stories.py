"""A published model with its heads merged: the record holds what the weights say again."""

import json
import os
from pathlib import Path

import pytest

from llmtutor.experiments.stories import N_KV_HEADS, stories_run
from llmtutor.experiments.study import Record, load_record
from llmtutor.interop.llama2c import WEIGHTS


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record("stories260k")


def mirror(name: str) -> Path:
    path = Path(os.environ.get("LLMTUTOR_MIRROR", "")) / name
    if not path.is_file():
        pytest.skip(f"{name} is not in LLMTUTOR_MIRROR")
    return path


def test_the_cache_is_counted_by_hand(record: Record) -> None:
    """Keys and values, 5 layers, heads of 64 / 8 channels, 512 tokens, 4 bytes."""
    for n_kv_heads in N_KV_HEADS:
        (result,) = record.results(n_kv_heads=n_kv_heads)
        assert result["cache_bytes"] == 2 * 5 * n_kv_heads * 8 * 512 * 4
        assert result["context"] == 512


def test_as_published_it_writes_the_published_text_and_merged_it_does_not(record: Record) -> None:
    expected = json.loads(mirror("stories260K/expected_greedy_200.json").read_text("utf-8"))
    texts = [record.results(n_kv_heads=n)[0]["text"] for n in N_KV_HEADS]
    assert texts[0] == expected["text"]
    assert all(text != expected["text"] and text.startswith("Once upon") for text in texts[1:])


def test_the_loss_is_that_of_the_published_weights_and_merging_ruins_it(record: Record) -> None:
    """1.266 for these 24 stories, as in tests/interop/test_llama2c.py."""
    whole, two, one = (record.results(n_kv_heads=n)[0]["valid_loss"] for n in N_KV_HEADS)
    assert whole == pytest.approx(1.266, abs=1e-3)
    assert whole + 3 < two < one


@pytest.mark.parametrize("n_kv_heads", N_KV_HEADS)
def test_the_record_is_made_again(n_kv_heads: int, record: Record) -> None:
    mirror(WEIGHTS.name), mirror("tinystories_valid.txt")
    (old,) = record.results(n_kv_heads=n_kv_heads)
    new = stories_run(n_kv_heads=n_kv_heads)
    assert new["valid_loss"] == pytest.approx(old["valid_loss"], abs=2e-4)
    assert {**new, "valid_loss": None} == {**old, "valid_loss": None}
