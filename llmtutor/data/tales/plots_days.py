"""Chapter 03, language modelling: three plots about days: sowing, racing, walking.

Seeds are counted and some are lost, a race turns on who gets hurt and who stops to help, and
the landmarks of a walk come back in the opposite order.
"""

from llmtutor.data.tales.rules import Rule, definite, given, one_of, ranked, settled, weighted

NUMBERS = ["two", "three", "four", "five", "six", "seven", "eight"]
SOWN = NUMBERS[3:]  # three can be missing and two are left


def less(missing: int) -> Rule:
    """The number sown minus ``missing``, in words."""
    return settled("number", {n: NUMBERS[NUMBERS.index(n) - missing] for n in SOWN})


ALL_GREW = "Not a single one was lost."
ONE_LOST = "But a {thief} dug up one of them."
TWO_LOST = "But in the night a {thief} ate two of them."

SOW: dict[str, Rule] = {
    "sow": one_of(
        "{hero} pressed {number} {seed} seeds into a {colour} {pot}. {care} {loss} {mood} {wait} "
        "{grown} {gift}"
    ),
    "number": one_of(*SOWN),
    "seed": weighted(ranked("sunflower | poppy | marigold | bean | daisy | tomato")),
    "plants": settled(
        "seed",
        {
            "sunflower": "sunflowers",
            "poppy": "poppies",
            "marigold": "marigolds",
            "bean": "bean plants",
            "daisy": "daisies",
            "tomato": "tomato plants",
        },
    ),
    "colour": weighted(ranked("blue | yellow | white | green | black")),
    "pot": one_of("pot", "tub", "box", "crate"),
    "care": one_of(
        "Every day {he} gave them water, while {friend} {guarded}.",
        "{friend} {guarded}, and {hero} never forgot the water.",
    ),
    "guarded": one_of("chased away the snails", "kept watch", "sang to them"),
    "loss": weighted({ALL_GREW: 3, ONE_LOST: 4, TWO_LOST: 3}),
    "thief": weighted(ranked("magpie | mole | blackbird | pigeon")),
    "one_less": less(1),
    "two_less": less(2),
    "three_less": less(3),
    "left": settled("loss", {ALL_GREW: "{number}", ONE_LOST: "{one_less}", TWO_LOST: "{two_less}"}),
    "kept": settled(
        "loss", {ALL_GREW: "{one_less}", ONE_LOST: "{two_less}", TWO_LOST: "{three_less}"}
    ),
    "wait": one_of(
        "After {days} days the first green tips came up.",
        "For {days} days there was nothing to see, and then there was.",
    ),
    "days": one_of("nine", "ten", "twelve", "twenty"),
    "grown": one_of(
        "In the end, {left} {plants} stood in the {colour} {pot}.",
        "How fine the {colour} {pot} looked with {left} {plants} in it!",
    ),
    "gift": one_of(
        "{He} gave one to {elder} the {job} and kept {kept}.",
        "One of them went to {elder} the {job}, and the other {kept} stayed.",
    ),
}

PRIZES = ranked(
    "a silver cup | a basket of cherries | a jar of sweets | a giant cake", "a crown of daisies"
)
HELPED = "{hero} stopped and {aid}."
RAN_ON = "{hero} ran on without looking back."
KINDNESS = {  # chances out of ten of stopping to help
    "brave": 8,
    "shy": 6,
    "curious": 5,
    "careful": 9,
    "cheerful": 7,
    "stubborn": 2,
    "dreamy": 4,
    "clever": 3,
}
RIVALS = {"Victor": "him", "Berta": "her", "Konrad": "him", "Wanda": "her", "Stefan": "him"}

RACE: dict[str, Rule] = {
    "race": one_of(
        "the whole {town} came to see the race to {goal}. {stakes} {start} {trouble} {mood} "
        "{decision} {finish}"
    ),
    "goal": weighted(ranked("the old oak | the far barn | the hilltop | the crossroads")),
    "rival": weighted(ranked(*RIVALS)),
    "rival_him": settled("rival", RIVALS),
    "prize": weighted(PRIZES),
    "the_prize": definite("prize", PRIZES),
    "stakes": one_of(
        "There was {prize} for the winner, and only {rival} was as fast as {hero}.",
        "The prize was {prize}, and last year {rival} had won it.",
    ),
    "start": one_of(
        '"Go!" shouted {friend} the {species}, and they were off.',
        "First {rival} was ahead, then {hero}, then {rival} again.",
        "{friend} ran along the road and cheered for {hero}.",
    ),
    "trouble": one_of(
        "At {halfway}, {rival} {hurt}.",
        "They were side by side when, close to {halfway}, {rival} {hurt}.",
    ),
    "halfway": one_of("the mill", "the second gate", "the chapel", "the bend in the road"),
    "hurt": one_of(
        "stepped on a thorn", "lost a shoe", "twisted an ankle", "fell into a deep puddle"
    ),
    "aid": settled(
        "hurt",
        {
            "stepped on a thorn": "pulled out the thorn",
            "lost a shoe": "went back for the shoe",
            "twisted an ankle": "bandaged the ankle",
            "fell into a deep puddle": "helped {rival_him} out of the puddle",
        },
    ),
    "decision": given(
        "trait",
        {trait: {HELPED: kind, RAN_ON: 10 - kind} for trait, kind in KINDNESS.items()},
    ),
    "finish": given(
        "decision",
        {
            HELPED: ranked(
                "They came to {goal} last of all, arm in arm, and were given {the_prize} to share.",
                "{rival} leaned on {him} all the way to {goal}, and nobody asked who won.",
            ),
            RAN_ON: ranked(
                "{He} was first at {goal}, but {the_prize} gave {him} no joy.",
                "So {he} won {the_prize}, and that evening took it to {rival} to say sorry.",
            ),
        },
    ),
}

GIFTS = ranked("a pot of soup | a letter | a jug of cider | a bundle of candles", "a new broom")

WALK: dict[str, Rule] = {
    "walk": one_of(
        "{hero} and {friend} set out to bring {present} to {elder} the {job}. {way} {thanks} "
        "{danger} {mood} {plan} {way_back} {arrival}"
    ),
    "present": weighted(GIFTS),
    "the_present": definite("present", GIFTS),
    "near": weighted(ranked("the old well | the white gate | the orchard | the three birches")),
    "middle": weighted(
        ranked("the stone bridge | the broken fence | the windmill | the hollow oak")
    ),
    "way": one_of(
        "They passed {near}, then {middle}, and at last {far}.",
        "First came {near}, then {middle}, and then {far}.",
        "The road led by {near}, by {middle} and by {far}.",
    ),
    "thanks": one_of(
        "{elder} was glad of {the_present} and {welcomed}.",
        '"Just what I needed," said {elder}, taking {the_present}.',
    ),
    "welcomed": one_of("made tea", "told them a story", "let them rest by the fire"),
    "danger": one_of(
        "But when they turned for home, {weather}.", "It grew late, and on the way home {weather}."
    ),
    "weather": given(
        "season",
        {
            "spring": {"rain hid the road": 6, "fog came down": 2, "it was quite dark": 2},
            "summer": {"a storm broke": 6, "it was quite dark": 2, "rain hid the road": 2},
            "autumn": {"fog came down": 6, "it was quite dark": 2, "a storm broke": 2},
            "winter": {"snow covered the road": 6, "it was quite dark": 2, "fog came down": 2},
        },
    ),
    "plan": one_of(
        '"First {far}, then {middle}, then {near}," said {friend} the {species}.',
        '"We must do it backwards," said {friend}: "{far}, {middle}, {near}."',
    ),
    "way_back": one_of(
        "And there they were, one by one: {far}, {middle}, {near}, and home.",
        "They found {far}, and {middle}, and when they saw {near} they began to run.",
    ),
    "arrival": one_of(
        "{His} {kin} had kept {supper} warm.", "At the door stood {his} {kin} with {supper}."
    ),
    "supper": one_of("a pan of dumplings", "an apple pie", "the porridge", "a pot of beans"),
}
