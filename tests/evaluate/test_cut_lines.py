"""Cut lines: where they are cut, that wrong endings are others', that a seed repeats them."""

import pytest

from llmtutor.evaluate.tasks.cut_lines import cut_lines, line_questions

PLAY = """\
HAMLET.
To be, or not to be: that is the question:
[Exit all the men that were on the stage]

Too short a line
And by opposing end them? To die: to sleep
No more; and by a sleep to say we end
"""


def test_lines_that_follow_another_are_cut_in_the_middle() -> None:
    assert cut_lines(PLAY) == [
        ("HAMLET.\nTo be, or not to", "be: that is the question:"),
        ("Too short a line\nAnd by opposing end", "them? To die: to sleep"),
        ("And by opposing end them? To die: to sleep\nNo more; and by a", "sleep to say we end"),
    ]


def test_the_right_ending_stands_among_those_of_other_lines() -> None:
    work = "\n".join(f"once upon a {i} there was number {i}" for i in range(40))
    items = line_questions([work], 20)
    assert items == line_questions([work], 20) != line_questions([work], 20, seed=1)
    assert len({item.contexts[0] for item in items}) == 20
    for item in items:
        number = item.contexts[0].split()[-1]
        assert len(item.answers) == 4
        assert item.answers[item.gold] == f"there was number {number}"
    assert len({item.gold for item in items}) == 4
    with pytest.raises(ValueError, match="at least 4 lines to cut, got 3"):
        line_questions([PLAY], 4)


def test_a_wrong_answer_is_never_the_right_one_again() -> None:
    work = "\n".join(f"once upon a {i} there was number {i % 4}" for i in range(40))
    for item in line_questions([work], 39):
        assert item.answers.count(item.answers[item.gold]) == 1
    alike = "\n".join(f"once upon a {i} there was number {i % 3}" for i in range(40))
    with pytest.raises(ValueError, match="at least 4 different ends, got 3"):
        line_questions([alike], 1)
