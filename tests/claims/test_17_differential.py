"""Chapter 17: what its text says without showing it, from formulas, configurations and records."""

import math
from statistics import mean

import pytest
import torch

from llmtutor.evaluate.compare import compare_family
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


def by_seed(variant: str, init: str, what: str, junk: int = 48) -> list[float]:
    runs = load_record("needle").results(variant=variant, init=init)
    assert len(runs) == needle.SEEDS
    return [run["by_junk"][str(junk)][what] for run in runs]


def test_the_norm_alone_finds_all_facts_with_four_seeds_of_five() -> None:
    right = sorted(by_seed("norm alone", "gpt2", "right"))
    assert right[0] < 0.8 and right[1:] == [1.0] * 4
    assert by_seed("differential", "gpt2", "right") == [1.0] * 5


def test_the_verdicts_against_plain_attention() -> None:
    """The norm alone is better from both starts, each version from one, the difference never."""
    better = {
        init: {
            name
            for name, one in compare_family(
                {v: by_number(v, init) for v in list(needle.VARIANTS)[1:]},
                by_number("attention", init),
            ).items()
            if one.verdict == "better"
        }
        for init in needle.INITS
    }
    assert better["gpt2"] == {"differential", "norm alone"}
    assert better["glorot"] == {"differential-v2", "norm alone"}


def by_number(variant: str, init: str) -> dict[int, float]:
    return dict(enumerate(by_seed(variant, init, "loss")))


def test_in_more_noise_the_whole_looks_about_twice_as_much_at_the_fact() -> None:
    whole, half = (by_seed(v, "gpt2", "on_fact", 768) for v in ("differential", "norm alone"))
    assert all(a > b for a, b in zip(whole, half, strict=True))
    assert 1.8 < mean(whole) / mean(half) < 2.2
    second = by_seed("differential-v2", "glorot", "on_fact")
    assert mean(by_seed("differential-v2", "glorot", "right")) > 0.9 and mean(second) < 0.1


def test_plain_attention_only_takes_longer() -> None:
    for run in load_record("needle-longer").runs:
        assert run["settings"]["steps"] == 4 * needle.STEPS
        assert run["result"]["loss"] < 0.01


def test_with_much_noise_the_other_start_turns_the_picture() -> None:
    """From Glorot's start, among 768 tokens of junk."""
    names = ("attention", "differential", "differential-v2", "norm alone")
    losses = {name: mean(by_seed(name, "glorot", "loss", 768)) for name in names}
    assert [round(losses[name], 2) for name in names] == [1.15, 1.62, 1.11, 2.34]
    right = {name: mean(by_seed(name, "glorot", "right", 768)) for name in names}
    assert round(100 * right["differential-v2"]) == 68 and round(100 * right["attention"]) == 51
    paired = {
        name: dict(enumerate(by_seed(name, "glorot", "loss", 768))) for name in needle.VARIANTS
    }
    found = compare_family(paired, paired.pop("attention"))
    worse = {name for name, one in found.items() if one.verdict == "worse"}
    assert worse == {"differential", "norm alone"}
    runs = load_record("needle-longer").runs
    longer = [run["result"]["by_junk"]["768"]["right"] for run in runs]
    assert [round(100 * x) for x in (min(longer), max(longer))] == [39, 66]
