"""Chapter 17: what its text says without showing it, from formulas, configurations and records."""

import math

import pytest
import torch

from llmtutor.experiments import needle
from llmtutor.experiments.study import load_record
from llmtutor.layers.attention.differential import DifferentialConfig
from llmtutor.layers.attention.differential_v2 import DifferentialV2Config
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.part import Load, Site
from llmtutor.model.init import GPT2_STD, init_glorot
from llmtutor.model.published import PUBLISHED
from llmtutor.model.transformer import Transformer


def test_the_pairs_cost_twice_here_and_half_as_much_again_with_wide_values() -> None:
    site, one, two = Site(2048, 4096), Load(1, 1), Load(1, 2)

    def a_pair(config: AttentionConfig) -> int:
        return config.costs(site, two).flops - config.costs(site, one).flops

    plain, first, second = (
        a_pair(config(16)) for config in (AttentionConfig, DifferentialConfig, DifferentialV2Config)
    )
    assert first == second == 2 * plain
    scores, values = 2 * 16 * 128, 2 * 8 * 2 * 128 * 2  # 16 maps, values of 8 heads, both maps
    assert plain == 2 * 2 * 16 * 128 and scores + values == 1.5 * plain


def test_the_second_version_saves_a_quarter_where_keys_and_values_are_few() -> None:
    """Against plain attention of 2h heads; with one KV head of 64 the rest is small."""
    site, load = Site(4096, 16), Load(1, 1)
    v2 = DifferentialV2Config(32, 1, 64).costs(site, load).parameters
    plain = AttentionConfig(64, 1, 64).costs(site, load).parameters
    assert 1 - v2 / plain == pytest.approx(0.25, abs=0.01)


def test_glorot_starts_about_six_times_as_large() -> None:
    torch.manual_seed(0)
    model = Transformer(needle.model_config("attention"))
    query = model.blocks[0].mixer.query.weight
    assert float(query.detach().std()) == pytest.approx(GPT2_STD, rel=0.1)
    init_glorot(model.embedding, model.blocks, model.head)
    assert float(query.detach().std()) / GPT2_STD == pytest.approx(6, abs=0.5)
    assert math.sqrt(2 / (64 + 64)) / GPT2_STD == 6.25


def test_no_published_model_of_the_gallery_subtracts() -> None:
    kinds = {block.mixer.kind for config in PUBLISHED.values() for block in config.blocks}
    assert not kinds & {"differential", "differential-v2"}


def losses(variant: str, init: str) -> list[float]:
    runs = load_record("needle").results(variant=variant, init=init)
    return [run["loss"] for run in runs]
