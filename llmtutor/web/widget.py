"""Chapter 23, export: a widget in a notebook. On a published page it is a button that starts it, in
JupyterLab the widget itself, which the kernel serves."""

import json
from html import escape
from typing import Any

import ipywidgets
from IPython import get_ipython
from IPython.display import display

from llmtutor.web.boxes import INVITATIONS, box
from llmtutor.web.recorded import recorded_html
from llmtutor.web.server import address

HEIGHT = 640  # pixels of the frame in JupyterLab


def widget(name: str, **options: Any) -> None:
    """Show a widget of the page: write, cut, surprise, look, inside or cost.

    ``options`` are what it begins with; each widget says in its script which it takes.

    Raises:
        ValueError: an unknown widget (with the nearest one).
    """
    html = box(name, options, recorded_html(name, options))
    bundle: dict[str, Any] = {"text/html": html, "text/plain": f"Widget: {INVITATIONS[name]}"}
    if getattr(get_ipython(), "kernel", None) is not None:
        source = escape(f"{address()}{name}.html?{json.dumps(options)}")
        style = f"width:100%;height:{HEIGHT}px;border:0"
        frame = ipywidgets.HTML(f'<iframe src="{source}" title="{name}" style="{style}"></iframe>')
        bundle["application/vnd.jupyter.widget-view+json"] = {
            "version_major": 2,
            "version_minor": 0,
            "model_id": frame.model_id,
        }
    display(bundle, raw=True)
