"""The recogniser against ``json.loads``: documents, their beginnings, and broken ones."""

import json
import random
from typing import Any

import pytest

from llmtutor.generate.grammar import COMPACT, START, closing, is_whole, read, step


def document(rng: random.Random, depth: int = 3) -> Any:
    kind = rng.choice(["text", "number", "word", *["list", "object"] * bool(depth)])
    if kind == "text":
        return "".join(rng.choices('ab"\\/\n\t é€\u2028🙂\ud7ff\ue000{}[],:0', k=rng.randint(0, 6)))
    if kind == "number":
        return rng.choice([0, -1, 10, 2.5, -0.0, 1e30, 3e-7, rng.randint(-999, 999)])
    if kind == "word":
        return rng.choice([True, False, None])
    parts = [document(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return parts if kind == "list" else {str(document(rng, 0)): part for part in parts}


def documents(n: int) -> list[bytes]:
    rng = random.Random(0)
    styles = [{}, {"indent": 1}, {"separators": (",", ":")}, {"separators": (" ,\t", "\r\n: ")}]
    return [
        json.dumps(document(rng), ensure_ascii=rng.random() < 0.3, **rng.choice(styles)).encode()
        for _ in range(n)
    ]


def accepts(data: bytes) -> bool:
    """RFC 8259 in UTF-8, which knows no NaN."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        json.loads(data.decode("utf-8"), parse_constant=refuse)
    except ValueError:
        return False
    return True


def test_every_beginning_of_json_is_accepted_and_can_be_closed() -> None:
    for data in documents(200):
        for end in range(len(data) + 1):
            state = read(data[:end])
            assert state is not None, data[:end]
            assert accepts(data[:end] + closing(state)), (data[:end], closing(state))
            assert is_whole(state) == accepts(data[:end])


def test_what_is_broken_is_refused_or_not_whole() -> None:
    rng, refused = random.Random(1), 0
    signs = b'{}[]",:-0 1.eE+\\utn\x01\x7f\x80\xa0\xc0\xe0\xed\xf4\xff'
    for data in documents(300):
        for _ in range(20):
            place = rng.randrange(len(data) + 1)
            more = bytes(rng.choices(signs, k=rng.randint(0, 2)))
            broken = data[:place] + more + data[place + rng.randint(0, 2) :]
            state = read(broken)
            assert (state is not None and is_whole(state)) == accepts(broken), broken
            refused += state is None
    assert refused > 1000


@pytest.mark.parametrize(
    "text", ["01", "-", "+1", "1.", ".5", "1e", "[1,]", '{"a":1,}', "{1:2}", "'a'", "NaN", "[1 2]"]
)
def test_by_hand_no_json(text: str) -> None:
    state = read(text.encode())
    assert state is None or not is_whole(state)


def test_a_closing_is_the_shortest_there_is() -> None:
    """Breadth first: nothing shorter makes it whole."""
    signs = b'{}[]":,0ntruefals\\\x80'
    for text in ("", "[", '{"', '{"a', '{"a"', "tr", "-", "1.", '"\\', '"\\u1', '{"a":1,', "[[{"):
        state = read(text.encode())
        level, steps = {state}, 0
        while not any(is_whole(one) for one in level):
            found = {step(one, byte) for one in level for byte in signs}
            level, steps = found - {None}, steps + 1
        assert steps == len(closing(state)), text


def test_compact_is_json_with_a_space_at_most() -> None:
    for data in documents(200):
        plain = json.loads(data)
        for separators in ((",", ":"), (", ", ": ")):
            text = json.dumps(plain, separators=separators, ensure_ascii=False).encode()
            assert is_whole(read(text, START, COMPACT) or "V")
    for text in (" 1", "1 ", "[ 1]", "[1,  2]", '{"a" :1}', '{"a":\n1}'):
        assert read(text.encode()) is not None and read(text.encode(), START, COMPACT) is None
