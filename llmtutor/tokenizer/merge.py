"""Chapter 01, step 6: apply the learnt merges to one word, in the order they were learnt."""

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from llmtutor.tokenizer.files import Merge

NONE = -1  # no token, or no merge


class Words(dict[str, tuple[int, ...]]):
    """Word → its ids: merged when first seen, then looked up.

    Memory is bounded, to about 50 MB: long words are not kept, and when `MAX_WORDS` are there all
    are dropped; the frequent ones are soon back.
    """

    MAX_WORDS = 1 << 17
    MAX_LENGTH = 64

    def __init__(self, vocab: Mapping[bytes, int], merges: Sequence[Merge]) -> None:
        self._byte_ids = [vocab[bytes([byte])] for byte in range(256)]
        self._ranks = {(vocab[a], vocab[b]): rank for rank, (a, b) in enumerate(merges)}
        self._results = [vocab[left + right] for left, right in merges]

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = [self._byte_ids[byte] for byte in word.encode("utf-8")]
        result = tuple(merge(ids, self._ranks, self._results))
        if len(word) <= self.MAX_LENGTH:
            if len(self) >= self.MAX_WORDS:
                self.clear()
            self[word] = result
        return result


def merge(
    ids: Sequence[int], ranks: Mapping[tuple[int, int], int], results: Sequence[int]
) -> list[int]:
    """Merge the pair of lowest rank, of equal ones the leftmost, until no merge applies.

    `ranks` numbers the pairs that merge; `results[rank]` is the token a pair becomes. The tokens
    are a linked list and the pairs wait in a heap, so a word of n bytes takes n log n steps.

    >>> merge([1, 2, 3, 1, 2], {(1, 2): 1, (2, 3): 0}, [5, 4])
    [1, 5, 4]
    """
    n = len(ids)
    tokens = [*ids, NONE]  # tokens[n], which is also tokens[-1], is the border on both sides
    before, after = list(range(-1, n)), list(range(1, n + 2))
    # An entry is the number rank · n + place: it sorts like the pair (rank, place).
    heap = [ranks[pair] * n + i for i, pair in enumerate(pairwise(ids)) if pair in ranks]
    heapify(heap)
    while heap:
        rank, i = divmod(heappop(heap), n)
        j = after[i]
        if ranks.get((tokens[i], tokens[j])) != rank:
            continue  # one of the two is gone, or another token by now
        tokens[i], tokens[j] = results[rank], NONE
        k = after[i] = after[j]
        before[k] = i
        for left, right in ((before[i], i), (i, k)):
            pair = (tokens[left], tokens[right])
            if pair in ranks:
                heappush(heap, ranks[pair] * n + left)
    return [token for token in tokens if token != NONE]
