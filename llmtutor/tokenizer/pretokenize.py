"""Chapter 01, step 4: cut text into words first, so that no merge crosses a word's border."""

import multiprocessing
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from itertools import accumulate, chain, islice, pairwise

import regex

from llmtutor.checks import check_at_least
from llmtutor.tokenizer.base import require_encodable
from llmtutor.tokenizer.unicode16 import as_of_unicode_16

Job = tuple[list[str], tuple[str, ...], str]  # texts, special tokens, pattern

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Contractions; then letters, digits or other signs, each with at most one space before it; then
white space, whose last space goes to the word that follows. From GPT-2's published encoder; what is
a letter or a digit, Unicode 16 says, whichever version the installed `regex` knows."""

PIECE = 1 << 16  # characters of a stream encoded at a time
LONGEST_WORD = 1 << 24  # characters of a stream held back in wait of a safe place to cut
JOB = 1 << 19  # characters counted at a time in one process
FEW_JOBS = 4  # done before another process has started

# A border between two words of GPT2_PATTERN, whatever comes before and after: the left character
# is not white space, and no alternative of the pattern holds the two characters side by side. The
# only signs in one word with a letter after them are the apostrophes of contractions. (?r): from
# the end.
_SAFE_CUT = regex.compile(
    r"(?r)(?<=\p{L})(?=\P{L})|(?<=\p{N})(?=\P{N})"
    r"|(?<=[^\s\p{L}\p{N}])(?=[\s\p{N}])|(?<=[^\s\p{L}\p{N}'])(?=\p{L})"
)


@lru_cache
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """The compiled pattern of words; `ValueError` if it is malformed or has groups."""
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"expected a pattern for words, but {error}: {pattern!r}") from None
    if compiled.groups:
        raise ValueError(f"expected a pattern with (?:…) in place of (…), found {pattern!r}")
    return compiled


def split(text: str, pattern: str = GPT2_PATTERN) -> list[str]:
    """The words of a text; joined they are the text again.

    >>> split("It's 1,000  words!")
    ['It', "'s", ' 1', ',', '000', ' ', ' words', '!']
    """
    known = as_of_unicode_16(text)
    words: list[str] = compile_pattern(pattern).findall(known)
    if pattern != GPT2_PATTERN and sum(map(len, words)) != len(text):
        raise ValueError(f"expected a pattern that matches all of the text, found {pattern!r}")
    if known is text:
        return words
    return [text[start:end] for start, end in pairwise(accumulate(map(len, words), initial=0))]


@lru_cache
def special_pattern(special_tokens: tuple[str, ...]) -> re.Pattern[str] | None:
    """A pattern whose `split` gives text and special tokens in turn; the longest one wins."""
    if not special_tokens:
        return None
    longest_first = sorted(special_tokens, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


def check_special_tokens(special_tokens: Iterable[str]) -> tuple[str, ...]:
    """The special tokens as a tuple; `ValueError` if one is empty or comes twice."""
    if isinstance(special_tokens, str):
        raise ValueError(f"expected a list of special tokens, found the string {special_tokens!r}")
    tokens = tuple(special_tokens)
    for token in tokens:
        if not token:
            raise ValueError("expected special tokens of at least one character, found ''")
        require_encodable(token)
    if twice := [token for token, count in Counter(tokens).items() if count > 1]:
        raise ValueError(f"expected each special token once, found {twice[0]!r} twice")
    return tokens


def safe_pieces(
    chunks: Iterable[str],
    special_tokens: Sequence[str] = (),
    pattern: str = GPT2_PATTERN,
    *,
    size: int = PIECE,
    limit: int = LONGEST_WORD,
) -> Iterator[str]:
    """Cut a stream of text anew, only where words end: each piece can be split on its own.

    Special tokens and words may straddle the chunks; no piece ends inside one. Little more than a
    piece is held back, or twice the longest word; a stream without a safe place to cut for `limit`
    characters raises `ValueError`. With a pattern other than GPT-2's only the end of a special
    token is known to be safe.
    """
    held: list[str] = []
    grown, wanted = 0, size
    for chunk in chunks:
        for start in range(0, len(chunk), size):
            held.append(chunk[start : start + size])
            grown += len(held[-1])
            if grown < wanted:
                continue
            text, grown = "".join(held), 0
            cut = _last_safe_cut(text, tuple(special_tokens), pattern)
            held = [text[cut:]]
            wanted = max(size, len(held[0]))  # twice as much each time: a long word is read twice
            if cut:
                yield text[:cut]
            elif len(text) > limit:
                raise ValueError(
                    f"found no end of a word in {len(text):,} characters, from {text[:20]!r} on: "
                    "is this text? Encode it as one string if it is"
                )
    if rest := "".join(held):
        yield rest


def _last_safe_cut(text: str, special_tokens: tuple[str, ...], pattern: str) -> int:
    """The last place where `text`, however it goes on, can be cut; 0 if there is none.

    So far from the end of the text that every special token found before it is the longest there,
    and that every special token across it is seen.
    """
    end = len(text) - max((len(token) - 1 for token in special_tokens), default=0)
    if divider := special_pattern(special_tokens):
        ends = [match.end() for match in divider.finditer(text)]
        if safe := [cut for cut in ends if cut <= end]:
            return safe[-1]
    if pattern == GPT2_PATTERN and end > 0:
        known = as_of_unicode_16(text)
        first = compile_pattern(pattern).match(known)
        if first and first.end() >= end:
            return 0  # one long word: quicker found out from its beginning than from its end
        for match in _SAFE_CUT.finditer(known, 0, end):
            cut = match.start()
            around = ((token, max(0, cut - len(token) + 1)) for token in special_tokens)
            if all(text.find(token, at, cut + len(token) - 1) < 0 for token, at in around):
                return cut
    return 0


def count_words(
    text: str | Iterable[str],
    special_tokens: Sequence[str] = (),
    num_processes: int = 1,
    *,
    pattern: str = GPT2_PATTERN,
) -> Counter[str]:
    """How often each word occurs; special tokens part the text and are not counted.

    `text` is one text, or texts of which each is a document of its own (no word crosses two).
    They are counted in jobs of half a million characters, cut at safe places, so the counts are
    the same for any number of processes. This process counts too: `num_processes - 1` others are
    started, or none for a text of four jobs or fewer, which is counted before they are there.

    >>> sorted(count_words("to be<|end|>to be", ["<|end|>"]).items())
    [(' be', 2), ('to', 2)]
    """
    check_at_least(1, num_processes=num_processes)
    special = check_special_tokens(special_tokens)
    texts = [text] if isinstance(text, str) else text
    jobs = ((job, special, pattern) for job in _jobs(texts, special, pattern))
    first = list(islice(jobs, FEW_JOBS + 1))
    if num_processes > 1 and len(first) > FEW_JOBS:
        return _count_in_parallel(chain(first, jobs), num_processes - 1)
    counts: Counter[str] = Counter()
    for job in chain(first, jobs):
        counts.update(_count(*job))
    return counts


def _count_in_parallel(jobs: Iterator[Job], helpers: int) -> Counter[str]:
    """Count jobs in helper processes and, while they are busy, in this one."""
    counts: Counter[str] = Counter()
    pending: list[Future[Counter[str]]] = []
    # spawn: the same on every system, and safe when this process has threads.
    with ProcessPoolExecutor(helpers, multiprocessing.get_context("spawn")) as pool:
        try:
            for job in jobs:
                if len(pending) <= helpers:
                    pending.append(pool.submit(_count, *job))
                    continue
                counts.update(_count(*job))
                for future in [future for future in pending if future.done()]:
                    pending.remove(future)
                    counts.update(future.result())
            for future in pending:
                counts.update(future.result())
        except BrokenProcessPool:
            raise RuntimeError(
                "a helper process ended early. A script that asks for processes must do so under "
                "`if __name__ == '__main__':`, and be a file; or ask for num_processes=1"
            ) from None
    return counts


def _jobs(texts: Iterable[str], special: tuple[str, ...], pattern: str) -> Iterator[list[str]]:
    """Group texts, the long ones cut, into lists of about `JOB` characters."""
    job: list[str] = []
    length = 0
    for text in texts:
        for piece in safe_pieces([text], special, pattern, size=JOB, limit=len(text)):
            job.append(piece)
            length += len(piece)
            if length >= JOB // 2:
                yield job
                job, length = [], 0
    if job:
        yield job


def _count(texts: list[str], special: tuple[str, ...], pattern: str) -> Counter[str]:
    """The words of one job. At module level, so that a helper process can import it."""
    counts: Counter[str] = Counter()
    divider = special_pattern(special)
    for text in texts:
        for part in divider.split(text)[::2] if divider else [text]:
            counts.update(split(part, pattern))
    return counts
