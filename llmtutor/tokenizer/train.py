"""Chapter 01, step 5: learn merges with pair counts that are kept up to date."""

from collections import defaultdict
from collections.abc import Mapping
from heapq import heapify, heappop, heappush

from tqdm import tqdm

from llmtutor.tokenizer.base import require_encodable
from llmtutor.tokenizer.files import Merge

MAX_VOCAB_SIZE = 0x110000


def train_bpe(word_counts: Mapping[str, int], vocab_size: int) -> list[Merge]:
    """The merges of byte-pair encoding, in order, until bytes and merged tokens are `vocab_size`.

    Each step merges the pair of tokens that is most frequent within words; of equally frequent
    pairs, the one whose two byte strings are lexicographically greater. Fewer merges come back
    when every word has become one token. A terminal shows how far it is.

    >>> train_bpe({"low": 5, "lower": 2, "newest": 6, "widest": 3}, 259)
    [(b's', b't'), (b'e', b'st'), (b'o', b'w')]
    """
    if not 256 <= vocab_size <= MAX_VOCAB_SIZE:
        raise ValueError(
            f"expected a vocabulary of 256 (all bytes) to {MAX_VOCAB_SIZE:,} tokens, "
            f"found {vocab_size}"
        )
    if not word_counts:
        raise ValueError("expected words to learn from, found none: is the text empty?")
    for word in word_counts:
        require_encodable(word)
    # A word is a string whose characters are token ids: `split` and `join` merge at the speed of C.
    words = [word.encode("utf-8").decode("latin-1") for word in word_counts]
    freqs = list(word_counts.values())
    counts: dict[str, int] = defaultdict(int)
    places: dict[str, list[int]] = defaultdict(list)
    for i, (word, freq) in enumerate(zip(words, freqs, strict=True)):
        for j in range(len(word) - 1):
            pair = word[j : j + 2]
            counts[pair] += freq
            _list(places[pair], i)

    tokens = [bytes([byte]) for byte in range(256)]
    order = [_descending(token) for token in tokens]
    heap = [(-n, order[ord(p[0])] + order[ord(p[1])], p) for p, n in counts.items()]
    heapify(heap)
    merges: list[Merge] = []
    with tqdm(total=vocab_size - 256, unit=" merges", leave=False, disable=None) as bar:
        while len(tokens) < vocab_size and heap:
            negative, key, pair = heappop(heap)
            count = counts.get(pair, 0)
            if count != -negative:  # an entry from before the count fell
                if count:
                    heappush(heap, (-count, key, pair))
                continue
            left, right = (tokens[ord(symbol)] for symbol in pair)
            merges.append((left, right))
            changes = _merge(pair, chr(len(tokens)), words, freqs, places)
            # The same bytes are no token yet: no two words merge the same bytes in two ways.
            tokens.append(left + right)
            order.append(_descending(left + right))
            bar.update()
            for changed, change in changes.items():
                counts[changed] += change
                if change > 0:
                    key = order[ord(changed[0])] + order[ord(changed[1])]
                    heappush(heap, (-counts[changed], key, changed))
                elif not counts[changed]:
                    del counts[changed]
    return merges


def _merge(
    pair: str, new: str, words: list[str], freqs: list[int], places: dict[str, list[int]]
) -> dict[str, int]:
    """Merge a pair in every word that holds it; returns by how much each pair count changes.

    Only the neighbours of the pair are counted anew, so that a long word costs no more than many
    short ones.
    """
    left, right = pair[0], pair[1]
    changes: dict[str, int] = defaultdict(int)
    for i in places.pop(pair):
        parts = words[i].split(pair)  # from left to right: aaa is one aa and the part a
        last = len(parts) - 1
        if not last:  # changed since it was listed
            continue
        words[i] = new.join(parts)
        freq = freqs[i]
        changes[pair] -= freq * last
        neighbours = []  # what becomes of them: the pair before, the pair now
        for k, part in enumerate(parts):
            if part and k:
                neighbours.append((right + part[0], new + part[0]))
            if part and k < last:
                neighbours.append((part[-1] + left, part[-1] + new))
            if not part and 0 < k < last:
                neighbours.append((right + left, new + new))
        for before, now in neighbours:
            changes[before] -= freq
            changes[now] += freq
            _list(places[now], i)
    return changes


def _list(places: list[int], i: int) -> None:
    """Append the word `i` unless it is the last one there: a long word holds a pair many times."""
    if not places or places[-1] != i:
        places.append(i)


def _descending(token: bytes) -> str:
    """A key that sorts byte strings from the greatest to the smallest, also when concatenated.

    >>> sorted([b"a", b"ab", b"b"], key=_descending)
    [b'b', b'ab', b'a']
    """
    return "".join([chr(255 - byte) for byte in token]) + "\u0100"
