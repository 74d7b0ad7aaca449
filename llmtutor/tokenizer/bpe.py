"""Chapter 01, step 6: the byte-level tokenizer of GPT-2, from merges to ids and back."""

import hashlib
import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from llmtutor.tokenizer import pretokenize
from llmtutor.tokenizer.base import require_encodable, unknown_id
from llmtutor.tokenizer.files import (
    MERGES_FILE,
    VOCAB_FILE,
    Merge,
    made_by,
    merges_text,
    printable,
    read_merges,
    read_vocab,
    write_files,
)
from llmtutor.tokenizer.merge import Words
from llmtutor.tokenizer.pretokenize import GPT2_PATTERN, check_special_tokens
from llmtutor.tokenizer.train import train_bpe


class BPETokenizer:
    """Byte-pair encoding over the bytes of words, as in GPT-2 :cite:`radford2019`.

    `vocab` holds the ordinary tokens: all 256 bytes and what the merges make of them, with ids.
    `special_tokens` have ids of their own; they are found in the text before anything else, the
    longest first, and never take part in a merge. All ids together are ``0 … vocab_size - 1``.

    >>> tokenizer = BPETokenizer.train("low low lower lowest", 260, ["<|end|>"])
    >>> tokenizer.merges
    [(b'o', b'w'), (b'l', b'ow'), (b' ', b'low')]
    >>> tokenizer.encode("low lower<|end|>")
    [257, 258, 101, 114, 259]
    """

    def __init__(
        self,
        vocab: Mapping[bytes, int],
        merges: Sequence[Merge],
        special_tokens: Mapping[str, int] | None = None,
        pattern: str = GPT2_PATTERN,
    ) -> None:
        special = dict(special_tokens or {})
        pretokenize.compile_pattern(pattern)
        _check(vocab, merges, special)
        self.vocab: Mapping[bytes, int] = dict(vocab)
        self.merges = list(merges)
        self.special_tokens: Mapping[str, int] = special
        self.pattern = pattern
        self._divider = pretokenize.special_pattern(check_special_tokens(special))
        self._bytes = {id: token for token, id in vocab.items()}
        self._bytes |= {id: token.encode("utf-8") for token, id in special.items()}
        self._words = Words(vocab, merges)
        self.vocab_size = len(self._bytes)

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        *,
        num_processes: int = 1,
    ) -> "BPETokenizer":
        """Learn the merges of a text, or of texts each of which is a document of its own.

        Ids: the bytes 0 … 255, the merged tokens in the order they were learnt, the special tokens
        in the order given. The result depends neither on the number of processes nor on the order
        of the documents. A text too small for `vocab_size` tokens gives as many as there are.
        """
        special = check_special_tokens(special_tokens)
        ordinary = vocab_size - len(special)
        if ordinary < 256:
            raise ValueError(
                f"expected vocab_size of at least {256 + len(special)} (256 bytes and "
                f"{len(special)} special tokens), found {vocab_size}"
            )
        counts = pretokenize.count_words(text, special, num_processes)
        merges = train_bpe(counts, ordinary)
        vocab = {bytes([byte]): byte for byte in range(256)}
        vocab |= {left + right: 256 + i for i, (left, right) in enumerate(merges)}
        return cls(vocab, merges, {token: len(vocab) + i for i, token in enumerate(special)})

    @classmethod
    def load(cls, folder: Path | str, special_tokens: Sequence[str] = ()) -> "BPETokenizer":
        """Read GPT-2's ``vocab.json`` and ``merges.txt``.

        An entry of the vocabulary that is no byte and that no merge makes is a special token, as
        is ``<|endoftext|>`` in GPT-2. Other `special_tokens` get the next free ids.
        """
        path = Path(folder) / VOCAB_FILE
        names = read_vocab(path)
        merges = read_merges(Path(folder) / MERGES_FILE)
        made = made_by(merges)
        vocab = {made[name]: id for name, id in names.items() if name in made}
        special = {name: id for name, id in names.items() if name not in made}
        for token in check_special_tokens(special_tokens):
            special.setdefault(token, len(vocab) + len(special))
        try:
            return cls(vocab, merges, special)
        except ValueError as error:
            raise ValueError(f"{path} and {MERGES_FILE}: {error}") from None

    def encode(self, text: str, *, allow_special: bool = True) -> list[int]:
        """The ids of a text; with `allow_special=False` special tokens in it are ordinary text."""
        try:
            parts = self._divider.split(text) if allow_special and self._divider else [text]
            ids: list[int] = []
            for i, part in enumerate(parts):
                if i % 2:
                    ids.append(self.special_tokens[part])
                elif part:
                    words = pretokenize.split(part, self.pattern)
                    ids.extend(chain.from_iterable(map(self._words.__getitem__, words)))
            return ids
        except UnicodeEncodeError:
            require_encodable(text)
            raise

    def encode_iterable(self, chunks: Iterable[str]) -> Iterator[int]:
        """The ids of the joined chunks, lazily: the same as `encode` gives for the whole text.

        About 64 thousand characters are encoded at a time, or a longer word. A single word of more
        than 16,777,216 (`pretokenize.LONGEST_WORD`) raises `ValueError`; only `encode` takes it.
        """
        for piece in pretokenize.safe_pieces(chunks, tuple(self.special_tokens), self.pattern):
            yield from self.encode(piece)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD, the replacement character.

        An unknown id raises `ValueError`.
        """
        try:
            data = b"".join(map(self._bytes.__getitem__, map(operator.index, ids)))
        except KeyError as error:
            raise unknown_id(error.args[0], self.vocab_size) from None
        return data.decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes that one id stands for, not always whole characters."""
        try:
            return self._bytes[operator.index(id)]
        except KeyError:
            raise unknown_id(id, self.vocab_size) from None

    def fingerprint(self) -> str:
        """sha256 of pattern, vocabulary, merges and special tokens."""
        content = {
            "pattern": self.pattern,
            "vocab": sorted((id, token.hex()) for token, id in self.vocab.items()),
            "merges": [(left.hex(), right.hex()) for left, right in self.merges],
            "special_tokens": sorted((id, token) for token, id in self.special_tokens.items()),
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def save(self, folder: Path | str) -> None:
        """Write ``vocab.json`` and ``merges.txt`` as GPT-2 has them."""
        if self.pattern != GPT2_PATTERN:
            raise ValueError(
                "GPT-2's files have no place for another pattern than GPT-2's: "
                "save `fast.to_tokenizers(tokenizer)` instead"
            )
        names = {id: printable(token) for token, id in self.vocab.items()}
        names |= {id: token for token, id in self.special_tokens.items()}
        vocab = json.dumps({names[id]: id for id in range(self.vocab_size)}, ensure_ascii=False)
        write_files(Path(folder), {VOCAB_FILE: vocab, MERGES_FILE: merges_text(self.merges)})


def _check(vocab: Mapping[bytes, int], merges: Sequence[Merge], special: Mapping[str, int]) -> None:
    """Raise `ValueError` unless the parts make one tokenizer."""
    names = made_by(merges)
    if missing := {bytes([byte]) for byte in range(256)} - set(vocab):
        raise ValueError(
            f"expected all 256 bytes in the vocabulary, found {256 - len(missing)} of them; "
            f"{min(missing)!r} is missing"
        )
    for left, right in merges:
        for part in (left, right, left + right):
            if part not in vocab:
                raise ValueError(
                    f"expected a vocabulary with all parts and results of the merges; {part!r} of "
                    f"the merge {left!r} + {right!r} is missing"
                )
    if len(set(merges)) < len(merges):
        raise ValueError("expected each merge once, found one twice")
    if unmade := set(vocab) - set(names.values()):
        raise ValueError(
            f"expected only bytes and merged tokens in the vocabulary, found {min(unmade)!r}, "
            "which no merge makes: is it a special token?"
        )
    for token in special:
        if token in names:
            raise ValueError(
                f"expected special tokens that differ from ordinary ones; {token!r} is the name of "
                f"{names[token]!r} in GPT-2's files: choose another, such as '<|{token}|>'"
            )
    ids = sorted([*vocab.values(), *special.values()])
    if ids != list(range(len(ids))):
        raise ValueError(
            f"expected the ids 0 to {len(ids) - 1}, each once, for {len(ids)} tokens; "
            f"found {ids[0]} to {ids[-1]} with gaps or repetitions"
        )
