"""The tales: probabilities that agree, no ambiguity, decent English, and the loss floor."""

import hashlib
import math
import re
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from llmtutor.data import tales
from llmtutor.data.tales.analysis import conflicts, total_prob
from llmtutor.model.language_modelling import NGram
from llmtutor.tokenizer import BPETokenizer, CharTokenizer

N = 10_000


@pytest.fixture(scope="module")
def drawn() -> list[tales.Tale]:
    return list(tales.tales(N, seed=0))


def choice(tale: tales.Tale, symbol: str) -> str | None:
    return next((c.template for c in tale.choices if c.symbol == symbol), None)


# --- probability ---------------------------------------------------------------------------


def test_choices_recorded_while_writing_agree_with_the_parsed_probability(drawn):
    for tale in drawn:
        recorded = sum(math.log(c.prob) for c in tale.choices)
        assert tales.log_prob(tale.text) == pytest.approx(recorded, abs=1e-9)


def test_every_story_has_exactly_one_reading(drawn):
    for tale in drawn:
        assert tales.GRAMMAR.parses(tale.text) == [tale.choices]


def test_no_template_can_be_taken_for_another():
    assert conflicts(tales.GRAMMAR) == []


def test_probabilities_sum_to_one():
    for symbol, rule in tales.GRAMMAR.rules.items():
        for parent, weights in rule.tables.items():
            memory = {rule.parent: parent} if rule.parent else {}
            choices = tales.GRAMMAR.table(symbol, memory).choices
            assert math.fsum(c.prob for c in choices) == pytest.approx(1, abs=1e-12)
            assert {c.template for c in choices} == set(weights)
    assert total_prob(tales.GRAMMAR) == pytest.approx(1, abs=1e-9)


def test_entropy_is_the_mean_surprise(drawn):
    surprise = np.array([-tale.log_prob for tale in drawn])
    standard_error = surprise.std(ddof=1) / math.sqrt(N)
    assert abs(surprise.mean() - tales.entropy()) < 4 * standard_error
    assert standard_error < 0.002 * tales.entropy()


def test_frequencies_follow_the_probabilities(drawn):
    """Each template at each point, as often as its probability says (five deviations)."""
    expected: Counter[tuple] = Counter()
    variance: Counter[tuple] = Counter()
    seen: Counter[tuple] = Counter()
    for tale in drawn:
        memory = {c.symbol: c.template for c in tale.choices}
        for made in tale.choices:
            parent = tales.GRAMMAR.rules[made.symbol].parent
            where = memory.get(parent, "") if parent else ""
            if parent and not where:  # a parent that was settled: no choice, so not recorded
                continue
            seen[made.symbol, where, made.template] += 1
            table = tales.GRAMMAR.rules[made.symbol].tables[where]
            for template, weight in table.items():
                p = weight / sum(table.values())
                expected[made.symbol, where, template] += p
                variance[made.symbol, where, template] += p * (1 - p)
    assert len(expected) > 300
    for key, mean in expected.items():
        if variance[key] > 20:  # enough for the normal approximation
            assert abs(seen[key] - mean) < 5 * math.sqrt(variance[key]), key


def test_there_are_more_than_a_thousand_million_stories(drawn):
    assert tales.n_stories() >= 10**9
    assert len({tale.text for tale in drawn}) == N


def readings_of_beginning(text: str) -> list[tuple[str, Fraction]]:
    """Another parser: rewrite the leftmost brace in all ways, drop what strays from ``text``.

    Gives what is written of each derivation once it is as long as ``text``, with the exact
    probability of the choices made so far.
    """
    found, todo = [], [("{story}", {}, Fraction(1))]
    while todo:
        written, memory, prob = todo.pop()
        before, brace, after = written.partition("{")
        if not (text.startswith(before) or before.startswith(text)):
            continue
        if not brace or len(before) >= len(text):
            found.append((written, prob))
            continue
        symbol, _, after = after.partition("}")
        rule = tales.GRAMMAR.rules[symbol]
        if symbol in memory:
            weights = {memory[symbol]: 1}
        else:
            weights = rule.tables[memory[rule.parent] if rule.parent else ""]
        for template, weight in weights.items():
            share = prob * Fraction(weight, sum(weights.values()))
            todo.append((before + template + after, {**memory, symbol: template}, share))
    return found


def test_another_parser_finds_the_same_probability(drawn):
    for tale in drawn[:40]:
        # Only the story itself is left: no other story has it as its beginning.
        ((written, prob),) = readings_of_beginning(tale.text)
        assert written == tale.text
        assert tales.log_prob(tale.text) == pytest.approx(math.log(prob), abs=1e-12)
    opening = readings_of_beginning(drawn[0].text[:1])
    assert sum(prob for _, prob in opening) == Fraction(1, 4)  # one of four openings


# --- generation ----------------------------------------------------------------------------


def test_the_same_everywhere():
    text = "\n".join(tales.generate(50, seed=7))
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "f4a4778216c1a1ae23f4e28b4844c2814cf723716f9e03605cf9adb74ebd0004"


def test_seeds_and_counts():
    nine = tales.generate(9, seed=3)
    assert len(nine) == 9
    assert tales.generate(5, seed=3) == nine[:5]
    assert tales.generate(9, seed=4) != nine
    assert tales.generate(0, seed=3) == []
    for n, seed in [(-1, 0), (1, -1)]:
        with pytest.raises(ValueError, match="negative"):
            tales.generate(n, seed)


# --- what is not a tale --------------------------------------------------------------------


def test_texts_outside_the_language_are_refused(drawn):
    story, other = drawn[0].text, drawn[1].text
    for text in ["", "To be, or not to be", story[:-1], story + " ", story + other, story.upper()]:
        with pytest.raises(ValueError, match="not in the language"):
            tales.log_prob(text)


def test_a_wrong_later_mention_is_refused(drawn):
    """Names, things and places must return as they were: change the last mention of each."""
    tried = Counter()
    for tale in drawn[:500]:
        for symbol in ("hero", "friend", "species", "spot", "toy", "season", "elder", "near"):
            value = choice(tale, symbol)
            if value is None or tale.text.count(value) < 2:
                continue
            others = tales.GRAMMAR.templates(symbol) - {value}
            before, _, after = tale.text.rpartition(value)
            for other in sorted(others)[:3]:
                with pytest.raises(ValueError, match="not in the language"):
                    tales.log_prob(before + other + after)
                tried[symbol] += 1
    assert min(tried[s] for s in ("hero", "friend", "spot", "toy", "elder", "near")) > 50


# --- English -------------------------------------------------------------------------------


def test_articles_spaces_and_punctuation(drawn):
    for tale in drawn:
        text = tale.text
        assert not re.search(r"\b[Aa] [aeiouAEIOU]", text), text
        assert not re.search(r"\b[Aa]n [^aeiouAEIOU]", text), text
        assert not re.search(r"\b(\w+) \1\b", text), text  # a word twice in a row
        assert not re.search(r"  | [.,!?]|[{}\n]|\.\.|,,", text), text
        assert text.count('"') % 2 == 0, text
        assert text[0].isupper(), text
        assert re.search(r'[.!?]"?$', text), text
        for after in re.findall(r'(?<!Mr)(?<!Mrs)[.!?] "?(\w)', text):
            assert after.isupper(), text


def test_alphabet_and_length(drawn):
    lengths = [len(tale.text) for tale in drawn]
    assert 450 < min(lengths) < max(lengths) < 1000
    assert 600 < sum(lengths) / N < 800
    characters = set("".join(tale.text for tale in drawn))
    assert all(" " <= c <= "~" for c in characters)
    assert len(characters) < 65


def test_pronouns_agree_with_the_hero(drawn):
    """Outside the race, whose rival has a pronoun too, all pronouns are the hero's."""
    seen = Counter()
    for tale in drawn:
        if choice(tale, "plot") == "{race}":
            continue
        girl = choice(tale, "girl") == "girl"
        wrong = r"\b([Hh]e|[Hh]im|[Hh]is)\b" if girl else r"\b([Ss]he|[Hh]er|[Hh]ers)\b"
        assert not re.search(wrong, tale.text), tale.text
        seen[girl] += 1
    assert min(seen.values()) > 1000


def test_what_the_plots_promise(drawn):
    words = ["two", "three", "four", "five", "six", "seven", "eight"]
    seen = Counter()
    for tale in drawn:
        text, plot = tale.text, choice(tale, "plot")
        seen[plot] += 1
        if plot == "{hide}":  # found where it was put
            reason = "to keep|where nobody|and told"
            put = re.search(rf"carried \w+ (\w+ \w+) outside and \w+ it (.+?),? ({reason})", text)
            assert put, text
            toy, spot = put[1], put[2]
            assert re.search(rf"([Ll]ook|still|back:) {spot}", text), text
            assert text.count(toy) >= 2, text
        elif plot == "{walk}":  # the landmarks of the way out come back in the opposite order
            places = [choice(tale, s) for s in ("near", "middle", "far")]
            mentions = re.findall("|".join(map(re.escape, places)), text)
            assert mentions == places + places[::-1] * 2, text
        elif plot == "{sow}":  # sown - lost - given away = kept
            sown = words.index(re.search(r"pressed (\w+) ", text)[1])
            lost = 2 if "ate two of" in text else 1 if "dug up one of" in text else 0
            grown = words.index(re.search(r"(?:end,|looked with) (\w+) ", text)[1])
            kept = words.index(re.search(r"(?:and kept|the other) (\w+)(?:\.| stayed)", text)[1])
            assert (grown, kept) == (sown - lost, sown - lost - 1), text
        elif plot == "{trade}":  # home with the last thing, or with the one before
            last = choice(tale, "goods" if "undo it, so" in text and "begged" in text else "curio")
            noun = last.split(" ", 1)[1]
            assert f"went home with the {noun}" in text, text
    assert len(seen) == 6
    assert min(seen.values()) > 500


def test_an_early_word_decides_late_ones(drawn):
    """A brave hero mostly reacts bravely, hundreds of characters after being called brave."""
    own = Counter()
    distances = []
    for tale in drawn:
        brave = choice(tale, "trait") == "brave"
        at = tale.text.find("was not afraid")
        own[brave, at > 0] += 1
        if brave and at > 0:
            distances.append(at - tale.text.find("brave"))
    assert own[True, True] / (own[True, True] + own[True, False]) > 0.7
    assert own[False, True] / (own[False, True] + own[False, False]) < 0.06
    assert np.median(distances) > 300


# --- the floor -----------------------------------------------------------------------------


def test_floor_by_hand():
    stories = tales.generate(2, seed=0)
    nats = -sum(tales.log_prob(story) for story in stories)
    text = f"\n\n{stories[0]}\n\n{stories[1]}\n\n"
    assert tales.stream(stories) == text
    floor = tales.floor(stories, CharTokenizer.from_text(text))
    assert floor.nats == pytest.approx(nats, abs=1e-9)
    assert floor.n_chars == floor.n_tokens == len(text) - 1
    assert floor.nats_per_char == floor.nats_per_token == pytest.approx(nats / (len(text) - 1))
    assert floor.nats_per_story == pytest.approx(nats / 2)


def test_floor_per_token_is_the_floor_per_character_in_other_units(drawn):
    stories = [tale.text for tale in drawn[:300]]
    bpe = BPETokenizer.train(tales.stream(stories), 400, ["<|endoftext|>"])
    for separator in ["\n\n", "\n", "<|endoftext|>"]:
        floor = tales.floor(stories, bpe, separator)
        assert floor.n_tokens == len(bpe.encode(tales.stream(stories, separator))) - 1
        assert floor.nats_per_token * floor.n_tokens == pytest.approx(floor.nats)
        assert floor.nats_per_token > 1.5 * floor.nats_per_char


@pytest.mark.parametrize("order", [1, 2, 3, 6, 10])
def test_counting_models_stay_above_the_floor(drawn, order):
    train, test = [t.text for t in drawn[:2000]], tales.generate(200, seed=1)
    tokenizer = CharTokenizer.from_text(tales.stream(train + test))
    model = NGram(order, tokenizer.vocab_size).fit(tokenizer.encode(tales.stream(train)))
    loss = model.loss(tokenizer.encode(tales.stream(test)))
    floor = tales.floor(test, tokenizer).nats_per_token
    assert loss > floor + 0.05
    if order == 3:
        assert loss > 10 * floor  # far back is where the rest of the information is


def test_bad_calls_of_floor():
    stories = tales.generate(3, seed=0)
    with pytest.raises(ValueError, match="needs a tokenizer"):
        _ = tales.floor(stories).nats_per_token
    for bad in ({"stories": []}, {"stories": stories, "separator": ""}):
        with pytest.raises(ValueError, match="at least one story and a separator"):
            tales.floor(**bad)
    with pytest.raises(ValueError, match="not in the language"):
        tales.floor([*stories, "Once upon a time."])
    bpe = BPETokenizer.train(tales.stream(stories * 9, " "), 500)
    with pytest.raises(ValueError, match="joins the separator"):
        tales.floor(stories, bpe, " ")
