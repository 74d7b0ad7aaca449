"""Links that leave the book: all of them are found, with what they are said to show, and asked."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import links
import pytest
from links import Link

TEXT = """# Title

One sentence. It is told in [a *paper*](https://one.org/a) of 2020. Another.

<https://two.org/b> and bare https://three.org/c, with a comma.

| table | link |
| --- | --- |
| x | [cell](https://four.org/d) |

<a href="https://five.org/e">html</a>

[ours](other.md), http://127.0.0.1:8000 and https://example.org/x
"""
CODE = """
_HUB = "https://hub.org/data"
_PAPER = "https://paper.org/x"
FILE = Remote("name", f"{_HUB}/file.txt")
OTHER = f"{_HUB}/{name}"
"""
WORKS = """@misc{one2020,
  title        = {A {Paper} of Ours},
  howpublished = {GitHub repository we/ours},
  doi          = {10.1/2},
  note         = {arXiv:2001.00001},
}

@misc{two2021,
  title        = {Another},
  howpublished = {\\url{https://other.org/post/}},
}
"""


def pairs(found: Iterator[Link]) -> list[tuple[str, str, str]]:
    return [(link.address, link.place, link.words) for link in found]


def test_links_of_a_text_are_found_with_their_sentences() -> None:
    assert pairs(links.of_markdown(TEXT, "a.md")) == [
        ("https://one.org/a", "a.md:3", "It is told in a paper of 2020."),
        (
            "https://two.org/b",
            "a.md:5",
            "https://two.org/b and bare https://three.org/c, with a comma.",
        ),
        (
            "https://three.org/c",
            "a.md:5",
            "https://two.org/b and bare https://three.org/c, with a comma.",
        ),
        ("https://four.org/d", "a.md:9", "cell"),
        ("https://five.org/e", "a.md:11", '<a href="https://five.org/e">html</a>'),
        (
            "http://127.0.0.1:8000",
            "a.md:13",
            "ours, http://127.0.0.1:8000 and https://example.org/x",
        ),
        (
            "https://example.org/x",
            "a.md:13",
            "ours, http://127.0.0.1:8000 and https://example.org/x",
        ),
    ]


def test_links_of_works_are_put_together_from_their_numbers() -> None:
    assert pairs(links.of_references(WORKS, "r.bib")) == [
        ("https://doi.org/10.1/2", "r.bib one2020", "A Paper of Ours"),
        ("https://arxiv.org/abs/2001.00001", "r.bib one2020", "A Paper of Ours"),
        ("https://github.com/we/ours", "r.bib one2020", "A Paper of Ours"),
        ("https://other.org/post/", "r.bib two2021", "Another"),
    ]


def test_links_of_code_are_whole_addresses() -> None:
    found = {(a, place) for a, place, _ in pairs(links.of_code(CODE, "m.py"))}
    assert found == {
        ("https://paper.org/x", "m.py:3"),
        ("https://hub.org/data/file.txt", "m.py:4"),
    }


def test_links_of_all_kinds_of_sources_are_listed(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "code", "source": ["# https://no.org/"]},
        {"cell_type": "markdown", "source": ["See [it](https://cell.org/)."]},
    ]
    files = {
        "README.md": TEXT,
        "book/chapters/01_a.ipynb": json.dumps({"cells": cells}),
        "book/references.bib": WORKS,
        "llmtutor/data/m.py": CODE,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = links.links(tmp_path)
    assert len(found) == 5 + 1 + 4 + 2  # of the text's seven, two lead nowhere on purpose
    assert Link("https://cell.org/", "book/chapters/01_a.ipynb cell 1", "See it.") in found


def test_the_book_has_links_in_every_kind_of_source() -> None:
    places = {link.place.split(":")[0].split(" ")[0] for link in links.links()}
    assert {"book/references.bib", "llmtutor/data/corpora.py", "LICENSE-TEXT"} <= places
    assert any(place.endswith(".ipynb") for place in places)
    assert "book/_ext/gallery_sources.py" in places


class Host(BaseHTTPRequestHandler):
    """Answers by its path."""

    def do_GET(self) -> None:
        """The status that stands first in the path."""
        status = int(self.path[1:4])
        if self.path.endswith("shy") and self.command == "HEAD":
            status = 405
        self.send_response(status)
        if status == 301:
            self.send_header("Location", "/200/new")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "said", "gone"),
    [
        ("/200/here", "ok", False),
        ("/200/here#part", "ok", False),
        ("/200/shy", "ok", False),
        ("/301/old", "moved to ", False),
        ("/403/walled", "closed to programs (403)", False),
        ("/404/gone", "answers 404", True),
        ("/500/broken", "answers 500", True),
    ],
)
def test_an_address_is_judged_by_its_answer(host: str, path: str, said: str, gone: bool) -> None:
    answer = links.answer(host + path)
    assert answer.startswith(said) and links.is_gone(answer) is gone


def test_a_host_that_is_not_there_is_gone() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        address = f"http://127.0.0.1:{server.server_port}/200/"
    answer = links.answer(address)  # nobody listens there any more
    assert answer.startswith("no answer: ") and links.is_gone(answer)


@pytest.mark.parametrize("path", ["/200/a", "/404/b"])
def test_the_command_fails_where_one_is_gone(
    host: str, path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Link(host + path, "a.md:1", "Words."), Link(host + "/200/fine", "b.md:2", "More.")]
    monkeypatch.setattr(links, "links", lambda: found)
    gone = path.startswith("/404")
    assert links.main(["--check"]) == int(gone)
    printed = capsys.readouterr().out
    assert f"2 addresses: {int(gone)} gone, 0 moved, in 2 places" in printed
    assert ("answers 404\t" in printed and "a.md:1\tWords." in printed) is gone
    assert links.main([]) == 0 and "b.md:2\tMore." in capsys.readouterr().out
