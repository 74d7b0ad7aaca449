"""Chapter 01, step 8: trade tokenizers with the Rust library `tokenizers`."""

import json
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from llmtutor.tokenizer.bpe import BPETokenizer
from llmtutor.tokenizer.files import made_by, printable, unprintable
from llmtutor.tokenizer.pretokenize import GPT2_PATTERN


def to_tokenizers(tokenizer: BPETokenizer) -> tokenizers.Tokenizer:
    """The same tokenizer for the Rust library: same ids, and the same text back.

    >>> rust = to_tokenizers(BPETokenizer.train("low lower", 258))
    >>> rust.encode("lower").tokens
    ['low', 'e', 'r']
    """
    vocab = {printable(token): id for token, id in tokenizer.vocab.items()}
    vocab |= tokenizer.special_tokens
    merges = [(printable(left), printable(right)) for left, right in tokenizer.merges]
    rust = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    gpt2 = tokenizer.pattern == GPT2_PATTERN
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=gpt2)
    if gpt2:
        rust.pre_tokenizer = byte_level
    else:
        words = pre_tokenizers.Split(Regex(tokenizer.pattern), behavior="isolated")
        rust.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    rust.decoder = decoders.ByteLevel()
    by_id = sorted(tokenizer.special_tokens, key=tokenizer.special_tokens.__getitem__)
    rust.add_special_tokens([AddedToken(token, normalized=False) for token in by_id])
    return rust


def from_tokenizers(rust: tokenizers.Tokenizer) -> BPETokenizer:
    """Our tokenizer from a byte-level BPE of the Rust library.

    `ValueError` names what we have no counterpart for (a normaliser, another model, …) rather
    than to give a tokenizer with other ids.
    """
    state = json.loads(rust.to_str())
    model, added = state["model"], state["added_tokens"]
    _require(model["type"] == "BPE", f"a BPE model, found {model['type']}")
    for option in (
        "dropout",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "byte_fallback",
        "ignore_merges",
    ):
        _require(not model.get(option), f"a BPE model without {option}")
    _require(state["normalizer"] is None, "no normaliser, which would change the text")
    post = (state["post_processor"] or {}).get("type", "ByteLevel")
    _require(post == "ByteLevel", f"no post-processor that adds tokens, found {post}")
    for token in added:
        for option in ("single_word", "lstrip", "rstrip"):
            _require(not token[option], f"no special token with {option}, as {token['content']!r}")
    pairs = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]]
    merges = [(unprintable(left), unprintable(right)) for left, right in pairs]
    made = made_by(merges)
    special = {token["content"]: token["id"] for token in added}
    others = [name for name in model["vocab"] if name not in made and name not in special]
    _require(not others, f"all tokens made by merges or added as special, unlike {others[:1]}")
    vocab = {made[name]: id for name, id in model["vocab"].items() if name in made}
    return BPETokenizer(vocab, merges, special, _pattern(state["pre_tokenizer"]))


def _pattern(state: dict[str, Any] | None) -> str:
    """The pattern of words of a byte-level pre-tokenizer's state."""
    steps = (state or {}).get("pretokenizers", [state])
    last = steps[-1] or {"type": "none"}
    _require(last["type"] == "ByteLevel", f"a byte-level pre-tokenizer, found {last['type']}")
    _require(not last["add_prefix_space"], "add_prefix_space=False: it would change the text")
    if len(steps) == 1:
        _require(last["use_regex"], "a pre-tokenizer that cuts the text into words")
        return GPT2_PATTERN
    first = steps[0]
    usable = (
        len(steps) == 2
        and first["type"] == "Split"
        and "Regex" in first["pattern"]
        and (first["behavior"], first["invert"], last["use_regex"]) == ("Isolated", False, False)
    )
    _require(usable, "one Split by a regex (isolated) and then ByteLevel(use_regex=False)")
    return str(first["pattern"]["Regex"])


def _require(condition: bool, expected: str) -> None:
    if not condition:
        raise ValueError(f"expected a tokenizer that BPETokenizer can equal: {expected}")
