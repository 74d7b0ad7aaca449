"""Drafts without a network: the text stays the model's, and proposals are what was counted."""

import numpy as np
import pytest
import torch

from llmtutor.generate.free_drafts import LookupDraft, NGramDraft, follows
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.generate.speculative import speculative
from llmtutor.model.language_modelling import NGram

GREEDY = Sampler(greedy=True)
PROMPT = [3, 1, 2, 3, 1]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counts_of(model, order: int) -> NGram:
    """Of texts that the model itself has written, so that they are worth something."""
    n = model.config.vocab_size
    sampler = Sampler(temperature=2.0)
    rows = generate(model, [[i] for i in range(n)] * 8, max_new_tokens=20, sampler=sampler)
    return NGram(order, n).fit(np.concatenate(rows))


@pytest.mark.parametrize("use_cache", [False, True], ids=["uncached", "cached"])
def test_greedily_it_is_the_text_of_the_model(make_model, use_cache: bool) -> None:
    model = make_model()
    drafts = [NGramDraft(counts_of(model, order)) for order in (1, 3)] + [LookupDraft(20)]
    accepted = []
    for draft in drafts:
        for penalty in (1.0, 1.5):
            sampler = Sampler(greedy=True, repetition_penalty=penalty, frequency_penalty=0.2)
            settings = {"max_new_tokens": 26, "sampler": sampler, "use_cache": use_cache}
            (plain,) = generate(model, [PROMPT], **settings)
            for n_draft in (1, 4):
                fast = speculative(model, draft, PROMPT, n_draft=n_draft, **settings)
                assert fast.ids == plain and fast.n_accepted + fast.n_rounds == 26
                accepted.append(fast.n_accepted)
    assert max(accepted[4:]) > 2


@pytest.mark.parametrize("kind", ["counts", "lookup"])
def test_texts_have_the_distribution_of_the_model(
    make_model, joint, assert_drawn_from, kind: str
) -> None:
    model = make_model(0, vocab_size=4)
    draft = NGramDraft(counts_of(model, 2)) if kind == "counts" else LookupDraft(4, longest=2)
    sampler, generator = Sampler(temperature=3.0), seeded()
    counts, accepted, rejected = torch.zeros(16), 0, 0
    settings = {"max_new_tokens": 2, "sampler": sampler, "generator": generator}
    for _ in range(1000):
        made = speculative(model, draft, [2, 1, 2, 1], n_draft=1, **settings)
        counts[4 * made.ids[0] + made.ids[1]] += 1
        accepted, rejected = accepted + made.n_accepted, rejected + made.n_rejected
    assert_drawn_from(counts, joint(model, [2, 1, 2, 1], 3.0))
    assert accepted > 50 and rejected > 50


def test_proposals_are_drawn_from_the_counts_after_the_knobs() -> None:
    counts = NGram(3, 5).fit([0, 1, 2, 0, 1, 3, 0, 1, 2, 4])
    ids = torch.tensor([[4, 0, 1, 0, 0, 0]])
    q = NGramDraft(counts).propose(ids, 3, 2, Sampler(top_k=3), seeded())
    first, second = ids[0, 3:5].tolist()
    for row, context in zip(q, ([0, 1], [1, first]), strict=True):
        probs = torch.from_numpy(counts.next_probs(context))[None].float()
        torch.testing.assert_close(row, Sampler(top_k=3).probabilities(probs.log(), ids)[0])
    assert q[0, first] > 0 and q[1, second] > 0 and ids[0].tolist()[5:] == [0]
    assert NGramDraft(NGram(1, 5).fit([4])).propose(ids, 3, 0, Sampler(), None).shape == (0, 5)


def test_what_followed_before_is_proposed_by_hand() -> None:
    assert follows([1, 2, 3, 1, 2, 4, 2], 3) == [4, 2]  # the last time, of the one token
    assert follows([1, 2, 3, 4, 2, 1, 2], 3) == [3, 4, 2, 1, 2]  # two tokens before one
    assert follows([5, 5, 5], 3) == [5] and follows([1, 2, 3], 2) == follows([1], 2) == []
    ids = torch.tensor([[1, 2, 3, 4, 1, 2, 0, 0, 0]])
    q = LookupDraft(6).propose(ids, 6, 2, Sampler(), None)
    assert ids[0].tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 0]
    assert q.tolist() == torch.eye(6)[[3, 4]].tolist()
    assert LookupDraft(6).propose(ids[:, :4], 4, 2, Sampler(), None).shape == (0, 6)


def test_a_text_that_repeats_itself_needs_few_passes(make_model) -> None:
    """Greedy text of a small model soon runs in a circle, which the text itself foresees."""
    model = make_model(n_layers=1)
    with torch.no_grad():  # what comes next hangs on the last token alone
        model.blocks[0].mixer.output.weight.zero_()
    made = speculative(model, LookupDraft(20), [3], max_new_tokens=31, sampler=GREEDY, n_draft=4)
    assert [made.ids] == generate(model, [[3]], max_new_tokens=31, sampler=GREEDY)
    assert made.n_rounds < 20 and made.n_accepted > 11


def test_bad_input(make_model) -> None:
    settings = {"max_new_tokens": 3, "sampler": GREEDY}
    for draft in (LookupDraft(21), NGramDraft(NGram(2, 21).fit([0]))):
        with pytest.raises(ValueError, match="the draft has 21 tokens and the model 20"):
            speculative(make_model(), draft, PROMPT, **settings)
    with pytest.raises(ValueError, match="the draft has 20 tokens and the model 12"):
        speculative(make_model(), LookupDraft(20), PROMPT, n_ids=12, **settings)
    with pytest.raises(ValueError, match="longest must be at least 1, got 0"):
        LookupDraft(20, longest=0)
