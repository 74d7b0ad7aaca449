"""Training against a naive trainer that counts anew at each step, and against the Rust library."""

import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from llmtutor.tokenizer import BPETokenizer, pretokenize
from llmtutor.tokenizer import train as train_module
from llmtutor.tokenizer.files import printable, unprintable
from llmtutor.tokenizer.train import train_bpe

Pair = tuple[bytes, bytes]
ALL_BYTES = [bytes([byte]) for byte in range(256)]


def apply_merge(word: list[bytes], pair: Pair) -> list[bytes]:
    """The word with every occurrence of the pair merged, from left to right."""
    out, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def count_pairs(words: Mapping[str, list[bytes]], counts: Mapping[str, int]) -> Counter[Pair]:
    pairs: Counter[Pair] = Counter()
    for word, tokens in words.items():
        for pair in pairwise(tokens):
            pairs[pair] += counts[word]
    return pairs


def naive_train(
    counts: Mapping[str, int], vocab_size: int, prefer: Callable[[Pair, list[bytes]], object]
) -> list[Pair]:
    """Count all pairs anew for each merge; among the most frequent, the greatest by `prefer`."""
    words = {word: [bytes([byte]) for byte in word.encode("utf-8")] for word in counts}
    vocab, merges = list(ALL_BYTES), []
    while len(vocab) < vocab_size:
        pairs = count_pairs(words, counts)
        if not pairs:
            break
        most = max(pairs.values())
        best = max((p for p in pairs if pairs[p] == most), key=lambda pair: prefer(pair, vocab))
        merges.append(best)
        assert best[0] + best[1] not in vocab
        vocab.append(best[0] + best[1])
        words = {word: apply_merge(tokens, best) for word, tokens in words.items()}
    return merges


def greater_bytes(pair: Pair, vocab: list[bytes]) -> object:
    """The rule of this project."""
    return pair


def smaller_ids(pair: Pair, vocab: list[bytes]) -> object:
    """The rule of the Rust library: its ids of the bytes follow their printable characters."""

    def id_of(token: bytes) -> int:
        return ord(printable(token)) if len(token) == 1 else 1000 + vocab.index(token)

    return -id_of(pair[0]), -id_of(pair[1])


def rust_train(texts: list[str], vocab_size: int) -> list[Pair]:
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rust.train_from_iterator(texts, trainer)
    state = json.loads(rust.to_str())
    return [(unprintable(left), unprintable(right)) for left, right in state["model"]["merges"]]


# By hand

LOW = {"low": 5, "lower": 2, "widest": 3, "newest": 6}  # Sennrich et al. 2016


def test_worked_example() -> None:
    """`es` and `st` both occur 9 times: the greater, `st`, goes first. Then counts 9, 7, 7, 6 …

    The pairs of equal count at each step, the one taken first:
    9: s+t (es, st); 9: e+st; 7: o+w, lo; 7: l+ow; 6: w+est, ew, ne; 6: n+e, e+west;
    6: ne+west; 3: w+i, wi, id, d+est; 3: wi+d; 3: wid+est; 2: low+e, er; 2: lowe+r.
    """
    expected = "s t|e st|o w|l ow|w est|n e|ne west|w i|wi d|wid est|low e|lowe r"
    merges = [tuple(part.encode() for part in line.split(" ")) for line in expected.split("|")]
    assert train_bpe(LOW, 256 + 12) == merges
    assert train_bpe(LOW, 256 + 5) == merges[:5]
    assert train_bpe(LOW, 1000) == merges, "there is nothing left to merge"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"aaa": 1}, [(b"a", b"a"), (b"aa", b"a")]),
        ({"ab": 1, "cd": 1}, [(b"c", b"d"), (b"a", b"b")]),
        ({"ab": 2, "cd": 1}, [(b"a", b"b"), (b"c", b"d")]),
        # b"b" is greater than b"az" although shorter; b"ba" greater than its beginning b"b"
        ({"bx": 1, "by": 1}, [(b"b", b"y"), (b"b", b"x")]),
        ({"é": 1}, [(b"\xc3", b"\xa9")]),
        ({"a": 7}, []),
    ],
)
def test_small_cases(counts: dict[str, int], expected: list[Pair]) -> None:
    assert train_bpe(counts, 300) == expected
    assert naive_train(counts, 300, greater_bytes) == expected


# Against the naive trainer

small_words = st.text("ab", min_size=1, max_size=8) | st.text("abcdeé ", min_size=1, max_size=6)


@settings(max_examples=400, deadline=None)
@given(
    counts=st.dictionaries(small_words, st.integers(1, 5), min_size=1, max_size=12),
    n_merges=st.integers(0, 25),
)
def test_equals_the_naive_trainer(counts: dict[str, int], n_merges: int) -> None:
    expected = naive_train(counts, 256 + n_merges, greater_bytes)
    assert train_bpe(counts, 256 + n_merges) == expected
    shuffled = dict(sorted(counts.items()))
    assert train_bpe(shuffled, 256 + n_merges) == expected


def test_equals_the_naive_trainer_on_real_text(code: str) -> None:
    counts = pretokenize.count_words(code[:30_000])
    assert train_bpe(counts, 256 + 150) == naive_train(counts, 256 + 150, greater_bytes)


@pytest.mark.parametrize("letters", ["a", "abcdefghij"])
def test_the_steps_for_a_long_word_do_not_grow_faster_than_the_word(
    letters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Characters of listed words are looked at once a merge; lines run only where a pair is."""
    steps = 0
    merge = train_module._merge

    def counted(pair, new, words, freqs, places):
        nonlocal steps
        steps += sum(len(words[i]) for i in places[pair])
        before = sys.gettrace()
        sys.settrace(count_line)
        try:
            return merge(pair, new, words, freqs, places)
        finally:
            sys.settrace(before)

    def count_line(frame, event, argument):
        nonlocal steps
        steps += 50 * (event == "line")  # a line of Python is dearer than a character of `split`
        return count_line

    monkeypatch.setattr(train_module, "_merge", counted)

    def steps_for(n: int) -> int:
        nonlocal steps
        steps = 0
        rng = random.Random(0)
        train_bpe({"".join(rng.choice(letters) for _ in range(n)): 1}, 256 + 60)
        return steps

    assert steps_for(16_000) < 6 * steps_for(4_000)
    assert steps < 300 * 16_000


# Against the Rust library


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text("abcde é", max_size=12), min_size=1, max_size=12))
def test_naive_trainer_equals_rust_with_its_rule_for_ties(texts: list[str]) -> None:
    """The naive trainer is a fair judge: with the other rule for ties it is the Rust trainer."""
    counts = pretokenize.count_words(texts)
    if counts:
        assert naive_train(counts, 270, smaller_ids) == rust_train(texts, 270)


def test_rust_differs_only_at_a_tie(code: str) -> None:
    ours = BPETokenizer.train(code, 1000).merges
    theirs = rust_train([code], 1000)
    same = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    assert same > 50
    counts = pretokenize.count_words(code)
    words = {word: [bytes([byte]) for byte in word.encode("utf-8")] for word in counts}
    for pair in ours[:same]:
        words = {word: apply_merge(tokens, pair) for word, tokens in words.items()}
    pairs = count_pairs(words, counts)
    assert pairs[ours[same]] == pairs[theirs[same]] == max(pairs.values())
    assert ours[same] > theirs[same]


# Determinism, special tokens, errors


def test_processes_and_order_of_documents_do_not_matter(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretokenize, "JOB", 20_000)
    special = ["<|endoftext|>"]
    text = code[:150_000].replace("\nclass ", "<|endoftext|>class ")
    one = BPETokenizer.train(text, 700, special, num_processes=1)
    two = BPETokenizer.train(text, 700, special, num_processes=2)
    back = BPETokenizer.train(reversed(text.split("<|endoftext|>")), 700, special)
    assert one.merges == two.merges == back.merges
    assert one.fingerprint() == two.fingerprint() == back.fingerprint()


def test_special_tokens_are_never_merged() -> None:
    text = "<|end|>low<|end|>" * 50 + "<|end|><|end|>"
    tokenizer = BPETokenizer.train(text, 262, ["<|end|>", "<pad>"])
    assert tokenizer.merges == [(b"o", b"w"), (b"l", b"ow")]
    assert tokenizer.special_tokens == {"<|end|>": 258, "<pad>": 259}
    assert tokenizer.vocab_size == 260
    assert BPETokenizer.train(text, 262).merges != tokenizer.merges


def test_ids_follow_the_documented_order() -> None:
    tokenizer = BPETokenizer.train("low low lower", 260, ["<b>", "<a>"])
    assert [tokenizer.vocab[byte] for byte in ALL_BYTES] == list(range(256))
    assert tokenizer.token_bytes(256) == b"ow" and tokenizer.token_bytes(257) == b"low"
    assert tokenizer.special_tokens == {"<b>": 258, "<a>": 259}


@pytest.mark.parametrize("vocab_size", [-1, 0, 255, 257])
def test_a_vocabulary_that_is_too_small(vocab_size: int) -> None:
    with pytest.raises(ValueError, match=f"at least 258 .*found {vocab_size}"):
        BPETokenizer.train("text", vocab_size, ["<a>", "<b>"])
    if vocab_size < 256:
        with pytest.raises(ValueError, match="256"):
            train_bpe({"a": 1}, vocab_size)


@pytest.mark.parametrize("text", ["", [], ["", ""], "<a>", iter([])])
def test_nothing_to_learn_from(text: object) -> None:
    with pytest.raises(ValueError, match="is the text empty"):
        BPETokenizer.train(text, 300, ["<a>"])  # type: ignore[arg-type]


def test_bad_text_and_special_tokens() -> None:
    with pytest.raises(ValueError, match="lone surrogate U\\+DC80"):
        BPETokenizer.train("caf\udc80", 300)
    with pytest.raises(ValueError, match="'<a>' twice"):
        BPETokenizer.train("text", 300, ["<a>", "<a>"])
    with pytest.raises(ValueError, match="'t' is the name of b't'"):
        BPETokenizer.train("text", 300, ["t"])


def test_a_terminal_shows_progress_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = train_bpe(LOW, 260)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert train_bpe(LOW, 260) == quiet
    captured = capsys.readouterr()
    assert "/4" in captured.err and captured.out == ""
