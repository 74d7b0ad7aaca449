"""Minimal pairs: counted by paradigm, read as published, refused where none can be scored."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from llmtutor.evaluate.pairs import (
    Pair,
    PairScore,
    read_pairs,
    score_pairs,
    total_score,
)


class Bigrams(nn.Module):
    """The next token by the last one alone, from a table of logits."""

    def __init__(self, size: int = 256) -> None:
        super().__init__()
        table = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
        self.table = nn.Parameter(table)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table[ids]


def encode(text: str) -> list[int]:
    return list(text.encode())


def by_hand(model: Bigrams, row: list[int], n_given: int) -> float:
    logs = model.table.double().log_softmax(-1)
    steps = zip(row[n_given - 1 :], row[n_given:], strict=False)
    return sum(logs[a, b].item() for a, b in steps)


def test_pairs_are_counted_by_paradigm_and_a_tie_is_not_right() -> None:
    model = Bigrams()
    texts = sorted(
        ("ab", "cd", "ef", "gh"), key=lambda text: by_hand(model, encode("\n" + text), 1)
    )
    bad, better, good, best = texts
    pairs = [Pair(best, bad, "one"), Pair(bad, good, "one"), Pair(good, good), Pair(best, better)]
    found = score_pairs(model, encode, pairs, start=encode("\n"))
    assert found == {"one": PairScore(1, 2), "": PairScore(1, 2)}
    assert total_score(found.values()) == PairScore(2, 4)
    assert found["one"].accuracy == 0.5


def test_the_published_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [
        {"sentence_good": "Todd can't yawn.", "sentence_bad": "Todd can't walk.", "UID": "x"},
        {"sentence_good": "He naïvely left.", "sentence_bad": "Left he.", "field": "syntax"},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", encoding="utf-8")
    wanted = [
        Pair("Todd can't yawn.", "Todd can't walk.", "x"),
        Pair("He naïvely left.", "Left he."),
    ]
    assert read_pairs(path) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a JSON object a line with sentence_good and sentence_bad"),
        ("{", "line 1: expected a JSON object, but"),
        ("[1]", r"line 1: expected an object with the texts .*, got \[1\]"),
        ('{"sentence_good": "a", "sentence_bad": 3}', "got {.*3}"),
        ('{"sentence_good": "a", "sentence_bad": ""}', "line 1: expected"),
    ],
)
def test_a_file_without_pairs_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        read_pairs(path)
    assert "pairs.jsonl" in str(error.value)


def test_what_cannot_be_scored_is_refused() -> None:
    model = Bigrams()
    for pairs, start in (([], [1]), ([Pair("a", "b")], [])):
        with pytest.raises(ValueError, match="expected pairs and a start of at least one token"):
            score_pairs(model, encode, pairs, start=start)
    with pytest.raises(ValueError, match="at least one id given and one to score, got 1 and 0"):
        score_pairs(model, encode, [Pair("a", "")], start=[1])
    model.config = SimpleNamespace(max_seq_len=3)
    with pytest.raises(ValueError, match="'abcd': its answer has 4 tokens, the model reads 3"):
        score_pairs(model, encode, [Pair("a", "abcd")], start=[1])
