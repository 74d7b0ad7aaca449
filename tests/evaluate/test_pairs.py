"""Minimal pairs: sums by hand, what fills a row up counts nothing, intervals by SciPy."""

import json
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from llmtutor.data.places import mirror_dir
from llmtutor.evaluate.pairs import (
    Pair,
    PairScore,
    log_likelihoods,
    read_pairs,
    score_pairs,
    total_score,
    wilson,
)
from llmtutor.interop.llama2c import load_stories260k
from llmtutor.interop.llama2c_tokenizer import BOS


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


def test_a_sum_is_that_of_its_own_tokens_whatever_stands_beside_it() -> None:
    model = Bigrams()
    rows = [
        encode("\n\n" + text) for text in ("yes", "a longer sentence", "no", "four words it has")
    ]
    for n_given in (1, 2):
        wanted = [by_hand(model, row, n_given) for row in rows]
        for batch_size in (1, 3, 64):
            found = log_likelihoods(model, rows, n_given, batch_size=batch_size)
            assert found.tolist() == pytest.approx(wanted, abs=1e-5)


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


def test_intervals_are_scipys() -> None:
    for right, n in ((0, 5), (3, 7), (50, 100), (2010, 2010), (1, 1)):
        wanted = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
        assert PairScore(right, n).interval == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert wilson(8, 10, alpha=0.5)[0] > wilson(8, 10)[0]


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
    with pytest.raises(ValueError, match="rows of 2 to inf tokens, got one of 1"):
        score_pairs(model, encode, [Pair("a", "")], start=[1])
    with pytest.raises(ValueError, match="0 <= right <= n"):
        wilson(3, 2)


def test_a_published_model_knows_agreement_as_an_evaluation_harness_says() -> None:
    """stories260K on 500 pairs each, as lm-evaluation-harness 0.4 found them."""
    mirror = mirror_dir()
    if mirror is None or not (mirror / "blimp").is_dir():
        pytest.skip("BLiMP comes from a folder named in LLMTUTOR_MIRROR, which is not set")
    model, tokenizer = load_stories260k()
    wanted = {"anaphor_gender_agreement": 0.76, "intransitive": 0.54}
    for name, accuracy in wanted.items():
        pairs = read_pairs(mirror / "blimp" / f"{name}.jsonl")[:500]
        (found,) = score_pairs(model, tokenizer.encode, pairs, start=[BOS]).values()
        assert found.n == 500 and found.accuracy == pytest.approx(accuracy, abs=0.02)
        assert (found.interval[0] > 0.5) == (name != "intransitive")
