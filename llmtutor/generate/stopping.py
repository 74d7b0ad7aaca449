"""Chapter 21, generation: where a text ends, by the id of a token or by a text of its own.

A stop text may be spread over tokens, or begin in the middle of one. So what ends a row is looked
for in its bytes, and a stream holds back whatever may still become a stop text.
"""

import codecs
from collections.abc import Callable, Collection, Iterable

from llmtutor.tokenizer import Tokenizer

Stop = Collection[int] | Callable[[list[int]], bool]
"""Ids that end a row, or a function that is told a row's new ids and says whether it has ended."""


def ends(stop: Stop) -> Callable[[list[int]], bool]:
    """Whether a row has ended, given its new ids (one at least).

    >>> ends({7})([5, 7]), ends({7})([7, 5])
    (True, False)
    """
    if callable(stop):
        return stop
    return lambda new: new[-1] in stop


class StopTexts:
    """Ends a row as soon as one of ``texts`` stands in what was written, or at one of ``ids``.

    Raises:
        ValueError: an empty text, which would stand everywhere, or one text that is no list.
    """

    def __init__(
        self, tokenizer: Tokenizer, texts: Iterable[str], ids: Collection[int] = ()
    ) -> None:
        self.tokenizer, self.ids = tokenizer, frozenset(ids)
        self.texts = _as_bytes(texts)
        self.longest = max(map(len, self.texts), default=0)

    def __call__(self, new: list[int]) -> bool:
        """Whether the last id of ``new`` completes a stop text, or is an id that ends it."""
        return new[-1] in self.ids or any(text in self._tail(new) for text in self.texts)

    def cut(self, new: Iterable[int]) -> str:
        """The text of ``new``, without its stop text and all behind, and without ``ids``."""
        stream = TextStream(self)
        return "".join(map(stream.add, new)) + stream.end()

    def _tail(self, new: list[int]) -> bytes:
        """The last token and, before it, as many bytes as a stop text may begin with there."""
        tail = last = self.tokenizer.token_bytes(new[-1])
        for id in reversed(new[:-1]):
            if len(tail) - len(last) >= self.longest - 1:
                break
            tail = self.tokenizer.token_bytes(id) + tail
        return tail


class TextStream:
    """The text of ids as they come, never a part of a stop text or of a character.

    Of two stop texts the one that is complete first ends the text, and of two that are complete
    at once the longer, so that the text does not depend on how it falls into tokens.

    >>> from llmtutor.tokenizer import CharTokenizer
    >>> stream = TextStream(StopTexts(CharTokenizer("abc"), ["bc"]))
    >>> [stream.add(id) for id in (0, 1, 1, 2, 0)]
    ['a', '', 'b', '', '']
    """

    def __init__(self, stops: StopTexts) -> None:
        self.stops = stops
        self.stopped = False
        self._held = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, id: int) -> str:
        """What can be shown now that ``id`` is known."""
        if self.stopped or id in self.stops.ids:
            return ""
        held = self._held + self.stops.tokenizer.token_bytes(id)
        places = [(held.find(text), text) for text in self.stops.texts]
        found = [(place + len(text), place) for place, text in places if place >= 0]
        self.stopped = bool(found)
        keep = len(held) - min(found)[1] if found else self._unsure(held)
        shown, self._held = held[: len(held) - keep], held[len(held) - keep :]
        return self._decoder.decode(shown)

    def end(self) -> str:
        """What was held back for nothing: the text ends without the rest of a stop text."""
        rest = b"" if self.stopped else self._held
        self._held, self.stopped = b"", True
        return self._decoder.decode(rest, final=True)

    def _unsure(self, held: bytes) -> int:
        """How many bytes at the end may be the beginning of a stop text."""
        most = min(len(held), self.stops.longest - 1)
        for n in range(most, 0, -1):
            if any(text.startswith(held[-n:]) for text in self.stops.texts):
                return n
        return 0


def _as_bytes(texts: Iterable[str]) -> tuple[bytes, ...]:
    if isinstance(texts, str):
        raise ValueError(f"stop texts must be a list of texts, got {texts!r}; write [{texts!r}]")
    texts = tuple(texts)
    for text in texts:
        if not isinstance(text, str) or not text:
            raise ValueError(f"a stop text must have one character at least, got {text!r}")
    return tuple(text.encode("utf-8") for text in texts)
