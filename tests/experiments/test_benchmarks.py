"""The study of benchmarks: counts as a model, questions in other forms, what was recorded."""

import math

import numpy as np
import pytest
import torch

from llmtutor.evaluate.certainty import compare_marks
from llmtutor.evaluate.items import choice
from llmtutor.evaluate.scoring import Subject
from llmtutor.experiments.benchmarks import (
    FORMS,
    MODELS,
    UNIFORM,
    Counted,
    in_form,
    passages,
    read_elsewhere,
    read_passages,
)
from llmtutor.experiments.climbing import texts
from llmtutor.experiments.study import load_record
from llmtutor.model.language_modelling import NGram

ITEMS = [choice(f"Question: Is {i} Red?\nAnswer:", ["Yes", "No"], i % 2) for i in range(6)]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_counts_give_the_logits_of_their_probabilities(order: int) -> None:
    ids = np.random.default_rng(0).integers(0, 5, 200)
    counts = NGram(order, 5).fit(ids)
    logits = Counted(counts)(torch.tensor([[0, 1, 2, 3], [4, 4, 1, 0]]))
    assert logits.shape == (2, 4, 5)
    for row, past in ((0, [0, 1, 2]), (1, [4, 4, 1])):
        found = logits[row, 2].softmax(-1).numpy()
        assert found == pytest.approx(counts.next_probs(past), abs=1e-12)


def test_forms_change_the_texts_and_not_the_questions() -> None:
    assert in_form(ITEMS, "as published") == ITEMS
    assert in_form(ITEMS, "no labels")[2].contexts[0] == "Is 2 Red?"
    small = in_form(ITEMS, "small letters")[1]
    assert small.contexts[0] == "question: is 1 red?\nanswer:" and small.answers == ("yes", "no")
    assert in_form(ITEMS, "3 examples")[0].contexts[0].count("Question:") == 4
    assert in_form(ITEMS, "1 example")[0].contexts[0].count("Question:") == 2
    for form in FORMS:
        assert [item.gold for item in in_form(ITEMS, form)] == [item.gold for item in ITEMS]
    with pytest.raises(ValueError, match="expected a form among as published, no labels"):
        in_form(ITEMS, "loud")


def test_the_record_compares_models_on_the_same_questions() -> None:
    record = load_record("benchmarks")
    whole = {r["settings"]["model"]: r["result"] for r in record.runs if "blimp" in r["result"]}
    assert set(whole) <= set(MODELS)
    for task in ("lines", "blimp", "hellaswag", "arc_easy"):
        assert len({result[task]["items"] for result in whole.values()}) == 1
        for name, result in whole.items():
            assert (result[task]["n_tied"] > 0) == (name == UNIFORM)
    sizes = [result["bytes"] for result in whole.values()]
    assert all(some == sizes[0] for some in sizes)
    for result in whole.values():
        marks = [mark == "1" for mark in result["blimp"]["marks"]["acc"]]
        assert compare_marks(marks, marks).difference == 0
        assert sum(marks) == sum(result["blimp"]["groups"].values())
        assert math.isclose(result["blimp"]["metrics"]["acc"]["value"], sum(marks) / 1340)


def test_the_same_bytes_are_read_in_other_tokens() -> None:
    own = texts().tokenizer
    knows_nothing = Counted(NGram(0, 256).fit(np.array([0])))
    in_bytes = read_elsewhere(Subject(knows_nothing, lambda text: list(text.encode()), start=0))
    (start,) = own.encode("\n")
    in_tokens = read_passages(
        Subject(Counted(NGram(0, own.vocab_size).fit(np.array([0]))), own.encode, start)
    )
    assert in_bytes["bytes"] == in_tokens["bytes"]
    for nats, n_bytes in zip(in_bytes["nats"], in_bytes["bytes"], strict=True):
        assert nats == pytest.approx(n_bytes * math.log(256), abs=0.01)
    assert in_tokens["nats"][0] == pytest.approx(
        (len(passages()[0]) - 1) * math.log(own.vocab_size), abs=0.01
    )
