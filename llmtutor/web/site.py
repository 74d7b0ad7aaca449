"""Chapter 23, export: all files that the widgets of the book load, by name."""

from collections.abc import Callable, Mapping
from functools import cache

from llmtutor.data.places import FetchError
from llmtutor.data.tokenizers import load_published
from llmtutor.experiments.kept import load_kept
from llmtutor.tokenizer import BPETokenizer
from llmtutor.web.costs import cost_script
from llmtutor.web.engine import engine_script
from llmtutor.web.export import model_script
from llmtutor.web.page_files import page_files
from llmtutor.web.tokenizers import GPT2, gpt2_script, tokenizers_script

MODEL = "staircase"
"""The name under which the widgets ask for the last rung."""
FIRST = ("widgets.js", "widgets.css")
"""What a page loads at once; all else waits for a click."""


def site_files() -> dict[str, str]:
    """Names and contents. GPT-2's vocabulary is left out where it was not fetched."""
    made = {name: content for name in MADE if (content := site_file(name))}
    return {**page_files(), **made}


@cache
def site_file(name: str) -> str:
    """The content of one file, made when it is asked for; empty if there is no such file."""
    return MADE[name]() if name in MADE else page_files().get(name, "")


@cache
def _gpt2() -> BPETokenizer | None:
    try:
        return load_published("gpt2")
    except FetchError:
        return None


def _model() -> str:
    model, tokenizer = load_kept()
    return model_script(model, tokenizer, name=MODEL)


def _vocabulary() -> str:
    gpt2 = _gpt2()
    return "" if gpt2 is None else gpt2_script(gpt2)


MADE: Mapping[str, Callable[[], str]] = {
    "engine.js": engine_script,
    f"{MODEL}.js": _model,
    "cost-data.js": cost_script,
    "tokenizers.js": lambda: tokenizers_script(with_gpt2=_gpt2() is not None),
    f"{GPT2}.js": _vocabulary,
}
"""What is not written by hand."""
