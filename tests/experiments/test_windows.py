"""Looking at less, and sinks: the task by its rule, and what the records say of the claims."""

from statistics import mean

import pytest
import torch

from llmtutor.experiments import sinks, windows
from llmtutor.experiments.study import Record, load_record
from llmtutor.model.presets import build


def test_a_trigger_is_followed_by_the_token_before_it_and_nothing_else_is_fixed() -> None:
    ids = sinks.texts(200, 40, torch.Generator().manual_seed(0))
    assert ids[:, 0].eq(0).all() and ids[:, 1:].gt(0).all()
    before, here, after = ids[:, 1:-2], ids[:, 2:-1], ids[:, 3:]
    trigger = sinks.is_trigger(here)
    assert trigger.any() and torch.equal(after[trigger], before[trigger])
    assert (after != before)[~trigger].double().mean() > 0.5
    torch.testing.assert_close(sinks.bigrams().sum(1), torch.ones(sinks.VOCAB))


@pytest.mark.parametrize("reader", sinks.READERS)
def test_a_reader_is_the_trained_model_until_its_window_is_full(reader: str) -> None:
    torch.manual_seed(0)
    model = build(sinks.make_config("plain"))
    ids = sinks.texts(4, 100, torch.Generator().manual_seed(1))
    near, far = ((16, 60), (70, 99))
    full = [sinks.losses_in(model, "full", ids, *part) for part in (near, far)]
    mine = [sinks.losses_in(model, reader, ids, *part) for part in (near, far)]
    assert mine[0] == pytest.approx(full[0], abs=1e-5)
    if reader != "full":
        assert mine[1] != pytest.approx(full[1], abs=1e-6)


def test_the_sink_is_where_no_work_is_and_the_long_text_fails_at_copies() -> None:
    record = load_record("attention-sinks")
    even = mean(1 / (t + 1) for t in range(16, sinks.SEQ_LEN))
    assert round(100 * even, 1) == 2.8
    for run in record.results(variant="plain"):
        assert run["others"] > 2 * even
        assert run["triggers"] < even
        far = run["far"]
        assert far["full"][1] > far["window"][1] + 0.4
        assert abs(far["window"][1] - far["window and first"][1]) < 0.01
    other = {v: mean(r["others"] for r in record.results(variant=v)) for v in sinks.CHANGES}
    assert other["plain"] > max(other["sinks"], other["gate"])


def sizes(record: Record) -> set[int]:
    return {run["result"]["n_params"] for run in record.runs}


def test_models_are_of_equal_size_and_rates_are_tuned() -> None:
    record = load_record("windows")
    assert max(sizes(record)) / min(sizes(record)) < 1.003
    for variant in windows.VARIANTS:
        assert windows.best_rate(record, variant) == windows.RATES[1]
        assert len(windows.losses(record, variant, windows.RATES[1])) == windows.SEEDS
