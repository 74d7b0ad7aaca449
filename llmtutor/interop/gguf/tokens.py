"""Chapter 23, export: the tokenizer inside of a GGUF file, so that text goes in and comes out.

Two kinds of llama.cpp's are ours as well: ``gpt2``, byte pairs with the merges in their order, and
``llama``, SentencePiece's pieces with a score each. In both every id has a text and a type.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

from llmtutor.data.readers import END_OF_TEXT
from llmtutor.interop.gguf.container import Value
from llmtutor.interop.hf.tokenizer import HFTokenizer
from llmtutor.interop.llama2c_tokenizer import BOS, EOS, FIRST_BYTE, Llama2cTokenizer
from llmtutor.tokenizer import BPETokenizer, Tokenizer
from llmtutor.tokenizer.files import made_by, printable, unprintable
from llmtutor.tokenizer.pretokenize import GPT2_PATTERN

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens."""
SPACE = "▁"
"""What stands for a space in the pieces of SentencePiece."""
PREFIX = "tokenizer.ggml."


def tokenizer_to_facts(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Value]:
    """What a file says of a tokenizer; a model with more ids than it gets unused ones.

    Raises:
        ValueError: a tokenizer that llama.cpp cannot equal, or more ids than the model's.
    """
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model {vocab_size}: are they of "
            "the same run?"
        )
    if isinstance(tokenizer, HFTokenizer):
        tokenizer = tokenizer.as_bpe()
    if isinstance(tokenizer, BPETokenizer):
        facts = _bpe_facts(tokenizer)
    elif isinstance(tokenizer, Llama2cTokenizer):
        facts = _pieces_facts(tokenizer)
    else:
        raise ValueError(
            f"GGUF has no form for a {type(tokenizer).__name__}, only for byte pairs and for "
            "pieces with scores; train with `llmtutor tokenizer train --kind bpe`"
        )
    unused: dict[str, Any] = {"tokens": "[PAD{}]", "token_type": UNUSED, "scores": 0.0}
    for name, value in unused.items():
        if isinstance(listed := facts.get(name), list):
            ids = range(len(listed), vocab_size)
            listed += [value.format(id) if isinstance(value, str) else value for id in ids]
    return {PREFIX + name: value for name, value in facts.items()}


def _bpe_facts(tokenizer: BPETokenizer) -> dict[str, Any]:
    if tokenizer.pattern != GPT2_PATTERN:
        raise ValueError(
            f"llama.cpp cuts words as GPT-2 does ({GPT2_PATTERN}), this tokenizer does so by "
            f"{tokenizer.pattern}"
        )
    special = tokenizer.special_tokens
    for one, other in permutations(special, 2):
        ends = (one[-n:] for n in range(1, len(one)))
        if len(one) <= len(other) and any(map(other.startswith, ends)):
            raise ValueError(
                f"the special tokens {one!r} and {other!r} overlap: llama.cpp takes the longer one "
                "where they meet, we take the first; rename one of them"
            )
    names = {id: printable(token) for token, id in tokenizer.vocab.items()}
    names |= {id: token for token, id in special.items()}
    # llama.cpp knows no text without an end: without one, it is the zero byte, which no text holds.
    end = special.get(END_OF_TEXT, tokenizer.vocab[b"\0"])
    return {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": [names[id] for id in range(tokenizer.vocab_size)],
        "token_type": [
            CONTROL if names[id] in special else NORMAL for id in range(tokenizer.vocab_size)
        ],
        "merges": [f"{printable(left)} {printable(right)}" for left, right in tokenizer.merges],
        "bos_token_id": end,
        "eos_token_id": end,
        "add_bos_token": False,
        "add_space_prefix": False,
    }


def _pieces_facts(tokenizer: Llama2cTokenizer) -> dict[str, Any]:
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += [
        piece.decode("utf-8").replace(" ", SPACE) for piece, _ in tokenizer.pieces[len(names) :]
    ]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"llama.cpp wants each piece once, {twice[0]!r} is there twice")
    types = [UNKNOWN, CONTROL, CONTROL, *(256 * [BYTE])]
    return {
        "model": "llama",
        "pre": "default",
        "tokens": names,
        "scores": [score for _, score in tokenizer.pieces],
        "token_type": types + (len(names) - len(types)) * [NORMAL],
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "unknown_token_id": 0,
        "add_bos_token": True,
        "add_space_prefix": True,
    }


def tokenizer_from_facts(facts: Mapping[str, Value], where: str) -> Tokenizer:
    """The tokenizer in a file, whose name is ``where``.

    Raises:
        ValueError: one that we do not have, or a damaged one.
    """
    given: dict[str, Any] = {
        name.removeprefix(PREFIX): value for name, value in facts.items() if PREFIX in name
    }
    kind, pre = given.get("model"), given.get("pre")
    try:
        tokens = list(_tokens(given))
        if (kind, pre) == ("gpt2", "gpt-2"):
            return _read_bpe(tokens, given.get("merges", []))
        if kind == "llama":
            return _read_pieces(tokens, given.get("scores", []))
    except ValueError as error:
        raise ValueError(f"{where}: its tokenizer: {error}") from None
    raise ValueError(
        f"{where}: its tokenizer is {kind!r} with words cut as {pre!r}; we read 'gpt2' with "
        "'gpt-2', and 'llama'"
    )


def _tokens(given: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Text and type of each id, without the unused at the end."""
    tokens, types = given.get("tokens"), given.get("token_type")
    if not isinstance(tokens, list) or not isinstance(types, list) or len(tokens) != len(types):
        raise ValueError("expected as many tokens as token_type, one of each for each id")
    while types and types[-1] == UNUSED:
        types = types[:-1]
    yield from zip(tokens, types, strict=False)


def _read_bpe(tokens: list[tuple[str, int]], lines: list[str]) -> BPETokenizer:
    merges = []
    for line in lines:
        left, _, right = line.partition(" ")
        merges.append((unprintable(left), unprintable(right)))
    made = made_by(merges)
    vocab: dict[bytes, int] = {}
    special: dict[str, int] = {}
    for id, (text, kind) in enumerate(tokens):
        if kind in (CONTROL, USER_DEFINED):
            special[text] = id
        elif text in made:
            vocab[made[text]] = id
        else:
            raise ValueError(f"no merge makes {text!r}")
    return BPETokenizer(vocab, merges, special)


def _read_pieces(tokens: list[tuple[str, int]], scores: list[float]) -> Llama2cTokenizer:
    fixed = Llama2cTokenizer.FIXED
    names = [text for text, _ in tokens]
    expected = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    if names[: len(fixed)] != expected or len(expected) != FIRST_BYTE + 256:
        raise ValueError("expected <unk>, <s>, </s> and 256 bytes first")
    if len(scores) < len(names):
        raise ValueError(f"{len(scores)} scores for {len(names)} pieces")
    pieces = [
        (text.replace(SPACE, " ").encode("utf-8"), s)
        for text, s in zip(names, scores, strict=False)
    ]
    return Llama2cTokenizer([*fixed, *pieces[len(fixed) :]])
