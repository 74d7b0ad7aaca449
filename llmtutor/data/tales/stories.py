"""Chapter 03, language modelling: the plots, and how a story begins and ends.

Every plot says something early that decides what may be said late: where a toy was put, in
which order landmarks were passed, how many seeds were planted, what was traded for what.
"""

from llmtutor.data.tales.grammar import Grammar
from llmtutor.data.tales.plots_days import RACE, SOW, WALK
from llmtutor.data.tales.plots_things import BORROW, HIDE, TRADE
from llmtutor.data.tales.rules import Rule, given, one_of
from llmtutor.data.tales.words import WORDS

PLOTS = ("{hide}", "{borrow}", "{trade}", "{race}", "{sow}", "{walk}")

FRAME: dict[str, Rule] = {
    "story": one_of("{opening} {company} One {season} {morning}, {sky}, {plot} {closing}"),
    "opening": one_of(
        "Once upon a time, a {trait} {girl} named {hero} lived in a {village} {home}.",
        "In a {village} {home} there lived a {trait} {girl} named {hero}.",
        "There was once a {trait} {girl} named {hero}, who lived in a {village} {home}.",
        "Long ago, a {trait} {girl} lived in a {village} {home}, and {his} name was {hero}.",
    ),
    "company": one_of(
        "{His} best friend was a {small} {species} called {friend}.",
        "Wherever {hero} went, a {small} {species} called {friend} went too.",
        "{He} spent {his} days with a {small} {species} named {friend}.",
        "Nobody knew {him} better than {friend}, a {small} {species}.",
    ),
    "plot": given(
        "season",
        {
            "spring": dict(zip(PLOTS, (3, 3, 3, 3, 6, 2), strict=True)),
            "summer": dict(zip(PLOTS, (3, 3, 3, 6, 3, 2), strict=True)),
            "autumn": dict(zip(PLOTS, (4, 4, 5, 2, 1, 4), strict=True)),
            "winter": dict(zip(PLOTS, (5, 4, 3, 1, 1, 6), strict=True)),
        },
    ),
    "closing": one_of(
        "That night {hero} fell asleep to the sound of {sound}.",
        "Back home, {he} told {his} {kin} all about it, and {friend} {dozed}.",
        "And that is how a {trait} {girl} and a {small} {species} spent one {season} {morning}.",
        "From then on, everyone in the {village} {home} knew {hero} and {friend}.",
        '"What a day," said {friend} the {species}, and {hero} {agreed}.',
    ),
    "dozed": one_of("dozed by the stove", "listened with one ear", "nodded now and then"),
    "agreed": one_of("smiled", "could only agree", "yawned"),
}

PARTS = (FRAME, HIDE, BORROW, TRADE, SOW, RACE, WALK, WORDS)
RULES = {symbol: rule for part in PARTS for symbol, rule in part.items()}
GRAMMAR = Grammar(RULES, "story")
