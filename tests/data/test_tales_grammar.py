"""The grammar engine against a brute-force reading of the rules, in exact fractions."""

import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice, pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmtutor.data.tales.analysis import conflicts, entropy, n_derivations, total_prob
from llmtutor.data.tales.grammar import Grammar, total_log_prob
from llmtutor.data.tales.rules import (
    Rule,
    definite,
    mostly,
    one_of,
    ranked,
    settled,
    weighted,
)
from llmtutor.data.tales.rules import given as given_rule

DRINKS = {
    "who": one_of("Ann", "Bob"),
    "like": given_rule("who", {"Ann": {"tea": 3, "milk": 1}, "Bob": {"tea": 1, "milk": 4}}),
    "mood": weighted({" How {who} smiled!": 2, " Lovely {like}.": 1}),
    "text": one_of("{who} drinks {like}.{mood}"),
}


def enumerate_texts(rules: dict[str, Rule], start: str) -> Iterator[tuple[str, Fraction]]:
    """All derivations, one by one: rewrite the leftmost brace until none is left."""
    todo = [(f"{{{start}}}", {}, Fraction(1))]
    while todo:
        text, memory, prob = todo.pop()
        if "{" not in text:
            yield text, prob
            continue
        before, after = text.split("{", 1)
        symbol, after = after.split("}", 1)
        if symbol in memory:
            todo.append((before + memory[symbol] + after, memory, prob))
            continue
        rule = rules[symbol]
        weights = rule.tables[memory[rule.parent] if rule.parent else ""]
        for template, weight in weights.items():
            share = prob * Fraction(weight, sum(weights.values()))
            todo.append((before + template + after, {**memory, symbol: template}, share))


def exact_entropy(probs: list[Fraction]) -> float:
    return -math.fsum(float(p) * math.log(p) for p in probs)


def test_by_hand():
    grammar = Grammar(DRINKS, "text")
    (choices,) = grammar.parses("Bob drinks milk. Lovely milk.")
    assert [(c.symbol, c.template, c.prob) for c in choices] == [
        ("who", "Bob", 1 / 2),
        ("like", "milk", 4 / 5),
        ("mood", " Lovely {like}.", 1 / 3),
    ]
    assert total_log_prob(choices) == pytest.approx(math.log(2 / 15), abs=1e-15)
    assert n_derivations(grammar) == 8
    h = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (1 / 2, 3 / 4, 4 / 5, 2 / 3)]
    assert entropy(grammar) == pytest.approx(h[0] + (h[1] + h[2]) / 2 + h[3], abs=1e-14)


def test_a_settled_symbol_hands_on_what_decided_it():
    # s depends on q only by way of p, which is not yet written when the coin is thrown.
    rules = {
        "q": one_of("1", "2"),
        "coin": one_of("u", "v"),
        "p": settled("q", {"1": "a", "2": "b"}),
        "s": given_rule("p", {"a": {"x": 1, "y": 1}, "b": {"x": 1}}),
        "text": one_of("{q}{coin}{p}{s}"),
    }
    grammar = Grammar(rules, "text")
    assert n_derivations(grammar) == 6
    assert entropy(grammar) == pytest.approx(2.5 * math.log(2), abs=1e-14)


def test_memory_makes_the_second_mention_certain():
    grammar = Grammar(DRINKS, "text")
    assert grammar.parses("Bob drinks milk. Lovely tea.") == []
    assert grammar.parses("Bob drinks milk. How Ann smiled!") == []


def test_frequencies_follow_the_probabilities():
    n = 20_000
    drawn = [tale.text for tale in islice(Grammar(DRINKS, "text").tales(seed=1), n)]
    for text, p in enumerate_texts(DRINKS, "text"):
        assert abs(drawn.count(text) / n - p) < 4.5 * math.sqrt(p * (1 - p) / n)


# Symbols only contain, and are only given, later letters, so every random grammar is well formed
# as long as parents come up before their children. In half of them the templates of a symbol
# start with different capitals, which makes them unambiguous; the others are mostly ambiguous.
SYMBOLS = "abcde"


@st.composite
def random_rules(draw) -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    capitals = "PQR" if draw(st.booleans()) else ["", "", ""]
    parents_first = "".join(f"{{{s}}}" for s in SYMBOLS[:0:-1]) if draw(st.booleans()) else ""
    for i, symbol in reversed(list(enumerate(SYMBOLS))):
        pieces = st.sampled_from(["x", "y", "zx", "z", *(f"{{{s}}}" for s in SYMBOLS[i + 1 :])])
        bodies = st.lists(st.lists(pieces, min_size=1, max_size=3).map("".join), min_size=1)

        def table(i=i, bodies=bodies) -> dict[str, int]:
            texts = zip(capitals, draw(bodies), strict=False)  # at most three
            first = "" if i else parents_first
            return {first + capital + body: draw(st.integers(1, 3)) for capital, body in texts}

        parent = draw(st.sampled_from([None, *SYMBOLS[i + 1 :]])) if i else None
        if parent is None:
            rules[symbol] = weighted(table())
        else:
            templates = {t for weights in rules[parent].tables.values() for t in weights}
            rules[symbol] = given_rule(parent, {t: table() for t in sorted(templates)})
    return rules


def check_random_grammar(rules: dict[str, Rule]) -> str:
    """All promises about one grammar; says what kind it was."""
    grammar = Grammar(rules, "a")
    try:
        texts = list(islice(enumerate_texts(rules, "a"), 2000))
    except KeyError:
        with pytest.raises(ValueError, match="must come before"):
            n_derivations(grammar)
        return "late parent"
    assume(len(texts) < 2000)
    probs = [p for _, p in texts]
    assert sum(probs) == 1
    assert total_prob(grammar) == pytest.approx(1, abs=1e-12)
    assert n_derivations(grammar) == len(texts)
    assert entropy(grammar) == pytest.approx(exact_entropy(probs), abs=1e-12)

    # The parser finds as many readings of a text as the enumeration, with the same probabilities.
    for text in sorted({text for text, _ in texts})[:10]:
        want = sorted(float(p) for other, p in texts if other == text)
        got = sorted(math.exp(total_log_prob(choices)) for choices in grammar.parses(text))
        assert got == pytest.approx(want, abs=1e-12)

    if conflicts(grammar):
        return "conflicts"
    # As promised: every text has one reading, and no text begins another.
    ordered = sorted(text for text, _ in texts)
    assert len(set(ordered)) == len(ordered)
    assert not any(b.startswith(a) for a, b in pairwise(ordered))
    return "one reading" if len(texts) > 4 else "small"


def test_random_grammars():
    kinds: Counter[str] = Counter()

    @given(random_rules())
    @settings(max_examples=250, deadline=None, database=None, derandomize=True)
    def check(rules):
        kinds[check_random_grammar(rules)] += 1

    check()
    # Each kind came up, so none of the promises was kept for want of a case.
    assert min(kinds[k] for k in ("late parent", "conflicts", "one reading")) >= 10, kinds


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"s": one_of("{a}{b}"), "a": one_of("x", "xy"), "b": one_of("yz", "z")}, "xyz"),
        ({"s": one_of("{a}", "{b}"), "a": one_of("x"), "b": one_of("x")}, "x"),
        ({"s": one_of("{a}b"), "a": one_of("", "b", "bb")}, None),
    ],
)
def test_ambiguity_is_reported(rules, text):
    grammar = Grammar(rules, "s")
    assert conflicts(grammar)
    if text:
        assert len(grammar.parses(text)) == 2
        with pytest.raises(ValueError, match="has 2 readings"):
            grammar.parse(text)


def test_parse_says_how_far_it_came():
    with pytest.raises(ValueError, match=r"character 11 of 30, then came 'water\. Lovely milk\.'"):
        Grammar(DRINKS, "text").parse("Bob drinks water. Lovely milk.")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"s": one_of("{t}")}, "needs a rule for 't'"),
        ({"t": one_of("x")}, "needs a rule for 's'"),
        ({"s": one_of("{t}"), "t": one_of("a{s}")}, "contains itself"),
        ({"s": weighted({"x": 0})}, "at least 1"),
        ({"s": weighted({"x": 0.5})}, "at least 1"),
        ({"s": one_of()}, "at least 1"),
        ({"s": one_of("{a}{b}"), "a": one_of("x"), "b": settled("a", {"y": "z"})}, "do not fit"),
        ({"s": settled("nobody", {"y": "z"})}, "needs a rule for 'nobody'"),
    ],
)
def test_bad_grammars_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        Grammar(rules, "s")


def test_a_parent_that_comes_late_is_refused():
    rules = {"s": one_of("{b}{a}"), "a": one_of("x", "y"), "b": settled("a", {"x": "1", "y": "2"})}
    with pytest.raises(ValueError, match="'b' is given 'a', which must come before it"):
        next(Grammar(rules, "s").tales(0))


def test_ways_to_write_rules():
    assert ranked("a | b", "c") == {"a": 40, "b": 30, "c": 24}
    assert definite("x", ["an owl", "a jar of jam"]).tables == {
        "an owl": {"the owl": 1},
        "a jar of jam": {"the jar of jam": 1},
    }
    assert mostly({"brave": "B", "shy": "S"}, 9) == {
        "brave": {"B": 9, "S": 1},
        "shy": {"B": 1, "S": 9},
    }
