"""Recall: texts with one right answer, models of one size, rules that differ in one term."""

import pytest
import torch

from llmtutor.experiments import recall
from llmtutor.experiments.recall_models import LONGEST, MIXERS, recall_config
from llmtutor.experiments.recall_verdicts import best_rate, mean_right
from llmtutor.experiments.study import load_record
from llmtutor.layers.part import Site
from llmtutor.layers.recurrent.delta_net import DeltaNet
from llmtutor.model.accounting import parameters
from llmtutor.model.transformer import Transformer


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("task", "n_keys"), [("once", 4), ("once", 24), ("twice", 6)])
def test_the_last_value_of_every_key_is_the_answer(task: recall.Task, n_keys: int) -> None:
    ids, values = recall.recall_texts(n_keys, 40, generator(), task)
    n_twice = n_keys // 3 if task == "twice" else 0
    assert ids.shape == (40, 2 * (n_keys + n_twice) + n_keys) and ids.shape[1] <= LONGEST
    assert recall.n_asked(ids) == n_keys
    first, changed = recall.first_values(ids)
    rows = zip(ids.tolist(), values.tolist(), first.tolist(), changed, strict=True)
    for text, answers, earlier, twice in rows:
        pairs = list(zip(text[:-n_keys:2], text[1:-n_keys:2], strict=True))
        asked = text[-n_keys:]
        assert [dict(pairs)[key] for key in asked] == answers  # a dict keeps the last one
        assert [dict(pairs[::-1])[key] for key in asked] == earlier
        written = [{value for other, value in pairs if other == key} for key in asked]
        assert [len(values) == 2 for values in written] == twice.tolist()
        assert twice.sum() == n_twice and len(set(asked)) == n_keys


def test_all_models_are_equally_large_and_counted_right() -> None:
    sizes: dict[int, list[int]] = {}
    for config in map(recall_config, MIXERS):
        with torch.device("meta"):
            size = sum(p.numel() for p in Transformer(config).parameters())
        assert parameters(config).total == size
        sizes.setdefault(config.n_layers, []).append(size)
    assert all(max(found) / min(found) < 1.006 for found in sizes.values()) and set(sizes) == {1, 4}


def test_the_rules_differ_in_the_error_term_alone() -> None:
    """With keys at right angles nothing is found, so the error is the value; else it is not."""
    site, x = Site(8, 16), torch.randn(2, 10, 8, generator=generator())
    adds, delta = (MIXERS[name].build(site) for name in ("adds", "delta rule"))
    delta.load_state_dict(adds.state_dict())
    q, k, v = torch.randn(3, 2, 2, 4, 4, generator=generator())
    apart, write = torch.eye(4).expand_as(k), torch.rand(2, 2, 4, generator=generator())
    for same, keys in ((True, apart), (False, k)):
        one, other = (layer._read(q, keys, v, write, None, None)[0] for layer in (adds, delta))
        assert torch.allclose(one, other, atol=1e-6) is same
    assert not torch.allclose(adds(x), delta(x), atol=1e-3)
    assert isinstance(adds, DeltaNet) and type(delta) is DeltaNet


def test_a_seed_is_a_run_and_both_kinds_of_keys_are_counted(monkeypatch) -> None:
    monkeypatch.setattr(recall, "STEPS", 20)
    monkeypatch.setattr(recall, "WARMUP", 2)
    monkeypatch.setattr(recall, "TESTED", 8)
    settings = {"task": "twice", "model": "adds", "lr": 0.01, "seed": 1}
    first, again = (recall.recall_run(**settings) for _ in range(2))
    assert first == again and len(first["loss"]) == 20
    assert {tuple(part) for part in first["right"].values()} == {("once", "twice", "first")}


def test_rates_are_those_that_were_best_and_none_is_at_an_end() -> None:
    record = load_record("recall")
    for task, models in recall.RATES.items():
        for model, rates in models.items():
            best = best_rate(record, model, task)
            assert min(rates) < best < max(rates), (task, model)
            assert rates[best] >= (2 if model == "mamba" else 3)
            means = {lr: mean_right(record, model, lr, 1, task) for lr in rates}
            again = [lr for lr, seeds in rates.items() if seeds > 1]
            assert max(means[lr] for lr in again) > max(means.values()) - 0.002


@pytest.mark.parametrize(
    ("n_keys", "task", "message"),
    [(0, "once", "n_keys must lie in 1 … 32, got 0"), (4, "twise", "did you mean 'twice'")],
)
def test_a_text_that_cannot_be_is_refused(n_keys: int, task: recall.Task, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recall.recall_texts(n_keys, 1, generator(), task)
