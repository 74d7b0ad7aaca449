"""Chapter 02, web pages: eight of them as a crawl brings them, written for this book.

Three are worth reading. One is a copy of the first on another site, with a few words changed; the
others are a login, a shop, an advertisement and a page that nobody has filled in yet.
"""

MILL = """\
<h1>How a tide mill works</h1>
<p>A tide mill is a water mill that is driven by the sea. A dam with a gate is built across
a small inlet. When the tide comes in, the water pushes the gate open and fills the pond
behind it. When the tide turns, the weight of the water shuts the gate, and the pond keeps
what it has.</p>
<p>Then the miller waits. Only when the sea has fallen below <a href="/wheels">the wheel</a>
can the water of the pond run out under it and turn the stones. That gives a few hours of
work, twice a day, and each day they begin almost an hour later than the day before. So a
miller by the sea lived by the moon and not by the sun.</p>
<p>The power is modest, but it can be relied on. A river may freeze in winter or dry up in
August, while the tide comes on every day of the year. What it cannot do is come at the
hour that would suit the miller best, and many a sack was ground at three in the morning
by the light of a lantern.</p>"""

COPY = (
    MILL.replace("How a tide mill works", "Tide mills explained")
    .replace("the miller waits", "the miller has to wait")
    .replace("lived by the moon", "worked by the moon")
    .replace("in the morning", "at night")
)

LIGHT = """\
<h1>The lens of a lighthouse</h1>
<p>A lamp sends its light in all directions, and a ship sees only the small part that comes
its way. The rest goes to the sky, to the ground and back to the shore. To be seen from
far away, a lighthouse has to gather that light and send it out as one flat beam.</p>
<p>A single lens of glass could do that, but it would be as thick as a barrel and would
swallow much of what it gathers. Fresnel saw that only the slope of the surface bends the
light. So he kept the slopes and took the glass behind them away: his lens is a set of
rings, each with the slope that its place needs, and all of them together are no thicker
than a hand.</p>
<p>The rings turn on a bath of mercury, with so little friction that a child could push
them. The beam sweeps over the sea, and the time between two flashes tells the sailor
which of the lights along the coast he has before him.</p>
<p>Then he knows where he is.</p>"""

SALT = """\
<h1>Salt from the sun</h1>
<p>To make salt from the sea you need flat land, a dry summer and patience. Sea water is
led into a wide and shallow pool and left to the wind and the sun. After some days it is
led on into the next pool, and then into a third, and in each of them it is stronger.</p>
<p>Other things leave the water before the salt does. Lime and gypsum settle in the early
pools, and that is why there is more than one. The salt itself falls in the last, where a
crust as thin as paper grows over the water and sinks under its own weight.</p>
<p>It is raked off by hand, always away from the clay below. A grey salt has touched the
clay, a white one has not. Whoever has raked for a summer knows with eyes shut, by the
sound of the rake, how deep it went.</p>"""

OFFER = "<p>Book your cheap flight to the coast with us today and save up to a half!</p>"
HINGES = [
    f"<li>Brass hinge of {size} mm with screws, for the doors of cupboards and of small boats</li>"
    for size in (20, 25, 30, 35, 40, 50, 60, 75, 90, 100, 120)
]
LATIN = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor. " * 6


def _site(name: str, title: str, content: str) -> str:
    """A page of a site: what its author wrote, among what stands on every page."""
    return f"""\
<!DOCTYPE html>
<html><head><title>{title} | {name}</title>
<style>nav {{ display: flex }} .ad {{ color: red }}</style>
<script>window.track = {{ page: "{title}", user: null }};</script></head>
<body>
<div class="banner">We use cookies. <button>Accept all</button></div>
<nav><ul><li><a href="/">Home</a></li><li><a href="/sea">Sea</a></li>
<li><a href="/trades">Old trades</a></li><li><a href="/about">About</a></li></ul></nav>
<main>
{content}
</main>
<aside><h2>More from {name}</h2><a href="/a">Ten harbours that you have to see once in your
life</a> <a href="/b">What the wind is called on seven coasts</a></aside>
<div>Share: <a href="#">mail</a> <a href="#">link</a></div>
<footer>&copy; {name} &middot; <a href="/terms">Terms</a> &middot; <a href="/p">Privacy</a></footer>
</body></html>
"""


PAGES = {
    "mill": _site("The Quay", "How a tide mill works", MILL),
    "light": _site("The Quay", "The lens of a lighthouse", LIGHT),
    "login": _site("The Quay", "Log in", "<h1>Log in</h1><p>Name and password, please.</p>"),
    "copy": _site("All About Water", "Tide mills explained", COPY),
    "shop": _site("Brass & Sons", "Hinges", f"<h1>Hinges</h1><ul>{''.join(HINGES)}</ul>"),
    "offers": _site("Coast Air", "Offers", "<h1>Offers</h1>" + 9 * OFFER),
    "salt": _site("The Quay", "Salt from the sun", SALT),
    "lorem": _site("My new site", "Untitled", f"<h1>Untitled</h1><p>{LATIN}</p>"),
}
"""The HTML of each page, by a short name, in the order of the crawl."""
