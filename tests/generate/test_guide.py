"""A random model that is guided writes JSON, whatever room it has."""

import json

import pytest
import torch

from llmtutor.generate.generate import generate
from llmtutor.generate.grammar import COMPACT, closing, read
from llmtutor.generate.guide import JSONGuide
from llmtutor.generate.sampling import Sampler
from llmtutor.tokenizer import BPETokenizer, CharTokenizer

TEXT = '{"name": "né €", "n": [10, 2.5e3, true, false, null], "in": {"": ""}} ' * 9
PAIRS = BPETokenizer.train(TEXT, 330, ["<|end|>"])
END = PAIRS.special_tokens["<|end|>"]
LETTERS = CharTokenizer("".join(sorted({*TEXT})))


def texts(make_model, tokenizer, guide, n: int, **settings) -> list[str]:
    """Of rows of a batch, from a model that has opinions."""
    vocab_size = tokenizer.vocab_size + 3
    model = make_model(vocab_size=vocab_size, max_seq_len=128)
    made = generate(
        model,
        [[1]] * n,
        guide=guide,
        n_ids=tokenizer.vocab_size,
        generator=torch.Generator().manual_seed(0),
        **settings,
    )
    return [tokenizer.decode(id for id in row if id != END or tokenizer is LETTERS) for row in made]


@pytest.mark.parametrize("tokenizer", [PAIRS, LETTERS], ids=["pairs", "letters"])
@pytest.mark.parametrize("room", [1, 2, 3, 7, 40])
def test_a_random_model_writes_json_within_its_room(make_model, tokenizer, room: int) -> None:
    guide = JSONGuide(tokenizer, [END] if tokenizer is PAIRS else [])
    kinds = set()
    for sampler in (Sampler(temperature=40.0), Sampler(greedy=True), Sampler(top_k=2)):
        settings = {"max_new_tokens": room, "sampler": sampler}
        for text in texts(make_model, tokenizer, guide, 12, **settings):
            kinds.add(type(json.loads(text)))
    assert len(kinds) > (room > 2)


def test_what_the_prompt_has_begun_is_ended(make_model) -> None:
    for begun in ("{", '{"n": [1,', '"né', "[[[[[["):
        guide = JSONGuide(PAIRS, [END], begun=begun)
        for text in texts(make_model, PAIRS, guide, 8, max_new_tokens=12, sampler=Sampler()):
            json.loads(begun + text)


@pytest.mark.parametrize("begun", ["", "{", '{"name": ', "[1, ", '"a', "[tr", '{"n', "-", "2.5"])
def test_the_allowed_tokens_are_those_behind_which_json_can_end(begun: str) -> None:
    """Each token by itself, without the tree: by the recogniser, and by what the text becomes."""
    guide = JSONGuide(PAIRS, [END], begun=begun)
    for left in (0, 1, 2, 5):
        allowed = guide.allowed(guide.start, left)
        for id in range(PAIRS.vocab_size - 1):
            data = begun.encode() + PAIRS.token_bytes(id)
            state = read(data, rules=COMPACT)
            assert bool(allowed[id]) == (state is not None and len(closing(state)) <= left)
            if allowed[id]:
                json.loads((data + closing(state)).decode())
        assert bool(allowed[END]) == (begun == "2.5")


def test_the_signs_of_another_language_are_no_json() -> None:
    with pytest.raises(ValueError, match=r"has none for \{ \} \[ \] \" 0: take one of byte pairs"):
        JSONGuide(CharTokenizer("abc:,"))
    with pytest.raises(ValueError, match=r"begun must be the beginning of .* got '\[1,,"):
        JSONGuide(PAIRS, begun="[1,,")


def test_too_little_room_and_another_vocabulary_are_refused(make_model) -> None:
    guide = JSONGuide(PAIRS, begun='{"a": [[')
    with pytest.raises(ValueError, match=r"whole within 2 more: raise max_new_tokens"):
        texts(make_model, PAIRS, guide, 1, max_new_tokens=2, sampler=Sampler())
    with pytest.raises(ValueError, match=r"knows 293 tokens and the logits are of \d+: give n_ids"):
        texts(make_model, LETTERS, guide, 1, max_new_tokens=9, sampler=Sampler())
