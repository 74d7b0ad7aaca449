"""Chapter 14, gqa: the tokenizer that goes with the weights of llama2.c.

It does what SentencePiece does with the Llama tokenizer: merges are not listed in order but follow
from a score that each piece of text carries.
"""

import hashlib
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from heapq import heappop, heappush
from pathlib import Path

from llmtutor.tokenizer.base import require_encodable, unknown_id
from llmtutor.tokenizer.files import write_files

BOS, EOS, FIRST_BYTE = 1, 2, 3
LONGEST_KEPT = 64  # characters of a word whose ids are remembered
GONE = -1


class Llama2cTokenizer:
    """SentencePiece's BPE as llama2.c does it: one space first, then the best-scored merges.

    A text becomes characters; of all neighbours that together are a piece, those with the highest
    score are joined (the first on a tie), until none are left. A character without a piece becomes
    its UTF-8 bytes. ``decode`` takes the first space away again. ``<s>`` and ``</s>`` have ids and
    no text.

    >>> pieces = [*Llama2cTokenizer.FIXED, (b" ", -3.0), (b"a", -4.0), (b" a", -1.0)]
    >>> tokenizer = Llama2cTokenizer(pieces)
    >>> tokenizer.encode("a!a"), tokenizer.decode([261, 36, 260])
    ([261, 36, 260], 'a!a')

    Raises:
        ValueError: pieces that do not begin with the fixed ones, or hold a space after a letter.
    """

    FIXED: tuple[tuple[bytes, float], ...] = (
        (b"<unk>", 0.0),
        (b"\n<s>\n", 0.0),
        (b"\n</s>\n", 0.0),
        *((b"<0x%02X>" % byte, 0.0) for byte in range(256)),
    )

    def __init__(self, pieces: Iterable[tuple[bytes, float]]) -> None:
        self._pieces = list(pieces)
        start = len(self.FIXED)
        if [piece for piece, _ in self._pieces[:start]] != [piece for piece, _ in self.FIXED]:
            raise ValueError("expected <unk>, <s>, </s> and 256 bytes first; is it a tokenizer?")
        self._bytes = [b"<unk>", b"", b"", *(bytes([byte]) for byte in range(256))]
        self._bytes += [piece for piece, _ in self._pieces[start:]]
        self._ids: dict[str, int] = {}
        for id, (piece, score) in enumerate(self._pieces[start:], start):
            text = piece.decode("utf-8")
            if re.search("[^ ] ", text) or not math.isfinite(score) or not text:
                raise ValueError(f"token {id} is {text!r} with score {score}: not of llama2.c")
            self._ids.setdefault(text, id)
        self._kept = lru_cache(maxsize=1 << 16)(self._merge)

    @classmethod
    def load(cls, path: str | Path, vocab_size: int) -> "Llama2cTokenizer":
        """Read a ``tok*.bin``; the file does not say how many tokens it has.

        Raises:
            ValueError: a file that ends before or after ``vocab_size`` tokens, or is malformed.
            OSError: the file cannot be read.
        """
        path, at, pieces = Path(path), 4, []
        content = path.read_bytes()
        for id in range(vocab_size):
            length = struct.unpack_from("<i", content, at + 4)[0] if at + 8 <= len(content) else -1
            if length < 0 or at + 8 + length > len(content):
                raise ValueError(
                    f"{path}: expected {vocab_size} tokens, it is cut or damaged at token {id}"
                )
            score = struct.unpack_from("<f", content, at)[0]
            pieces.append((content[at + 8 : at + 8 + length], score))
            at += 8 + length
        longest = max((len(piece) for piece, _ in pieces), default=0)
        if at != len(content) or content[:4] != struct.pack("<i", longest):
            raise ValueError(f"{path}: not a llama2.c tokenizer of {vocab_size} tokens")
        try:
            return cls(pieces)
        except ValueError as error:  # UnicodeDecodeError is one
            raise ValueError(f"{path}: {error}") from error

    @property
    def vocab_size(self) -> int:
        """Number of tokens, the three special ones and 256 bytes included."""
        return len(self._pieces)

    @property
    def pieces(self) -> list[tuple[bytes, float]]:
        """All tokens with their scores, by id."""
        return list(self._pieces)

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """``<s>`` before a text and ``</s>`` after it; never made by ``encode``."""
        return {"<s>": BOS, "</s>": EOS}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without ``<s>``; `ValueError` for lone surrogates."""
        return list(self.encode_iterable([text]))

    def encode_iterable(self, chunks: Iterable[str]) -> Iterator[int]:
        """The ids of the joined chunks; a word is held until the next begins."""
        held: list[str] = []  # a word, as far as it has come
        for chunk in filter(None, chunks):
            require_encodable(chunk)
            for part in re.split("(?<=[^ ])(?= )", chunk if held else f" {chunk}"):
                if held and held[-1][-1] != " " == part[0]:  # no piece crosses
                    yield from self._word("".join(held))
                    held = []
                held.append(part)
        yield from self._word("".join(held))

    def _word(self, word: str) -> tuple[int, ...]:
        return self._kept(word) if len(word) <= LONGEST_KEPT else self._merge(word)

    def _merge(self, word: str) -> tuple[int, ...]:
        """Join the best neighbours, as ``tokenizer.merge`` does: n log n steps for n characters."""
        n = len(word)
        ends, starts = list(range(1, n + 1)), list(range(-1, n))  # of the part that meets a place
        heap: list[tuple[float, int, int]] = []

        def offer(start: int, end: int) -> None:
            if (id := self._ids.get(word[start:end])) is not None:
                heappush(heap, (-self._pieces[id][1], start, end))

        for i in range(n - 1):
            offer(i, i + 2)
        while heap:
            _, start, end = heappop(heap)
            middle = ends[start]
            if not start < middle < end or ends[middle] != end:
                continue  # one of the two parts is gone, or another by now
            ends[start], ends[middle], starts[end] = end, GONE, start
            if start > 0:
                offer(starts[start], end)
            if end < n:
                offer(start, ends[end])
        parts = [word[i:end] for i, end in enumerate(ends) if end != GONE]
        ids: list[int] = []
        for part in parts:
            own = self._ids.get(part)
            ids += [FIRST_BYTE + b for b in part.encode("utf-8")] if own is None else [own]
        return tuple(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, without the space that ``encode`` puts first."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace").removeprefix(" ")

    def token_bytes(self, id: int) -> bytes:
        """UTF-8 bytes of one id, nothing for ``<s>`` and ``</s>``; `ValueError` if unknown."""
        if not 0 <= id < len(self._bytes):
            raise unknown_id(id, self.vocab_size)
        return self._bytes[id]

    def fingerprint(self) -> str:
        """sha256 of the file that ``save`` writes."""
        return hashlib.sha256(self._content()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.bin`` for ``load`` and for llama2.c."""
        write_files(Path(folder), {"tokenizer.bin": self._content()})

    def _content(self) -> bytes:
        longest = struct.pack("<i", max(len(piece) for piece, _ in self._pieces))
        tokens = (struct.pack("<fi", score, len(piece)) + piece for piece, score in self._pieces)
        return longest + b"".join(tokens)
