"""Chapter 22, evaluation: several answers to one question (ARC, PIQA, OpenBookQA, COPA).

The answers are scored as what follows the question. The letters A, B, C, D do not occur: small
models do not know what they stand for, and would be examined in that.
"""

from pathlib import Path

from llmtutor.evaluate.items import Item, choice
from llmtutor.evaluate.tasks.records import Record, place, read_items, text, texts


def read_choices(path: Path) -> list[Item]:
    """Lines ``{query, choices, gold}``."""
    return read_items(path, _item)


def read_piqa(path: Path) -> list[Item]:
    """The same, but a query ends before the word ``Answer:``, which belongs to it."""

    def item(where: str, record: Record) -> Item:
        query = text(where, record, "query")
        return _item(where, {**record, "query": query.removesuffix("\n") + "\nAnswer:"})

    return read_items(path, item)


def read_arc(path: Path) -> list[Item]:
    """The same, or the requests that OLMo's evaluation keeps: one question in several lines.

    There the question is the object ``doc`` of a line, and has an ``id``.
    """
    known: dict[str, Item] = {}

    def item(where: str, record: Record) -> Item:
        doc = record.get("doc", record)
        if not isinstance(doc, dict):
            raise ValueError(f"{where}: expected an object as 'doc', got {doc!r:.60}")
        one = _item(where, doc)
        known.setdefault(str(doc.get("id", where)), one)
        return one

    read_items(path, item)
    return list(known.values())


def _item(where: str, record: Record) -> Item:
    answers = texts(where, record, "choices")
    return choice(text(where, record, "query"), answers, place(where, record, "gold", len(answers)))
