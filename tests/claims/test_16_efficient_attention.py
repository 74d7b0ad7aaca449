"""What chapter 16 says of the world: sizes, reach, and the traffic of published settings."""

import pytest

from llmtutor.experiments.study import load_record
from llmtutor.layers.attention.traffic import flash_accesses, stored_accesses
from llmtutor.model.published import PUBLISHED


def test_the_square_of_a_novel() -> None:
    tokens = 2**17
    assert round(tokens**2 / 1e9) == 17 and round(2 * tokens**2 / 1e9) == 34
    assert 16_384**2 * 4 == 2**30  # of 16,384 tokens in float32: 1 GiB


def test_reach_of_mistral() -> None:
    config = PUBLISHED["mistral-7b"]
    window = config.blocks[0].mixer.window  # type: ignore[attr-defined]
    assert config.n_layers * (window - 1) + 1 == 131_041


@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_tiles_move_less_once_the_fast_memory_is_above_two_head_dims_squared(head_dim) -> None:
    seq, edge = 2**16, 2 * head_dim**2
    assert flash_accesses(seq, head_dim, 2 * edge) < stored_accesses(seq, head_dim)
    assert flash_accesses(seq, head_dim, edge // 2) > stored_accesses(seq, head_dim)


def test_weights_on_the_first_token() -> None:
    runs = load_record("attention-sinks").results(variant="plain")
    assert round(sum(100 * run["others"] for run in runs) / 3) == 12
    assert round(sum(100 * run["triggers"] for run in runs) / 3) == 1
