"""Chapter 03, language modelling: three plots about things: hidden, borrowed, traded.

A toy is found where it was put, a borrowed tool comes back to the one who lent it in the state
that its accident explains, and the last of a chain of trades is compared with the first.
"""

from llmtutor.data.tales.rules import Rule, definite, given, one_of, ranked, settled, weighted

HIDE: dict[str, Rule] = {
    "hide": one_of(
        "{hero} carried {his} {look} {toy} outside and {put} it {spot}{reason}. {busy} {missing} "
        "{search} {mood} {hint} {found} {played}"
    ),
    "put": one_of("put", "left", "hid"),
    "look": weighted(
        ranked(
            "red | blue | old | green | wooden | silver | painted | striped | tiny",
            "shiny | yellow | brown",
        )
    ),
    "toy": weighted(
        ranked("ball | kite | drum | whistle | lantern | flute | top | key | mirror | rope")
    ),
    "use": given(
        "toy",
        {
            "ball": ranked("play catch | roll it down the hill"),
            "kite": ranked("fly it over the roofs | race it against the clouds"),
            "drum": ranked("play a march | make a great noise"),
            "whistle": ranked("whistle a tune | call the geese"),
            "lantern": ranked("walk by its light | make shadows on the wall"),
            "flute": ranked("play a slow song | charm the birds"),
            "top": ranked("make it dance on the table | spin it on the step"),
            "key": ranked("open the old chest | unlock the garden door"),
            "mirror": ranked("catch the last sunlight | make funny faces"),
            "rope": ranked("climb the pear tree | skip in the yard"),
        },
    ),
    "spot": weighted(
        ranked(
            "under the apple tree | behind the mill | by the duck pond",
            "in the hay barn | beneath the stone bridge | beside the hollow log",
            "near the beehives | between two grey rocks",
        )
    ),
    "reason": one_of(" to keep it safe", ", where nobody would look", " and told no one"),
    "busy": one_of(
        "Then {he} helped {his} {kin} {chore} and forgot all about it.",
        "Soon {his} {kin} called {him} to {chore}, and the {toy} was forgotten.",
        "But there was so much else to do that it slipped {his} mind.",
    ),
    "chore": weighted(
        ranked("bake bread | feed the hens | mend the fence | sweep the yard", "peel potatoes")
    ),
    "missing": one_of(
        "In the evening {he} wanted to {use}, but where was the {toy}?",
        "When {he} wished to {use} at last, the {toy} was nowhere to be seen.",
        "Later {he} meant to {use} and could not think where the {toy} was.",
    ),
    "search": one_of(
        "{He} looked {inside} and {indoors}, but found only {junk}.",
        "There was nothing {inside}, and {indoors} there was only {junk}.",
    ),
    "inside": one_of("in the cupboard", "under the bed", "on the top shelf", "behind the stove"),
    "indoors": one_of("in the boots", "below the stairs", "among the pots", "inside the clock"),
    "junk": weighted(ranked("dust | a button | an odd sock | a cold spoon | a sleepy spider")),
    "hint": one_of(
        '"Let us think back to the {morning}," said {friend} the {species}.',
        '"I saw you {spot}," said {friend}.',
        'Then {friend} the {species} asked, "Where did you go this {morning}?"',
    ),
    "found": one_of(
        "They ran to look {spot}, and there was the {look} {toy}.",
        "So they went back: {spot} lay the {look} {toy}, just as {he} had left it.",
        "The {look} {toy} was still {spot}, a little dusty but whole.",
    ),
    "played": one_of(
        "At last {he} could {use}.",
        '"Now you can {use}," said {friend}, "but next time, tell me."',
    ),
}

BORROW: dict[str, Rule] = {
    "borrow": one_of(
        "{hero} went to {elder} the {job} and borrowed a {sort} {tool}. {terms} {work} "
        "{accident} {mood} {rescue} {return} {confession} {answer}"
    ),
    "sort": weighted(ranked("heavy | sturdy | rusty | big | fine | strange | new")),
    "terms": one_of(
        '"Bring it back before {deadline}," said {elder}, "{warning}."',
        '"You may keep it until {deadline}," said {elder}.',
    ),
    "deadline": one_of("sunset", "supper", "nightfall", "the evening bell"),
    "warning": one_of(
        "for I need it myself", "or there will be trouble", "and take good care of it"
    ),
    "work": one_of(
        "{He} promised, and hurried off to {task}.",
        "With {friend} at {his} side, {he} set off to {task}.",
    ),
    "accident": one_of(
        "But on the way back the {tool} {fell}.",
        "All went well until, on the way back, the {tool} {fell}.",
    ),
    "fell": one_of(
        "fell into the stream", "slid into a ditch", "got caught in the thorns", "sank in the mud"
    ),
    "rescue": given(
        "fell",
        {
            "fell into the stream": ranked(
                "{friend} jumped in and pushed it to the bank.",
                "They fished it out with a long branch.",
            ),
            "slid into a ditch": ranked(
                "{friend} climbed down and pushed it up again.", "They pulled it out with a rope."
            ),
            "got caught in the thorns": ranked(
                "{friend} crept between the thorns and worked it free.",
                "They bent the thorns aside, one by one.",
            ),
            "sank in the mud": ranked(
                "{friend} dug until it came loose.", "They pulled together until the mud let go."
            ),
        },
    ),
    "state": settled(
        "fell",
        {
            "fell into the stream": "still dripping",
            "slid into a ditch": "covered in dust",
            "got caught in the thorns": "scratched but whole",
            "sank in the mud": "brown all over",
        },
    ),
    "place": settled(
        "fell",
        {
            "fell into the stream": "the stream",
            "slid into a ditch": "the ditch",
            "got caught in the thorns": "the thorns",
            "sank in the mud": "the mud",
        },
    ),
    "return": one_of(
        "Just before {deadline} {he} brought back the {sort} {tool}, {state}.",
        "The {sort} {tool} was home again before {deadline}, {state}.",
    ),
    "confession": given(
        "trait",
        {
            trait: {
                "{hero} told {elder} about {place}.": honest,
                "{He} hoped that nobody would ask about {place}.": 10 - honest,
            }
            for trait, honest in {
                "brave": 9,
                "shy": 2,
                "curious": 6,
                "careful": 8,
                "cheerful": 7,
                "stubborn": 3,
                "dreamy": 5,
                "clever": 4,
            }.items()
        },
    ),
    "answer": given(
        "confession",
        {
            "{hero} told {elder} about {place}.": ranked(
                "{elder} smiled and gave them {reward} to share.",
                '"Truth is worth more than a {tool}," said {elder}, and gave {him} {reward}.',
            ),
            "{He} hoped that nobody would ask about {place}.": ranked(
                "But {elder} saw it at once, and there was no present that day.",
                '"Next time, tell me," said {elder}, looking at the {tool}.',
            ),
        },
    ),
}

WARES = ranked(
    "a jar of honey | a basket of eggs | a string of onions | a woollen scarf", "a sack of apples"
)
CURIOS = ranked(
    "a golden feather | a glass marble | a map of the stars | a brass compass", "a talking doll"
)
STRANGERS = ranked("a sailor | a fiddler | a pedlar | a tired soldier | a chimney sweep")
BACK = (
    "At sunset {the_stranger} came running and begged to undo it, "
    "so {hero} went home with {the_goods} again."
)
KEPT = "Nobody came to undo it, so {hero} went home with {the_curio}."

TRADE: dict[str, Rule] = {
    "trade": one_of(
        "{hero} took {ware} to the market. {first_trade} {second_trade} {looking_back} {mood} "
        "{undone} {verdict}"
    ),
    "ware": weighted(WARES),
    "the_ware": definite("ware", WARES),
    "first_trade": one_of(
        "There {elder} the {job} needed {the_ware} and gave {him} {goods} for it.",
        "The first to stop was {elder} the {job}, who paid for {the_ware} with {goods}.",
    ),
    "second_trade": one_of(
        "Then {stranger} wanted {the_goods} so badly that {hero} gave it away for {curio}.",
        "A little later {stranger} came along, and {the_goods} was traded for {curio}.",
        "Next {he} met {stranger}, who would swap {curio} for {the_goods} and nothing else.",
    ),
    "stranger": weighted(STRANGERS),
    "the_stranger": definite("stranger", STRANGERS),
    "curio": weighted(CURIOS),
    "the_curio": definite("curio", CURIOS),
    "looking_back": one_of(
        '"You came with {ware}," said {friend} the {species}, "and now you have {curio}."',
        '"First {ware}, then {goods}, and now {curio}!" cried {friend}.',
        "{friend} looked at {the_curio} and thought of {the_ware}.",
    ),
    "undone": weighted({KEPT: 3, BACK: 2}),
    "final": settled("undone", {KEPT: "{the_curio}", BACK: "{the_goods}"}),
    "verdict": one_of(
        "{His} {kin} gave {final} the best place in the house.",
        '"What will you do with {final}?" asked {his} {kin}.',
        "When {his} {kin} saw {final}, there was {cheer}.",
    ),
    "cheer": one_of("much laughter", "a long silence", "singing until supper"),
}
