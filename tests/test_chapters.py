"""Every committed chapter keeps the contract, and the contract notices each way of breaking it."""

import copy
from collections.abc import Callable
from pathlib import Path

import contract
import nbformat
import pytest
from nbformat import NotebookNode

CHAPTERS = sorted(contract.CHAPTERS.glob("[0-9]*.ipynb"))
MODEL = contract.CHAPTERS / "01_tokenizer.ipynb"


def test_there_are_chapters() -> None:
    assert MODEL in CHAPTERS


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_keeps_the_contract(path: Path) -> None:
    assert contract.problems(path) == []


def cell_with(notebook: NotebookNode, tag: str) -> NotebookNode:
    return next(c for c in notebook.cells if tag in contract.tags(c))


def first_code(notebook: NotebookNode) -> NotebookNode:
    return contract.code_cells(notebook)[0]


def figure_cell(notebook: NotebookNode) -> NotebookNode:
    return next(
        c
        for c in contract.code_cells(notebook)
        if any("image/png" in o.get("data", {}) for o in c.outputs)
    )


def unexecuted(notebook: NotebookNode) -> None:
    first_code(notebook).execution_count = None


def executed_out_of_order(notebook: NotebookNode) -> None:
    first, second = contract.code_cells(notebook)[:2]
    first.execution_count, second.execution_count = 2, 1


def error_output(notebook: NotebookNode) -> None:
    first_code(notebook).outputs.append(
        nbformat.v4.new_output("error", ename="NameError", evalue="x", traceback=[])
    )


def stderr_output(notebook: NotebookNode) -> None:
    first_code(notebook).outputs.append(
        nbformat.v4.new_output("stream", name="stderr", text="UserWarning")
    )


def stale_version(notebook: NotebookNode) -> None:
    notebook.metadata["llmtutor"]["version"] = "0.0.1"


def machine_path(notebook: NotebookNode) -> None:
    first_code(notebook).outputs.append(
        nbformat.v4.new_output("stream", name="stdout", text="/home/somebody/corpus.txt")
    )


def figure_without_alt(notebook: NotebookNode) -> None:
    del figure_cell(notebook).metadata["mystnb"]


def figure_with_another_alt(notebook: NotebookNode) -> None:
    figure_cell(notebook).metadata["mystnb"]["image"]["alt"] = "A picture of something. " * 3


def too_many_exempt(notebook: NotebookNode) -> None:
    for cell in contract.code_cells(notebook)[:12]:
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), "nbval-ignore-output"]


def exempt_without_assertion(notebook: NotebookNode) -> None:
    cells = contract.code_cells(notebook)
    i = next(i for i in range(len(cells) - 1) if "assert" not in cells[i + 1].source)
    cells[i].metadata["tags"] = [*cells[i].metadata.get("tags", []), "nbval-ignore-output"]


def long_cell(notebook: NotebookNode) -> None:
    first_code(notebook).source += "\nx = 1" * 26


def without(text: str) -> Callable[[NotebookNode], None]:
    """Removes a text from the prose."""

    def broken(notebook: NotebookNode) -> None:
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = cell.source.replace(text, "")

    broken.__name__ = f"without {text.strip()}"
    return broken


def nothing_to_move(notebook: NotebookNode) -> None:
    cell_with(notebook, "explore").outputs = []


def solution_far_away(notebook: NotebookNode) -> None:
    solution = cell_with(notebook, "solution")
    notebook.cells.remove(solution)
    notebook.cells.append(solution)


def solution_in_view(notebook: NotebookNode) -> None:
    cell_with(notebook, "solution").metadata["tags"] = ["solution"]


def rejected_solution(notebook: NotebookNode) -> None:
    cell_with(notebook, "solution").outputs = []


def no_reason(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("Wrong:", "", 1)


def bug_without_answer(notebook: NotebookNode) -> None:
    begun = False
    for cell in notebook.cells:
        begun = begun or "## Find the bug" in cell.source
        own, exercises, rest = cell.source.partition("## Exercises")
        if begun:
            cell.source = own.replace("<details>", "") + exercises + rest
        if begun and exercises:
            return


def invented_number(notebook: NotebookNode) -> None:
    notebook.cells.append(nbformat.v4.new_markdown_cell("It needs 31,415,926 tokens."))


def other_cost(notebook: NotebookNode) -> None:
    cell_with(notebook, "cost").source = "**Cost.** about 1 s and 1 MB"


BREAKS = [
    (unexecuted, "execution counts are"),
    (executed_out_of_order, "execution counts are"),
    (error_output, "ends in an error"),
    (stderr_output, "writes to stderr"),
    (stale_version, "executed with"),
    (machine_path, "shows a path of the machine"),
    (figure_without_alt, "figure without alt text"),
    (figure_with_another_alt, "figure without alt text"),
    (too_many_exempt, "exempt from comparison, at most a quarter"),
    (exempt_without_assertion, "no assertion follows it"),
    (long_cell, "at most 25"),
    (without("In this chapter"), "'In this chapter' is missing"),
    (without("## Experiment:"), "'Experiment: …' is missing"),
    (without("## Try it:"), "'Try it: …' is missing"),
    (bug_without_answer, "'Find the bug' has no collapsed answer"),
    (without("## Exercises"), "'Exercises' is missing"),
    (without("## Quiz"), "'Quiz' is missing"),
    (without("## Summary"), "'Summary' is missing"),
    (without("## Further reading"), "'Further reading' is missing"),
    (without("{cite}`"), "'{cite}`' is missing"),
    (without("{term}`"), "'{term}`' is missing"),
    (nothing_to_move, "shows something to move"),
    (solution_far_away, "is not right below it"),
    (solution_in_view, "is not collapsed"),
    (rejected_solution, "is not shown to be accepted"),
    (no_reason, "an option without a reason"),
    (invented_number, "the number 31,415,926 in prose"),
    (other_cost, "does not agree with the record"),
]


@pytest.mark.parametrize(
    ("break_it", "complaint"), BREAKS, ids=lambda b: getattr(b, "__name__", "")
)
def test_contract_notices(break_it: Callable[[NotebookNode], None], complaint: str) -> None:
    notebook = copy.deepcopy(nbformat.read(MODEL, as_version=4))
    assert not any(complaint in p for p in contract.problems(MODEL, notebook))
    break_it(notebook)
    assert any(complaint in p for p in contract.problems(MODEL, notebook))


def test_a_chapter_without_drawings_is_told() -> None:
    notebook = nbformat.read(MODEL, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "staircase(" not in cell.source:
            cell.outputs = [o for o in cell.outputs if "lt-drawing" not in str(o.get("data"))]
    said = contract.problems(MODEL, notebook)
    assert any("drawings, expected at least 2" in problem for problem in said)
