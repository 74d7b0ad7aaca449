"""What chapter 21 says of choosing tokens, of masks, and of a second head."""

import json
import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from llmtutor.data import load_corpus
from llmtutor.evaluate.compare import compare_family
from llmtutor.experiments.kept import load_kept
from llmtutor.experiments.multi_token import config_of, draft_rows, losses
from llmtutor.experiments.study import load_record, results_dir
from llmtutor.experiments.training import SEQ_LEN
from llmtutor.generate import grammar, sampling
from llmtutor.generate.free_drafts import LookupDraft, NGramDraft
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.generate.speculative import speculative
from llmtutor.model.accounting import token_flops
from llmtutor.model.language_modelling import NGram
from llmtutor.model.multi_token import second_head_costs


class Writer:
    """The model of the page, which computes in float64."""

    def __init__(self) -> None:
        model, tokenizer = load_kept()
        self.model, self.encode = model.eval().double(), tokenizer.encode
        self.pieces = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]

    def one(self, word: str) -> int:
        """The id of a word of one token."""
        return self.pieces.index(word.encode())

    @torch.no_grad()
    def logits(self, ids: list[int]) -> Tensor:
        """Of the token after ``ids``."""
        return self.model(torch.tensor([ids]))[0, -1]

    def probs(self, words: str) -> Tensor:
        """Of the token after what a king begins to say."""
        return self.logits(self.encode("\n\nKING.\n" + words)).softmax(-1)


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer()


def first_repeat(choose, window: int, steps: int) -> int | None:
    """After how many tokens the last ``window`` tokens have been there before; None if never."""
    text, seen = [0] * window, set()
    for step in range(steps):
        if (state := tuple(text[-window:])) in seen:
            return step
        seen.add(state)
        text.append(choose(text))
    return None


def test_a_finite_window_has_to_come_back_and_a_whole_text_has_not() -> None:
    random = np.random.default_rng(0)
    table = {state: int(random.integers(4)) for state in product(range(4), repeat=3)}
    looped = first_repeat(lambda text: table[tuple(text[-3:])], 3, 4**3 + 1)
    assert looped is not None

    def counting(text: list[int]) -> int:
        """1 0 1 0 0 1 0 0 0 …: a function of the whole text that never turns in circles."""
        run = text[::-1].index(1) if 1 in text else len(text)
        return int(run > sum(text))

    text = [0]
    for _ in range(300):
        text.append(counting(text))
    tail = text[150:]
    assert all(tail[: len(tail) - p] != tail[p:] for p in range(1, 60))  # no period


def test_greedy_text_is_not_the_likeliest(writer: Writer) -> None:
    """After "Give me": "thy" leads by a step, "your hand" by two."""
    thy, your = (writer.probs("Give me")[writer.one(word)] for word in (" thy", " your"))
    then = [writer.probs(f"Give me {w}")[writer.one(" hand")] for w in ("thy", "your")]
    assert [round(float(p), 3) for p in (thy, your, *then)] == [0.233, 0.208, 0.737, 0.846]
    assert [round(float(p * q), 3) for p, q in zip((thy, your), then, strict=True)] == [
        0.172,
        0.176,
    ]


def test_a_grammar_with_blanks_lets_the_model_write_line_ends(writer: Writer) -> None:
    begun = '{"KING":"Give me thy hand."'
    ids = writer.encode("\n\nKING.\nGive me thy hand.\n\n" + begun)
    state, new = grammar.read(begun.encode()), []
    for _ in range(12):
        after = [grammar.read(piece, state) for piece in writer.pieces]
        able = torch.tensor([state is not None for state in after])
        best = int(writer.logits(ids).masked_fill(~able, -math.inf).argmax())
        ids, state = [*ids, best], after[best]
        new.append(writer.pieces[best])
    assert new.count(b"\n") >= 10


def test_how_many_operations_an_h100_does_while_it_fetches_a_weight() -> None:
    per_byte = 989e12 / 3.35e12
    assert round(2 * per_byte, -2) == 600


def test_what_is_heated_first_has_another_nucleus() -> None:
    five = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.05]]).log()
    heat_first = sampling.top_p(sampling.temperature(five, 2.0), 0.75)
    cut_first = sampling.temperature(sampling.top_p(five, 0.75), 2.0)
    assert heat_first.isfinite().sum() == 4 and cut_first.isfinite().sum() == 3
    settings = Sampler(temperature=2.0, top_p=0.75)
    assert torch.equal(settings.filtered(five, torch.zeros(1, 1).long()), heat_first)


def test_half_precision_loses_near_logits_and_the_tail() -> None:
    near = torch.tensor([10.0, 10.02], dtype=torch.bfloat16)
    assert near[0] == near[1]
    wide = 3 * torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    lost = (wide.half().softmax(-1) == 0).double().mean()
    assert 0.15 < lost < 0.35 and (wide.softmax(-1) > 0).all()


def test_with_the_same_seed_a_prompt_goes_on_differently_in_another_batch(writer: Writer) -> None:
    one, other = writer.encode("My lord"), writer.encode("Give me")
    settings = {"max_new_tokens": 20, "sampler": Sampler()}
    texts = [
        generate(writer.model, batch, generator=torch.Generator().manual_seed(0), **settings)[-1]
        for batch in ([one], [one], [other, one])
    ]
    assert texts[0] == texts[1] != texts[2]


def test_equal_means_do_not_make_a_model_calibrated() -> None:
    """Too sure in one place and too unsure in the other: entropy and loss agree on average."""
    true = [0.6, 0.9]

    def gap(said: list[float]) -> float:
        """Mean entropy of what is said, minus the mean loss under what is true."""
        pairs = [(q, p) for q, p in zip(said, true, strict=True)]
        return sum((p - q) * np.log(q / (1 - q)) for q, p in pairs) / 2

    said = [0.7, 0.9]
    low, high = 0.5, 0.9  # of what is said in the second place: find where the means agree
    for _ in range(60):
        said[1] = (low + high) / 2
        low, high = (said[1], high) if gap(said) > 0 else (low, said[1])
    assert abs(gap(said)) < 1e-9 and said[0] > true[0] and said[1] < true[1] - 0.01
    assert gap(true) == 0


def test_a_second_head_helps_at_equal_steps_and_more_steps_help_several_times_as_much() -> None:
    record = load_record("multi-token")
    plain, multi, longer = (losses(record)[name] for name in ("plain", "multi", "longer"))
    assert len(plain) == 5
    assert all(longer[seed] < multi[seed] < plain[seed] for seed in plain)
    found = compare_family({"multi": multi, "longer": longer}, plain)
    assert found["multi"].verdict == found["longer"].verdict == "better"
    assert found["longer"].difference < 3 * found["multi"].difference
    config = config_of("multi")
    share = second_head_costs(config, SEQ_LEN).flops / token_flops(config, SEQ_LEN)
    assert abs(share - 2 / 3) < 0.01


def test_its_proposals_are_accepted_more_often_than_those_of_the_other_drafts() -> None:
    record = load_record("multi-token")
    for result in record.results(variant="multi"):
        head, small, counts = (result["drafts"][name] for name in ("head", "small", "ngram"))
        assert head["acceptance"] > small["acceptance"] > counts["acceptance"] + 0.1
        assert counts["loss"] < head["loss"] < result["valid_loss"] - 0.1
        assert counts["loss"] < min(run["result"]["valid_loss"] for run in record.runs)


def test_accepted_most_often_is_not_fastest() -> None:
    """Tokens for the cost of a pass, one proposal a pass: 1.05, 1.40, 1.53; DeepSeek-V3's 1.82."""
    rows = draft_rows(load_record("multi-token"))
    assert [row[4] for row in rows] == ["0.75", "0.71", "0.53"]
    assert [row[5] for row in rows] == ["1.05", "1.40", "1.53"]
    assert [round((1 + a) / (1 + 1 / 61), 2) for a in (0.85, 0.9)] == [1.82, 1.87]


def test_heat_makes_model_and_counts_alike(writer: Writer) -> None:
    corpus = load_corpus()
    counts = NGram(3, len(writer.pieces)).fit(writer.encode(corpus.train[:1_500_000]))
    text = torch.tensor(writer.encode(corpus.valid[100_000:110_000])[: 20 * 128]).view(20, 128)
    with torch.no_grad():
        logits = writer.model(text)[:, 25::4]
    said = np.stack(
        [[counts.next_probs(row[: t + 1]) for t in range(25, 128, 4)] for row in text.tolist()]
    )
    other = torch.from_numpy(np.log(said))

    def overlap(heat: float) -> float:
        p, q = ((x / heat).softmax(-1) for x in (logits, other))
        return round(float(torch.minimum(p, q).sum(-1).mean()), 2)

    assert [overlap(heat) for heat in (1.5, 1.0, 0.5)] == [0.54, 0.48, 0.42]
    agree = (logits.argmax(-1) == other.argmax(-1)).double().mean()
    assert round(float(agree), 2) == 0.40


def test_counts_draft_as_well_in_the_library_as_on_the_page(writer: Writer) -> None:
    """1.7 tokens a pass of greedy text after "My lord", with four proposals a pass."""
    counts = NGram(3, len(writer.pieces)).fit(writer.encode(load_corpus().train[:1_500_000]))
    ids = writer.encode("\n\nKING.\nMy lord")
    settings = {"max_new_tokens": 200, "sampler": Sampler(greedy=True)}
    for draft in (NGramDraft(counts), LookupDraft(len(writer.pieces), longest=2)):
        made = speculative(writer.model, draft, ids, n_draft=4, **settings)
        assert [made.ids] == generate(writer.model, [ids], **settings)
        assert 1.6 < 200 / made.n_rounds < 2.0


def test_what_the_pages_say_of_drafts_in_seconds() -> None:
    """The chapter and the performance page: counts save time, looking up the text does not."""
    made = json.loads((results_dir() / "bench-speculation.json").read_text("utf-8"))
    assert round(made["pass_of_n_to_pass_of_1"]["4"], 1) == 1.2
    assert [round(1 / made[f"{way}_time_to_plain"], 1) for way in ("greedy", "sampled")] == [
        1.3,
        1.4,
    ]
    for way, plain, counts in (("greedy", 171, 230), ("sampled", 154, 220)):
        assert made[f"{way}_plain_tokens_per_second"] == plain
        assert made[f"{way}_ours_tokens_per_second"] == counts
        assert made[f"{way}_ours, lookup_tokens_per_second"] <= plain
        assert 1.85 < made[f"{way}_ours_tokens_per_pass"] < 2
