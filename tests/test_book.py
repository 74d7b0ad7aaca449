"""The built pages: links lead somewhere, images speak, nothing of the markup is left over."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pages
import pytest
import yaml
from docutils import nodes
from sphinx.ext.mathjax import MATHJAX_URL

ROOT = pages.ROOT
BUILT = pages.built()
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))


def documents(entry: dict) -> list[str]:
    """All files that a table of contents names, in reading order."""
    names = [entry[key] for key in ("root", "file") if key in entry]
    for key in ("parts", "chapters", "sections"):
        for child in entry.get(key, []):
            names += documents(child)
    return names


def test_the_book_is_built() -> None:
    if not BUILT and not os.environ.get("LLMTUTOR_REQUIRE_BROWSER"):
        pytest.skip("no pages: run `make book` first")
    assert {f"{name}.html" for name in documents(TOC)} <= {
        path.relative_to(pages.HTML).as_posix() for path in BUILT
    }


@pytest.mark.parametrize("path", BUILT, ids=lambda p: p.relative_to(pages.HTML).as_posix())
def test_page_is_sound(path: Path) -> None:
    assert pages.problems(path) == []


@pytest.mark.parametrize("path", BUILT, ids=lambda p: p.relative_to(pages.HTML).as_posix())
def test_head_is_complete(path: Path) -> None:
    assert pages.head_problems(path) == []


def test_no_two_pages_have_the_same_title_or_description() -> None:
    heads = [pages.head(path) for path in BUILT if path.name != "index.html"]  # as the first page
    titles = [head.title.text for head in heads]
    words = [head.find("meta", attrs={"name": "description"})["content"] for head in heads]
    for seen in (titles, words):
        assert sorted(seen) == sorted(set(seen))


def test_contents_lists_each_chapter_in_the_order_of_its_number() -> None:
    """But for those that say behind which other they are read."""
    listed = [Path(name).name for name in documents(TOC) if "/chapters/" in name]
    written = [path.stem for path in (ROOT / "book" / "chapters").glob("[0-9]*.ipynb")]
    assert listed == sorted(written, key=pages.reading_order)
    names = ["20_comparison", "25_linear_attention", "19_ssm", "24_last"]
    in_order = ["19_ssm", "25_linear_attention", "20_comparison", "24_last"]
    assert sorted(names, key=pages.reading_order) == in_order


@pytest.mark.parametrize("path", BUILT, ids=lambda p: p.relative_to(pages.HTML).as_posix())
def test_chapter_has_the_number_of_its_file(path: Path) -> None:
    number = re.match(r"(\d\d)_", path.name)
    if path.parent.name == "chapters" and number:
        heading = pages.parse(path).select_one("article.bd-article h1").get_text()
        assert heading.startswith(f"{int(number[1])}. ")


def test_search_knows_every_page() -> None:
    if not BUILT:
        pytest.skip("no pages: run `make book` first")
    index = (pages.HTML / "searchindex.js").read_text(encoding="utf-8")
    content = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))
    assert sorted(content["docnames"]) == sorted(documents(TOC))


GOOD = (
    "<html><body><article class='bd-article'><h1>A</h1><h2 id='b'>B</h2>{}</article></body></html>"
)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("<a href='gone.html'>x</a>", "link to a missing file: gone.html"),
        ("<a href='#gone'>x</a>", "link to a missing anchor: #gone"),
        ("<a href='other.html#gone'>x</a>", "link to a missing anchor: other.html#gone"),
        ("<img src='dot.png'>", "image without alternative text: dot.png"),
        ("<img src='dot.png' alt=' '>", "image without alternative text: dot.png"),
        ("<p>as {term}`token` says</p>", "markup left in the text: {term}"),
        ("<p>$$ x</p>", "markup left in the text: $$"),
        (f"<p>{ROOT}</p>", f"names a folder of the machine that built it: {ROOT}"),
    ],
)
def test_each_fault_is_noticed(tmp_path: Path, fault: str, said: str) -> None:
    (tmp_path / "dot.png").touch()
    (tmp_path / "other.html").write_text(GOOD.format(""), encoding="utf-8")
    page = tmp_path / "page.html"
    page.write_text(GOOD.format(fault), encoding="utf-8")
    assert pages.problems(page) == [said]


def test_page_without_faults_has_no_problems(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    fine = "<a href='#b'>x</a> <a href='page.html#b'>y</a> <code>{term}</code> <pre>$$</pre>"
    page.write_text(GOOD.format(fine), encoding="utf-8")
    assert pages.problems(page) == []


def test_page_without_second_heading_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(GOOD.format("").replace("h2", "h4"), encoding="utf-8")
    assert pages.problems(page) == ["no heading of the second level"]


@pytest.mark.parametrize("installed", [True, False])
def test_mathjax_is_local_where_it_is_installed(tmp_path: Path, installed: bool) -> None:
    import offline

    config = SimpleNamespace(html_static_path=["static"], mathjax_path="vendor/mathjax.js")
    if installed:
        (tmp_path / "static" / "vendor").mkdir(parents=True)
        (tmp_path / "static" / "vendor" / "mathjax.js").touch()
    offline.choose_mathjax(SimpleNamespace(confdir=tmp_path), config)
    assert config.mathjax_path == ("vendor/mathjax.js" if installed else MATHJAX_URL)


def test_a_chapter_behind_a_gap_is_numbered_by_its_file() -> None:
    import numbering

    title, link = nodes.title(secnumber=[14]), nodes.reference(secnumber=[14, 2])
    env = SimpleNamespace(
        toc_secnumbers={
            "book/chapters/13_before": {"": (13,)},
            "book/chapters/21_after": {"": (14,), "#deep": (14, 2), "#deeper": None},
            "book/other": {"": (15,)},
        },
        toc_fignumbers={
            "book/chapters/13_before": {"displaymath": {"eq-a": (13, 1)}},
            "book/chapters/21_after": {"displaymath": {"eq-b": (14, 1), "eq-c": (14, 2)}},
        },
        titles=dict.fromkeys(["book/chapters/13_before", "book/other"], nodes.title()),
        tocs=dict.fromkeys(["book/chapters/13_before", "book/other"], nodes.bullet_list()),
    )
    env.titles["book/chapters/21_after"] = title
    env.tocs["book/chapters/21_after"] = nodes.bullet_list("", nodes.list_item("", link))
    assert numbering.renumber(None, env) == ["book/chapters/21_after"]
    assert env.toc_secnumbers == {
        "book/chapters/13_before": {"": (13,)},
        "book/chapters/21_after": {"": (21,), "#deep": (21, 2), "#deeper": None},
        "book/other": {"": (15,)},
    }
    assert env.toc_fignumbers == {
        "book/chapters/13_before": {"displaymath": {"eq-a": (13, 1)}},
        "book/chapters/21_after": {"displaymath": {"eq-b": (21, 1), "eq-c": (21, 2)}},
    }
    assert (title["secnumber"], link["secnumber"]) == ([21], [21, 2])
    assert numbering.renumber(None, env) == []


def test_chapters_hold_no_widget_that_a_page_cannot_show() -> None:
    for path in (ROOT / "book" / "chapters").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        assert "widgets" not in notebook.metadata, path.name
