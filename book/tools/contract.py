"""The chapter contract, as checks on a committed notebook.

``problems(path)`` returns one sentence for each broken promise, so that a test can assert that
there are none and a writer can read them all at once:

    python book/tools/contract.py                       # every chapter
    python book/tools/contract.py book/chapters/01_tokenizer.ipynb
"""

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import reader
from nbformat import NotebookNode
from reader import code_cells, tags

import llmtutor

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ROOT / "book" / "chapters"
COSTS = ROOT / "data" / "results" / "chapter_costs.json"

WORDS = (1800, 3500)  # of prose, outside collapsed answers
CODE_CELLS = (15, 35)
ONLY_A_WIDGET = re.compile(r"(from llmtutor\.web\.widget import widget\n+)?widget\([^\n]*\)")
"""A picture that moves, with no code in it to be read."""
MAX_CELL_LINES, MAX_MEDIAN_LINES = 25, 8
MAX_SECONDS = 60
MAX_EXEMPT_SHARE = 0.25
EXEMPT_TAGS = {"nbval-ignore-output", "nbval-skip"}
LANDMARKS = [
    (":::{admonition} In this chapter", "the box 'In this chapter'"),
    ("## Experiment:", "the section 'Experiment: …'"),
    ("## Try it:", "the section 'Try it: …'"),
    ("## Exercises", "the section 'Exercises'"),
    ("## Quiz", "the section 'Quiz'"),
    ("## Summary", "the section 'Summary'"),
    ("## Further reading", "the section 'Further reading'"),
]
EXERCISE_HEADING = re.compile(r"^### Exercise \d+: .+ \(difficulty [★☆]{3}, \d+ minutes\)$", re.M)
TAG = re.compile(r"</?[a-zA-Z][\w-]*(?:\s[^<>]*)?/?>|<!--.*?-->", re.S)
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.S)
DETAILS = re.compile(r"<details>.*?</details>", re.S)
QUIZ_OPTION = re.compile(
    r"<details>\s*<summary>[A-Z]\. .+?</summary>\s*(Right|Wrong): \S.{15,}?</details>", re.S
)


def prose(notebook: NotebookNode) -> str:
    """All Markdown of the notebook, in order."""
    return "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def words(text: str) -> list[str]:
    """What is read at a first pass: no folds, no tags; a formula is one word.

    >>> words("<b>Two</b> probabilities: $p(a < b)$.<details>A long answer.</details>")
    ['Two', 'probabilities:', 'x.']
    """
    return TAG.sub(" ", FORMULA.sub("x", DETAILS.sub(" ", text))).split()


def section(text: str, heading: str) -> str:
    """The text below a level-two heading, up to the next one."""
    match = re.search(rf"^{re.escape(heading)}.*?$(.*?)(?=^## |\Z)", text, re.S | re.M)
    return match.group(1) if match else ""


def output_text(cell: NotebookNode) -> str:
    """Everything readable that a cell printed or displayed."""
    parts = []
    for output in cell.get("outputs", []):
        parts.append(output.get("text", ""))
        parts += [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
    return "\n".join(parts)


def execution(notebook: NotebookNode) -> Iterator[str]:
    """Executed once from top to bottom, without errors, by the versions of today."""
    counts = [c.execution_count for c in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, expected 1 to {len(counts)}: build the chapter again"
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                yield f"cell {cell.id} ends in an error: {output.ename}: {output.evalue}"
            if output.get("name") == "stderr":
                yield f"cell {cell.id} writes to stderr: {output.text.strip()[:80]}"
            if re.search(r"(/root/|/home/|/work/|/tmp/|/Users/)", output_text(cell)):
                yield f"cell {cell.id} shows a path of the machine it ran on"
            if any("widget" in mime for mime in output.get("data", {})):
                yield f"cell {cell.id} holds a widget view: build the chapter with the tool"
    recorded = notebook.metadata.get("llmtutor", {})
    pins = dict(re.findall(r"^(\S+?)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.M))
    expected = {"version": llmtutor.__version__, "torch": pins["torch"]}
    if recorded != expected:
        yield f"executed with {dict(recorded)}, expected {expected}: build the chapter again"


def exemptions(notebook: NotebookNode) -> Iterator[str]:
    """Few outputs are exempt from comparison, and each is followed by an assertion."""
    cells = code_cells(notebook)
    exempt = [i for i, cell in enumerate(cells) if tags(cell) & EXEMPT_TAGS]
    if len(exempt) > MAX_EXEMPT_SHARE * len(cells):
        yield f"{len(exempt)} of {len(cells)} cells are exempt from comparison, at most a quarter"
    for i in exempt:
        if i + 1 == len(cells) or "assert" not in cells[i + 1].source:
            yield f"cell {cells[i].id} is exempt from comparison and no assertion follows it"


def figures(notebook: NotebookNode) -> Iterator[str]:
    """One figure a cell, each with the alt text that was computed from its data."""
    for cell in code_cells(notebook):
        images = [o.data for o in cell.outputs if "image/png" in o.get("data", {})]
        if len(images) > 1:
            yield f"cell {cell.id} draws {len(images)} figures, one alt text fits one"
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        for data in images:
            if len(alt) < 40 or alt != data.get("text/plain"):
                yield f"cell {cell.id} has a figure without alt text computed from its data"


def size(notebook: NotebookNode) -> Iterator[str]:
    """Long enough to teach, short enough to finish."""
    n_words = len(words(prose(notebook)))
    if not WORDS[0] <= n_words <= WORDS[1]:
        yield f"{n_words} words of prose, expected {WORDS[0]} to {WORDS[1]}"
    cells = [cell for cell in code_cells(notebook) if not ONLY_A_WIDGET.fullmatch(cell.source)]
    lines = [len([line for line in cell.source.splitlines() if line.strip()]) for cell in cells]
    if not CODE_CELLS[0] <= len(lines) <= CODE_CELLS[1]:
        yield f"{len(lines)} code cells, expected {CODE_CELLS[0]} to {CODE_CELLS[1]}"
    for cell, n_lines in zip(cells, lines, strict=True):
        if n_lines > MAX_CELL_LINES:
            yield f"cell {cell.id} has {n_lines} lines, at most {MAX_CELL_LINES}"
    if lines and statistics.median(lines) > MAX_MEDIAN_LINES:
        yield f"the median cell has {statistics.median(lines)} lines, at most {MAX_MEDIAN_LINES}"


def landmarks(notebook: NotebookNode) -> Iterator[str]:
    """Every section of the contract, in order."""
    text = prose(notebook)
    if not text.startswith("# "):
        yield "the first cell is not a title"
    position = 0
    for mark, name in LANDMARKS:
        found = re.compile(rf"^{re.escape(mark)}", re.M).search(text)
        if found is None:
            yield f"{name} is missing"
        elif found.start() < position:
            yield f"{name} is out of order"
        else:
            position = found.start()
    for words in ("You will be able to", "You need", "{cite}`", "{term}`", "$$"):
        if words not in text:
            yield f"'{words}' is missing"
    if (bug := section(text, "## Find the bug")) and "<details>" not in bug:
        yield "'Find the bug' has no collapsed answer"
    if "{cite}`" not in section(text, "## Further reading"):
        yield "'Further reading' cites nothing"
    sources = "\n".join(c.source for c in code_cells(notebook))
    if not re.search(r"^(from|import) llmtutor", sources, re.M):
        yield "nothing is imported from llmtutor"
    explorers = [c for c in code_cells(notebook) if "explore" in tags(c)]
    if not any("<script" in o.data.get("text/html", "") for c in explorers for o in c.outputs):
        yield "no cell tagged 'explore' shows something to move"


def cost(notebook: NotebookNode, name: str) -> Iterator[str]:
    """A measured cost line that agrees with the record and stays within the limit."""
    lines = [c.source for c in notebook.cells if "cost" in tags(c)]
    recorded = json.loads(COSTS.read_text("utf-8")).get(name) if COSTS.exists() else None
    if len(lines) != 1 or recorded is None:
        yield "there is no measured cost line: tag one cell 'cost' and build the chapter"
        return
    if f"about {recorded['seconds']} s and {recorded['peak_mb']} MB" not in lines[0]:
        yield f"the cost line {lines[0]!r} does not agree with the record {recorded}"
    if recorded["seconds"] > MAX_SECONDS:
        yield f"running the page takes {recorded['seconds']} s, at most {MAX_SECONDS}"


def exercises(notebook: NotebookNode) -> Iterator[str]:
    """At least three exercises: heading, a stub that runs unfilled, the solution right below."""
    n_headings = len(EXERCISE_HEADING.findall(section(prose(notebook), "## Exercises")))
    stubs = [i for i, c in enumerate(notebook.cells) if "exercise" in tags(c)]
    solutions = [i for i, c in enumerate(notebook.cells) if "solution" in tags(c)]
    if n_headings < 3:
        yield f"{n_headings} exercises with difficulty and minutes, expected at least 3"
    if not len(stubs) == len(solutions) == n_headings:
        yield f"{n_headings} exercises, {len(stubs)} stubs, {len(solutions)} solutions: not a match"
    for stub, solution in zip(stubs, solutions, strict=False):
        if not stub < solution <= stub + 2:
            yield f"the solution of cell {notebook.cells[stub].id} is not right below it"
        tried = "\n".join(output_text(c) for c in notebook.cells[stub:solution])
        if "not attempted yet" not in tried:
            yield f"the stub in cell {notebook.cells[stub].id} does not report 'not attempted yet'"
        cell = notebook.cells[solution]
        if "hide-cell" not in tags(cell):
            yield f"the solution in cell {cell.id} is not collapsed (tag it 'hide-cell')"
        if "check(" not in cell.source or "accepted" not in output_text(cell):
            yield f"the solution in cell {cell.id} is not shown to be accepted"


def quiz(notebook: NotebookNode) -> Iterator[str]:
    """At least three questions, every option with its reason, one of them right."""
    questions = re.split(r"^\*\*\d+\. ", section(prose(notebook), "## Quiz"), flags=re.M)[1:]
    if len(questions) < 3:
        yield f"{len(questions)} quiz questions, expected at least 3"
    for number, question in enumerate(questions, 1):
        verdicts = QUIZ_OPTION.findall(question)
        if len(verdicts) != question.count("<details>") or len(verdicts) < 2:
            yield f"quiz question {number} has an option without a reason"
        elif verdicts.count("Right") != 1:
            yield f"quiz question {number} has {verdicts.count('Right')} right options, expected 1"


def numbers(notebook: NotebookNode) -> Iterator[str]:
    """A number of three or more digits in prose stands in a cell, an output or a citation."""
    known = "\n".join(c.source + "\n" + output_text(c) for c in code_cells(notebook))
    known = re.sub(r"(?<=\d)[,_](?=\d)", "", known)
    text = "\n\n".join(
        c.source for c in notebook.cells if c.cell_type == "markdown" and "cost" not in tags(c)
    )
    text = re.sub(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)", " ", text, flags=re.S)
    for paragraph in re.split(r"\n\s*\n", text):
        if "{cite" in paragraph:
            continue
        for raw in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", paragraph):
            number = raw.replace(",", "").rstrip(".")
            year = re.fullmatch(r"(19|20)\d\d", raw)
            if len(re.sub(r"^[0.]+|\.", "", number)) < 3 or year:
                continue
            if not re.search(rf"(?<![\d.]){re.escape(number)}", known):
                yield f"the number {raw} in prose comes from no cell, output or citation"


def problems(path: Path, notebook: NotebookNode | None = None) -> list[str]:
    """Every broken promise of the chapter at ``path`` (or of ``notebook`` standing in for it)."""
    if notebook is None:
        notebook = nbformat.read(path, as_version=4)
    checks: list[Callable[[NotebookNode], Iterator[str]]] = [
        execution,
        exemptions,
        figures,
        size,
        landmarks,
        exercises,
        quiz,
        numbers,
        *reader.CHECKS,
    ]
    return [*(p for check in checks for p in check(notebook)), *cost(notebook, path.stem)]


if __name__ == "__main__":
    paths = [Path(p) for p in sys.argv[1:]] or sorted(CHAPTERS.glob("[0-9]*.ipynb"))
    found = [f"{path.name}: {problem}" for path in paths for problem in problems(path)]
    print("\n".join(found) or f"{len(paths)} chapters keep the contract")
    sys.exit(bool(found))
