"""Chapter 21, generation: a text that has a form, by ruling out what would break it.

A guide says before each draw which tokens may come. It looks at the room that is left too: a token
is allowed only if the text can still be made whole behind it.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llmtutor.generate import grammar
from llmtutor.generate.grammar import COMPACT, State
from llmtutor.tokenizer import Tokenizer

REFUSED = 1 << 62
KEPT = 256
"""States whose tokens are remembered."""


@runtime_checkable
class Guide(Protocol):
    """What may be written; a state is all that it needs to know of a text."""

    start: Any
    """The state before the first new token."""

    def after(self, state: Any, id: int) -> Any:
        """The state after one more token."""

    def allowed(self, state: Any, left: int) -> Bool[Tensor, " vocab"]:
        """Which tokens may come if at most ``left`` come behind them."""

    def is_done(self, state: Any, left: int) -> bool:
        """Whether the text is whole and ends here, though ``left`` tokens may come."""


class Guidance:
    """A guide and the state of each row of a batch."""

    def __init__(self, guide: Guide, batch: int) -> None:
        self.guide = guide
        self.states = [guide.start] * batch

    def filtered(
        self, logits: Float[Tensor, "batch vocab"], left: int
    ) -> Float[Tensor, "batch vocab"]:
        """The logits with −inf where a token is ruled out; a row that is done is left as it is.

        Raises:
            ValueError: a guide for another vocabulary; no token that could come.
        """
        logits = logits.clone()
        for row, state in enumerate(self.states):
            if self.guide.is_done(state, left + 1):
                continue
            allowed = self.guide.allowed(state, left).to(logits.device)
            if len(allowed) != logits.shape[1]:
                raise ValueError(
                    f"the guide knows {len(allowed)} tokens and the logits are of "
                    f"{logits.shape[1]}: give n_ids, the vocab_size of the guide's tokenizer"
                )
            if not allowed.any():
                raise ValueError(
                    f"no token can come that leaves the text whole within {left + 1} more: raise "
                    "max_new_tokens"
                )
            logits[row].masked_fill_(~allowed, -torch.inf)
        return logits

    def told(self, row: int, id: int) -> None:
        """One more token of a row."""
        self.states[row] = self.guide.after(self.states[row], id)

    def is_done(self, row: int, left: int) -> bool:
        """Whether a row is whole and ends here, though ``left`` tokens may come."""
        return self.guide.is_done(self.states[row], left)


class JSONGuide:
    """Lets a model write one value of JSON, compact, and nothing else.

    The text is whole when ``max_new_tokens`` are over, however unlikely that is for the model:
    where room runs out, brackets and strings are closed. ``ends`` are the ids that end a text, and
    are allowed where the value is whole. ``begun`` is what the prompt has of the value already:
    with "{" it becomes an object.

    >>> from llmtutor.tokenizer import BPETokenizer
    >>> bytes_alone = BPETokenizer({bytes([b]): b for b in range(256)}, [])
    >>> guide = JSONGuide(bytes_alone, begun="[tru")
    >>> bytes(guide.allowed(guide.start, 9).nonzero()[:, 0].tolist())
    b'e'

    Raises:
        ValueError: a tokenizer without a token for each sign of JSON; ``begun`` that begins none.
    """

    def __init__(
        self, tokenizer: Tokenizer, ends: Collection[int] = (), *, begun: str = ""
    ) -> None:
        self.ends = frozenset(ends)
        self.vocab_size = tokenizer.vocab_size
        left_out = self.ends | set(tokenizer.special_tokens.values())
        ids = [id for id in range(self.vocab_size) if id not in left_out]
        self.bytes = {id: data for id in ids if (data := tokenizer.token_bytes(id))}
        alone = {data[0] for data in self.bytes.values() if len(data) == 1}
        if missing := [sign for sign in '{}[]":,0' if ord(sign) not in alone]:
            raise ValueError(
                f"a tokenizer that writes JSON needs a token for each of its signs, this one has "
                f"none for {' '.join(missing)}: take one of byte pairs"
            )
        self.hopeless = {k for k, data in grammar.CLOSINGS.items() if not alone.issuperset(data)}
        self.trie = _Node()
        for id, data in self.bytes.items():
            self.trie.add(data, id)
        start = grammar.read(begun.encode("utf-8"), rules=COMPACT)
        if start is None:
            raise ValueError(f"begun must be the beginning of compact JSON, got {begun!r}")
        self.start: State = start
        self._room = lru_cache(KEPT)(self._room_behind)

    def after(self, state: State, id: int) -> State:
        """The state after one more token, which must have been allowed."""
        if id in self.ends:
            return ""
        found = grammar.read(self.bytes[id], state, COMPACT)
        assert found is not None, (state, id)
        return found

    def allowed(self, state: State, left: int) -> Bool[Tensor, " vocab"]:
        """Tokens behind which ``left`` more are enough to make the text whole."""
        return self._room(state) <= left

    def is_done(self, state: State, left: int) -> bool:
        """Whether nothing can be added to a whole value, unless it be a sign of its end."""
        if state in ("", "W"):
            return True
        return grammar.is_whole(state) and not bool(self.allowed(state, left - 1).any())

    def _room_behind(self, state: State) -> Int[Tensor, " vocab"]:
        """How many bytes make the text whole behind each token, a token of one byte for each."""
        room = [REFUSED] * self.vocab_size
        if grammar.is_whole(state):
            for id in self.ends:
                room[id] = 0
        todo = [(self.trie, state)]
        while todo:
            node, state = todo.pop()
            if node.ids and self.hopeless.isdisjoint(state):
                for id in node.ids:
                    room[id] = len(grammar.closing(state))
            for byte, child in node.children.items():
                if (then := grammar.step(state, byte, COMPACT)) is not None:
                    todo.append((child, then))
        return torch.tensor(room)


class _Node:
    """Tokens that begin alike: what is refused for one byte is refused for all behind it."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.children: dict[int, _Node] = {}

    def add(self, data: bytes, id: int) -> None:
        node = self
        for byte in data:
            node = node.children.setdefault(byte, _Node())
        node.ids.append(id)
