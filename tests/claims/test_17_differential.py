"""Chapter 17: what its text says without showing it, from formulas, configurations and records."""

import math
from collections.abc import Iterator
from statistics import mean

import pytest
import torch

from llmtutor.evaluate.compare import compare_family
from llmtutor.experiments import needle
from llmtutor.experiments.choosing.verdicts import compute_factor, findings, flops, slope
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
    whole = AttentionConfig(16).costs(site, Load(1, 4096)).flops
    assert round((whole + 4096 * plain / 2) / 1e6) == 84


def test_where_lambda_starts_and_how_far_a_step_moves_it() -> None:
    vectors = 0.1 * torch.randn(4, 100_000, 128, generator=torch.Generator().manual_seed(0))
    moved = (vectors[0] * vectors[1]).sum(-1).exp() - (vectors[2] * vectors[3]).sum(-1).exp()
    assert float(moved.std()) == pytest.approx(0.16, abs=0.005)
    for outside in (0.2 + moved < 0, 0.8 + moved > 1):  # the first layer, and a deep one
        assert float(outside.double().mean()) == pytest.approx(1 / 9, abs=0.01)
    narrow = vectors[..., :16]  # a head of this chapter's models
    moved = (narrow[0] * narrow[1]).sum(-1).exp() - (narrow[2] * narrow[3]).sum(-1).exp()
    assert float(moved.std()) == pytest.approx(0.06, abs=0.005)
    # Each of 512 components moves by 0.001, all in the direction that raises λ.
    step = 0.001 * vectors.abs().sum(-1).mean(1).sum()
    assert vectors[:, 0].numel() == 512 and round(float(step), 2) == 0.04


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
    assert float(model.embedding.weight.detach().std()) / GPT2_STD == pytest.approx(50, abs=1.5)


@pytest.mark.parametrize(
    ("variant", "init", "size"),
    [
        ("attention", "gpt2", 0.14),
        ("norm alone", "gpt2", 4.5),
        ("attention", "glorot", 0.26),
        ("norm alone", "glorot", 0.82),
    ],
)
def test_what_attention_brings_before_training(variant: str, init: str, size: float) -> None:
    """Root mean square at the questions, as a part of the stream's; mean of five starts."""
    found = []
    for seed in range(5):
        torch.manual_seed(seed)
        model = Transformer(needle.model_config(variant, init))
        ids = needle.texts(32, needle.AMONG, torch.Generator().manual_seed(seed))[0]
        block = model.blocks[0]
        with torch.no_grad():
            stream = model.embedding(ids)
            brought = block.get_submodule("mixer")(block.get_submodule("norm_1")(stream))
        sizes = [x[:, -needle.FACTS :].square().mean().sqrt() for x in (brought, stream)]
        found.append(float(sizes[0] / sizes[1]))
    assert mean(found) == pytest.approx(size, rel=0.03)


def test_who_only_counts_the_values_pays_1_56_nats() -> None:
    """Exactly, over all ways in which 8 facts share 8 values."""

    def shares(left: int, values: int) -> Iterator[tuple[int, ...]]:
        if values == 1:
            yield (left,)
            return
        for n in range(left + 1):
            yield from ((n, *rest) for rest in shares(left - n, values - 1))

    facts, loss, right = needle.FACTS, 0.0, 0.0
    for counts in shares(facts, needle.VALUES):
        chance = math.factorial(facts) / needle.VALUES**facts
        for n in counts:
            chance /= math.factorial(n)
        loss -= chance * sum(n / facts * math.log(n / facts) for n in counts if n)
        right += chance * max(counts) / facts
    assert round(loss, 2) == 1.56 and round(100 * right) == 32
    assert mean(by_seed("differential-v2", "gpt2", "loss")) > loss


def test_an_even_look_at_all_tokens_or_at_all_facts() -> None:
    for junk, percent in ((48, 2), (768, 0.1)):
        seen = [junk + needle.FACTS + n for n in range(1, needle.FACTS + 1)]
        assert round(100 * mean(1 / n for n in seen), 0 if junk == 48 else 1) == percent
    assert 100 / needle.FACTS == 12.5


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


def test_two_intervals_without_zero_are_no_verdicts() -> None:
    """From GPT-2's start: the second version among 48 tokens of junk, the first among 768."""
    for junk, variant, adjusted in ((48, "differential-v2", 0.08), (768, "differential", 0.10)):
        losses = {
            name: dict(enumerate(by_seed(name, "gpt2", "loss", junk))) for name in needle.VARIANTS
        }
        one = compare_family(losses, losses.pop("attention"))[variant]
        assert one.t_interval[0] > 0 or one.t_interval[1] < 0
        assert one.verdict == "not distinguishable" and round(one.adjusted_p, 2) == adjusted


def searched(variant: str, init: str) -> dict[float, float]:
    """By learning rate, the loss among 768 tokens of junk in the search."""
    runs = load_record("needle-rates").runs
    return {
        run["settings"]["lr"]: round(run["result"]["by_junk"]["768"]["loss"], 2)
        for run in runs
        if run["settings"].items() >= {"variant": variant, "init": init}.items()
    }


def test_from_gpt2s_start_the_rate_for_short_texts_was_a_bad_one_for_long_ones() -> None:
    """At a quarter of it the norm alone no longer falls behind the first version."""
    chosen = load_record("needle").plan["lr"]["gpt2"]
    assert chosen["norm alone"] == chosen["differential"] == 0.006
    half, whole = searched("norm alone", "gpt2"), searched("differential", "gpt2")
    assert [half[0.006], whole[0.006], half[0.0015], whole[0.0015]] == [2.39, 0.22, 0.43, 0.51]


def test_from_glorots_start_no_rate_saves_the_norm_alone_among_much_junk() -> None:
    chosen = load_record("needle").plan["lr"]["glorot"]["attention"]
    half = searched("norm alone", "glorot")
    assert len(half) == 5 and min(half.values()) == 1.36
    assert searched("attention", "glorot")[chosen] == 1.2


def test_what_else_the_layers_of_the_experiment_differ_in() -> None:
    layers = {
        name: mixer.build(Site(64, 1024, layer=0)) for name, (mixer, _) in needle.VARIANTS.items()
    }
    whole = layers["differential"]
    assert tuple(whole.head_norm.shape) == (32,) and round(1 - whole.lambda_init, 3) == 0.8
    assert layers["norm alone"].head_dim == 16 and layers["difference alone"].head_norm is None
    with_norm = sum(p.numel() for p in layers["norm alone"].parameters())
    assert with_norm == sum(p.numel() for p in layers["attention"].parameters())  # no gain
    widths = [d_ff for _, d_ff in needle.VARIANTS.values()]
    assert widths == [128, 128, 105, 128, 128]


def test_two_plain_heads_subtract_when_one_reads_with_the_opposite_columns() -> None:
    """The open exercise: head 2's columns of W_O are −λ times those of head 1."""
    noise = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, 5, generator=noise, dtype=torch.float64).softmax(-1)
    values = torch.randn(5, 4, generator=noise, dtype=torch.float64)
    of_head_1 = torch.randn(8, 4, generator=noise, dtype=torch.float64)
    output = torch.cat((of_head_1, -0.3 * of_head_1), dim=1)  # (d_model, heads side by side)
    brought = torch.cat((maps[0] @ values, maps[1] @ values), dim=1) @ output.T
    wanted = (maps[0] - 0.3 * maps[1]) @ values @ of_head_1.T
    torch.testing.assert_close(brought, wanted)


def test_plain_attention_only_takes_longer() -> None:
    for run in load_record("needle-longer").runs:
        assert run["settings"]["steps"] == 4 * needle.STEPS
        assert run["result"]["loss"] < 0.01


def test_with_much_noise_no_layer_beats_plain_attention() -> None:
    verdicts = {}
    for init in needle.INITS:
        losses = {
            name: dict(enumerate(by_seed(name, init, "loss", 768))) for name in needle.VARIANTS
        }
        for name, one in compare_family(losses, losses.pop("attention")).items():
            verdicts[init, name] = one.verdict
    told = {at: verdict for at, verdict in verdicts.items() if verdict != "not distinguishable"}
    assert told == {("glorot", "differential"): "worse", ("glorot", "norm alone"): "worse"}
    runs = load_record("needle-longer").runs
    longer = [run["result"]["by_junk"]["768"]["right"] for run in runs]
    assert [round(100 * x) for x in (min(longer), max(longer))] == [39, 66]


def test_on_text_the_first_form_is_worse_and_the_second_gains_less_than_its_operations() -> None:
    record = load_record("choosing")
    first, second = (findings(record, "small")[f"differential{name}"] for name in ("", " v2"))
    assert (first.verdict, second.verdict) == ("worse, by little", "better")
    worth = compute_factor(second.gap.difference, slope(record, "small"))
    names = ("differential", "differential v2")
    taken = [flops(record, "small", n) / flops(record, "small", "baseline") for n in names]
    assert [round(f, 2) for f in taken] == [1.42, 1.42]
    assert 0.8 < worth / taken[1] < 0.95
