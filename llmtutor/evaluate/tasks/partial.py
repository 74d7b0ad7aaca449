"""Chapter 22, evaluation: which word is meant? (WinoGrande, the Winograd schemas)

"The trophy doesn't fit into the suitcase because it is too large." The two readings differ in the
middle and end with the same words, so only these are scored, behind one reading and behind the
other: *partial evaluation* (Trinh and Le 2018). How likely the names themselves are does not count.
"""

from pathlib import Path

from llmtutor.evaluate.items import Item
from llmtutor.evaluate.tasks.records import Record, place, read_items, text, texts


def read_partial(path: Path) -> list[Item]:
    """Lines ``{context_options, continuation, gold}``."""
    return read_items(path, _item)


def _item(where: str, record: Record) -> Item:
    contexts = texts(where, record, "context_options")
    ending = text(where, record, "continuation")
    gold = place(where, record, "gold", len(contexts))
    return Item(tuple(contexts), (ending,) * len(contexts), gold)
