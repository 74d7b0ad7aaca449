"""Guessing ahead changes how a text is made, and nothing about which texts are how likely."""

import math

import pytest
import torch

from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.generate.speculative import accept, speculative

N_DRAWS = 100_000
GREEDY = Sampler(greedy=True)
PROMPT = [3, 1, 2]
CACHE = pytest.mark.parametrize("use_cache", [False, True], ids=["uncached", "cached"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize("closeness", [0.0, 0.7, 1.0], ids=["far", "near", "the same"])
def test_100_000_rounds_leave_the_distribution_of_plain_sampling(
    closeness: float, assert_drawn_from
) -> None:
    """Two proposals a round from tables: p and q after nothing, after 0, after 1, …"""
    vocab, generator = 5, seeded(3)
    tables = torch.randn(2, 1 + vocab, vocab, dtype=torch.float64, generator=generator)
    p = tables[0].softmax(-1)
    q = ((1 - closeness) * tables[1] + closeness * tables[0]).softmax(-1)
    first = torch.multinomial(q[0].expand(N_DRAWS, -1), 1, generator=generator)
    second = torch.multinomial(q[1 + first[:, 0]], 1, generator=generator)
    proposed = torch.cat([first, second], dim=1)
    here = torch.stack([p[0].expand(N_DRAWS, -1), p[1 + first[:, 0]], p[1 + second[:, 0]]], 1)
    there = torch.stack([q[0].expand(N_DRAWS, -1), q[1 + first[:, 0]]], 1)
    n_stand, after = accept(here, there, proposed, generator)
    got = torch.cat([proposed, after[:, None]], dim=1)
    got[torch.arange(N_DRAWS), n_stand] = after
    # The first id is always the model's; the second too where the first proposal stood.
    assert_drawn_from(got[:, 0].bincount(minlength=vocab), p[0])
    for one in range(vocab):
        stood = (n_stand >= 1) & (got[:, 0] == one)
        assert_drawn_from(got[stood, 1].bincount(minlength=vocab), p[1 + one])
        both = (n_stand == 2) & (got[:, 1] == one)
        assert_drawn_from(got[both, 2].bincount(minlength=vocab), p[1 + one])
    share = (n_stand >= 1).double().mean().item()
    overlap = torch.minimum(p[0], q[0]).sum().item()  # Leviathan et al. 2023, corollary 3.6
    assert share == pytest.approx(overlap, abs=4 * math.sqrt(0.25 / N_DRAWS))
    assert (closeness == 1) == (share == 1)


@pytest.mark.parametrize("knobs", [{"top_k": 3}, {"top_p": 0.8, "temperature": 1.5}], ids=str)
def test_filters_may_leave_other_tokens_to_the_draft_than_to_the_model(
    knobs: dict, assert_drawn_from
) -> None:
    generator, nothing = seeded(5), torch.zeros(1, 1, dtype=torch.int64)
    logits = 2 * torch.randn(2, 1, 8, dtype=torch.float64, generator=generator)
    p, q = (Sampler(**knobs).probabilities(table, nothing) for table in logits)
    assert ((p > 0) & (q == 0)).any() and ((p == 0) & (q > 0)).any() and ((p > 0) & (q > 0)).any()
    proposed = torch.multinomial(q.expand(N_DRAWS, -1), 1, generator=generator)
    tables = p.expand(N_DRAWS, 2, -1), q.expand(N_DRAWS, 1, -1)
    n_stand, after = accept(*tables, proposed, generator)
    got = torch.where(n_stand == 1, proposed[:, 0], after)
    assert_drawn_from(got.bincount(minlength=8), p[0])


def test_by_hand() -> None:
    p = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]])
    q = torch.tensor([[[0.0, 0.0, 1.0]]])
    n_stand, after = accept(p, q, torch.tensor([[2]]))
    assert n_stand.tolist() == [0] and after.item() in (0, 1)  # p(2) = 0: refused for sure
    n_stand, after = accept(p, p[:, :1], torch.tensor([[1]]))
    assert (n_stand.tolist(), after.tolist()) == ([1], [2])  # p = q: accepted for sure
    n_stand, after = accept(p[:, 1:], q[:, :0], torch.zeros(1, 0, dtype=torch.int64))
    assert (n_stand.tolist(), after.tolist()) == ([0], [2])  # nothing proposed: a plain draw
    q = torch.tensor([[[0.25, 0.75, 0.0]]])
    many = accept(p.expand(20_000, -1, -1), q.expand(20_000, -1, -1), torch.ones(20_000, 1).long())
    assert many[0].double().mean() == pytest.approx(2 / 3, abs=0.015)
    assert set(many[1][many[0] == 0].tolist()) == {0}  # only id 0 had too little


# --- whole texts ---------------------------------------------------------------------------------


@CACHE
@pytest.mark.parametrize("n_draft", [1, 2, 4, 30])
def test_greedily_it_is_the_text_of_the_model(make_model, n_draft: int, use_cache: bool) -> None:
    model = make_model()
    for draft in (model, make_model(1, n_layers=1), make_model(0, n_layers=1)):
        for penalty in (1.0, 1.5):
            sampler = Sampler(greedy=True, repetition_penalty=penalty)
            settings = {"max_new_tokens": 29, "sampler": sampler, "use_cache": use_cache}
            (plain,) = generate(model, [PROMPT], **settings)
            told: list[int] = []
            fast = speculative(
                model, draft, PROMPT, n_draft=n_draft, on_token=told.append, **settings
            )
            assert fast.ids == told == plain
            assert fast.n_accepted + fast.n_rounds == 29
            if draft is model:
                assert fast.n_rejected == 0 < fast.n_accepted
                assert fast.n_rounds == math.ceil(29 / (n_draft + 1))


@CACHE
def test_texts_have_the_distribution_of_the_model(
    make_model, joint, assert_drawn_from, use_cache: bool
) -> None:
    model, draft = make_model(0, vocab_size=4), make_model(1, vocab_size=4, n_layers=1)
    sampler, generator = Sampler(temperature=3.0), seeded()
    counts, accepted = torch.zeros(16), 0
    for _ in range(1000):
        made = speculative(
            model,
            draft,
            PROMPT,
            max_new_tokens=2,
            sampler=sampler,
            generator=generator,
            use_cache=use_cache,
        )
        counts[4 * made.ids[0] + made.ids[1]] += 1
        accepted += made.n_accepted
    assert_drawn_from(counts, joint(model, PROMPT, 3.0))
    assert 0 < accepted < 1000
    with pytest.raises(AssertionError):
        assert_drawn_from(counts, joint(draft, PROMPT, 3.0))


def test_a_cache_changes_no_draw(make_model) -> None:
    model, draft = make_model(), make_model(0, n_layers=1)
    for seed in range(5):
        sampler = Sampler(temperature=2.0, top_k=12, repetition_penalty=1.2)
        settings = {"max_new_tokens": 29, "sampler": sampler, "n_draft": 3}
        fast, slow = (
            speculative(model, draft, PROMPT, generator=seeded(seed), use_cache=cache, **settings)
            for cache in (True, False)
        )
        assert fast == slow
        assert fast.n_accepted and fast.n_rejected


def test_with_a_cache_the_model_reads_only_what_is_new(make_model) -> None:
    model = make_model()
    read = []
    model.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
    draft = make_model()
    speculative(model, draft, PROMPT, max_new_tokens=12, sampler=GREEDY, n_draft=3)
    assert read == [3 + 3, 1 + 3, 1 + 3]


def test_it_ends_at_a_stop_token_also_in_the_middle_of_a_round(make_model) -> None:
    model = make_model()
    settings = {"max_new_tokens": 20, "sampler": GREEDY}
    (whole,) = generate(model, [PROMPT], **settings)
    for stop in set(whole):
        for n_draft in (1, 4, 7):
            made = speculative(model, model, PROMPT, n_draft=n_draft, stop=[stop], **settings)
            assert made.ids == whole[: whole.index(stop) + 1]


def test_models_padded_to_different_sizes_share_a_tokenizer(make_model) -> None:
    model, draft = make_model(), make_model(vocab_size=16, n_layers=1)
    for sampler in (GREEDY, Sampler(temperature=2.0)):
        settings = {"max_new_tokens": 29, "sampler": sampler, "n_ids": 12}
        made = speculative(model, draft, PROMPT, generator=seeded(), **settings)
        assert max(made.ids) < 12 and made.n_rejected
    assert [made.ids] != generate(model, [PROMPT], **settings)  # other draws
    made = speculative(model, draft, PROMPT, **settings | {"sampler": GREEDY})
    assert [made.ids] == generate(model, [PROMPT], **settings | {"sampler": GREEDY})


def test_bad_input(make_model) -> None:
    model, other, short = make_model(), make_model(vocab_size=21), make_model(max_seq_len=8)
    settings = {"max_new_tokens": 8, "sampler": GREEDY}
    with pytest.raises(ValueError, match=r"the draft has 21 tokens and the model 20.* with n_ids"):
        speculative(model, other, PROMPT, **settings)
    with pytest.raises(ValueError, match="n_draft must be at least 1, got 0"):
        speculative(model, model, PROMPT, n_draft=0, **settings)
    with pytest.raises(ValueError, match="the prompt is empty"):
        speculative(model, model, [], **settings)
    for pair in ((model, short), (short, model)):
        with pytest.raises(ValueError, match="longer than the model's context of 8"):
            speculative(*pair, PROMPT, **settings)
