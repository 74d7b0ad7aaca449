"""Chapter 22, evaluation: a text as a whole, without questions (WikiText, or any text file)."""

import re
from pathlib import Path

from llmtutor.data.readers import read_separated

HEADING = re.compile(r"^ = [^=].* = $", re.M)
"""Of an article in WikiText's files; headings inside of it have more signs."""


def read_articles(path: Path) -> list[str]:
    """The articles of a file of WikiText.

    Raises:
        ValueError: it is no text, or has no heading.
        OSError: it cannot be read.
    """
    passage = "\n\n".join(read_separated(path))
    begins = [found.start() for found in HEADING.finditer(passage)]
    if not begins:
        raise ValueError(f"{path}: expected articles that begin with ' = Title = ', found none")
    ends = [*begins[1:], len(passage)]
    return [passage[a:b].strip("\n ") for a, b in zip(begins, ends, strict=True)]


def read_documents(path: Path) -> list[str]:
    """The documents of a text file, which end at ``<|endoftext|>``, if there are several.

    Raises:
        ValueError: it is no text.
        OSError: it cannot be read.
    """
    return list(read_separated(path))
