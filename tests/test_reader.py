"""What a chapter owes its reader: each promise is noticed when it is broken."""

from collections.abc import Callable

import nbformat
import pytest
import reader
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from llmtutor.viz.diagrams import language as look
from llmtutor.viz.diagrams.shapes import Drawing

SVG = Drawing(look.token("a"), "Title", "Description").svg()
HIDDEN = {"tags": ["hide-cell"], "jupyter": {"source_hidden": True}}


def chapter() -> NotebookNode:
    """The smallest notebook that keeps every promise."""
    shown = [new_output("display_data", data={"text/html": SVG, "text/plain": "Title"})]
    return new_notebook(
        cells=[
            new_markdown_cell("# A chapter"),
            new_code_cell("draw(1)", outputs=shown),
            new_code_cell("draw(2)", outputs=shown),
            new_code_cell("x = 1\nassert x == 1", metadata=HIDDEN),
            new_code_cell("torch.testing.assert_close(x, y)", metadata=HIDDEN),
            new_code_cell("def f():\n    return 1\n\n\nassert f() == 1"),
            new_markdown_cell("## Exercises"),
            new_markdown_cell(
                "### Open exercise: the last head (experiment, 30 minutes)\n\nTry it.\n\n"
                "<details><summary>A good answer</summary>…</details>"
            ),
            new_markdown_cell(
                "## Summary\n\n- It works because of the gate {cite}`a`.\n- It ends."
            ),
            new_markdown_cell("## In today's models\n\nLlama 3 {cite}`a`."),
            new_markdown_cell("## The model so far"),
            new_code_cell('staircase(upto="04")', outputs=shown),
        ]
    )


def found(notebook: NotebookNode) -> list[str]:
    nbformat.validate(notebook)
    return [said for check in reader.CHECKS for said in check(notebook)]


def test_a_chapter_that_keeps_its_promises_has_no_problems() -> None:
    assert found(chapter()) == []


def change(old: str, new: str) -> Callable[[NotebookNode], None]:
    def changed(notebook: NotebookNode) -> None:
        assert any(old in cell.source for cell in notebook.cells)
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)

    changed.__name__ = f"{old} → {new}"
    return changed


def one_drawing(notebook: NotebookNode) -> None:
    notebook.cells[2].outputs = []
    notebook.cells[11].outputs = [new_output("stream", text="text")]


def no_description(notebook: NotebookNode) -> None:
    data = notebook.cells[1].outputs[0].data
    data["text/html"] = data["text/html"].replace("Description", " ")


def check_in_view(notebook: NotebookNode) -> None:
    notebook.cells[3].metadata = nbformat.from_dict({})


def torch_check_in_view(notebook: NotebookNode) -> None:
    notebook.cells[4].metadata = nbformat.from_dict({})


def seen_in_jupyterlab(notebook: NotebookNode) -> None:
    del notebook.cells[3].metadata["jupyter"]


def no_staircase(notebook: NotebookNode) -> None:
    notebook.cells[11].outputs = []


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (one_drawing, "1 drawings, expected at least 2"),
        (no_description, "a drawing without <desc>"),
        (check_in_view, "only checks: tag it hide-cell"),
        (torch_check_in_view, "only checks: tag it hide-cell"),
        (seen_in_jupyterlab, "folded on the page and not in JupyterLab"),
        (no_staircase, "does not show the staircase"),
        (change("x = 1", f"x = 1  # {'a' * 90}"), "characters, 92 fit its box"),
        (change("## The model so far", "## Else"), "'The model so far' is missing"),
        (change("## In today's models", "## Else"), "'In today's models' is missing"),
        (change("Llama 3 {cite}`a`", "Llama 3"), "'In today's models' names no source"),
        (change("### Open exercise", "### Exercise"), "no '### Open exercise"),
        (change("experiment, 30", "riddle, 30"), "no '### Open exercise"),
        (change("<details>", "<p>"), "no sketch of a good answer"),
        (change("gate {cite}`a`", "gate"), "a reason with nothing behind it: 'It works"),
        (change("It ends", "Therefore it ends"), "behind it: 'Therefore it ends"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_each_broken_promise_is_noticed(
    break_it: Callable[[NotebookNode], None], said: str
) -> None:
    notebook = chapter()
    break_it(notebook)
    problems = found(notebook)
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize(
    "backed", ["We suspect that it works because of x.", "It works because of x (study `heads`)."]
)
def test_a_reason_may_be_admitted_or_recorded(backed: str) -> None:
    notebook = chapter()
    notebook.cells[8].source = f"## Summary\n\n- {backed}"
    assert found(notebook) == []


def test_a_quiz_in_the_cell_of_the_summary_is_not_the_summary() -> None:
    notebook = chapter()
    notebook.cells[8].source = "## Quiz\n\nIt fails, since x.\n\n## Summary\n\n- It works."
    assert found(notebook) == []
    notebook.cells[8].source += "\n- It works, since x."
    assert any("since x" in problem for problem in found(notebook))
