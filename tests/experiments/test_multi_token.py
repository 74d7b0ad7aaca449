"""A second head beside none: drafts measured by a slow loop, the record's claims from its runs."""

import math
from statistics import mean

import pytest
import torch

from llmtutor.experiments import multi_token as module
from llmtutor.experiments.multi_token import (
    ORDER,
    RATES,
    SEEDS,
    STEPS,
    config_of,
    draft_rows,
    draft_values,
    longer,
    losses,
)
from llmtutor.experiments.study import Record, load_record
from llmtutor.experiments.training import SEQ_LEN
from llmtutor.model.accounting import parameters, token_flops
from llmtutor.model.config import ModelConfig
from llmtutor.model.language_modelling import NGram
from llmtutor.model.multi_token import MultiToken, second_head_costs
from llmtutor.model.presets import build


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record("multi-token")


def test_drafts_are_measured_token_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    vocab, seq = 6, 8
    ids = torch.randint(vocab, (3, seq + 1), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(module, "held_out", lambda device: [(ids[:, :-1], ids[:, 1:])])
    torch.manual_seed(0)
    config = ModelConfig.uniform(vocab, seq, 1, 8, 2, 8, init="glorot-embedding")
    multi, small = MultiToken(build(config)).eval(), build(config).eval()
    counts = NGram(2, vocab).fit(ids.flatten().numpy())
    found = draft_values(multi, {"small": small}, {"ngram": counts})
    seen: dict[str, list[tuple[float, float, bool]]] = {name: [] for name in found}
    for row in ids:
        for t in range(2, seq + 1):
            text, token = row[None, :t], row[t]
            with torch.no_grad():
                p = multi(text)[0, -1].softmax(-1)
                hidden = multi.read(text[:, :-1])[1]
                q = {
                    "head": multi.ahead(hidden, text[:, 1:])[0][0, -1].softmax(-1),
                    "small": small(text)[0, -1].softmax(-1),
                    "ngram": torch.from_numpy(counts.next_probs(text[0].numpy())),
                }
            for name, guess in q.items():
                overlap = sum(min(a, b) for a, b in zip(p.tolist(), guess.tolist(), strict=True))
                same = bool(p.argmax() == guess.argmax())
                seen[name].append((-math.log(guess[token]), overlap, same))
    for name, values in found.items():
        want = [mean(column) for column in zip(*seen[name], strict=True)]
        assert list(values.values()) == pytest.approx(want, abs=2e-5)
        assert list(values) == ["loss", "acceptance", "agreement"]


def test_more_steps_take_the_flops_of_the_second_head() -> None:
    config = config_of("multi")
    with_head = token_flops(config, SEQ_LEN) + second_head_costs(config, SEQ_LEN).flops
    assert longer() * token_flops(config, SEQ_LEN) == pytest.approx(STEPS * with_head, rel=1e-3)
    assert config_of("plain") == config and parameters(config_of("small")).total < 30_000


def test_each_rate_is_the_best_of_a_search_with_the_best_inside(record: Record) -> None:
    search = load_record("multi-token-rates")
    for variant, rates in RATES.items():
        found = {
            run["settings"]["lr"]: run["result"]["valid_loss"]
            for run in search.runs
            if run["settings"]["variant"] == variant
        }
        assert sorted(found) == sorted(rates)
        best = min(found, key=found.__getitem__)
        assert min(rates) < best < max(rates)
        assert best / 2 < record.plan["learning_rate"][variant] < 2 * best


def test_all_variants_have_the_same_seeds(record: Record) -> None:
    for variant, by_seed in losses(record).items():
        assert sorted(by_seed) == list(range(SEEDS)), variant
        (steps,) = {result["steps"] for result in record.results(variant=variant)}
        assert steps == (longer() if variant == "longer" else STEPS)


def test_rows_say_what_the_runs_say(record: Record) -> None:
    for row, draft in zip(draft_rows(record), ("head", "small", "ngram"), strict=True):
        values = [result["drafts"][draft] for result in record.results(variant="multi")]
        nats, accepted = (mean(v[key] for v in values) for key in ("loss", "acceptance"))
        assert row[3:5] == (f"{nats:.2f}", f"{accepted:.2f}")
        assert float(row[5]) == pytest.approx((1 + accepted) / (1 + float(row[2])), abs=0.01)
    head = second_head_costs(config_of("multi"), SEQ_LEN).parameters
    small = parameters(config_of("small")).total
    assert [row[1] for row in draft_rows(record)] == [f"{head:,}", f"{small:,}", "a table"]
    assert ORDER == 3
