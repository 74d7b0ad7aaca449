"""The PDF: a book of three pages goes through the steps that the whole one goes through."""

import os
import re
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import one_page
import pages
import pdf
import pdf_check
import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser
from pypdf import PdfReader, PdfWriter

LONG = "total = " + " + ".join(f"number_{i}" for i in range(30))
CONTENTS = {
    "root": "book/intro",
    "parts": [
        {"caption": "Part I: Text", "chapters": [{"file": "book/chapters/01_first"}]},
        {
            "caption": "More",
            "chapters": [{"file": "book/more", "sections": [{"file": "book/end"}]}],
        },
    ],
}
PAGE = """<html><head><link rel="stylesheet" href="../_static/pygments.css?v=1"></head><body>
<article class="bd-article"><section id="{name}"><h1>{title}
<a class="headerlink" href="#{name}">#</a></h1>{body}</section></article></body></html>"""
FIRST = f"""<p>See <a href="../more.html#there">there</a>, <a href="#exercises">below</a>,
<a href="https://out.org/x">out</a> and <a href="../../_modules/m.html">source</a>.</p>
<div class="math notranslate">\\[ \\lambda = \\sum_i x_i \\]</div>
<div class="cell"><div class="highlight"><pre>{LONG}
print("ﬁ ≤ → 𓀀")</pre></div></div>
<details class="hide above-input"><summary>Show code</summary><pre>hidden = 1</pre></details>
<details><summary>How old is it?</summary><p>Very old.</p></details>
<details><summary>What the rungs before it write</summary><p>told before</p></details>
<div class="lt-explore" id="slide"><div class="lt-control"><label for="slide-n">size</label>
<input id="slide-n" data-texts='["256", "512"]'></div><div class="lt-view">first state</div>
<p id="slide-note">Run this cell to move it.</p><script>1</script></div>
<img src="../../_images/dot.png" alt="a dot">
<table><tr><th scope="row">loss</th><td>1.5</td></tr></table>
<section id="exercises"><h2>Exercises</h2><section id="exercise-1-sum"><h3>Exercise 1: sum</h3>
<p>Do it.</p><div class="cell tag_hide-cell tag_solution"><details class="hide">
<summary>Show</summary>
<pre>answer = 42</pre></details></div></section>
<section id="open-exercise-x"><h3>Open exercise: why</h3><details><summary>A sketch</summary>
<p>Because it is.</p></details></section></section>
<section id="quiz"><h2>Quiz</h2><p>1. Which?</p><details><summary>A. This</summary><p>Right: so.</p>
</details><details><summary>B. That</summary><p>Wrong: no.</p></details></section>"""
TEXTS = {
    "book/intro": ("Welcome", '<p>Read<span class="lt-pdf"></span>.</p><h2>Two</h2>'),
    "book/chapters/01_first": ("1. First", FIRST),
    "book/more": ("More", '<h2 id="there">There</h2><p>Words.</p>'),
    "book/end": ("End", "<h2>Last</h2>"),
}


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "html"
    for name, (title, body) in TEXTS.items():
        path = folder / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        own = name.rpartition("/")[2]
        path.write_text(PAGE.format(name=own, title=title, body=body), encoding="utf-8")
    for name in ("_static", "_images"):
        (folder / name).mkdir()
    (folder / "_static" / "pygments.css").touch()
    shutil.copy(pages.ROOT / "book" / "_static" / "logo.svg", folder / "_static")
    shutil.copy(pages.ROOT / "book" / "figures" / "page.png", folder / "_images" / "dot.png")
    return folder


@pytest.fixture(scope="module")
def whole(html: Path) -> BeautifulSoup:
    """The document before it is printed."""
    text = one_page.document(html, CONTENTS, "", "../html", "")
    return BeautifulSoup(text, "html.parser")


def test_pages_stand_in_the_order_of_the_contents(whole: BeautifulSoup) -> None:
    assert [h.text.strip() for h in whole.select("main h1, article > section > h2")] == [
        *("Welcome", "Part I: Text", "1. First", "More", "More", "End"),
        *("Solutions and answers", "1. First"),
    ]
    lines = [line.text.replace("000", "") for line in whole.select(".lt-toc p")]
    assert lines == [
        *("Welcome", "Part I: Text", "1. First", "More", "More", "End", "Solutions and answers")
    ]


def test_ids_are_one_set_and_links_stay_inside(whole: BeautifulSoup) -> None:
    ids = [tag["id"] for tag in whole.find_all(id=True)]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in whole.find_all("a", href=True)]
    assert {"#book-more--there", "#book-chapters-01_first--exercises", "https://out.org/x"} <= set(
        links
    )
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert [a.text for a in whole.find_all("a", href=False)] == ["source"]
    assert whole.find("img")["src"] == "../html/_images/dot.png"


def test_nothing_folds_or_moves(whole: BeautifulSoup) -> None:
    assert not whole.select("details, summary, script, input, select, button, .headerlink")
    text = whole.text
    assert "size: 256" in text and "first state" in text and "512" not in text
    assert "Run this cell" not in text and "Show" not in text
    assert "hidden = 1" in text and whole.select_one(".lt-fold-title").text == "How old is it?"


def test_what_the_first_page_tells_is_not_told_again(whole: BeautifulSoup) -> None:
    assert "told before" not in whole.text
    assert f"{one_page.TOLD_ONCE}: page 000" in whole.find(id="book-chapters-01_first").text
    source = (pages.ROOT / "llmtutor" / "viz" / "staircase.py").read_text(encoding="utf-8")
    assert f"<summary>{one_page.TOLD_ONCE}</summary>" in source


def test_answers_stand_at_the_end(whole: BeautifulSoup) -> None:
    chapter = whole.find(id="book-chapters-01_first")
    end = whole.find(id=one_page.APPENDIX).parent
    for said in ("answer = 42", "Because it is.", "Right: so.", "Wrong: no."):
        assert said not in chapter.text and said in end.text
    assert "A. This" in chapter.text and "B. That" in chapter.text
    pointers = [p.text for p in chapter.select("section .lt-see") if "rungs" not in p.text]
    assert pointers == ["Solution: page 000", "Solution: page 000", "Answers: page 000"]
    titles = [h.text for h in end.find_all("h3")]
    assert titles == ["Exercise 1: sum", "Open exercise: why", "Quiz"]


# In a browser ------------------------------------------------------------------------------------


def without(reason: str) -> None:
    """Skip with the reason; where a browser is required (CI) a skip is a failure."""
    if os.environ.get("LLMTUTOR_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def chromium(html: Path) -> Iterator[Browser]:
    vendor = pages.ROOT / "book" / "_static" / "vendor"
    if not vendor.exists():
        without("MathJax is not installed: run `make assets` (it needs npm)")
    shutil.copytree(vendor, html / "_static" / "vendor", dirs_exist_ok=True)
    try:
        started = pdf.chromium()
        browser = started.__enter__()
    except ValueError as error:
        without(str(error))
    yield browser
    started.__exit__(None, None, None)


@pytest.fixture(scope="module")
def printed(html: Path, chromium: Browser) -> Path:
    return pdf.make(html, CONTENTS, chromium)


def words(reader: PdfReader) -> list[str]:
    """The text of each page, without white space."""
    return ["".join(page.extract_text().split()) for page in reader.pages]


@pytest.mark.browser
def test_the_pdf_is_sound(printed: Path) -> None:
    assert pdf_check.problems(printed) == []
    reader = PdfReader(printed)
    assert [round(float(side)) for side in reader.pages[0].mediabox[2:]] == [595, 842]  # A4
    assert (reader.metadata.title, reader.metadata.author) == ("LLM Tutor", pdf.AUTHOR)
    outline = [entry.title for entry in reader.outline if not isinstance(entry, list)]
    assert outline == ["Contents", "Part I: Text", "More", "Solutions and answers"] or (
        outline[-3:] == ["Part I: Text", "More", "Solutions and answers"]
    )


@pytest.mark.browser
def test_nothing_of_the_code_is_cut(printed: Path) -> None:
    text = "".join(words(PdfReader(printed)))
    assert LONG.replace(" ", "") in text
    assert "hidden=1" in text and "answer=42" in text
    assert "𓀀" in text or "U+13000" in text  # as the fonts of this machine have it


@pytest.mark.browser
def test_numbers_of_pages_are_those_of_the_pages(printed: Path) -> None:
    text, places = words(PdfReader(printed)), pdf_check.places(printed)
    contents = next(page for page in text if page.startswith("2Contents"))
    for title, name in {"1.First": "book-chapters-01_first", "End": "book-end"}.items():
        number = places[name]
        assert f"{title}{number}" in contents
        assert text[number - 1].startswith(f"{title}{number}{title}")  # head, foot, body
    answer = places["book-chapters-01_first--answer-0"]
    assert any(f"Solution:page{answer}" in page for page in text)
    assert "answer=42" in text[answer - 1]


@pytest.mark.browser
def test_each_page_says_in_which_chapter_it_is(printed: Path) -> None:
    text, places = words(PdfReader(printed)), pdf_check.places(printed)
    first = text[places["book-chapters-01_first"] - 1]
    assert first.count("1.First") == 2  # at its head, and as the title
    assert text[0].startswith("LLMTutor")  # the title page has no number


@pytest.mark.browser
def test_a_formula_that_cannot_be_read_stops_the_print(
    html: Path, chromium: Browser, tmp_path: Path
) -> None:
    copy = tmp_path / "html"
    shutil.copytree(html, copy)
    path = copy / "book" / "more.html"
    path.write_text(
        path.read_text(encoding="utf-8").replace("Words.", '<img src="gone.png" alt="x">'),
        encoding="utf-8",
    )
    with pytest.raises(ValueError, match=r"not made, 1 problems:\npicture not there: .*gone\.png"):
        pdf.make(copy, CONTENTS, chromium)
    assert not (copy.parent / "pdf" / pdf.NAME).exists()


@pytest.mark.browser
def test_the_landing_page_names_the_pdf_once(html: Path, printed: Path) -> None:
    for _ in range(2):
        pdf.offer(html, printed)
    text = (html / "book" / "intro.html").read_text(encoding="utf-8")
    assert text.count(pdf.NAME) == 1
    assert re.search(r'<a href="\.\./llm-tutor\.pdf">one PDF</a> \(\d+ pages, \d+ MB\)', text)
    assert (html / pdf.NAME).read_bytes() == printed.read_bytes()


# Without one -------------------------------------------------------------------------------------


def test_there_is_no_pdf_without_mathjax(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="formulas are drawn without a network"):
        pdf.make(tmp_path / "html", CONTENTS, None)


def test_a_landing_page_without_a_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "intro.html").write_text("<p>no place</p>", encoding="utf-8")
    writer = PdfWriter()
    writer.add_blank_page(595, 842)
    writer.write(tmp_path / "a.pdf")
    with pytest.raises(ValueError, match='expected <span class="lt-pdf">'):
        pdf.offer(tmp_path, tmp_path / "a.pdf")
    assert not (tmp_path / pdf.NAME).exists()


def test_the_reference_of_the_package_is_for_the_screen() -> None:
    listed = [page for part in one_page.parts(pdf.contents()) for page in part.pages]
    assert "book/chapters/24_forensics" in listed and "book/glossary" in listed
    assert not [page for page in listed if "/api/" in page]


def test_the_place_is_on_the_landing_page() -> None:
    assert pdf.OFFER in (pages.ROOT / "book" / "intro.md").read_text(encoding="utf-8")


def test_the_day_is_that_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert pdf.day() == date(1970, 1, 2)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert date(2026, 11, 1) < pdf.day()


def test_faults_of_a_pdf_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(FAULTY)
    assert pdf_check.problems(tmp_path / "a.pdf") == [
        "no outline: a reader's side bar stays empty",
        "page 1: a link to gone, which is nowhere",
        "page 1: 2 letters that their font does not have",
        "font X is not in the file",
    ]


FAULTY = b"""%PDF-1.4
1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj
2 0 obj <</Type /Pages /Kids [3 0 R] /Count 1>> endobj
3 0 obj <</Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R
/Resources <</Font <</F1 5 0 R>>>>
/Annots [<</Type /Annot /Subtype /Link /Rect [0 0 9 9] /Dest (gone)>>]>> endobj
4 0 obj <</Length 45>> stream
BT /F1 12 Tf <00240000> Tj <0000> Tj ET
endstream endobj
5 0 obj <</Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H
/DescendantFonts [6 0 R]>> endobj
6 0 obj <</Type /Font /Subtype /CIDFontType2 /BaseFont /X /FontDescriptor 7 0 R>> endobj
7 0 obj <</Type /FontDescriptor /FontName /X /Flags 4>> endobj
trailer <</Root 1 0 R /Size 8>>
%%EOF
"""
