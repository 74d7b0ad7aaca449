"""Chapter 23, export: what the pages of widgets are made of, whatever model they show."""

from html import escape
from importlib.resources import files


def page_files() -> dict[str, str]:
    """The scripts of the widgets and their style, as they are in ``llmtutor/web/page``."""
    folder = files("llmtutor.web") / "page"
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def standalone(title: str, body: str) -> str:
    """A page of its own, in the light or the dark as the reader's system is."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="stylesheet" href="widgets.css">
<style>
body {{
  font-family: system-ui, sans-serif;
  line-height: 1.6;
  color: light-dark(#222, #eee);
  background: light-dark(#fff, #14171a);
}}
main {{ max-width: 52rem; margin: 1rem auto; padding: 0 1rem; }}
</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
<script src="widgets.js"></script>
</body>
</html>
"""
