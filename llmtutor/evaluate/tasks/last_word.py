"""Chapter 22, evaluation: the last word of a passage (LAMBADA, Paperno et al. 2016).

People guess it from the whole passage and cannot from its last sentence. A model is right if it
would write just this word, taking the likeliest token each time; so nobody is right by guessing.
"""

from pathlib import Path

from llmtutor.evaluate.items import Item
from llmtutor.evaluate.tasks.records import Record, read_items, text


def read_last_words(path: Path) -> list[Item]:
    """Lines ``{context, continuation}``, or ``{text}``, which is cut at its last space.

    The cut is before the word, not inside of it, and the space goes with the word.
    """
    return read_items(path, _item)


def _item(where: str, record: Record) -> Item:
    if "text" in record and "context" not in record:
        passage = text(where, record, "text")
        context, _, word = passage.rpartition(" ")
        if not context or not word:
            raise ValueError(f"{where}: expected several words as 'text', got {passage!r:.60}")
        return Item((context,), (word,), 0)
    return Item((text(where, record, "context"),), (text(where, record, "continuation"),), 0)
