"""Facts among noise: the texts, equal sizes, ablations that ablate, rates that were the best."""

import math

import pytest
import torch

from llmtutor.experiments import copying, needle
from llmtutor.experiments.study import load_record
from llmtutor.layers.attention import Attention
from llmtutor.layers.attention.differential import DifferentialAttention
from llmtutor.layers.part import Site
from llmtutor.model.accounting import parameters
from llmtutor.model.transformer import Transformer


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_question_has_one_fact_and_its_answer() -> None:
    ids, answers, places = needle.texts(50, 10, generator(0))
    assert ids.shape == (50, 10 + 2 * needle.FACTS) and answers.shape == places.shape
    for text, answer, place in zip(ids, answers, places, strict=True):
        facts = text[: 10 + needle.FACTS]
        facts = facts[facts < needle.QUESTIONS]
        assert len(facts) == needle.FACTS == len(set((facts // needle.VALUES).tolist()))
        keys = text[-needle.FACTS :] - needle.QUESTIONS
        assert torch.equal(text[place], keys * needle.VALUES + answer)
    assert int(ids.max()) < needle.VOCAB


def test_symbols_are_copied_in_their_order() -> None:
    ids, symbols = copying.texts(50, generator(0))
    for text, copy in zip(ids, symbols, strict=True):
        before, after = text[: -copying.COPIED], text[-copying.COPIED :]
        assert torch.equal(before[before < copying.SYMBOLS], copy)
        assert after[0] == copying.SYMBOLS and torch.equal(after[1:], copy[:-1])
    assert len(set(symbols[0].tolist())) == copying.COPIED


@pytest.mark.parametrize("module", [needle, copying])
def test_all_models_are_equally_large(module) -> None:
    plain = parameters(module.model_config("attention")).total
    for variant in needle.VARIANTS:
        config = module.model_config(variant)
        with torch.device("meta"):
            assert parameters(config).total == sum(
                p.numel() for p in Transformer(config).parameters()
            )
        assert parameters(config).total == pytest.approx(plain, rel=0.003)


def test_the_halves_are_halves() -> None:
    """Norm and difference, one without the other; together they are the first version."""
    site, x = Site(16, 8), torch.randn(2, 5, 16, generator=generator(1))
    torch.manual_seed(0)
    normed = needle.NormedConfig(4).build(site)
    plain = Attention(16, 4)
    plain.load_state_dict(normed.state_dict())
    plain.output = normed.output = torch.nn.Identity()
    heads, raw = (layer(x).unflatten(-1, (4, 4)) for layer in (normed, plain))
    sizes = heads.square().mean(-1).sqrt()
    torch.testing.assert_close(sizes, torch.full_like(sizes, 0.8), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(
        heads / heads.norm(dim=-1, keepdim=True), torch.nn.functional.normalize(raw, dim=-1)
    )
    bare = needle.DifferenceConfig(4, gain=False).build(site)
    whole = DifferentialAttention(16, 4, gain=False)
    whole.load_state_dict(bare.state_dict())
    torch.testing.assert_close(bare.weights(x), whole.weights(x))
    assert not torch.allclose(bare(x), whole(x))


def test_an_untrained_model_guesses_and_looks_at_all_alike() -> None:
    torch.manual_seed(0)
    found = needle.look(needle.Answers(Transformer(needle.model_config("attention"))), 48)
    assert found["on_fact"] == pytest.approx(1 / 60, rel=0.1)  # a question sees 57 to 64 tokens
    assert found["loss"] == pytest.approx(math.log(needle.VOCAB), abs=0.3)


@pytest.mark.parametrize("name", ["needle", "copying"])
def test_rates_are_those_that_were_best_and_none_is_at_an_end(name: str) -> None:
    tried, record = load_record(f"{name}-rates"), load_record(name)
    usual = (needle if name == "needle" else copying).RATES
    chosen = record.plan["lr"]
    groups = chosen.items() if name == "needle" else [(None, chosen)]
    for init, by_variant in groups:
        for variant, lr in by_variant.items():
            settings = {"variant": variant} | ({"init": init} if init else {})
            rates = (*usual, *needle.MORE_RATES.get((init, variant), ()))
            losses = {rate: tried.results(**settings, lr=rate)[0]["loss"] for rate in rates}
            assert lr == min(losses, key=losses.__getitem__)
            assert rates[0] < lr < rates[-1]


def test_a_seed_is_a_run() -> None:
    """The same numbers again; other layers see the same texts."""
    settings = {"lr": 0.003, "seed": 1, "init": "gpt2", "steps": 3}
    first, again = (needle.train("differential", **settings)[0].losses for _ in range(2))
    assert first == again and len(first) == 3
    other = needle.train("attention", **settings)[0].losses
    assert other != first and other[0] == pytest.approx(first[0], rel=0.1)
