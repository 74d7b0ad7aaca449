"""Chapter 03, language modelling: the people, animals and places that every plot shares.

Whatever is chosen here is remembered to the end of the story, so it can come back hundreds of
characters later: names, pronouns, the season, the village, what somebody does for a living.
"""

from llmtutor.data.tales.rules import (
    Rule,
    Weights,
    definite,
    given,
    mostly,
    one_of,
    ranked,
    settled,
    weighted,
)

GIRLS = ranked(
    "Mia | Anna | Lily | Rosa | Nora | Ella | Clara | Zoe | Ida | Greta | Hazel",
    "Ruth | Olga | Vera",
)
BOYS = ranked(
    "Tom | Ben | Leo | Max | Oscar | Jack | Finn | Hugo | Theo | Emil | Peter",
    "Karl | Sam | Walter",
)

VILLAGES = ranked("small village | quiet village | little town | windy town")

MOODS = {
    "brave": "{hero} took a deep breath and was not afraid.",
    "shy": "{hero} blushed and looked at the ground.",
    "curious": "{hero} had a hundred questions and asked them all.",
    "careful": "{hero} counted slowly to ten before doing anything.",
    "cheerful": "{hero} laughed, because things could be worse.",
    "stubborn": "{hero} stamped one foot and would not give up.",
    "dreamy": "{hero} watched the clouds and said nothing for a while.",
    "clever": "{hero} soon had a plan.",
}

# Each home with what is far out along its road, and what is heard there at night.
HOMES = {
    "by the sea": (ranked("the lighthouse | the fishing boats | the salt huts"), "the waves"),
    "beside a wide river": (
        ranked("the ferry | the willow island | the water wheel"),
        "the running water",
    ),
    "at the edge of a forest": (
        ranked("the tallest fir | the woodcutter's hut | the fern valley"),
        "the owls",
    ),
    "below a tall mountain": (
        ranked("the waterfall | the goat path | the dark tunnel"),
        "the mountain wind",
    ),
    "among green hills": (
        ranked("the vineyard | the ring of stones | the ruined tower"),
        "the sheep bells",
    ),
    "near the great marsh": (
        ranked("the wooden causeway | the heron's nest | the reed beds"),
        "the frogs",
    ),
}

WARM = "when a warm wind was blowing"
RAIN = "while rain tapped on the roofs"
CLEAR = "under a clear blue sky"
FOG = "when fog hid the houses"
HAY = "when the air smelled of hay"
LEAVES = "when leaves were flying everywhere"
SNOW = "while snow fell without a sound"
FROST = "when frost shone on the grass"

# What each trade lends, what one does with that, what it gives as a present, and what it sells.
JOBS: dict[str, tuple[Weights, Weights, Weights, Weights]] = {
    "baker": (
        ranked("rolling pin | bread basket | mixing bowl"),
        ranked("bake a pie for {his} {kin} | make dumplings"),
        ranked("two warm buns | a honey cake"),
        ranked("a plum cake | a tray of rolls"),
    ),
    "gardener": (
        ranked("spade | watering can | wheelbarrow"),
        ranked("dig a pond for the ducks | plant a hedge"),
        ranked("a bag of plums | a bunch of roses"),
        ranked("a pot of tulips | a rose bush"),
    ),
    "blacksmith": (
        ranked("hammer | crowbar | water bucket"),
        ranked("mend the garden gate | straighten a wheel"),
        ranked("a lucky horseshoe | a little iron bell"),
        ranked("an iron pan | a door knocker"),
    ),
    "tailor": (
        ranked("sewing box | measuring tape | thimble"),
        ranked("sew a coat for {friend} | make curtains for {his} {kin}"),
        ranked("a silk ribbon | three gold buttons"),
        ranked("a felt hat | a velvet cushion"),
    ),
    "carpenter": (
        ranked("saw | ladder | file"),
        ranked("build a hen house | make a shelf for {his} {kin}"),
        ranked("a wooden bird | a box of nails"),
        ranked("a rocking chair | a bird house"),
    ),
    "miller": (
        ranked("handcart | sieve | grain shovel"),
        ranked("carry corn to the hens | clean the barn"),
        ranked("a poppy seed roll | a loaf of rye bread"),
        ranked("a sack of flour | a bag of oats"),
    ),
    "shepherd": (
        ranked("bell | staff | horn"),
        ranked("bring home the geese | watch over the lambs"),
        ranked("a ball of wool | a jug of milk"),
        ranked("a warm blanket | a round cheese"),
    ),
    "potter": (
        ranked("clay jug | paintbrush | turning wheel"),
        ranked("make a cup for {his} {kin} | paint the front door"),
        ranked("a blue bowl | a clay whistle"),
        ranked("a flower pot | a set of plates"),
    ),
}

WORDS: dict[str, Rule] = {
    "girl": one_of("girl", "boy"),
    "hero": given("girl", {"girl": GIRLS, "boy": BOYS}),
    "he": settled("girl", {"girl": "she", "boy": "he"}),
    "He": settled("girl", {"girl": "She", "boy": "He"}),
    "him": settled("girl", {"girl": "her", "boy": "him"}),
    "his": settled("girl", {"girl": "her", "boy": "his"}),
    "His": settled("girl", {"girl": "Her", "boy": "His"}),
    "trait": weighted(ranked(*MOODS)),
    "mood": given("trait", mostly(MOODS, 21)),
    "village": weighted(VILLAGES),
    "town": settled("village", {village: village.split()[1] for village in VILLAGES}),
    "home": weighted(ranked(*HOMES)),
    "far": given("home", {home: far for home, (far, _) in HOMES.items()}),
    "sound": settled("home", {home: sound for home, (_, sound) in HOMES.items()}),
    "kin": weighted(
        ranked("mother | father | grandmother | grandfather | aunt | uncle | big sister")
    ),
    "small": weighted(
        ranked("small | little | brown | round | grey | young | fat | white | sleepy", "lively")
    ),
    "species": weighted(
        ranked(
            "fox | rabbit | hedgehog | duck | goat | mouse | crow | badger | squirrel",
            "hen | kitten | puppy",
        )
    ),
    "friend": weighted(
        ranked(
            "Pepper | Biscuit | Clover | Thistle | Button | Maple | Nutmeg | Bramble",
            "Pebble | Juniper | Figaro | Willow",
        )
    ),
    "season": one_of("spring", "summer", "autumn", "winter"),
    "morning": weighted({"morning": 3, "afternoon": 2}),
    "sky": given(
        "season",
        {
            "spring": {RAIN: 4, WARM: 3, CLEAR: 3, FOG: 1},
            "summer": {CLEAR: 5, HAY: 4, WARM: 2, RAIN: 1},
            "autumn": {LEAVES: 5, FOG: 4, RAIN: 3, CLEAR: 1},
            "winter": {SNOW: 5, FROST: 4, FOG: 2, CLEAR: 1},
        },
    ),
    "elder": weighted(
        ranked(
            "Mrs. Bell | Mr. Finch | Captain Reed | Granny Vale | Uncle Ned | Old Agnes",
            "Doctor Lamb | Mrs. Rowe",
        )
    ),
    "job": weighted(ranked(*JOBS)),
    "tool": given("job", {job: lent for job, (lent, _, _, _) in JOBS.items()}),
    "task": given("job", {job: task for job, (_, task, _, _) in JOBS.items()}),
    "reward": given("job", {job: reward for job, (_, _, reward, _) in JOBS.items()}),
    "goods": given("job", {job: goods for job, (_, _, _, goods) in JOBS.items()}),
    "the_goods": definite("goods", [thing for job in JOBS.values() for thing in job[3]]),
}
