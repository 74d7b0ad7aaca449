"""Chapter 22, evaluation: how does it go on? (HellaSwag, Zellers et al. 2019)

Four endings of a description, three of them written by a language model and kept because they
deceived another one. The texts come from video captions and from WikiHow, whose headings stand in
brackets and have to go.
"""

import bz2
import re
from pathlib import Path

from llmtutor.evaluate.items import Item, choice
from llmtutor.evaluate.tasks.choice import read_choices
from llmtutor.evaluate.tasks.records import Record, place, read_items, text, texts
from llmtutor.tokenizer.files import utf8

LINES = 6
"""Of a question in the file of six lines each: context, place of the right ending, endings."""


def read_hellaswag(path: Path) -> list[Item]:
    """The questions in a file of any of three forms, by its name and first line.

    ``.bz2``: six lines for a question, brackets gone. Else JSON lines, as published (``ctx_a``,
    ``ctx_b``, ``activity_label``, ``endings``, ``label``), or ready ones (``query``, ``choices``,
    ``gold``). Of the published ones the second part of a context begins with a capital letter, as
    in lm-evaluation-harness; in the file of six lines it does not.

    Raises:
        ValueError: naming the file and line that is no question.
        OSError: the file cannot be read.
    """
    if path.suffix == ".bz2":
        return _read_six_lines(path)
    with path.open("rb") as file:
        ready = b'"query"' in file.readline()
    return read_choices(path) if ready else read_items(path, published)


def published(where: str, record: Record) -> Item:
    """A question as the authors published it, made ready as lm-evaluation-harness does it."""
    endings = texts(where, record, "endings")
    # Python's "capitalize" also makes the other letters small.
    context = f"{text(where, record, 'ctx_a')} {record.get('ctx_b', '').capitalize()}"
    return choice(
        without_brackets(f"{text(where, record, 'activity_label')}: {context}"),
        [without_brackets(ending) for ending in endings],
        place(where, record, "label", len(endings)),
    )


def without_brackets(passage: str) -> str:
    """A text of WikiHow without its markup.

    >>> without_brackets("[header] How to nap [title] Lie down. [step] Rest.")
    ' How to nap. Lie down. Rest.'
    """
    passage = passage.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", passage).replace("  ", " ")


def _read_six_lines(path: Path) -> list[Item]:
    try:
        data = bz2.decompress(path.read_bytes())
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path}: not a whole bz2 file ({error}); fetch it again") from None
    lines = utf8(data, path).removesuffix("\n").split("\n")
    if len(lines) % LINES:
        raise ValueError(f"{path}: expected {LINES} lines a question, found {len(lines)} lines")
    items = []
    for first in range(0, len(lines), LINES):
        context, label, *endings = lines[first : first + LINES]
        where = f"{path}, line {first + 1}"
        record = {"query": context, "choices": endings, "gold": label}
        gold = place(where, record, "gold", len(endings))
        items.append(choice(text(where, record, "query"), texts(where, record, "choices"), gold))
    return items
