"""Chapter 02, web pages: the text of a page, without its navigation.

A page is cut into blocks, and a block is judged by its length and by how much of it is links, a
simple form of :cite:t:`kohlschuetter2010`. Menus are short or all links; paragraphs are neither.
"""

import re
from dataclasses import dataclass
from html.parser import HTMLParser

MIN_WORDS, MAX_LINK_SHARE = 10, 1 / 3
HEADINGS = {"h1", "h2", "h3"}
PARTS = {
    *("p", "div", "li", "td", "th", "pre", "blockquote", "br", "hr", "ul", "ol", "table", "tr"),
    *("body", "main", "article", "section", "nav", "header", "footer", "aside", "form", "button"),
    *("h4", "h5", "h6", *HEADINGS),
}
"""Tags at which a block ends."""
MARKED = re.compile(r"<!\[[^>]*>")
"""Conditions for old browsers, such as ``<![if !IE]>``: not HTML, and the parser may stop there."""
UNSEEN = {"head", "script", "style", "noscript", "template"}
"""Tags whose content no reader sees."""


@dataclass(frozen=True)
class Block:
    """Text between two tags of layout."""

    tag: str
    """The innermost tag of layout around it."""
    text: str
    """Its words with single blanks between them."""
    link_share: float
    """Of its words, how many are in links; 0 to 1."""

    @property
    def n_words(self) -> int:
        """Words, as parted by white space."""
        return len(self.text.split())

    @property
    def is_heading(self) -> bool:
        """Whether it names what follows."""
        return self.tag in HEADINGS

    @property
    def is_content(self) -> bool:
        """Long enough, and not mostly links."""
        return self.n_words >= MIN_WORDS and self.link_share <= MAX_LINK_SHARE


class _Reader(HTMLParser):
    """Collects blocks while it reads a page from left to right."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._tags = ["body"]
        self._words: list[str] = []
        self._n_linked = self._links = self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in PARTS:
            self.end_block()
            if tag not in ("br", "hr"):
                self._tags.append(tag)
        self._links += tag == "a"
        self._unseen += tag in UNSEEN

    def handle_endtag(self, tag: str) -> None:
        if tag in PARTS:
            self.end_block()
            if tag in self._tags[1:]:  # whatever was left open inside it ends too
                while self._tags.pop() != tag:
                    pass
        self._links = max(0, self._links - (tag == "a"))
        self._unseen = max(0, self._unseen - (tag in UNSEEN))

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._words.append(data)
            self._n_linked += len(data.split()) * bool(self._links)

    def end_block(self) -> None:
        """What was collected since the last tag of layout is a block, if it holds a word."""
        text = " ".join("".join(self._words).split())
        if text:
            share = min(1.0, self._n_linked / len(text.split()))
            self.blocks.append(Block(self._tags[-1], text, share))
        self._words, self._n_linked = [], 0


def blocks(page: str) -> list[Block]:
    """All blocks of an HTML page that a reader sees, in order.

    >>> [(b.tag, b.text, b.link_share) for b in blocks("<p>Go <a>home</a></p><p>A <b>bold</b>")]
    [('p', 'Go home', 0.5), ('p', 'A bold', 0.0)]
    """
    reader = _Reader()
    reader.feed(MARKED.sub("", page))
    reader.close()
    reader.end_block()
    return reader.blocks


def extract(page: str) -> str:
    """The blocks that are content, one a line, with the headings above them; a list gets bullets.

    >>> page = "<nav><a>Home</a></nav><h1>Tides</h1><p>" + "The sea rises and falls twice. " * 2
    >>> print(extract(page))
    Tides
    The sea rises and falls twice. The sea rises and falls twice.
    """
    lines: list[str] = []
    headings: list[str] = []
    for block in blocks(page):
        if block.is_heading:
            headings.append(block.text)
        elif block.is_content:
            bullet = "• " if block.tag == "li" else ""
            lines += [*headings, bullet + block.text]
            headings = []
        else:
            headings = []
    return "\n".join(lines)
