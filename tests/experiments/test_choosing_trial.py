"""One run of an option: paired batches, texts apart, losses by hand, a recorded run made again."""

import math
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from llmtutor.data.batches import batch_at
from llmtutor.data.corpora import load_corpus
from llmtutor.data.places import mirror_dir
from llmtutor.experiments import curve
from llmtutor.experiments.choosing import trial
from llmtutor.experiments.choosing.options import SIZES, Size, build_option
from llmtutor.experiments.choosing.plan import NAME, RATE_SEED
from llmtutor.experiments.choosing.trial import (
    PAIRS_OF_EACH,
    POINTS,
    blimp,
    final_loss,
    measure_option,
    texts,
    train_option,
    tune_option,
)
from llmtutor.experiments.study import load_record
from llmtutor.experiments.training import schedule
from llmtutor.model.losses import Batch
from llmtutor.optim import make_optimizer
from llmtutor.train.step import set_learning_rate, train_step

TINY = Size(16, n_layers=2, n_heads=2, seq_len=64, batch_size=2, tokens_per_parameter=1)
RUN: dict[str, Any] = {"size": "tiny", "lr": 0.01, "seed": 0}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SIZES", MappingProxyType({"tiny": TINY}))
    monkeypatch.setattr(trial, "FINAL_TOKENS", 2048)
    monkeypatch.setattr(trial, "MARK_TOKENS", 512)
    monkeypatch.setattr(trial, "PAIRS_OF_EACH", 1)


def test_three_texts_that_do_not_meet() -> None:
    documents, found = load_corpus("shakespeare"), texts(512)
    parts = [found.train, found.tuning, found.held_out]
    decoded = [found.tokenizer.decode(part.tolist()) for part in parts]
    assert decoded[2] == documents.valid
    for document in documents.train_documents:
        assert (document in decoded[0]) != (document in decoded[1])
    share = len(decoded[1]) / len(documents.train)
    assert 0.03 < share < 0.1


def test_two_options_with_one_seed_see_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Batch]] = []

    def spied(model: Any, batches: Any, *inputs: Any, **more: Any) -> Any:
        seen[-1].extend(batches)
        return train_step(model, batches, *inputs, **more)

    monkeypatch.setattr(curve, "train_step", spied)
    for option, seed in (("baseline", 0), ("mqa", 0), ("mqa", 1)):
        seen.append([])
        train_option(option, TINY, 0.01, seed, texts(512))
    same = [torch.equal(a[0], b[0]) for a, b in zip(seen[0], seen[1], strict=True)]
    other = [torch.equal(a[0], b[0]) for a, b in zip(seen[0], seen[2], strict=True)]
    assert all(same) and not any(other) and len(same) == TINY.steps


def test_a_run_to_tune_reads_nothing_that_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tune_option(option="mqa", **RUN)
    whole = texts(512)
    hidden = trial.Texts(whole.tokenizer, whole.train, whole.tuning, whole.held_out[::-1].copy())
    monkeypatch.setattr(trial, "texts", lambda *_: hidden)
    assert tune_option(option="mqa", **RUN) == found
    assert measure_option(option="mqa", **RUN)["valid_loss"] != found["valid_loss"]


def test_bits_per_byte_are_those_of_the_predicted_tokens() -> None:
    model, text = build_option("baseline", TINY, 0), texts(512)
    found = final_loss(model, TINY, text.tokenizer, text.held_out)
    starts = np.linspace(0, len(text.held_out) - 65, 2048 // 64).astype(int)
    nats = n_bytes = 0.0
    for start in starts:
        row = text.held_out[start : start + 65].astype(np.int64)
        with torch.no_grad():
            logs = model(torch.from_numpy(row[None, :-1])).log_softmax(-1)[0]
        nats -= sum(logs[i, row[i + 1]].item() for i in range(64))
        n_bytes += sum(len(text.tokenizer.token_bytes(int(i))) for i in row[1:])
    assert found["valid_loss"] == pytest.approx(nats / 2048, abs=1e-4)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / n_bytes, abs=1e-4)


def test_what_is_kept_of_a_run() -> None:
    found = measure_option(option="baseline", **RUN)
    model = build_option("baseline", TINY, 0)
    assert found["n_params"] == found["n_active"] == sum(p.numel() for p in model.parameters())
    assert found["n_tokens"] == TINY.steps * 128 == pytest.approx(found["n_params"], rel=0.02)
    assert found["train_flops"] > 6 * found["n_tokens"] * (found["n_params"] - 512 * 16)
    assert len(found["curve"]["step"]) == POINTS and found["curve"]["step"][-1] == TINY.steps
    assert found["valid"]["step"] == [round(p * TINY.steps) for p in trial.MARKS]
    assert found["curve"]["loss"][-1] < found["curve"]["loss"][0] - 0.3
    assert found == measure_option(option="baseline", **RUN)


def test_a_lost_head_trains_as_the_baseline_does_and_ends_worse() -> None:
    whole, lost = (measure_option(option=o, **RUN) for o in ("baseline", "head lost"))
    assert whole["curve"] == lost["curve"] and whole["valid"] == lost["valid"]
    assert lost["valid_loss"] > whole["valid_loss"]


def test_a_run_that_diverges_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    diverged = curve.Curve([5.0, 6.0], [1.0, 1.0], {}, diverged=True)
    monkeypatch.setattr(trial, "train_curve", lambda *_, **__: diverged)
    for make in (tune_option, measure_option):
        found = make(option="baseline", **RUN)
        assert found["valid_loss"] is found["bits_per_byte"] is found.get("pairs") is None


def test_pairs_are_of_every_paradigm_and_need_the_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    blimp.cache_clear()
    monkeypatch.setattr(trial, "mirror_dir", lambda: None)
    assert measure_option(option="baseline", **RUN)["pairs"] is None
    monkeypatch.undo()
    blimp.cache_clear()
    mirror = mirror_dir()
    if mirror is None or not (mirror / "blimp" / "BLiMP.zip").is_file():
        pytest.skip("BLiMP comes from a folder named in LLMTUTOR_MIRROR, which is not set")
    pairs = blimp(PAIRS_OF_EACH)
    assert len(pairs) == 67 * PAIRS_OF_EACH and len({pair.paradigm for pair in pairs}) == 67


def test_unknown_names_are_told() -> None:
    with pytest.raises(ValueError, match="unknown size 'huge'"):
        tune_option(**{**RUN, "size": "huge"}, option="baseline")
    with pytest.raises(ValueError, match="did you mean 'baseline'"):
        tune_option(**RUN, option="basline")


def test_a_recorded_run_begins_again() -> None:
    """Its first steps, whose mean is the first point of its curve."""
    runs = [run for run in load_record(NAME).runs if run["settings"]["seed"] != RATE_SEED]
    run = next(run for run in runs if run["settings"]["option"] == "baseline")
    settings, size = run["settings"], SIZES[run["settings"]["size"]]
    model = build_option("baseline", size, settings["seed"])
    optimizer, train = make_optimizer(model, "adamw", settings["lr"]), texts(size.vocab_size).train
    losses = []
    for step in range(run["result"]["curve"]["step"][0]):
        set_learning_rate(optimizer, schedule(size.steps)(step))
        batch = batch_at(train, size.batch_size, size.seq_len, seed=settings["seed"], step=step)
        losses.append(train_step(model, [batch], optimizer, clip=1.0).loss)
    assert np.mean(losses) == pytest.approx(run["result"]["curve"]["loss"][0], abs=5e-3)
