"""The page of notation lists every symbol of every chapter, and some letters have one meaning."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "notation.md"
CHAPTERS = sorted((ROOT / "book" / "chapters").glob("[0-9]*.ipynb"))
COUNTERS = {"k", "l", "m", "n", "r"}
"""What they count stands in the sentence before the formula."""
CONSTANTS = {"e", r"\pi", r"\infty", r"\mathbb{R}", r"\mathbb{E}"}
GREEK = (
    "alpha|beta|gamma|delta|epsilon|varepsilon|theta|lambda|mu|sigma|tau|phi|rho|eta|omega|kappa"
    "|psi|chi|nu|xi|ell|Delta|Lambda|Omega|Sigma|Phi|Theta|Gamma|Psi"
)
NOT_TEXT = re.compile(r"\\(?:operatorname\*?|mathrm|mathtt|begin|end|label|underbrace)\{[^}]*\}")
SYMBOL = re.compile(rf"\\(?:{GREEK})(?![a-zA-Z])|\\math(?:cal|bb)\{{.\}}|(?<![\\a-zA-Z])[a-zA-Z]+")
COMMAND = re.compile(rf"\\(?!math(?:cal|bb)\b)(?!(?:{GREEK})(?![a-zA-Z]))[a-zA-Z]+")


def formulas(markdown: str) -> Iterator[str]:
    """What stands between dollars, outside of code."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", markdown, flags=re.S)
    for block, inline in re.findall(r"\$\$(.*?)\$\$|\$([^$]+)\$", prose, re.S):
        yield block or inline


def symbols(formula: str) -> set[str]:
    """Letters of a formula, each alone; words in it are no symbols.

    >>> sorted(symbols(r"d_\\text{ff} = 2\\,Td + \\alpha_t \\log x^\\top"))
    ['T', '\\\\alpha', 'd', 't', 'x']
    """
    plain = NOT_TEXT.sub(" ", formula)
    plain = re.sub(r"\\text\{[^}]*\}", " ", plain)
    plain = COMMAND.sub(" ", plain)
    found: set[str] = set()
    for symbol in SYMBOL.findall(plain):
        found |= {symbol} if symbol.startswith("\\") else set(symbol)
    return found


@cache
def page() -> tuple[set[str], dict[str, set[str]]]:
    """Symbols of the whole book, and those of single chapters by number."""
    general, _, local = PAGE.read_text("utf-8").partition("## Letters of one chapter")
    rows = re.findall(r"^\| (\d\d) \| (.*) \|$", local, re.M)
    everywhere = {s for formula in formulas(general) for s in symbols(formula)}
    return everywhere, {
        number: {s for formula in formulas(cell) for s in symbols(formula)} for number, cell in rows
    }


def used(path: Path) -> dict[str, str]:
    """By symbol of a chapter, a formula that has it."""
    notebook = nbformat.read(path, as_version=4)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return {s: formula for text in texts for formula in formulas(text) for s in symbols(formula)}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_symbol_of_a_chapter_is_listed(path: Path) -> None:
    everywhere, local = page()
    known = everywhere | local.get(path.stem[:2], set()) | COUNTERS | CONSTANTS
    missing = {s: formula for s, formula in used(path).items() if s not in known}
    assert not missing, f"{path.stem}: book/notation.md does not list {missing}"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_row_lists_what_its_chapter_uses(path: Path) -> None:
    _, local = page()
    idle = local.get(path.stem[:2], set()) - set(used(path)) - CONSTANTS
    assert not idle, (
        f"book/notation.md lists {sorted(idle)} for {path.stem}, which has none of them"
    )


def test_some_letters_have_one_meaning() -> None:
    rows = re.findall(r"^\| (\d\d) \| (.*) \|$", PAGE.read_text("utf-8"), re.M)
    assert len(rows) > 20
    alone = [
        (number, letter)
        for number, cell in rows
        for letter in re.findall(r"\$(N|T|p|q|\\alpha)\$", cell)
    ]
    assert alone == [("12", r"\alpha")]


def test_alpha_stands_in_one_chapter_only() -> None:
    having = [path.stem[:2] for path in CHAPTERS if r"\alpha" in used(path)]
    assert set(having) <= {"12", "25"}, "25 only names what its paper writes"
