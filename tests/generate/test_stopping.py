"""Texts that end a text: wherever they begin, however they fall into tokens, never half shown."""

import random

import pytest

from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.generate.speculative import speculative
from llmtutor.generate.stopping import StopTexts, TextStream
from llmtutor.tokenizer import BPETokenizer, CharTokenizer

PAIRS = BPETokenizer.train("the end of the bend is then the lend né€ " * 9, 275, ["<|end|>"])
LETTERS = BPETokenizer({bytes([b]): b for b in range(256)}, [])


def before(text: str, stops: list[str]) -> str:
    """Character after character: the text before the first stop text that is complete."""
    for end in range(len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)]
    return text


@pytest.mark.parametrize("tokenizer", [PAIRS, LETTERS], ids=["pairs", "bytes"])
def test_it_is_a_search_for_the_first_complete_stop_text(tokenizer) -> None:
    rng = random.Random(0)
    spanned = 0
    for _ in range(300):
        text = "".join(rng.choices(["the ", "end", "né", "€", " b", "l", "aa"], k=12))
        stops = [text[i : i + rng.randint(1, 5)] for i in rng.choices(range(len(text)), k=2)]
        stops.append(rng.choice(["never", "ab", "thx"]))
        rule, ids = StopTexts(tokenizer, stops), tokenizer.encode(text)
        want = before(text, stops)
        assert rule.cut(ids) == want
        # The row ends with the token that completes it, and not before.
        last = next(i for i in range(len(ids)) if rule(ids[: i + 1]))
        complete = tokenizer.decode(ids[: last + 1])
        assert any(stop in complete for stop in stops)
        assert not any(stop in tokenizer.decode(ids[:last]) for stop in stops)
        spanned += len(tokenizer.encode(complete[len(want) :])) > 1
        # Shown as it comes, and never more than stays.
        stream, shown = TextStream(rule), ""
        for id in ids[: last + 1]:
            shown += stream.add(id)
            assert want.startswith(shown)
        assert stream.stopped and shown + stream.end() == want and stream.add(ids[0]) == ""
    assert spanned > 100


def test_by_hand() -> None:
    rule = StopTexts(CharTokenizer("abcd"), ["bcd", "d"], ids=[0])
    stream = TextStream(rule)
    assert [stream.add(id) for id in (1, 2, 1, 2)] == ["", "", "bc", ""]
    assert stream.end() == "bc" and stream.end() == ""  # the text ended before the "d"
    assert rule.cut([1, 1, 2, 3, 1]) == "b"  # "bcd" and "d" are complete at once
    assert rule.cut([1, 2, 0]) == "bc" and rule([1, 2, 0]) and not rule([0, 1])


def test_a_character_in_several_tokens_is_held_back_until_it_is_whole() -> None:
    stream = TextStream(StopTexts(LETTERS, ["€x"]))
    shown = [stream.add(id) for id in "é€y€x".encode()]
    assert shown == ["", "é", "", "", "", "€y", "", "", "", ""]
    stream = TextStream(StopTexts(LETTERS, []))
    assert stream.add(0xE2) == "" and stream.end() == "\ufffd"


def test_texts_of_a_model_end_there_alone_in_a_batch_and_with_a_draft(make_model) -> None:
    model, settings = make_model(), {"max_new_tokens": 20, "sampler": Sampler(greedy=True)}
    tokenizer = CharTokenizer("abcdefghijklmnopqrst")
    whole = generate(model, [[3, 1, 2], [5]], **settings)
    stop = tokenizer.decode(whole[0][4:7])
    rule = StopTexts(tokenizer, [stop])
    cut = generate(model, [[3, 1, 2], [5]], stop=rule, **settings)
    text = tokenizer.decode(whole[0])
    assert cut[0] == whole[0][: text.index(stop) + 3] and len(cut[1]) >= len(cut[0])
    assert rule.cut(cut[0]) == text[: text.index(stop)]
    assert speculative(model, model, [3, 1, 2], stop=rule, **settings).ids == cut[0]


def test_bad_input() -> None:
    for texts, message in [
        ("end", r"must be a list of texts, got 'end'; write \['end'\]"),
        ([""], "one character at least, got ''"),
        ([3], "one character at least, got 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            StopTexts(LETTERS, texts)
