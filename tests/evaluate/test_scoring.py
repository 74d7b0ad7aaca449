"""Scoring: sums by hand, where a continuation begins, what is too long, windows over a text."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from llmtutor.evaluate.scoring import Subject, fit, in_tokens, rolling, score, sums
from llmtutor.evaluate.sliding import sliding_loss


class Bigrams(nn.Module):
    """The next token by the last one alone, from a table of logits."""

    def __init__(self, size: int = 256, longest: int | None = None) -> None:
        super().__init__()
        table = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
        self.table = nn.Parameter(table)
        if longest is not None:
            self.config = SimpleNamespace(max_seq_len=longest)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table[ids]


def encode(text: str) -> list[int]:
    """A byte is a token, but for a space, which goes with the letter behind it."""
    data = text.encode()
    return [b + 128 * (data[i - 1 : i] == b" ") for i, b in enumerate(data) if b != 32]


def by_hand(model: Bigrams, given: list[int], scored: list[int]) -> float:
    logs = model.table.double().log_softmax(-1)
    row = [*given, *scored]
    return sum(logs[row[i - 1], row[i]].item() for i in range(len(given), len(row)))


def test_a_sum_is_that_of_its_own_tokens_whatever_stands_beside_it() -> None:
    model = Bigrams()
    rows = [([1, 2], [3]), ([4], [5, 6, 7]), ([8, 9, 10], [11, 12]), ([1], [2])]
    wanted = [by_hand(model, *row) for row in rows]
    for batch_size in (1, 3, 64):
        done: list[int] = []
        found, greedy = sums(model, rows, batch_size=batch_size, advance=done.append)
        assert found.tolist() == pytest.approx(wanted, abs=1e-9)
        assert sum(done) == len(rows) and not greedy.any()
    best = model.table.argmax(1)
    first = int(best[4])
    rows = [([4], [first, int(best[first])]), ([4], [first, int(best[first]) - 1])]
    assert sums(model, rows)[1].tolist() == [True, False]


def test_a_continuation_begins_where_the_context_alone_would_end() -> None:
    subject = Subject(Bigrams(), encode, start=0)
    assert in_tokens(subject, "to be", " or") == ([116, 111, 226, 101], [239, 114])
    # A space at the end of a context goes over, since the token "␣o" holds it.
    assert in_tokens(subject, "to be ", "or") == in_tokens(subject, "to be", " or")
    assert in_tokens(subject, "", " or") == ([0], [239, 114])
    assert in_tokens(subject, "  ", "or") == ([0], [239, 114])
    begins = Subject(Bigrams(), encode, start=0, begins=True)
    assert in_tokens(begins, "to be", " or") == ([0, 116, 111, 226, 101], [239, 114])
    assert in_tokens(begins, "", " or") == ([0], [239, 114])
    # A text that brings its start along has it once.
    own = Subject(Bigrams(), lambda text: [0, *encode(text)], start=0)
    assert in_tokens(own, "", " or") == ([0], [239, 114])
    with pytest.raises(ValueError, match="nothing to score: ' ' adds no token to the context"):
        in_tokens(subject, "to be", " ")


def test_what_is_too_long_is_named_or_cut() -> None:
    row = ([1, 2, 3, 4], [5, 6])
    assert fit(row, 5, "refuse", where="x") == row  # the last token need not be read
    assert fit(row, 3, "cut", where="x") == ([3, 4], [5, 6])
    assert fit(row, 2, "cut", where="x") == ([4], [5, 6])
    assert fit(row, math.inf, "refuse", where="x") == row
    with pytest.raises(ValueError, match="x: context and answer have 6 tokens, the model reads 4"):
        fit(row, 4, "refuse", where="x")
    for policy in ("refuse", "cut"):
        with pytest.raises(ValueError, match="its answer has 2 tokens, the model reads 1"):
            fit(row, 1, policy, where="x")
    model = Bigrams(longest=4)
    subject = Subject(model, encode, start=0)
    with pytest.raises(ValueError, match="item 1: context and answer have 8 tokens"):
        score(subject, [("ab", " c"), ("abcdefg", " h")])
    scores = score(subject, [("ab", " c"), ("abcdefg", " h")], too_long="cut")
    assert [one.n_cut for one in scores] == [0, 3] and [one.n_tokens for one in scores] == [1, 1]
    assert scores[1].log_likelihood == pytest.approx(by_hand(model, [103], [232]), abs=1e-9)


def test_a_model_that_gives_no_numbers_is_not_marked() -> None:
    model = Bigrams()
    with torch.no_grad():
        model.table[5] = math.nan
    with pytest.raises(ValueError, match="are not numbers: the model's logits are not finite"):
        sums(model, [([1], [2]), ([5], [6])])
    with pytest.raises(ValueError, match="one id given and one to score, got 0 and 1"):
        sums(model, [([], [2])])


def test_a_whole_text_is_measured_in_windows() -> None:
    """Of a bigram model every window says the same: all tokens count, each once."""
    model = Bigrams(longest=5)
    text = "abcdefghijklm"
    wanted = -by_hand(model, [0], encode(text))
    for stride in (None, 5, 3, 1):
        found = rolling(Subject(model, encode, start=0), text, stride=stride)
        assert found.n_tokens == 13
        assert found.total_nats == pytest.approx(wanted, rel=1e-6)
    ids = torch.tensor([0, *encode(text)])
    assert found.total_nats == pytest.approx(sliding_loss(model, ids, 5, stride=1).total_nats)
    subject = Subject(model, encode, start=0)
    with pytest.raises(ValueError, match="at least one token, got an empty one"):
        rolling(subject, "")
    with pytest.raises(ValueError, match="the model reads 5 tokens, got a context of 6"):
        rolling(subject, text, context=6)
