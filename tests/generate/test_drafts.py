"""A second head as the draft: the text stays the model's, and its proposals are those it should."""

from itertools import product
from math import ceil

import pytest
import torch
from torch import Tensor, nn

from llmtutor.generate.drafts import HeadDraft
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.generate.speculative import speculative
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.registry import kinds
from llmtutor.model.config import ModelConfig
from llmtutor.model.multi_token import MultiToken
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer

GREEDY = Sampler(greedy=True)
PROMPT = [3, 1, 2]
CACHE = pytest.mark.parametrize("use_cache", [False, True], ids=["uncached", "cached"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_head(model: Transformer) -> MultiToken:
    """A second head with opinions of its own."""
    torch.manual_seed(7)
    multi = MultiToken(model).eval()
    with torch.no_grad():
        for p in multi.second.parameters():
            if p.ndim == 2:
                p.mul_(3)
    return multi


@CACHE
@pytest.mark.parametrize("prompt", [PROMPT, [5]], ids=["prompt", "one token"])
def test_greedily_it_is_the_text_of_the_model(make_model, prompt, use_cache: bool) -> None:
    shapes = ({}, 1.0), ({"window": 3}, 1.5), ({"position": "learned", "norm": "layernorm"}, 1.0)
    for changes, penalty in shapes:
        multi = with_head(make_model(**changes))
        sampler = Sampler(greedy=True, repetition_penalty=penalty)
        settings = {"max_new_tokens": 27, "sampler": sampler, "use_cache": use_cache}
        (plain,) = generate(multi.model, [prompt], **settings)
        fast = speculative(multi.model, multi, prompt, **settings)
        assert fast.ids == plain
        assert fast.n_accepted + fast.n_rounds == 27
        assert fast.n_rounds - 2 <= fast.n_accepted + fast.n_rejected < fast.n_rounds


@pytest.mark.parametrize("kind", kinds(MixerConfig))
def test_any_mixer_can_stand_in_the_second_head(kind: str) -> None:
    """Those that cannot forget their last tokens go back to a snapshot, or read again."""
    sizes = {"vocab_size": 17, "max_seq_len": 32, "n_layers": 2, "d_model": 16, "n_heads": 4}
    torch.manual_seed(0)
    config = ModelConfig.uniform(**sizes, d_ff=24, n_kv_heads=2, init="glorot")
    multi = with_head(build(config.replace(mixer=kind)).eval())
    settings = {"max_new_tokens": 20, "sampler": GREEDY}
    made = speculative(multi.model, multi, PROMPT, **settings)
    assert [made.ids] == generate(multi.model, [PROMPT], **settings)


def test_texts_have_the_distribution_of_the_model(make_model, assert_drawn_from) -> None:
    """Three ids: a first one without a proposal, one that was proposed, one behind it."""
    multi = with_head(make_model(0, vocab_size=3))
    sampler, generator = Sampler(temperature=6.0), seeded()
    counts, accepted, n = torch.zeros(3, 3, 3), 0, 800
    for _ in range(n):
        made = speculative(
            multi.model,
            multi,
            [2, 1],
            max_new_tokens=3,
            sampler=sampler,
            generator=generator,
        )
        counts[tuple(made.ids)] += 1
        accepted += made.n_accepted
    texts = torch.tensor([[2, 1, *new] for new in product(range(3), repeat=3)])
    with torch.inference_mode():
        probs = (multi.model(texts).double() / 6).softmax(-1)
        hidden = multi.read(texts)[1]
        guessed = (multi.ahead(hidden[:, :-1], texts[:, 1:])[0].double() / 6).softmax(-1)
    chosen = probs[:, 1:-1].gather(-1, texts[:, 2:, None])[..., 0]
    assert_drawn_from(counts.flatten(), chosen.prod(-1))
    wrong = chosen[:, 0] * guessed[:, 1].gather(-1, texts[:, 3:4])[:, 0] * chosen[:, 2]
    with pytest.raises(AssertionError):  # as if every proposal were taken
        assert_drawn_from(counts.flatten(), wrong)
    # Accepted as often as p and q overlap, which here is a sum over the first id.
    overlap = torch.minimum(probs[::9, 2], guessed[::9, 1]).sum(-1)
    alpha = float((probs[0, 1] * overlap).sum())
    assert accepted / n == pytest.approx(alpha, abs=4 * (0.25 / n) ** 0.5)
    assert 0.2 < alpha < 0.9


def clock(steps: int) -> MultiToken:
    """A model of 0, 1, … 7, 0, … whose second head goes ``steps`` on from the next token."""
    multi = MultiToken(build(ModelConfig.uniform(8, 64, 1, 8, 2, 8, tie_weights=False))).eval()
    with torch.no_grad():
        for block in (multi.model.blocks[0], multi.second.block):
            for last in (block.mixer.output, block.ffn.down):
                nn.init.zeros_(last.weight)
        multi.embedding.weight.copy_(torch.eye(8))
        multi.model.head.weight.copy_(100 * torch.eye(8).roll(1, 0))
        shift = torch.eye(8).roll(steps - 1, 0)  # the shared head adds the last one
        multi.second.projection.weight.copy_(torch.cat([torch.zeros(8, 8), shift], dim=1))
    return multi


@CACHE
@pytest.mark.parametrize("sampler", [GREEDY, Sampler()], ids=["greedy", "sampled"])
def test_on_a_periodic_text_a_perfect_head_is_always_right(sampler, use_cache: bool) -> None:
    settings = {"max_new_tokens": 50, "sampler": sampler, "use_cache": use_cache}
    multi = clock(1)
    made = speculative(multi.model, multi, [5, 6], **settings)
    assert made.ids == [(7 + i) % 8 for i in range(50)]
    assert made.n_rejected == 0
    # The first round has nothing to go on from; each later one brings two tokens.
    assert made.n_rounds == 1 + ceil(49 / 2)
    multi = clock(2)  # a head that is off by one is always wrong, and the text is the same
    wrong = speculative(multi.model, multi, [5, 6], **settings)
    assert wrong.ids == made.ids and wrong.n_accepted == 0 and wrong.n_rounds == 50


def test_a_proposal_is_what_the_second_head_says_of_the_whole_text(make_model) -> None:
    multi, text = with_head(make_model()), torch.randint(20, (1, 12), generator=seeded())
    draft = HeadDraft(multi, 12, use_cache=True)
    caches = multi.make_caches(1, 12)
    with torch.inference_mode():
        hidden = multi.read(text)[1]
        want = multi.ahead(hidden[:, :-1], text[:, 1:])[0].softmax(-1)
        assert len(draft.propose(text.clone(), 3, 1, Sampler(), seeded())) == 0
        for start, end in ((0, 4), (4, 5), (5, 9)):
            draft(text[:, start:end], cache=caches, logits_to_keep=1)
            assert len(draft.propose(text, end + 1, 0, Sampler(), seeded())) == 0
            ids = text.clone()
            q = draft.propose(ids, end + 1, 3, Sampler(), seeded())
            torch.testing.assert_close(q, want[:, end - 1], rtol=1e-4, atol=1e-6)
            assert torch.equal(ids[:, : end + 1], text[:, : end + 1])


def test_a_cache_changes_no_draw_and_each_token_is_read_once(make_model) -> None:
    multi = with_head(make_model())
    for seed in range(4):
        sampler = Sampler(temperature=2.0, top_k=12, repetition_penalty=1.2)
        settings = {"max_new_tokens": 29, "sampler": sampler, "n_ids": 18}
        fast, slow = (
            speculative(
                multi.model, multi, PROMPT, generator=seeded(seed), use_cache=cache, **settings
            )
            for cache in (True, False)
        )
        assert fast == slow and fast.n_accepted and fast.n_rejected and max(fast.ids) < 18
    read: list[Tensor] = []
    multi.second.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    made = speculative(multi.model, multi, PROMPT, max_new_tokens=20, sampler=GREEDY)
    assert len(read) == made.n_accepted + made.n_rejected
    assert sum(pairs.shape[1] for pairs in read) <= len(PROMPT) + 20
    assert max(pairs.shape[1] for pairs in read[1:]) <= 2


def test_the_head_of_another_model_is_refused(make_model) -> None:
    multi, other = with_head(make_model()), make_model(1)
    with pytest.raises(ValueError, match=r"hidden states of its own model.*\(multi.model, multi"):
        speculative(other, multi, PROMPT, max_new_tokens=3, sampler=GREEDY)
