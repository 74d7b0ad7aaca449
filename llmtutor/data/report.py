"""Chapter 02, step 9: what an inspection of a corpus found, as plain numbers and as a table."""

from dataclasses import dataclass
from statistics import median

from llmtutor.data.duplicates import Repeat

NEAR = 0.5  # Jaccard similarity from which two documents count as nearly the same


@dataclass(frozen=True)
class TokenCount:
    """One token and how often it occurs."""

    id: int
    text: str
    count: int
    share: float
    """Of all tokens of the split, from 0 to 1."""


@dataclass(frozen=True)
class SplitReport:
    """One split by itself."""

    n_chars: int
    n_bytes: int
    n_tokens: int
    lengths: list[int]
    """Tokens in each document."""
    frequencies: list[int]
    """Occurrences of the tokens that occur, most frequent first: rank against frequency."""
    top: list[TokenCount]
    special: dict[str, int]
    """How often each special token occurs inside the documents."""
    exact: list[Repeat]
    """Documents equal to an earlier one."""
    near: list[Repeat]
    """Documents much like an earlier, different one."""

    @property
    def n_documents(self) -> int:
        """Number of documents, empty ones included."""
        return len(self.lengths)

    @property
    def n_empty(self) -> int:
        """Documents without a token."""
        return self.lengths.count(0)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes for each token: how well the tokenizer compresses this text."""
        return self.n_bytes / self.n_tokens if self.n_tokens else 0.0


@dataclass(frozen=True)
class Leakage:
    """What of the validation text the training text gives away."""

    exact: list[Repeat]
    """Validation documents (`later`) equal to a training document (`earlier`)."""
    near: list[Repeat]
    """Validation documents much like a different training document."""
    n_words: int
    ngram_share: float
    """Share of the validation text's `n_words`-grams that are in the training text, 0 to 1."""
    unseen_share: float
    """Share of the validation tokens whose id never occurs in training, 0 to 1."""


@dataclass(frozen=True)
class BatchDiversity:
    """How much of a random training batch is new, averaged over batches; shares from 0 to 1."""

    batch_size: int
    seq_len: int
    distinct_tokens: float
    """Different ids among the ids of a batch."""
    distinct_windows: float
    """Different windows among the windows of a batch."""
    seen_twice: float
    """Ids of a batch whose place in the corpus is in the batch more than once."""


@dataclass(frozen=True)
class Report:
    """The answers of `inspect_corpus`; `table()` prints them."""

    vocab_size: int
    train: SplitReport
    valid: SplitReport
    leakage: Leakage
    batches: BatchDiversity | None
    """None if the training text is too short for one window."""

    def table(self) -> str:
        """The report as plain text, a line a finding."""
        return "\n".join([*_split_lines(self), "", *_token_lines(self), "", *_problem_lines(self)])


def _split_lines(report: Report) -> list[str]:
    both = (report.train, report.valid)
    rows = {
        "": ["train", "valid"],
        "documents": [f"{s.n_documents:,}" for s in both],
        "empty documents": [f"{s.n_empty:,}" for s in both],
        "characters": [f"{s.n_chars:,}" for s in both],
        "tokens": [f"{s.n_tokens:,}" for s in both],
        "different tokens": [f"{len(s.frequencies):,}" for s in both],
        "bytes per token": [f"{s.bytes_per_token:.2f}" for s in both],
        "tokens per document (median)": [f"{median(s.lengths or [0]):,.0f}" for s in both],
        "exact repeats": [f"{len(s.exact):,}" for s in both],
        "near repeats": [f"{len(s.near):,}" for s in both],
        **{f"special token {n}": [f"{s.special[n]:,}" for s in both] for n in report.train.special},
    }
    width = max(map(len, rows))
    return [f"{name:<{width}} {train:>12} {valid:>12}" for name, (train, valid) in rows.items()]


def _token_lines(report: Report) -> list[str]:
    lines = [f"most frequent of {report.vocab_size:,} tokens, share of training tokens"]
    return lines + [f"{t.id:>8}  {t.share:>6.2%}  {t.text!r}" for t in report.train.top]


def _problem_lines(report: Report) -> list[str]:
    leak, batches, n_valid = report.leakage, report.batches, max(report.valid.n_documents, 1)
    lines = [
        "validation text found in the training text",
        f"{len(leak.exact) / n_valid:>8.2%}  documents, exactly",
        f"{len(leak.near) / n_valid:>8.2%}  documents, nearly (Jaccard ≥ {NEAR})",
        f"{leak.ngram_share:>8.2%}  stretches of {leak.n_words} words",
        f"{leak.unseen_share:>8.2%}  tokens that training never shows",
    ]
    if batches is None:
        return [*lines, "", "training text too short for a batch"]
    return [
        *lines,
        "",
        f"random batches of {batches.batch_size} windows of {batches.seq_len} tokens",
        f"{batches.distinct_tokens:>8.2%}  of the tokens are different ids",
        f"{batches.distinct_windows:>8.2%}  of the windows are different",
        f"{batches.seen_twice:>8.2%}  of the tokens come from a place taken twice",
    ]
