"""Something to move, every chapter: the same states with a kernel and on a published page.

`explore` computes every state ahead. The output holds them as plain HTML with a little JavaScript,
which needs neither kernel nor network, and, where a kernel runs, as widgets for JupyterLab.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape, unescape
from importlib.resources import files
from itertools import product
from math import prod
from typing import Any

import ipywidgets
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from llmtutor.viz.alt import alt_text
from llmtutor.viz.display import svg

MOST_STATES = 60
MOST_BYTES = 2_000_000


@dataclass(frozen=True)
class Control:
    """One thing to move: the argument of ``render`` it sets, its label and its values."""

    argument: str
    label: str
    values: tuple[Any, ...]

    @property
    def texts(self) -> list[str]:
        """The values as the reader sees them."""
        return [_text(value) for value in self.values]

    @property
    def is_slider(self) -> bool:
        """Numbers move on a slider, everything else is chosen from a list."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)


def explore(
    render: Callable[..., str | Figure],
    *,
    name: str,
    labels: Mapping[str, str] | None = None,
    **controls: Iterable[Any],
) -> None:
    """Show ``render(**values)``, HTML or a figure, with a control for each of its arguments.

    Args:
        render: makes the picture of one state; it must give the same picture every time.
        name: names the box on the page, for instance ``"vocabulary-slider"``; once a page.
        labels: what stands beside a control; the argument's name in words where it is missing.
        controls: the values of each argument, the first one being the state shown at first.

    Raises:
        ValueError: no control, a control with fewer than two values, or too many states.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(f"expected a name like 'vocabulary-slider', received {name!r}")
    chosen = _controls(controls, labels or {})
    arguments = [control.argument for control in chosen]
    states = []
    for i, values in enumerate(product(*(control.values for control in chosen))):
        picture = render(**dict(zip(arguments, values, strict=True)))
        states.append(_html(picture, f"{name}-{i}"))
    bundle: dict[str, Any] = {
        "text/html": page_html(name, chosen, states),
        "text/plain": plain_text(name, chosen, states[0]),
    }
    if getattr(get_ipython(), "kernel", None) is not None:
        bundle["application/vnd.jupyter.widget-view+json"] = {
            "version_major": 2,
            "version_minor": 0,
            "model_id": _widgets(chosen, states).model_id,
        }
    display(bundle, raw=True)


def page_html(name: str, controls: list[Control], states: list[str]) -> str:
    """The box for a page without a kernel; every id in it begins with ``name``."""
    room = files("llmtutor.viz")
    script = room.joinpath("explore.js").read_text(encoding="utf-8").replace("NAME", name)
    css = room.joinpath("explore.css").read_text(encoding="utf-8")
    rows = "".join(_control_html(name, control) for control in controls)
    data = json.dumps(states, ensure_ascii=False).replace("<", "\\u003c")
    if len(data.encode()) > MOST_BYTES:
        raise ValueError(
            f"{name!r} would put {len(data.encode()):,} bytes on the page; at most {MOST_BYTES:,} "
            "are sensible: use fewer states or simpler pictures"
        )
    return (
        f'<div class="lt-explore" id="{name}" role="group" '
        f'aria-label="Explore: {name.replace("-", " ")}">\n<style>\n{css}</style>\n{rows}'
        f'<div class="lt-view" id="{name}-view" aria-live="polite">{states[0]}</div>\n'
        f'<p id="{name}-note">Run this cell to move it.</p>\n'
        f'<script type="application/json" id="{name}-states">{data}</script>\n'
        f"<script>\n{script}</script>\n</div>"
    )


def plain_text(name: str, controls: list[Control], state: str) -> str:
    """The box as text: what can be moved, and what is shown at first, of pictures their text."""
    unstyled = re.sub(r"<style>.*?</style>", "", state, flags=re.S)
    described = re.sub(r'<[^>]* alt="([^"]*)"[^>]*>', r"\1", unstyled)
    shown = " ".join(unescape(re.sub(r"<[^>]*>", " ", described)).split())
    moves = "; ".join(f"{c.label} = {c.texts[0]} (of {', '.join(c.texts)})" for c in controls)
    return f"{name}: {moves}\n{shown if len(shown) <= 600 else shown[:599] + '…'}"


def _controls(given: Mapping[str, Iterable[Any]], labels: Mapping[str, str]) -> list[Control]:
    if unknown := set(labels) - set(given):
        raise ValueError(f"there is a label for {min(unknown)!r} but no control of that name")
    controls = [
        Control(argument, labels.get(argument, argument.replace("_", " ")), tuple(values))
        for argument, values in given.items()
    ]
    if not controls:
        raise ValueError("there is nothing to move: give the values of at least one argument")
    for control in controls:
        if len(control.values) < 2:
            raise ValueError(f"{control.argument!r} has fewer than two values: nothing moves")
    count = prod(len(c.values) for c in controls)
    if count > MOST_STATES:
        sizes = " × ".join(str(len(c.values)) for c in controls)
        raise ValueError(f"{sizes} = {count} states, at most {MOST_STATES} fit on a page")
    return controls


def _html(picture: str | Figure, salt: str) -> str:
    if isinstance(picture, str):
        return picture
    if not isinstance(picture, Figure):
        kind = type(picture).__name__
        raise ValueError(f"expected render to return HTML text or a Figure, received {kind}")
    data = base64.b64encode(svg(picture, salt).encode()).decode("ascii")
    style = "max-width:100%;height:auto;padding:0;background:#fff"
    return (
        f'<img class="dark-light" style="{style}" alt="{escape(alt_text(picture))}" '
        f'src="data:image/svg+xml;base64,{data}">'
    )


def _control_html(name: str, control: Control) -> str:
    own = f"{name}-{control.argument.replace('_', '-')}"
    texts = escape(json.dumps(control.texts, ensure_ascii=False))
    common = f'id="{own}" data-texts="{texts}" autocomplete="off"'
    if control.is_slider:
        field = (
            f'<input type="range" {common} min="0" max="{len(control.texts) - 1}" step="1" '
            f'value="0" aria-valuetext="{escape(control.texts[0])}">'
            f'<span aria-hidden="true">{escape(control.texts[0])}</span>'
        )
    else:
        options = "".join(f"<option>{escape(text)}</option>" for text in control.texts)
        field = f"<select {common}>{options}</select>"
    label = f'<label for="{own}">{escape(control.label)}</label>'
    return f'<div class="lt-control">{label}{field}</div>\n'


def _widgets(controls: list[Control], states: list[str]) -> Any:
    """The same states as live widgets."""
    view = ipywidgets.HTML(states[0])
    fields = []
    for control in controls:
        make = ipywidgets.SelectionSlider if control.is_slider else ipywidgets.Dropdown
        options = [(text, step) for step, text in enumerate(control.texts)]
        style = {"description_width": "initial"}
        fields.append(make(options=options, index=0, description=control.label, style=style))

    def move(_change: object) -> None:
        state = 0
        for control, field in zip(controls, fields, strict=True):
            state = state * len(control.values) + field.value
        view.value = states[state]

    for field in fields:
        field.observe(move, names="value")
    return ipywidgets.VBox([*fields, view])


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
