"""The whole book as one PDF, printed by Chromium from the pages that `make book` has built.

    python book/tools/pdf.py

It writes _build/pdf/llm-tutor.pdf, puts a copy beside the pages, and only then links it from the
landing page: that link is never there without the file. A book is printed until the numbers of the
pages that stand in it are those of the pages that it has.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from html import escape
from pathlib import Path
from typing import Any

import browser
import one_page
import pages
import pdf_check
import yaml
from playwright.sync_api import Browser, Page, sync_playwright

import llmtutor

ROOT = pages.ROOT
NAME = "llm-tutor.pdf"
HERE = Path(__file__)
STEPS = HERE.with_suffix(".js").read_text(encoding="utf-8").partition("\n")[2].rstrip()
MATHJAX = "_static/vendor/mathjax/tex-mml-chtml.js"
WIDGETS = "_static/web/widgets.css"
MATHJAX_CONFIG = {"options": {"processHtmlClass": "tex2jax_process|mathjax_process|math"}}
PIXELS = round((210 - 2 * 20) / 25.4 * 96)
"""Width of the text on A4 with the margins of pdf.css, at 96 pixels an inch."""
MOST_PRINTS = 4
AUTHOR = "The LLM Tutor authors"
FOR_THE_SCREEN = "book/api/"
"""The reference of the package is left out: it would double the book, and is looked up in."""
OFFER = '<span class="lt-pdf"></span>'
"""Where the landing page (book/intro.md) names the PDF once there is one."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window.

    Raises:
        ValueError: there is no Chromium.
    """
    with sync_playwright() as playwright:
        program = browser.chromium(playwright)
        if program is None:
            raise ValueError(
                "no Chromium found, and the PDF is printed by it: install one, name one in the "
                "variable CHROMIUM, or run `python -m playwright install chromium`"
            )
        started = playwright.chromium.launch(executable_path=program, args=browser.FLAGS)
        yield started
        started.close()


def make(html: Path, table: dict[str, Any], chromium: Browser) -> Path:
    """Print the built pages of a folder; the PDF lies in the folder ``pdf`` beside it.

    Raises:
        ValueError: formulas or pictures are missing, something is cut, or the file is not sound.
    """
    if not (html / MATHJAX).is_file():
        raise ValueError(
            f"{html / MATHJAX} is not there: formulas are drawn without a network; install npm "
            "and run `make book` again"
        )
    folder = html.parent / "pdf"
    folder.mkdir(exist_ok=True)
    assets = f"../{html.name}"
    text = one_page.document(html, table, title_page(html), assets, head(html, assets))
    source, target = folder / "book.html", folder / NAME
    source.write_text(text, encoding="utf-8", newline="\n")
    with browser.serve(html.parent) as address:
        context = chromium.new_context(viewport={"width": PIXELS, "height": 1000})
        context.set_default_timeout(600_000)
        page = context.new_page()
        page.emulate_media(media="print", color_scheme="light")
        page.goto(f"{address}pdf/{source.name}", wait_until="load")
        refuse(run(page, "ready"))
        smaller, framed = run(page, "fit"), run(page, "letters")
        refuse(run(page, "cut"))
        printed = print_until_settled(page, folder / f"{NAME}.part")
        context.close()
    pdf_check.pack(printed, AUTHOR)
    print(f"made smaller to fit: {len(smaller)}; letters that no font here has: {framed}")
    refuse(pdf_check.problems(printed))
    return printed.replace(target)


def run(page: Page, step: str, *arguments: object) -> list[str]:
    """One step of pdf.js on the open document."""
    return list(page.evaluate(f"() => {STEPS}.{step}({json.dumps(arguments)[1:-1]})"))


def refuse(problems: list[str]) -> None:
    """Stop where there is a problem.

    Raises:
        ValueError: there is one; all are named.
    """
    if problems:
        shown = "\n".join(problems[:20])
        raise ValueError(f"the PDF was not made, {len(problems)} problems:\n{shown}")


def print_until_settled(page: Page, path: Path) -> Path:
    """Print, look where everything is, write the numbers into the document, and print again."""
    numbers: dict[str, int] = {}
    for _ in range(MOST_PRINTS):
        page.pdf(
            path=path, prefer_css_page_size=True, print_background=True, outline=True, tagged=True
        )
        found = pdf_check.places(path)
        if found == numbers:
            return path
        numbers = found
        run(page, "number", numbers)
    raise ValueError(f"the numbers of the pages did not settle in {MOST_PRINTS} prints")


def head(html: Path, assets: str) -> str:
    """The head of the document: the pages' own style, then that for paper; and MathJax.

    The style of the widgets is asked for by some pages alone, and their recorded examples need it.
    """
    first = pages.parse(next(iter(sorted(html.glob("book/*.html")))))
    sheets = [str(link["href"]).partition("?")[0] for link in first.select("link[rel=stylesheet]")]
    sheets += [sheet for sheet in (WIDGETS,) if (html / sheet).is_file()]
    links = [f"{assets}/{sheet.removeprefix('../')}" for sheet in sheets]
    styles = "".join(f'<link rel="stylesheet" href="{escape(link)}">' for link in links)
    paper = HERE.with_suffix(".css").read_text(encoding="utf-8")
    config = f"<script>window.MathJax = {json.dumps(MATHJAX_CONFIG)}</script>"
    return (
        f'<meta charset="utf-8"><title>LLM Tutor</title>{styles}<style>{paper}</style>'
        f'{config}<script defer src="{assets}/{MATHJAX}"></script>'
    )


def title_page(html: Path) -> str:
    """What this is, which state of it, and what may be done with it."""
    logo = (html / "_static" / "logo.svg").read_text(encoding="utf-8")
    home = f"<p>{escape(pages.BASE)}</p>" if pages.BASE else ""
    printed = day()
    return f"""<section class="lt-title">{logo}<p class="lt-name">LLM Tutor</p>
<p>Build a modern language model, part by part</p>
<p>{AUTHOR}</p>
<p>Version {llmtutor.__version__}, {printed.day} {printed:%B %Y}</p>{home}
<p class="lt-small">Code under the MIT licence, text and figures under CC BY 4.0.<br><br>
This is the book as its pages show it, with four differences. The reference of the package is left
out; it is for the screen. Solutions of exercises, sketches of
answers and the reasons of each quiz stand at the end; a line in their place says where. Pictures
that can be moved show their first state. Every other fold is open.</p></section>"""


def day() -> date:
    """The day of the state that is printed: SOURCE_DATE_EPOCH, else that of the last commit."""
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        return datetime.fromtimestamp(int(epoch), UTC).date()
    try:
        done = subprocess.run(
            ["git", "log", "-1", "--format=%cs"], cwd=ROOT, capture_output=True, encoding="utf-8"
        )
        return date.fromisoformat(done.stdout.strip())
    except (OSError, ValueError):  # no git, or no history
        return datetime.now(UTC).date()


def offer(html: Path, printed: Path) -> None:
    """Put the PDF beside the pages and name it on the landing page.

    Raises:
        ValueError: the landing page has no place for it.
    """
    landing = html / "book" / "intro.html"
    text = landing.read_text(encoding="utf-8")
    size = f"{pdf_check.count(printed)} pages, {printed.stat().st_size / 1e6:.0f} MB"
    link = f', or all of them as <a href="../{NAME}">one PDF</a> ({size})'
    begin, found, rest = text.partition(OFFER[: -len("</span>")])
    if not found:
        raise ValueError(f"{landing}: expected {OFFER} where the PDF is to be named; `make book`")
    rest = rest.partition("</span>")[2]
    shutil.copyfile(printed, html / f"{NAME}.part")
    (html / f"{NAME}.part").replace(html / NAME)
    landing.write_text(f"{begin}{found}{link}</span>{rest}", encoding="utf-8", newline="\n")


def contents() -> dict[str, Any]:
    """The table of contents without what is only for the screen."""
    table: dict[str, Any] = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    for part in table["parts"]:
        listed = part["chapters"]
        part["chapters"] = [c for c in listed if not c["file"].startswith(FOR_THE_SCREEN)]
    return table


def main() -> None:
    """Print the book, or say why not."""
    if not (pages.HTML / "index.html").exists():
        sys.exit("pdf: there are no pages yet; build them first (make book)")
    start = time.perf_counter()
    try:
        with chromium() as started:
            printed = make(pages.HTML, contents(), started)
        offer(pages.HTML, printed)
    except ValueError as error:
        sys.exit(f"pdf: {error}")
    size = f"{pdf_check.count(printed)} pages, {printed.stat().st_size / 1e6:.1f} MB"
    print(f"The book as a PDF: {printed} ({size}, {time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
