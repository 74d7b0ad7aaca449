"""Every link of the sources that leaves the book: where it stands, and what it is said to show.

    python book/tools/links.py            a table: address, place, words
    python book/tools/links.py --check    ask the network for each; ends with 1 if one is gone

The pages' own links are checked when the book is built; these cannot be, without a network. What
answers may still have become something else: the words are there to be compared with it.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ("*.md", "LICENSE-TEXT", "data/*.md", "book/*.md", "book/api/*.md")
CODE = ("llmtutor/**/*.py", "book/_ext/*.py", "benchmarks/*.py")
BARE = re.compile(r"https?://[^\s<>()\[\]{}\"'`\\]+[^\s<>()\[\]{}\"'`\\.,;:!?]")
OURS = re.compile(
    r"//(?:127\.0\.0\.1|localhost|(?:[\w.-]+\.)?example\.org|www\.w3\.org|www\.sitemaps)"
)
"""Addresses of this machine, of examples, and names that only look like addresses."""
MOST_WORDS = 110
PATIENCE = 20.0
"""Seconds to wait for an answer."""
AT_ONCE = 6
ASKED_BY = "llm-tutor-links (a book that checks its references)"
CLOSED = {401, 403, 405, 429, 999}
"""Answers of hosts that are there and do not talk to programs: to be looked at by people."""


@dataclass(frozen=True)
class Link:
    """One link in one place."""

    address: str
    place: str
    words: str
    """What a reader is told about it: the sentence around it, or a title."""


def links(root: Path = ROOT) -> list[Link]:
    """All links that leave the book, in the order of their places."""
    found = []
    for path in _files(root, TEXTS):
        found += list(of_markdown(path.read_text(encoding="utf-8"), _name(path, root)))
    for path in _files(root, ("book/chapters/*.ipynb",)):
        found += list(of_notebook(path, _name(path, root)))
    for path in _files(root, ("book/*.bib",)):
        found += list(of_references(path.read_text(encoding="utf-8"), _name(path, root)))
    for path in _files(root, CODE):
        found += list(of_code(path.read_text(encoding="utf-8"), _name(path, root)))
    return [link for link in dict.fromkeys(found) if not OURS.search(link.address)]


def _files(root: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def of_markdown(text: str, place: str, by_line: bool = True) -> Iterator[Link]:
    """Links of a Markdown text with the sentence in which each stands."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type not in ("inline", "html_block", "fence", "code_block"):
            continue
        where = f"{place}:{token.map[0] + 1}" if by_line and token.map else place
        children = token.children or [token]
        whole = "".join(_said(child) for child in children)
        for address, label in _inside(children):
            yield Link(address, where, sentence(whole, label))


def _said(token: Token) -> str:
    return "\n" if token.type == "softbreak" else token.content


def _inside(tokens: Sequence[Token]) -> Iterator[tuple[str, str]]:
    """Addresses with the text that is clicked, also where an address stands bare."""
    for i, token in enumerate(tokens):
        href = str(token.attrGet("href") or "")
        if token.type == "link_open" and re.match(r"https?://", href):
            yield href, tokens[i + 1].content if i + 1 < len(tokens) else ""
        elif not (i and tokens[i - 1].type == "link_open"):  # what is clicked is no second link
            for found in BARE.findall(token.content):
                yield found, found


def sentence(text: str, part: str) -> str:
    """The sentence of a text in which a part stands, on one line and not too long.

    >>> sentence("One. It is told in a paper. Two.", "a paper")
    'It is told in a paper.'
    """
    line = " ".join(text.split())
    for one in re.split(r"(?<=[.?!])\s+", line):
        if part and " ".join(part.split()) in one:
            return one if len(one) <= MOST_WORDS else f"{one[: MOST_WORDS - 1]}…"
    return line[:MOST_WORDS]


def of_notebook(path: Path, place: str) -> Iterator[Link]:
    """Links of the texts of a chapter."""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "markdown":
            yield from of_markdown("".join(cell["source"]), f"{place} cell {number}", False)


def of_references(text: str, place: str) -> Iterator[Link]:
    """Links of a bibliography: addresses, digital object identifiers, arXiv, GitHub."""
    for key, fields in re.findall(r"^@\w+\{([^,]+),\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        title = re.search(r"^\s*title\s*=\s*\{(.*)\},?$", fields, re.MULTILINE)
        words = re.sub(r"[{}]", "", title[1]) if title else key
        addresses = BARE.findall(fields)
        addresses += [f"https://doi.org/{n}" for n in re.findall(r"doi\s*=\s*\{([^}]+)\}", fields)]
        numbers = re.findall(r"arXiv:\s?(\d{4}\.\d{4,5}|[a-z-]+/\d{7})", fields)
        addresses += [f"https://arxiv.org/abs/{number}" for number in numbers]
        homes = re.findall(r"GitHub repository ([\w.-]+/[\w.-]+)", fields)
        addresses += [f"https://github.com/{home}" for home in homes]
        for address in addresses:
            yield Link(address, f"{place} {key}", words[:MOST_WORDS])


def of_code(text: str, place: str) -> Iterator[Link]:
    """Addresses in a module, put together as it does it from constants of its own."""
    tree, lines = ast.parse(text), text.splitlines()
    constants: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _text(node.value, constants)
            if value and value.startswith("http"):
                constants[node.targets[0].id] = value
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {child for node in joined for child in ast.walk(node) if child is not node}
    used = {child.id for child in parts if isinstance(child, ast.Name)}
    beginnings = {constants[name] for name in used if name in constants}
    for part in ast.walk(tree):
        address = _text(part, constants) if part not in parts else None
        if address and BARE.fullmatch(address) and address not in beginnings:
            line = part.lineno  # type: ignore[attr-defined]
            yield Link(address, f"{place}:{line}", lines[line - 1].strip()[:MOST_WORDS])


def _text(node: ast.AST, constants: dict[str, str]) -> str | None:
    """The text that an expression is, if constants alone say it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        pieces = []
        for value in node.values:
            if isinstance(value, ast.Constant):
                pieces.append(str(value.value))
            elif (
                isinstance(value, ast.FormattedValue)
                and isinstance(value.value, ast.Name)
                and value.value.id in constants
            ):
                pieces.append(constants[value.value.id])
            else:
                return None
        return "".join(pieces)
    return None


def answer(address: str, patience: float = PATIENCE) -> str:
    """What the network says to an address: "ok", "moved to …", "closed …" or what is wrong."""
    said = "no answer"
    for method in ("HEAD", "GET"):  # some hosts refuse to answer the first
        request = Request(address, method=method, headers={"User-Agent": ASKED_BY})
        try:
            with urlopen(request, timeout=patience) as reply:
                there = reply.url.partition("#")[0] == address.partition("#")[0]
                return "ok" if there else f"moved to {reply.url}"
        except HTTPError as error:
            closed = error.code in CLOSED
            said = f"closed to programs ({error.code})" if closed else f"answers {error.code}"
        except (URLError, OSError) as error:
            said = f"no answer: {getattr(error, 'reason', error)}"
    return said


def is_gone(said: str) -> bool:
    """Whether an answer means that a reader finds nothing there."""
    return said.startswith(("answers", "no answer"))


def check(found: Sequence[Link]) -> dict[str, str]:
    """What the network says to each address, each asked once."""
    addresses = sorted({link.address for link in found}, key=lambda a: urlsplit(a).path)
    with ThreadPoolExecutor(AT_ONCE) as pool:  # by path: neighbours belong to different hosts
        return dict(zip(addresses, pool.map(answer, addresses), strict=True))


def main(arguments: Sequence[str]) -> int:
    """Print the table, or ask the network and print what does not answer as it should."""
    found = links()
    if list(arguments) not in ([], ["--check"]):
        sys.exit(__doc__)
    if not arguments:
        for link in found:
            print(link.address, link.place, link.words, sep="\t")
        return 0
    said = check(found)
    for link in found:
        if said[link.address] != "ok":
            print(said[link.address], link.address, link.place, link.words, sep="\t")
    gone = [address for address, words in said.items() if is_gone(words)]
    moved = sum(words.startswith("moved") for words in said.values())
    print(f"{len(said)} addresses: {len(gone)} gone, {moved} moved, in {len(found)} places")
    return 1 if gone else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
