"""A drawing of this book, drawn again by matplotlib.

Its SVG uses a handful of shapes (`llmtutor.viz.diagrams.shapes`) and one style sheet, whose light
colours are taken here.
"""

import math
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from xml.etree import ElementTree

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Ellipse, FancyBboxPatch, Patch, Polygon, Rectangle

INK = "#1a2733"
Style = dict[str, str]


def place(axes: Axes, drawing: str, room: tuple[float, float, float, float]) -> None:
    """Draw an SVG of this book as large as fits between left, top, right and bottom."""
    root = ElementTree.fromstring(re.sub(r"<style>.*?</style>", "", drawing, flags=re.DOTALL))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    left, top, right, bottom = room
    scale = min((right - left) / width, (bottom - top) / height, 2.0)
    x = (left + right - scale * width) / 2 + scale
    y = (top + bottom - scale * height) / 2 + scale
    for element, at, window in _walk(root, x, y, scale):
        for artist in _draw(axes, element, at, scale):
            if window is not None:
                window.set_transform(axes.transData)
                artist.set_clip_path(window)


def _walk(
    element: ElementTree.Element, x: float, y: float, scale: float, window: Patch | None = None
) -> Iterator[tuple[ElementTree.Element, tuple[float, float], Patch | None]]:
    """Every shape with the place of its origin in pixels, in the order of painting.

    An SVG inside of another is a window: nothing of it is seen beyond its edges.
    """
    moved = re.match(r"translate\((\S+) (\S+)\)", element.get("transform", ""))
    if moved:
        x, y = x + scale * float(moved[1]), y + scale * float(moved[2])
    if element.tag == "svg" and "width" in element.attrib:
        sides = (scale * float(element.attrib[side]) for side in ("width", "height"))
        window = Rectangle((x, y), *sides)
    yield element, (x, y), window
    for child in element:
        yield from _walk(child, x, y, scale, window)


def _draw(
    axes: Axes, element: ElementTree.Element, origin: tuple[float, float], scale: float
) -> Iterator[Artist]:
    """Add an element to the picture; what it became."""
    style = look(element.tag, element.get("class", ""), element.get("style", ""))
    x, y = (origin[i] + scale * float(element.get("xy"[i], 0)) for i in (0, 1))
    if element.tag == "text":
        anchors = {"middle": "center", "end": "right", "start": "left"}
        yield axes.text(
            *(x, y, element.text or ""),
            size=scale * float(element.get("font-size", 13)),
            color=style.get("fill", INK),
            family="DejaVu Sans Mono" if "lt-mono" in element.get("class", "") else "DejaVu Sans",
            weight=style.get("font-weight", "normal"),
            ha=anchors[element.get("text-anchor", "start")],
            parse_math=False,
        )
        return
    for shape in _patches(element, (x, y), origin, scale):
        shape.set_facecolor(style.get("fill", "none"))
        shape.set_edgecolor(style.get("stroke", "none"))
        shape.set_linewidth(scale * float(style.get("stroke-width", 1)))
        if dashes := style.get("stroke-dasharray"):
            shape.set_linestyle((0, [float(dash) / 1.5 for dash in dashes.split()]))
        if "fill-opacity" in style:
            shape.set_alpha(float(style["fill-opacity"]))
        shape.set_fill(style.get("fill", "none") != "none")
        yield axes.add_patch(shape)


def _patches(
    element: ElementTree.Element,
    corner: tuple[float, float],
    origin: tuple[float, float],
    scale: float,
) -> Iterator[Patch]:
    def number(name: str) -> float:
        return scale * float(element.get(name, 0))

    centre = (origin[0] + number("cx"), origin[1] + number("cy"))
    match element.tag:
        case "rect" if number("rx") > 0 and number("width") > 2 and number("height") > 2:
            rounded = f"round,pad=0,rounding_size={number('rx')}"
            yield FancyBboxPatch(corner, number("width"), number("height"), rounded)
        case "rect":
            yield Rectangle(corner, number("width"), number("height"))
        case "circle":
            yield Circle(centre, number("r"))
        case "ellipse":
            yield Ellipse(centre, 2 * number("rx"), 2 * number("ry"))
        case "polygon" | "polyline":
            pairs = [pair.split(",") for pair in element.attrib["points"].split()]
            points = [
                (origin[0] + scale * float(a), origin[1] + scale * float(b)) for a, b in pairs
            ]
            yield Polygon(points, closed=element.tag == "polygon")
        case "path":
            for line in strokes(element.attrib["d"]):
                moved = [(origin[0] + scale * a, origin[1] + scale * b) for a, b in line]
                yield Polygon(moved, closed=False)


def strokes(path: str) -> list[list[tuple[float, float]]]:
    """The lines of an SVG path made of M, L, H, V (or small letters) and circular arcs.

    >>> strokes("M1 2h3M0 0v-1")
    [[(1.0, 2.0), (4.0, 2.0)], [(0.0, 0.0), (0.0, -1.0)]]

    Raises:
        ValueError: another command.
    """
    lines: list[list[tuple[float, float]]] = []
    for command, rest in re.findall(r"([A-Za-z])([^A-Za-z]*)", path):
        numbers = [float(n) for n in re.findall(r"-?\d*\.?\d+(?:e-?\d+)?", rest)]
        x, y = lines[-1][-1] if lines else (0.0, 0.0)
        before = (x, y) if command.islower() else (0.0, 0.0)
        match command.upper():
            case "M":
                lines.append([(before[0] + numbers[0], before[1] + numbers[1])])
            case "L":
                lines[-1].append((before[0] + numbers[0], before[1] + numbers[1]))
            case "H":
                lines[-1].append((before[0] + numbers[0], y))
            case "V":
                lines[-1].append((x, before[1] + numbers[0]))
            case "Z":
                lines[-1].append(lines[-1][0])
            case "A":
                end = (before[0] + numbers[5], before[1] + numbers[6])
                lines[-1] += arc((x, y), end, numbers[0], bool(numbers[3]), bool(numbers[4]))
            case _:
                raise ValueError(
                    f"expected a path of lines and arcs, received {command!r} in {path!r}; "
                    "teach it to `strokes`"
                )
    return lines


def arc(
    start: tuple[float, float], end: tuple[float, float], radius: float, large: bool, sweep: bool
) -> list[tuple[float, float]]:
    """Points on a circular arc of SVG, without its start.

    >>> [(round(x, 6), round(y, 6)) for x, y in arc((1, 0), (0, 1), 1, False, True)][-1]
    (0.0, 1.0)
    """
    (x0, y0), (x1, y1) = start, end
    half = math.hypot(x1 - x0, y1 - y0) / 2
    radius = max(radius, half)
    away = math.sqrt(radius**2 - half**2) / (2 * half) * (1 if large != sweep else -1)
    centre = ((x0 + x1) / 2 - away * (y1 - y0), (y0 + y1) / 2 + away * (x1 - x0))
    first, last = (math.atan2(y - centre[1], x - centre[0]) for x, y in (start, end))
    turn = (last - first) % math.tau if sweep else -((first - last) % math.tau)
    angles = [first + turn * i / 24 for i in range(1, 25)]
    return [(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]


def look(tag: str, classes: str, style: str) -> Style:
    """What the style sheet of the drawings says of an element, in its light colours."""
    found: Style = {}
    for tags, name, said in _rules():
        if (not tags or tag in tags) and (not name or name in classes.split()):
            found |= said
    return found | _declarations(style)


@cache
def _rules() -> list[tuple[tuple[str, ...], str, Style]]:
    """Rules of the style sheet as (tags, class, declarations), in their order."""
    sheet = files("llmtutor.viz.diagrams").joinpath("style.css").read_text(encoding="utf-8")
    light = sheet.partition("}")[0].partition("{")[2]
    values = _declarations(light)
    found = []
    for tags, tag, name, said in re.findall(
        r"^\.lt-drawing (?::is\(([^)]*)\)|(\w*)\.([\w-]+)) \{([^}]*)\}", sheet, re.MULTILINE
    ):
        meant = re.sub(r"var\((--[\w-]+)\)", lambda match: values[match[1]], said)
        found.append((tuple(tags.split(", ")) if tags else (tag,) * bool(tag), name, meant))
    return [(tags, name, _declarations(said)) for tags, name, said in found]


def _declarations(text: str) -> Style:
    pairs = (part.split(":", 1) for part in text.split(";") if ":" in part)
    return {name.strip(): value.strip() for name, value in pairs}
