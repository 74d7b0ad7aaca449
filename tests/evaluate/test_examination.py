"""A model on questions: marks, groups, what was cut, what is in the corpus, the report as JSON."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from llmtutor.evaluate.examination import examine, examine_texts
from llmtutor.evaluate.items import choice
from llmtutor.evaluate.scoring import Subject


class Likes(nn.Module):
    """Finds some letters likelier than others, whatever stands before."""

    def __init__(self, letters: str = "g", longest: int = 500) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(256))
        with torch.no_grad():
            self.logits[[ord(letter) for letter in letters]] = 2.0
        self.config = SimpleNamespace(max_seq_len=longest)

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits.expand(*ids.shape, -1)


def subject(**options) -> Subject:
    return Subject(Likes(**options), lambda text: list(text.encode()), start=0)


ITEMS = [
    *(choice("one of", ["ggg", "bbb"], 0, "easy") for _ in range(20)),
    *(choice("one of four letters", ["bbb", "ggg", "aaa", "ccc"], 0, "hard") for _ in range(5)),
]


def test_marks_by_group_with_chances_and_verdicts() -> None:
    done: list[int] = []
    report = examine(subject(), ITEMS, name="toy", advance=done.append)
    assert sum(done) == 20 * 2 + 5 * 4
    acc = report.metrics["acc"]
    assert (acc.right, acc.value, acc.chance) == (20, 0.8, (20 / 2 + 5 / 4) / 25)
    assert acc.verdict == "above chance"
    groups = report.by_group("acc")
    assert groups["easy"].value == 1 and groups["hard"].right == 0
    assert groups["hard"].chance == 0.25
    sure = math.exp(6) / (math.exp(6) + 1)
    assert report.bins[-1].n == 25 and report.bins[-1].confidence > 0.98 * sure
    values = json.loads(json.dumps(report.to_dict()))
    assert values["marks"]["acc"] == "1" * 20 + "0" * 5
    assert values["metrics"]["acc"]["verdict"] == "above chance"
    assert values["groups"]["hard"]["n"] == 5 and values["calibration_error"] > 0.1


def test_a_model_that_finds_all_equal_has_full_marks_and_the_report_tells() -> None:
    """The right sentence is always the first of a pair."""
    pairs = [choice("", ["He left.", "Left he."], 0) for _ in range(10)]
    report = examine(subject(letters=""), pairs, metrics=["acc"])
    assert report.metrics["acc"].value == 1 and report.n_tied == 10


def test_last_words_have_a_perplexity_and_no_chance() -> None:
    items = [choice("to", ["g"], 0), choice("to", ["a"], 0)]
    shown = Subject(Likes(), lambda text: list(text.replace(" ", "").encode()), start=0)
    report = examine(shown, items, metrics=["exact_match"], guessed=False)
    match = report.metrics["exact_match"]
    assert match.marks == (True, False) and match.chance is None is match.verdict
    whole = 255 + math.exp(2)
    assert report.perplexity == pytest.approx(math.sqrt(whole / math.exp(2) * whole), rel=1e-6)
    assert report.bins == () and "perplexity" in report.to_dict()


def test_what_does_not_fit_is_named_or_cut() -> None:
    with pytest.raises(ValueError, match="toy: item 40: context and answer have 23 tokens"):
        examine(subject(longest=12), ITEMS, name="toy")
    report = examine(subject(longest=12), ITEMS, too_long="cut")
    assert report.n_cut == 5 and report.metrics["acc"].right == 20
    with pytest.raises(ValueError, match="toy: expected at least one question"):
        examine(subject(), [], name="toy")


def test_questions_of_the_corpus_are_told_and_left_out() -> None:
    words = "when the rain had stopped the old man went out to look for his dog"
    other = "another thing altogether that nobody has ever written about"
    items = [choice(text, ["bbb", "ggg"], 0) for text in (other, "too short")]
    items.insert(0, choice(words, ["ggg", "bbb"], 0))
    report = examine(subject(), items, corpus=["x", words.upper() + " GGG and on"])
    assert report.overlap is not None and list(report.overlap.found) == [0]
    clean = report.clean("acc")
    assert clean is not None and clean.marks == (False,)
    values = report.to_dict()
    assert (values["clean"]["value"], values["n_too_short"]) == (0, 1)
    assert examine(subject(), items).clean("acc") is None


def test_whole_texts() -> None:
    report = examine_texts(subject(longest=3), ["ggg gag", "abc", "gg"])
    nats = 12 * math.log(255 + math.exp(2)) - 2 * 7
    assert sum(one.nats for one in report.rolled) == pytest.approx(nats, rel=1e-6)
    assert report.metrics["bits_per_byte"] == pytest.approx(nats / 12 / math.log(2), rel=1e-6)
    low, high = report.interval or (0, 0)
    assert low < report.metrics["bits_per_byte"] < high
    assert report.to_dict()["n_tokens"] == 12
    assert examine_texts(subject(), ["one"]).interval is None
    with pytest.raises(ValueError, match="texts, text 1: expected a text of at least one token"):
        examine_texts(subject(), ["a", ""])
    with pytest.raises(ValueError, match="at least one text, got none"):
        examine_texts(subject(), [])
