"""The built pages as one document to be printed: in order, with one set of ids, nothing to click.

On paper nothing folds and nothing moves. Folds are open. What would give an answer away (solutions,
sketches of answers, the reasons of a quiz) goes to the end; a line in its place says where. What
can be moved shows its first state.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pages
from bs4 import BeautifulSoup, Tag

REFERS = ("for", "aria-labelledby", "aria-describedby", "aria-controls", "headers")
"""Attributes that hold ids of the same page."""
LOST = "script, noscript, button, form, .headerlink, .viewcode-link, .lt-explore > p[id$=-note]"
"""What means nothing on paper."""
TO_THE_END = (
    'section[id*="--exercise-"] .tag_solution',
    'section[id*="--open-exercise"] details',
)
QUIZ = 'section[id$="--quiz"]'
TOLD_ONCE = "What the rungs before it write"
"""A fold that many chapters have; the first page has it with all rungs."""
APPENDIX = "solutions-and-answers"


@dataclass(frozen=True)
class Part:
    """A heading of the contents with its pages, by their names below the root."""

    title: str
    pages: list[str]


@dataclass
class Answers:
    """What a chapter leaves to the end of the book."""

    title: str
    page: str
    found: list[Tag] = field(default_factory=list)


def parts(contents: dict) -> list[Part]:
    """The parts of a table of contents (`_toc.yml`), the first page as one without a title."""
    first = Part("", [contents["root"]])
    return [first, *(Part(part["caption"], list(_files(part))) for part in contents["parts"])]


def _files(entry: dict) -> Iterator[str]:
    for child in [*entry.get("chapters", []), *entry.get("sections", [])]:
        yield child["file"]
        yield from _files(child)


def identity(page: str, anchor: str = "") -> str:
    """The id in the document of a page, or of a place on it.

    >>> identity("book/chapters/04_attention", "quiz")
    'book-chapters-04_attention--quiz'
    """
    return page.replace("/", "-") + (f"--{anchor}" if anchor else "")


def article(html: Path, page: str, known: set[str], assets: str) -> Tag:
    """The words of a page, ready to stand beside those of other pages.

    Args:
        html: the folder of the built pages.
        page: its name, such as "book/intro".
        known: pages that are in the document, so that links lead there.
        assets: how the document names the folder ``html``.
    """
    found = pages.article(pages.parse(html / f"{page}.html"))
    if found is None:
        raise ValueError(f"{page}.html: expected an article, found none; build the pages again")
    for lost in found.select(LOST):
        lost.decompose()
    for box in found.select(".lt-explore"):
        _hold_still(box)
    for tag in found.find_all(True):
        _rename(tag, page, known, assets)
    for level in (5, 4, 3, 2, 1):  # the parts of the book are above the pages
        for heading in found.find_all(f"h{level}"):
            heading.name = f"h{level + 1}"
    found["id"] = identity(page)
    found["class"] = "bd-article lt-page"
    return found


def _rename(tag: Tag, page: str, known: set[str], assets: str) -> None:
    """One element: its id, what it refers to, where its link or picture is now."""
    if "id" in tag.attrs:
        tag["id"] = identity(page, str(tag["id"]))
    for name in REFERS:
        if name in tag.attrs:
            ids = tag[name] if isinstance(tag[name], list) else str(tag[name]).split()
            tag[name] = " ".join(identity(page, one) for one in ids)
    for name, value in tag.attrs.items():
        if isinstance(value, str) and "url(#" in value:
            tag[name] = value.replace("url(#", f"url(#{identity(page, ' ').strip()}")
    folder = posixpath.dirname(page)
    if (src := str(tag.get("src", ""))) and not urlsplit(src).scheme:
        tag["src"] = posixpath.join(assets, posixpath.normpath(posixpath.join(folder, src)))
    parts = urlsplit(str(tag.get("href", "")))
    if "href" not in tag.attrs or parts.scheme or parts.netloc:
        return
    target = posixpath.normpath(posixpath.join(folder, unquote(parts.path)))
    name = target.removesuffix(".html") if parts.path else page
    if name in known:
        tag["href"] = f"#{identity(name, unquote(parts.fragment))}"
    else:  # a download, or the source of a module: not in the document
        del tag["href"]


def _hold_still(box: Tag) -> None:
    """Controls become words: what they are set to at first."""
    for control in box.select(".lt-control"):
        moved = control.select_one("[data-texts]")
        label = control.select_one("label")
        if moved is not None and label is not None:
            first = json.loads(str(moved["data-texts"]))[0]
            control.clear()
            control.append(f"{label.get_text()}: {first}")


def open_folds(body: Tag, told: str = "") -> None:
    """Folds of prose become boxes with their summary as a title, folds of code nothing at all.

    What is told once leads to the place ``told``, if there is one.
    """
    for fold in body.find_all("details"):
        summary = fold.find("summary", recursive=False)
        if told and summary is not None and summary.get_text().startswith(TOLD_ONCE):
            fold.replace_with(_tag(f'<p class="lt-see">{TOLD_ONCE}: {page_reference(told)}</p>'))
            continue
        code = "hide" in _classes(fold)
        if summary is not None and code:
            summary.decompose()
        elif summary is not None:
            summary.name, summary["class"] = "p", "lt-fold-title"
        fold.name = "div"
        fold["class"] = "lt-code" if code else "lt-fold"


def _classes(tag: Tag) -> list[str]:
    return list(tag.get_attribute_list("class"))


def take_answers(body: Tag, page: str) -> Answers:
    """Take what gives answers away out of a page, and leave a line that says where it went."""
    heading = body.find("h2")
    answers = Answers(" ".join(heading.get_text().split()) if heading else page, page)
    for number, found in enumerate(body.select(", ".join(TO_THE_END))):
        section = found.find_parent("section")
        title = section.find(re.compile("h[3-6]")).get_text()  # type: ignore[union-attr]
        name = identity(page, f"answer-{number}")
        found.replace_with(_pointer(name, "Solution"))
        answers.found.append(_entry(title, name, found))
    for quiz in body.select(QUIZ):
        whole = BeautifulSoup(str(quiz), "html.parser").section
        name = identity(page, "answer-quiz")
        for option in quiz.find_all("details"):
            summary = option.find("summary")
            option.name, option["class"] = "p", "lt-option"
            option.string = summary.get_text() if summary else ""
        quiz.append(_pointer(name, "Answers"))
        if whole is None:
            continue
        for tag in (whole, *whole.find_all(id=True)):
            del tag["id"]
        title = whole.find(re.compile("h[1-6]"))
        if title is not None:
            title.decompose()
        answers.found.append(_entry("Quiz", name, whole))
    return answers


def _pointer(name: str, words: str) -> Tag:
    return _tag(f'<p class="lt-see">{words}: {page_reference(name)}</p>')


def _entry(title: str, name: str, body: Tag) -> Tag:
    entry = _tag(f'<section id="{name}"><h3>{escape(title)}</h3></section>')
    entry.append(body.extract())
    return entry


def _tag(text: str) -> Tag:
    made = BeautifulSoup(text, "html.parser").find(True)
    assert isinstance(made, Tag)
    return made


def page_reference(name: str, words: str = "page ") -> str:
    """A link that says on which page a place is; pdf.py puts the number in once it is known."""
    return f'<a class="lt-on" href="#{escape(name)}">{words}<span>000</span></a>'


def document(html: Path, contents: dict, title_page: str, assets: str, head: str) -> str:
    """The whole book as HTML: title page, contents, all pages in order, solutions and answers."""
    known = {page for part in parts(contents) for page in part.pages}
    listed, body, answers = [], [], []
    for number, part in enumerate(parts(contents)):
        if part.title:
            name = f"part-{number}"
            listed.append(_line(part.title, name, "lt-toc-part"))
            body.append(f'<section class="lt-part" id="{name}"><h1>{escape(part.title)}</h1>')
            body.append("</section>")
        for page in part.pages:
            one = article(html, page, known, assets)
            taken = take_answers(one, page)
            open_folds(one, identity(contents["root"]) if page != contents["root"] else "")
            listed.append(_line(taken.title, identity(page), "lt-toc-page"))
            body.append(_on_named_pages(page, taken.title, str(one)))
            answers.append(taken)
    listed.append(_line("Solutions and answers", APPENDIX, "lt-toc-part"))
    body.append(_appendix([of for of in answers if of.found]))
    toc = f'<nav class="lt-toc"><h1>Contents</h1>{"".join(listed)}</nav>'
    whole = "".join(body)
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head>{head}'
        f"<style>{_running_heads(whole)}</style></head><body>"
        f"{title_page}{toc}<main>{whole}</main></body></html>"
    )


def _line(title: str, name: str, kind: str) -> str:
    return f'<p class="{kind}"><span>{escape(title)}</span>{page_reference(name, "")}</p>'


def _on_named_pages(page: str, title: str, body: str) -> str:
    name = re.sub(r"\W", "-", identity(page))
    return f'<div class="lt-leaf" style="page: p-{name}" data-head="{escape(title)}">{body}</div>'


def _running_heads(body: str) -> str:
    """A style for the pages of each chapter: its title stands at their head."""
    rules = []
    for name, title in re.findall(r'style="page: (p-[\w-]+)" data-head="([^"]*)"', body):
        words = BeautifulSoup(title, "html.parser").get_text().replace("\\", "").replace('"', "'")
        rules.append(f'@page {name} {{ @top-left {{ content: "{words}" }} }}')
    return "\n".join(rules)


def _appendix(answers: list[Answers]) -> str:
    """All that was taken from its place, by chapters."""
    body = []
    for of in answers:
        for entry in of.found:
            open_folds(entry)
        inside = "".join(map(str, of.found))
        back = f'<p class="lt-see">Belongs to {page_reference(identity(of.page))}</p>'
        body.append(f"<section><h2>{escape(of.title)}</h2>{back}{inside}</section>")
    whole = "".join(body)
    head = f'<h1 id="{APPENDIX}">Solutions and answers</h1>'
    inside = f'<article class="bd-article lt-page">{head}{whole}</article>'
    return _on_named_pages(APPENDIX, "Solutions and answers", inside)
