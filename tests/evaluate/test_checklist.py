"""The checklist to take along is the one of the package, and names things that exist."""

import re
from pathlib import Path

from llmtutor.evaluate import budget, causality, compare, referee
from llmtutor.evaluate.checklist import CHECKLIST, as_text

DOWNLOAD = Path(__file__).parents[2] / "book" / "_static" / "referee.txt"


def test_the_file_that_readers_download_is_the_checklist() -> None:
    assert DOWNLOAD.read_text(encoding="utf-8") == as_text()
    assert as_text().count("[ ]") == len(CHECKLIST)


def test_every_tool_that_it_names_is_there() -> None:
    named = {name for item in CHECKLIST for name in re.findall(r"\b[a-zA-Z]+(?:_\w+)+\b", item.how)}
    homes = (budget, causality, compare, referee)
    assert len(named) >= 8
    assert [name for name in named if not any(hasattr(home, name) for home in homes)] == []
