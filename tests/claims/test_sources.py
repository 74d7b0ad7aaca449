"""Where a page speaks of somebody else's code, a reader can find it."""

import re
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).parents[2] / "book"
CHAPTERS = sorted((BOOK / "chapters").glob("[0-9]*.ipynb"))
HOSTED = re.compile(r"(Issue|Pull request) \d+ of [\w.-]+/[\w.-]+, GitHub")
OF_OTHERS = re.compile(r"\b(published|reported|repositor|pull request)", re.I)


def test_an_issue_or_a_pull_request_has_its_number_and_its_repository() -> None:
    entries = re.findall(r"howpublished = \{(.*)\},", (BOOK / "references.bib").read_text("utf-8"))
    hosted = [entry for entry in entries if "GitHub" in entry and re.match("Issue|Pull", entry)]
    assert len(hosted) >= 4 and all(HOSTED.fullmatch(entry) for entry in hosted)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_bug_of_somebody_elses_has_an_address(path: Path) -> None:
    cells = nbformat.read(path, 4).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    bug = re.search(r"^## Find the bug.*?(?=^## )", text, re.S | re.M)
    if bug and OF_OTHERS.search(bug[0]):
        assert "{cite" in bug[0] or "](http" in bug[0]


def test_the_path_from_a_mean_to_a_softmax_is_credited() -> None:
    (page,) = (path for path in CHAPTERS if path.stem == "04_attention")
    assert "{cite}`karpathy2023b`" in page.read_text(encoding="utf-8")
    assert "watch?v=" in (BOOK / "references.bib").read_text(encoding="utf-8")
