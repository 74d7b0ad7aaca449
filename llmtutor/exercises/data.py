"""Chapter 02, data: its exercises, each with the mistakes that learners make there."""

from collections.abc import Iterator, Sequence

from llmtutor.exercises.core import Exercise, Wrong

Pair = tuple[list[int], list[int]]
Windows = list[tuple[int, int]]


# Exercise 1: the inputs and the targets of one window.


def _shifted_cases() -> Iterator[tuple[list[int], int, int]]:
    yield [10, 11, 12, 13, 14, 15], 0, 4
    yield [3, 1, 4, 1, 5, 9, 2, 6], 2, 3
    yield [7, 7, 8, 9], 1, 2
    yield [5, 6, 7], 1, 1


def shifted_targets(ids: Sequence[int], start: int, seq_len: int) -> Pair:
    """Inputs and targets, both `seq_len` long, of the window that begins at `start`.

    >>> shifted_targets([10, 11, 12, 13, 14], 1, 3)
    ([11, 12, 13], [12, 13, 14])
    """
    return list(ids[start : start + seq_len]), list(ids[start + 1 : start + seq_len + 1])


def _no_shift(ids: Sequence[int], start: int, seq_len: int) -> Pair:
    inputs = list(ids[start : start + seq_len])
    return inputs, inputs


def _wrapped(ids: Sequence[int], start: int, seq_len: int) -> Pair:
    inputs = list(ids[start : start + seq_len])
    return inputs, inputs[1:] + inputs[:1]


def _one_short(ids: Sequence[int], start: int, seq_len: int) -> Pair:
    chunk = list(ids[start : start + seq_len])
    return chunk[:-1], chunk[1:]


def _previous(ids: Sequence[int], start: int, seq_len: int) -> Pair:
    return list(ids[start : start + seq_len]), [ids[start + i - 1] for i in range(seq_len)]


# Exercise 2: windows that predict every token exactly once.


def _window_cases() -> Iterator[tuple[int, int]]:
    yield 10, 4
    yield 9, 4
    yield 8, 4
    yield 3, 5
    yield 12, 1
    yield 2, 2


def evaluation_windows(n_ids: int, seq_len: int) -> Windows:
    """(start, length) of the inputs of each window; the targets are the same places plus one.

    >>> evaluation_windows(10, 4)  # targets 1 to 4, 5 to 8, and 9
    [(0, 4), (4, 4), (8, 1)]
    """
    return [(start, min(seq_len, n_ids - 1 - start)) for start in range(0, n_ids - 1, seq_len)]


def _drops_the_rest(n_ids: int, seq_len: int) -> Windows:
    return [(start, seq_len) for start in range(0, n_ids - seq_len, seq_len)]


def _skips_between(n_ids: int, seq_len: int) -> Windows:
    starts = range(0, n_ids - 1, seq_len + 1)
    return [(start, min(seq_len, n_ids - 1 - start)) for start in starts]


def _moves_the_last_back(n_ids: int, seq_len: int) -> Windows:
    last = max(n_ids - 1 - seq_len, 0)
    return [(min(start, last), min(seq_len, n_ids - 1)) for start in range(0, n_ids - 1, seq_len)]


def _input_without_target(n_ids: int, seq_len: int) -> Windows:
    return [(start, min(seq_len, n_ids - start)) for start in range(0, n_ids, seq_len)]


def _every_start(n_ids: int, seq_len: int) -> Windows:
    return [(start, min(seq_len, n_ids - 1 - start)) for start in range(n_ids - 1)]


# Exercise 3: one loss from the losses of batches of unequal size.


def _mean_cases() -> Iterator[tuple[list[float], list[int]]]:
    yield [2.0, 7.0], [4, 1]
    yield [1.5, 2.5, 0.5], [64, 64, 10]
    yield [3.0, 1.0, 2.0, 4.0], [5, 1, 8, 4]


def corpus_loss(batch_means: Sequence[float], batch_tokens: Sequence[int]) -> float:
    """Nats per token over all batches.

    >>> corpus_loss([2.0, 7.0], [4, 1])
    3.0
    """
    pairs = zip(batch_means, batch_tokens, strict=True)
    return sum(mean * n for mean, n in pairs) / sum(batch_tokens)


def _mean_of_means(batch_means: Sequence[float], batch_tokens: Sequence[int]) -> float:
    return sum(batch_means) / len(batch_means)


def _all_batches_full(batch_means: Sequence[float], batch_tokens: Sequence[int]) -> float:
    total = sum(mean * n for mean, n in zip(batch_means, batch_tokens, strict=True))
    return total / (max(batch_tokens) * len(batch_tokens))


def _per_batch(batch_means: Sequence[float], batch_tokens: Sequence[int]) -> float:
    total = sum(mean * n for mean, n in zip(batch_means, batch_tokens, strict=True))
    return total / len(batch_means)


def _divides_twice(batch_means: Sequence[float], batch_tokens: Sequence[int]) -> float:
    return sum(batch_means) / sum(batch_tokens)


# Exercise 4: how much of the validation text is word for word in the training text.


def _leak_cases() -> Iterator[tuple[list[str], list[str], int]]:
    yield ["the cat sat on the mat"], ["a cat sat on a mat"], 2
    yield ["to be or not to be"], ["to be and to be and to be"], 2
    yield ["see the sun", "set in the sea"], ["the sun set in the sea"], 2
    yield ["one two three four"], ["one two", "three four", "nine ten eleven"], 2
    yield ["hear the smart fellow"], ["ear the art", "the smart"], 2
    yield ["a b c d e f"], ["a b c x y z a b c d"], 3
    yield ["a b c"], ["x y z"], 3


def _runs(document: str, n: int) -> list[tuple[str, ...]]:
    words = document.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _all_runs(documents: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [run for document in documents for run in _runs(document, n)]


def leaked_share(train_documents: Sequence[str], valid_documents: Sequence[str], n: int) -> float:
    """Share of the runs of n words in the validation documents that training documents hold too.

    >>> leaked_share(["the cat sat on the mat"], ["a cat sat on a mat"], 2)  # cat sat, sat on
    0.4
    """
    seen, valid = set(_all_runs(train_documents, n)), _all_runs(valid_documents, n)
    return sum(run in seen for run in valid) / len(valid)


def _distinct_only(train: Sequence[str], valid: Sequence[str], n: int) -> float:
    runs = set(_all_runs(valid, n))
    return len(runs & set(_all_runs(train, n))) / len(runs)


def _other_direction(train: Sequence[str], valid: Sequence[str], n: int) -> float:
    return leaked_share(valid, train, n)


def _jaccard(train: Sequence[str], valid: Sequence[str], n: int) -> float:
    a, b = set(_all_runs(train, n)), set(_all_runs(valid, n))
    return len(a & b) / len(a | b)


def _joined(train: Sequence[str], valid: Sequence[str], n: int) -> float:
    return leaked_share([" ".join(train)], [" ".join(valid)], n)


def _substring(train: Sequence[str], valid: Sequence[str], n: int) -> float:
    runs = _all_runs(valid, n)
    return sum(any(" ".join(run) in text for text in train) for run in runs) / len(runs)


EXERCISES = [
    Exercise(
        name="data.shifted_targets",
        cases=_shifted_cases,
        reference=shifted_targets,
        wrong=[
            Wrong(
                _no_shift,
                "The targets are the inputs themselves: a model that copies its input reaches "
                "loss 0 without predicting anything. Shift the targets by one.",
            ),
            Wrong(
                _wrapped,
                "The last target wraps around to the first token of the window. The token that "
                "comes next is in ids, one place after the window.",
            ),
            Wrong(
                _one_short,
                "The window is one short: seq_len pairs of input and target need seq_len + 1 ids.",
            ),
            Wrong(
                _previous,
                "The targets look backwards: each is the token before its input, which the model "
                "has already read. The target is the token after it.",
            ),
        ],
    ),
    Exercise(
        name="data.evaluation_windows",
        cases=_window_cases,
        reference=evaluation_windows,
        wrong=[
            Wrong(
                _drops_the_rest,
                "The short window at the end is missing, so the last tokens are never evaluated.",
            ),
            Wrong(
                _skips_between,
                "The step is seq_len + 1. Windows of inputs must touch: the last target of one "
                "window is the first input of the next, or one token between them is skipped.",
            ),
            Wrong(
                _moves_the_last_back,
                "The last window is moved back to make it full, so the tokens it shares with the "
                "window before are counted twice.",
            ),
            Wrong(
                _input_without_target,
                "The last id is used as an input, but nothing follows it: n_ids ids hold "
                "n_ids - 1 targets.",
            ),
            Wrong(
                _every_start,
                "A window begins at every id, so a token is predicted once for each window that "
                "holds it. Step by seq_len.",
            ),
        ],
    ),
    Exercise(
        name="data.corpus_loss",
        cases=_mean_cases,
        reference=corpus_loss,
        wrong=[
            Wrong(
                _mean_of_means,
                "This is the mean of the batch means: a token in a short batch counts more than "
                "one in a full batch. Weigh each mean by its number of tokens.",
            ),
            Wrong(
                _all_batches_full,
                "This divides as if every batch were as large as the largest: tokens that do not "
                "exist make the loss look smaller.",
            ),
            Wrong(
                _per_batch,
                "This is nats per batch: the sum over tokens is right, but it is divided by the "
                "number of batches.",
            ),
            Wrong(
                _divides_twice,
                "The batch means are divided by their tokens a second time. Multiply each mean "
                "by its tokens first: that gives the sum the batch was made of.",
            ),
        ],
    ),
    Exercise(
        name="data.leaked_share",
        cases=_leak_cases,
        reference=leaked_share,
        wrong=[
            Wrong(
                _distinct_only,
                "Each distinct run is counted once. The question is how much of the validation "
                "text is known, so a run that occurs three times counts three times.",
            ),
            Wrong(
                _other_direction,
                "The direction is turned round: this is the share of the training text that is "
                "in the validation text, which is tiny whenever training text is large.",
            ),
            Wrong(
                _jaccard,
                "This is the Jaccard similarity of the two sets. Its denominator holds the "
                "training runs, so a validation text copied whole still looks harmless.",
            ),
            Wrong(
                _joined,
                "The documents are joined before they are cut, which makes runs that begin in "
                "one document and end in the next: nobody wrote those.",
            ),
            Wrong(
                _substring,
                "Runs are searched as characters, so 'ear the' is found inside 'hear the'. "
                "Compare whole words.",
            ),
        ],
    ),
]
