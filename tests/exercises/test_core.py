"""The checker itself: everything a learner may hand over ends in a sentence, never a traceback."""

import random
import subprocess
import sys
import textwrap
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

import llmtutor.exercises as room
from llmtutor.exercises import Exercise, Property, Wrong, check, examine, find

OVERLAP = "Pairs overlap: this takes every second position only."
SORTED = "The order of the tokens matters and this sorts them."
FIRST = "This counts the first pair only."
CHANGED = "The input list comes back changed: the caller still needs it."


def count_pairs(ids):
    return Counter(pairwise(ids))


def every_second(ids):
    return Counter(zip(ids[::2], ids[1::2], strict=False))


def in_order(ids):
    return count_pairs(sorted(ids))


def first_only(ids):
    return Counter([tuple(ids[:2])])


def cases():
    yield ([1, 2, 3, 1, 2],)
    yield ([5, 5, 5, 5],)
    yield ([2, 1],)


def exercise(**changes) -> Exercise:
    fields = {
        "name": "demo.count_pairs",
        "cases": cases,
        "reference": count_pairs,
        "wrong": [Wrong(every_second, OVERLAP), Wrong(in_order, SORTED), Wrong(first_only, FIRST)],
    }
    return Exercise(**{**fields, **changes})


def said(answer, **changes) -> str:
    return examine(exercise(**changes), answer).message


def test_a_right_answer_of_another_form_is_accepted() -> None:
    def plain(ids):
        counts = {}
        for i in range(len(ids) - 1):
            pair = (ids[i], ids[i + 1])
            counts[pair] = counts.get(pair, 0) + 1
        return counts

    assert said(plain) == "demo.count_pairs: accepted (3 cases)"


def test_the_whole_message_of_a_known_mistake() -> None:
    assert said(every_second) == textwrap.dedent(
        """\
        demo.count_pairs: not right yet
          input:     ids = [1, 2, 3, 1, 2]
          expected:  {(1, 2): 2, (2, 3): 1, (3, 1): 1}
          received:  {(1, 2): 1, (3, 1): 1}
          because:   at [(1, 2)]: expected 2, received 1
          Pairs overlap: this takes every second position only."""
    )


def test_a_mistake_is_recognised_by_what_it_does_not_by_its_text() -> None:
    def also_every_second(ids):
        counts = Counter()
        while len(ids) > 1:
            counts[ids.pop(0), ids.pop(0)] += 1
        return dict(counts)

    assert examine(exercise(), also_every_second).misconception == OVERLAP
    assert examine(exercise(mutation=CHANGED), also_every_second).misconception == ""


def test_an_unknown_mistake_gets_no_misconception() -> None:
    verdict = examine(exercise(), lambda ids: {})
    assert verdict.outcome == "rejected"
    assert verdict.misconception == ""
    assert "received:  {}" in verdict.message


def test_the_first_failing_case_is_shown() -> None:
    def fails_on_the_second(ids):
        return count_pairs(ids) if ids[0] != 5 else Counter()

    assert "ids = [5, 5, 5, 5]" in said(fails_on_the_second)


def test_an_exception_shows_input_kind_and_line_and_no_traceback() -> None:
    def forgets(ids):
        counts = {}
        for pair in pairwise(ids):
            counts[pair] += 1
        return counts

    message = said(forgets)
    assert "failed:    KeyError: (1, 2)" in message
    assert "in:        counts[pair] += 1" in message
    assert "Traceback" not in message


def test_an_exception_in_a_library_shows_the_line_that_called_it() -> None:
    def asks_too_much(ids):
        total = 1
        return np.reshape(np.asarray(ids), (7, total))

    assert "in:        return np.reshape(np.asarray(ids), (7, total))" in said(asks_too_much)


@pytest.mark.parametrize("error", [SystemExit(3), RecursionError("deep"), AssertionError()])
def test_any_exception_is_caught(error: BaseException) -> None:
    def raises(ids):
        raise error

    assert f"failed:    {type(error).__name__}" in said(raises)


def test_an_interrupt_is_not_caught_and_output_is_restored(capsys) -> None:
    def interrupted(ids):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine(exercise(), interrupted)
    print("heard")
    assert capsys.readouterr().out == "heard\n"


def test_wrong_number_of_arguments() -> None:
    assert "it is called with 1 argument and takes (a, b)" in said(lambda a, b: {})
    assert "it is called with 1 argument and takes ()" in said(lambda: {})  # noqa: PIE807


def test_wrong_type_is_named() -> None:
    message = said(lambda ids: list(count_pairs(ids).items()))
    assert "because:   expected a dict, received a list" in message


def test_a_result_instead_of_the_function() -> None:
    message = said(count_pairs([1, 2]))
    assert "expected a function, received a dict" in message
    assert "without calling it" in message


def test_printing_instead_of_returning() -> None:
    assert "`return`, not `print`" in said(lambda ids: print(count_pairs(ids)))


def test_what_was_printed_in_the_failing_case_is_shown_and_nothing_else_is(capsys) -> None:
    def talks(ids):
        print("looking at", ids[0])
        return {}

    assert "printed:   'looking at 1\\n'" in said(talks)
    assert capsys.readouterr() == ("", "")


def test_changing_the_input_is_allowed_unless_the_exercise_says_no() -> None:
    def empties(ids):
        counts = count_pairs(ids)
        ids.clear()
        return counts

    assert examine(exercise(), empties).accepted
    verdict = examine(exercise(mutation=CHANGED), empties)
    assert verdict.misconception == CHANGED
    assert verdict.message.count(CHANGED[:40]) == 1
    assert examine(exercise(mutation=CHANGED), count_pairs).accepted


def test_no_call_sees_what_another_did_to_its_input() -> None:
    shared = [1, 2, 3, 1, 2]

    def empties(ids):
        ids.clear()
        return {}

    one = exercise(cases=lambda: [(shared,), (shared,)])
    assert "ids = [1, 2, 3, 1, 2]" in examine(one, empties).message
    assert shared == [1, 2, 3, 1, 2]


def test_a_value_changed_by_a_later_call_is_judged_as_it_was() -> None:
    def remembers(ids, seen=[]):  # noqa: B006
        seen.append(len(ids))
        return seen

    lengths = exercise(reference=lambda ids: [len(ids)], wrong=[])
    message = examine(lengths, remembers).message
    assert "ids = [5, 5, 5, 5]" in message
    assert "received:  [5, 4]" in message


def test_blanks_in_a_given_text_are_not_attempted() -> None:
    def with_blanks(ids):
        counts = Counter()
        for i in range(len(ids) - 1):
            counts[ids[i], ids[i + ...]] += 1
        return counts

    def half(ids):
        counts = {}
        return counts, ...

    assert said(with_blanks) == "demo.count_pairs: not attempted yet"
    assert "not attempted" not in said(half)


def test_a_misspelt_name_in_an_attempt_is_not_taken_for_a_stub() -> None:
    def misspelt(ids):
        return Conter(ids)

    assert "failed:    NameError" in said(misspelt)


def test_none_is_an_attempt_where_the_reference_returns_it_too() -> None:
    def find_pair(ids):
        return 0 if ids[0] == 5 else None

    one = exercise(reference=find_pair, wrong=[])
    assert examine(one, find_pair).accepted
    assert examine(one, lambda ids: None).outcome == "not attempted"
    assert examine(one, lambda ids: 1).outcome == "rejected"


def test_a_plain_value_may_answer_where_there_are_no_arguments() -> None:
    one = exercise(cases=lambda: [()], reference=lambda: 3.5, wrong=[])
    assert examine(one, 3.5).accepted
    assert "expected:  3.5\n  received:  4.0" in examine(one, 4.0).message


def test_a_property_is_told_before_the_value() -> None:
    total = Property(
        "the counts sum to len(ids) - 1", lambda out, ids: sum(out.values()) == len(ids) - 1
    )
    message = said(lambda ids: {(1, 2): 1}, properties=[total])
    assert "because:   This must hold: the counts sum to len(ids) - 1" in message
    assert "This must hold" in said(lambda ids: 7, properties=[total])  # holds() cannot take it
    assert examine(exercise(properties=[total]), count_pairs).accepted


def test_an_own_same_and_properties_allow_several_right_answers() -> None:
    def root(x):
        return x**0.5

    one = Exercise(
        name="demo.root",
        cases=lambda: [(4.0,), (9.0,)],
        reference=root,
        wrong=[Wrong(lambda x: x / 2, "Half is not the root."), Wrong(lambda x: x, "No change.")],
        same=lambda expected, received: True,
        properties=[Property("its square is x", lambda y, x: abs(y * y - x) < 1e-9)],
    )
    assert examine(one, lambda x: -(x**0.5)).accepted
    assert examine(one, lambda x: x / 2).misconception == "Half is not the root."
    assert examine(one, lambda x: x + 0).misconception == "No change."


def test_random_numbers_are_the_same_in_every_run_and_states_are_left_alone() -> None:
    def draws(ids):
        return random.random(), float(np.random.rand()), float(torch.rand(1)), len(ids)

    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    messages = set()
    for seed in (1, 2):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        before = states()
        messages.add(said(draws))
        assert states() == before
    assert len(messages) == 1


def test_generators_go_in_and_come_out() -> None:
    def doubled(chunks):
        for chunk in chunks:
            yield 2 * chunk

    one = exercise(
        cases=lambda: [((c for c in "ab"),), ((c for c in "xyz"),)], reference=doubled, wrong=[]
    )
    assert examine(one, doubled).accepted
    assert examine(one, lambda chunks: [2 * c for c in chunks]).accepted
    message = examine(one, lambda chunks: (c for c in chunks)).message
    assert "chunks = <generator>" in message
    assert "because:   at [0]: expected 'aa', received 'a'" in message


def test_an_endless_generator_is_cut() -> None:
    def endless(ids):
        while True:
            yield 1

    assert "(100,000 items)" in said(endless)


def test_long_values_are_shortened_and_lines_stay_short() -> None:
    long = exercise(cases=lambda: [(list(range(10_000)),), ([1, 2],)])
    message = examine(long, lambda ids: dict.fromkeys(range(3000), "x" * 500)).message
    assert "… (10,000 items)" in message
    assert max(map(len, message.splitlines())) <= 88
    assert len(message) < 1000


def test_warnings_stay_out_of_the_notebook(recwarn) -> None:
    assert said(lambda ids: np.log(np.zeros(1))) and not recwarn.list


def test_an_exercise_without_cases_or_with_bare_arguments_is_refused() -> None:
    with pytest.raises(ValueError, match="no cases"):
        said(count_pairs, cases=list)
    with pytest.raises(ValueError, match="tuple of arguments"):
        said(count_pairs, cases=lambda: [[1, 2]])


def test_unknown_name_suggests_the_nearest(monkeypatch) -> None:
    monkeypatch.setattr(room, "chapters", lambda: ["demo"])
    monkeypatch.setattr(room, "exercises", lambda chapter: [exercise()])
    assert find("demo.count_pairs").reference is count_pairs
    with pytest.raises(ValueError, match=r"did you mean 'demo\.count_pairs'"):
        find("demo.count_pair")
    with pytest.raises(ValueError, match=r"there are: demo\.count_pairs"):
        check("zzz", None)


def test_only_the_chapter_asked_for_is_imported_and_torch_where_it_needs_it() -> None:
    code = """if True:
        import sys, llmtutor.exercises as room
        room.exercises("tokenizer")
        chapters = {f"{room.__name__}.{chapter}" for chapter in room.chapters()}
        assert chapters & set(sys.modules) == {f"{room.__name__}.tokenizer"}
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_verdict_is_silent_in_a_notebook(capsys) -> None:
    from IPython.core.formatters import DisplayFormatter

    assert DisplayFormatter().format(examine(exercise(), count_pairs)) == ({}, {})
    assert capsys.readouterr().out == ""
