"""Chapter 02, data: its exercises, each with the mistakes that learners make there."""

from collections.abc import Iterator, Sequence

from llmtutor.exercises.core import Exercise, Wrong

Pair = tuple[list[int], list[int]]
Windows = list[tuple[int, int]]


# Exercise 1: the inputs and the targets of a packed row.


def _packed_cases() -> Iterator[tuple[list[int], list[int]]]:
    yield [10, 11, 12, 13], [0, 0, 0, 0]
    yield [3, 1, 4, 1, 5, 9], [0, 0, 0, 1, 1, 1]
    yield [7, 7, 8, 9, 0, 0], [2, 2, 5, 5, -1, -1]
    yield [6, 6, 6, 0], [0, 1, 2, -1]


def packed_targets(ids: Sequence[int], document: Sequence[int]) -> Pair:
    """Inputs and targets, one fewer than ids; -100 where the next id is not the document's own.

    >>> packed_targets([5, 6, 7, 8, 0], [0, 0, 1, 1, -1])
    ([5, 6, 7, 8], [6, -100, 8, -100])
    """
    targets = []
    for i in range(len(ids) - 1):
        same = document[i] == document[i + 1] != -1
        targets.append(ids[i + 1] if same else -100)
    return list(ids[:-1]), targets


def _no_shift(ids: Sequence[int], document: Sequence[int]) -> Pair:
    return list(ids[:-1]), list(ids[:-1])


def _no_boundaries(ids: Sequence[int], document: Sequence[int]) -> Pair:
    return list(ids[:-1]), list(ids[1:])


def _padding_predicts_padding(ids: Sequence[int], document: Sequence[int]) -> Pair:
    pairs = zip(ids[1:], document[:-1], document[1:], strict=True)
    return list(ids[:-1]), [id if here == then else -100 for id, here, then in pairs]


def _boundary_one_late(ids: Sequence[int], document: Sequence[int]) -> Pair:
    targets = []
    for i in range(len(ids) - 1):
        begins = i > 0 and document[i] != document[i - 1]
        targets.append(-100 if begins or document[i + 1] == -1 else ids[i + 1])
    return list(ids[:-1]), targets


def _leaves_places_out(ids: Sequence[int], document: Sequence[int]) -> Pair:
    kept = [i for i in range(len(ids) - 1) if document[i] == document[i + 1] != -1]
    return [ids[i] for i in kept], [ids[i + 1] for i in kept]


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


# Exercise 3: which documents stay, when pairs of near duplicates are known.


def _duplicate_cases() -> Iterator[tuple[int, list[tuple[int, int]]]]:
    yield 4, [(0, 2)]
    yield 5, [(1, 0), (2, 1)]
    yield 6, [(0, 3), (2, 3)]
    yield 7, [(1, 4), (5, 6), (4, 6)]
    yield 8, [(6, 7), (4, 5), (5, 6), (0, 1)]
    yield 3, []


def keep_one(n_documents: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """The documents that stay, in order: of all that pairs connect, directly or not, the first.

    >>> keep_one(5, [(0, 3), (2, 3)])  # 0, 2 and 3 are one cluster
    [0, 1, 4]
    """
    first = list(range(n_documents))  # the first document of the cluster that each is in
    for a, b in pairs:
        low, high = sorted((first[a], first[b]))
        first = [low if cluster == high else cluster for cluster in first]
    return [document for document in range(n_documents) if first[document] == document]


def _drops_all_of_a_pair(n_documents: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    found = {document for pair in pairs for document in pair}
    return [document for document in range(n_documents) if document not in found]


def _drops_the_later_of_a_pair(n_documents: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    later = {max(pair) for pair in pairs}
    return [document for document in range(n_documents) if document not in later]


def _skips_pairs_of_the_dropped(n_documents: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    dropped: set[int] = set()
    for a, b in pairs:
        if a not in dropped and b not in dropped:
            dropped.add(max(a, b))
    return [document for document in range(n_documents) if document not in dropped]


def _keeps_what_has_a_pair(n_documents: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    found = {document for pair in pairs for document in pair}
    return [document for document in keep_one(n_documents, pairs) if document in found]


EXERCISES = [
    Exercise(
        name="data.packed_targets",
        cases=_packed_cases,
        reference=packed_targets,
        wrong=[
            Wrong(
                _no_shift,
                "The targets are the inputs themselves: a model that copies its input reaches "
                "loss 0 without predicting anything. Shift the targets by one.",
            ),
            Wrong(
                _no_boundaries,
                "The last token of a document is asked for the first token of the next one, which "
                "nothing in its own document can tell. Put -100 there, and before padding.",
            ),
            Wrong(
                _padding_predicts_padding,
                "Boundaries are right, but padding is asked to predict padding: the model is "
                "praised for an easy task that nobody has. A target in padding is -100.",
            ),
            Wrong(
                _boundary_one_late,
                "The -100 stands one place late: on the first token of a document, which may very "
                "well predict the second. It belongs to the last token of the document before.",
            ),
            Wrong(
                _leaves_places_out,
                "Places are left out, so rows of a batch get different lengths. Keep every place, "
                "and mark the ones without a target with -100.",
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
        name="data.keep_one",
        cases=_duplicate_cases,
        reference=keep_one,
        wrong=[
            Wrong(
                _drops_all_of_a_pair,
                "Every document of a pair is dropped, so the text is lost altogether. One of each "
                "cluster stays.",
            ),
            Wrong(
                _drops_the_later_of_a_pair,
                "The later of each pair is dropped. With (0, 3) and (2, 3) both 0 and 2 stay, "
                "although 3 connects them: a cluster is more than its pairs.",
            ),
            Wrong(
                _skips_pairs_of_the_dropped,
                "A pair is skipped once one of it is dropped. But that pair may be the only thing "
                "that connects its other document to the cluster.",
            ),
            Wrong(
                _keeps_what_has_a_pair,
                "Documents without a near duplicate are missing. They are most of a good corpus.",
            ),
        ],
    ),
]
