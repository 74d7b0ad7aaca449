"""The ``llmtutor`` command: one sub-command a package, each loaded only when it is called.

Mistakes of the caller end in one line on standard error and exit code 1, never in a traceback;
set ``LLMTUTOR_TRACEBACK=1`` to see where an error was raised.
"""

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import cyclopts

from llmtutor import __version__
from llmtutor.checks import shell_line

Text = Annotated[str, cyclopts.Parameter(allow_leading_hyphen=True)]
"""The value of an option that takes any text, also one that begins with a dash."""


def _explain(error: cyclopts.CycloptsError) -> object:
    """The error in its frame; where a value was taken for an option, with the way to give it."""
    message = str(error)
    if isinstance(error, cyclopts.MissingArgumentError):
        for option, value in pairwise(error.root_input_tokens or []):
            if option == error.keyword and value.startswith("-"):
                joined = shell_line(f"{option}={value}")
                message += f" If {value!r} is meant to be it, write {joined}"
    return cyclopts.CycloptsPanel(message)


app = cyclopts.App(
    name="llmtutor",
    version=__version__,
    error_formatter=_explain,
    help="The tools of the LLM Tutor book: corpora, tokenizers, training, generation, studies.",
    help_epilogue="Start with: llmtutor start my-work",
)
for _name, _help in {
    "start": "Make a folder of chapters to work in, or bring it up to date.",
    "data": "List, fetch, tokenise and inspect the corpora of the book.",
    "tokenizer": "Train a tokenizer, turn text into token ids and back.",
    "train": "Train a language model on a corpus; resume a run.",
    "model": "Show what a model is made of and what it costs; no weights are needed.",
    "generate": "Let a trained model write: go on from a prompt, or from each line typed.",
    "export": "Write a trained model for other programs: Hugging Face, llama.cpp, ONNX, llama2.c.",
    "evaluate": "Examine a trained model on benchmarks, with intervals and verdicts.",
    "quantize": "Write a trained model in fewer bits, and say what it costs.",
    "experiment": "List the studies of the book, run them, show what they measured.",
}.items():
    app.command(f"llmtutor.cli.{_name}:app", name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` without one) and return its exit code."""
    try:
        app(arguments, result_action="return_none")
    except (ValueError, OSError) as error:
        if os.environ.get("LLMTUTOR_TRACEBACK"):
            raise
        print(f"llmtutor: {error}", file=sys.stderr)
        return 1
    return 0
