"""Chapter 23, export: the box of a widget on a page, before anybody has started it."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from llmtutor.checks import check_name

INVITATIONS = {
    "write": "Let the model write here",
    "cut": "Cut a text of your own",
    "surprise": "How surprising is your text?",
    "look": "See where it looks",
    "inside": "See it make up its mind",
}
"""The widgets, and what stands on the button that starts each."""


def box(name: str, options: Mapping[str, Any], example: str) -> str:
    """A widget with its invitation; the example is seen until it starts, or where it cannot.

    Raises:
        ValueError: an unknown widget (with the nearest one).
    """
    check_name("widget", name, INVITATIONS)
    values = escape(json.dumps(options, ensure_ascii=False))
    return (
        f'<section class="lt-widget" id="lt-{name}" data-widget="{name}" data-options="{values}" '
        f'data-invitation="{INVITATIONS[name]}" aria-label="Widget: {name}">\n'
        f'<div class="lt-recorded">{example}</div>\n</section>'
    )
