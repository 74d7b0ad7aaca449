"""What a chapter owes its reader beside the proofs: drawings, a story, checks that stand back.

Each function takes a notebook and yields a sentence for each broken promise; ``contract.py`` asks
them of every chapter.
"""

import ast
import re
from collections.abc import Iterator

from nbformat import NotebookNode

DRAWINGS = 2
"""At least, in each chapter."""
FOLDED = {"hide-cell", "hide-input"}
"""Tags that fold a cell on the page; ``notebook.py`` hides its source in JupyterLab as well."""
WIDEST_LINE = 92
"""Characters of a line of code that fit their box on a page of 1,280 pixels."""
REASON = re.compile(
    r"\b(because|since|therefore|thus|hence|due to|owing to|the reason|that is why|explains?|"
    r"thanks to|which is why)\b",
    re.I,
)
"""Words of a sentence that gives a reason."""
BACKED = re.compile(r"\{cite|we suspect|\brecord\b|\{(ref|eq)\}|\bstudy\b|\]\(#", re.I)
"""What stands behind a reason: a citation, a record or study, a link to the section that shows it;
or the open admission that nothing does."""
OPEN = re.compile(r"^### Open exercise: .+ \((prediction|experiment|derivation|project), ", re.M)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells that hold anything."""
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def tags(cell: NotebookNode) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", []))


def section(notebook: NotebookNode, heading: str) -> list[NotebookNode]:
    """The cells from a level-two heading up to the next one."""
    found: list[NotebookNode] = []
    for cell in notebook.cells:
        starts = cell.cell_type == "markdown" and re.search(r"^## ", cell.source, re.M)
        if found and starts:
            break
        if found or (starts and re.search(rf"^## {re.escape(heading)}", cell.source, re.M)):
            found.append(cell)
    return found


def words(notebook: NotebookNode, heading: str) -> str:
    """The Markdown below a level-two heading, up to the next one, wherever cells begin."""
    text = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    match = re.search(rf"^## {re.escape(heading)}.*?$(.*?)(?=^## |\Z)", text, re.S | re.M)
    return match[1] if match else ""


def html_of(cell: NotebookNode) -> str:
    """The HTML that a cell shows."""
    return "".join(o.get("data", {}).get("text/html", "") for o in cell.get("outputs", []))


def drawings(notebook: NotebookNode) -> Iterator[str]:
    """Enough drawings, each with a title and a description."""
    shown = [html for cell in code_cells(notebook) if "lt-drawing" in (html := html_of(cell))]
    n = sum(html.count('<svg class="lt-drawing"') for html in shown)
    if n < DRAWINGS:
        yield f"{n} drawings, expected at least {DRAWINGS} of what the chapter builds"
    for html in shown:
        for kind in ("title", "desc"):
            words = re.findall(rf"<{kind} id=[^>]*>(.*?)</{kind}>", html, re.S)
            if len(words) != html.count('<svg class="lt-drawing"') or not all(
                map(str.strip, words)
            ):
                yield f"a drawing without <{kind}>"


def open_exercise(notebook: NotebookNode) -> Iterator[str]:
    """One exercise without a checker: a prediction, an experiment, a derivation or a project."""
    text = words(notebook, "Exercises")
    found = OPEN.search(text)
    if found is None:
        kinds = "prediction | experiment | derivation | project"
        yield f"no '### Open exercise: … ({kinds}, N minutes)'"
    elif "<details>" not in text[found.end() :]:
        yield "the open exercise has no sketch of a good answer, folded"


def todays_models(notebook: NotebookNode) -> Iterator[str]:
    """Which published model does what, with sources."""
    text = words(notebook, "In today's models")
    if not text:
        yield "the section 'In today's models' is missing"
    elif "{cite" not in text and "](http" not in text:
        yield "'In today's models' names no source"


def model_so_far(notebook: NotebookNode) -> Iterator[str]:
    """The staircase up to this chapter, and what the model writes now."""
    cells = section(notebook, "The model so far")
    if not cells:
        yield "the section 'The model so far' is missing"
    elif not any("staircase(" in cell.source and cell.outputs for cell in code_cells_of(cells)):
        yield "'The model so far' does not show the staircase"


def code_cells_of(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Those of the cells that are code."""
    return [cell for cell in cells if cell.cell_type == "code"]


def folded(notebook: NotebookNode) -> Iterator[str]:
    """Cells that only check stand back, on the page and in JupyterLab."""
    for cell in code_cells(notebook):
        if only_checks(cell) and not tags(cell) & FOLDED:
            yield f"cell {cell.id} only checks: tag it hide-cell"
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        if tags(cell) & FOLDED and not hidden:
            yield f"cell {cell.id} is folded on the page and not in JupyterLab: build it again"


def fits(notebook: NotebookNode) -> Iterator[str]:
    """No line of code is cut at the edge of its box."""
    for cell in code_cells(notebook):
        longest = max(map(len, cell.source.splitlines()))
        if longest > WIDEST_LINE:
            yield f"cell {cell.id} has a line of {longest} characters, {WIDEST_LINE} fit its box"


def only_checks(cell: NotebookNode) -> bool:
    """Whether a cell shows nothing, defines nothing to call, and asserts."""
    if cell.outputs or tags(cell) & {"exercise", "solution"}:
        return False
    try:
        statements = ast.parse(cell.source).body
    except SyntaxError:
        return False  # a magic command
    if any(isinstance(s, ast.FunctionDef | ast.ClassDef | ast.Import) for s in statements):
        return False
    return any(_is_check(node) for s in statements for node in ast.walk(s))


def _is_check(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return True
    called = isinstance(node, ast.Call) and ast.unparse(node.func)
    return bool(called) and str(called).rpartition(".")[2].startswith("assert_")


def reasons(notebook: NotebookNode) -> Iterator[str]:
    """No sentence of the summary gives a reason with nothing behind it."""
    for sentence in re.split(r"(?<=[.!?])\s+|\n\s*[-*] ", words(notebook, "Summary")):
        if REASON.search(sentence) and not BACKED.search(sentence):
            said = sentence.strip().lstrip("-* ")[:90]
            yield f"the summary gives a reason with nothing behind it: {said!r}"


CHECKS = [drawings, open_exercise, todays_models, model_so_far, folded, fits, reasons]
