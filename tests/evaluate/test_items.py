"""Items: requests, solved texts, examples before them, fingerprints."""

import pytest

from llmtutor.evaluate.items import Item, choice, fingerprint, first_of_each, with_examples


def test_where_the_answers_stand() -> None:
    behind = choice("Water is", ["wet", "dry"], 0)
    assert behind.requests == [("Water is", " wet"), ("Water is", " dry")]
    assert behind.solved == "Water is wet" and behind.chance == 0.5
    within = Item(("the cup", "the jug"), ("is small", "is small"), 1)
    assert within.requests[1] == ("the jug", " is small") and within.solved == "the jug is small"
    alone = choice("", ["He left.", "Left he."], 0)
    assert alone.requests[0] == ("", " He left.") and alone.solved == "He left."


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (((), (), 0), "expected a context for each answer"),
        ((("a",), ("b", "c"), 0), "got 1 contexts for the answers"),
        ((("a", "a"), ("b", ""), 0), "no empty answer"),
        ((("a",), ("b",), 1), "place from 0 to 0, got 1"),
    ],
)
def test_what_is_no_question_is_refused(parts: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Item(*parts)


def test_examples_are_others_solved_and_no_item_sees_itself() -> None:
    items = [choice(f"q{i}:", [f"right{i}", f"wrong{i}"], 0) for i in range(5)]
    shown = with_examples(items, 2, seed=3)
    assert shown == with_examples(items, 2, seed=3) != with_examples(items, 2, seed=4)
    for i, item in enumerate(shown):
        first, second, own = item.contexts[0].split("\n\n")
        assert own == f"q{i}:" and first != second
        assert {first, second} <= {other.solved for j, other in enumerate(items) if j != i}
        assert item.answers == items[i].answers
    assert with_examples(items, 0) == items
    for n in (-1, 5):
        with pytest.raises(ValueError, match="expected 0 to 4 examples of 5 items"):
            with_examples(items, n)
    with pytest.raises(ValueError, match="some items have none"):
        with_examples([choice("", ["a", "b"], 0)] * 2, 1)


def test_the_first_of_each_group_and_a_name_for_what_was_asked() -> None:
    items = [choice("", [f"a{i}", "b"], 0, group) for i, group in enumerate("xxyxyy")]
    assert [item.answers[0] for item in first_of_each(items, 2)] == ["a0", "a1", "a2", "a4"]
    assert fingerprint(items) == fingerprint(list(items)) != fingerprint(items[1:])
    assert fingerprint([choice("", ["a", "b"], 0)]) != fingerprint([choice("", ["a", "b"], 1)])
