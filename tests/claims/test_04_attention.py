"""Chapter 04: where a page sends its readers for a subject."""

import re

import contract
import nbformat

HOMES = {
    "AdamW": 10,
    "attention": 4,
    "grouped-query attention": 14,
    "norms": 7,
    "optimizers": 10,
    "the training loop": 11,
    "the transformer": 9,
}


def test_a_subject_is_looked_up_in_its_own_chapter() -> None:
    sent = set()
    for path in contract.CHAPTERS.glob("[0-9]*.ipynb"):
        text = contract.prose(nbformat.read(path, as_version=4)).replace("`", "")
        for subject in HOMES:
            numbers = re.findall(rf"(?<!-query ){subject} \(chapter (\d+)\)", text)
            sent |= {(subject, int(number)) for number in numbers}
    assert sent
    assert sent <= set(HOMES.items())
