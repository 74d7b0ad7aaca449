"""Chapter 23, export: all files that the widgets of the book load, by name."""

from functools import cache

from llmtutor.data.places import FetchError
from llmtutor.data.tokenizers import load_published
from llmtutor.experiments.kept import load_kept
from llmtutor.web.engine import engine_script
from llmtutor.web.export import model_script
from llmtutor.web.page_files import page_files
from llmtutor.web.tokenizers import tokenizers_script

MODEL = "staircase"
"""The name under which the widgets ask for the last rung."""
FIRST = ("widgets.js", "widgets.css")
"""What a page loads at once; all else waits for a click."""


@cache
def site_files() -> dict[str, str]:
    """Names and contents. GPT-2's vocabulary is left out where it was not fetched."""
    try:
        gpt2 = load_published("gpt2")
    except FetchError:
        gpt2 = None
    model, tokenizer = load_kept()
    return {
        **page_files(),
        "engine.js": engine_script(),
        f"{MODEL}.js": model_script(model, tokenizer, name=MODEL),
        **tokenizers_script(gpt2),
    }
