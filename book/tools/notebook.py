"""Edit a chapter as text and execute it: the one way a committed notebook is made.

``edit`` writes ``.notebooks/NAME.md`` (MyST Markdown, ignored by git) from the committed notebook.
``build`` turns that text into a notebook, executes it from ``book/chapters`` in the current
environment and writes it back with its outputs; nothing is written when a cell fails.
Two builds of the same text give the same bytes.

    python book/tools/notebook.py edit 01_tokenizer
    python book/tools/notebook.py build 01_tokenizer
    python book/tools/notebook.py build                  # every chapter, text or not
"""

import json
import os
import platform
import re
import sys
import threading
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import cyclopts
import jupytext
import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from reader import FOLDED

import llmtutor

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ROOT / "book" / "chapters"
TEXTS = ROOT / ".notebooks"
COSTS = ROOT / "data" / "results" / "chapter_costs.json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_TIMEOUT_SECONDS = 120
# A new measurement replaces the recorded one only when it differs by more than this share, so that
# building twice does not change a file because the machine was busier.
COST_TOLERANCE = 0.25

app = cyclopts.App(help=__doc__)


class PeakMemory(threading.Thread):
    """Watches the resident memory of this process's children: the kernel and what it starts.

    ``peak_mb`` is the largest sum seen, sampled every 20 ms, in units of 10^6 bytes.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self.done = threading.Event()

    def run(self) -> None:
        """Sample until ``done`` is set, and once more then."""
        finished = False
        while not finished:
            finished = self.done.wait(0.02)
            total = sum(resident_bytes(child) for child in psutil.Process().children(True))
            self.peak_mb = max(self.peak_mb, total / 1e6)


def resident_bytes(process: psutil.Process) -> int:
    """Resident memory; 0 for a process that ended between the listing and the look."""
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def execute(notebook: NotebookNode) -> tuple[float, float]:
    """Run all cells in place; return wall seconds (kernel start included) and peak megabytes."""
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(CHAPTERS)}},
    )
    start = time.perf_counter()
    with client.setup_kernel():
        memory = PeakMemory()
        memory.start()
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        memory.done.set()
        memory.join()
    return time.perf_counter() - start, memory.peak_mb


def tidy(notebook: NotebookNode) -> None:
    """Keep only what every machine would write: stable ids, sorted tags and alt texts."""

    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "llmtutor": {
                "version": llmtutor.__version__,
                "torch": version("torch").split("+")[0],
            },
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"c{number:03d}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": sorted(tags)} if tags else {})
        if cell.cell_type != "code":
            continue
        if FOLDED & set(tags):  # collapsed in JupyterLab too, as the page does it by the tag
            cell.metadata["jupyter"] = {"source_hidden": True}
        cell.outputs = joined(cell.outputs)
        for output in cell.outputs:
            data = output.get("data", {})
            data.pop(WIDGET_VIEW, None)
            if "image/png" in data:
                cell.metadata["mystnb"] = {"image": {"alt": data.get("text/plain", "")}}


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs with neighbouring prints as one; a kernel parts them where it happens to flush."""
    whole: list[NotebookNode] = []
    for output in outputs:
        if whole and output.output_type == "stream" and output.name == whole[-1].get("name"):
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def cost_line(cost: dict[str, float | int | str]) -> str:
    """The sentence a reader sees: what running this page takes."""
    return (
        f"**Cost.** Running this page takes about {cost['seconds']} s and {cost['peak_mb']} MB of "
        f"memory on {cost['cores']} CPU cores, without a GPU (measured on {cost['date']})."
    )


def record_cost(name: str, seconds: float, peak_mb: float) -> dict[str, float | int | str]:
    """Store a measurement in ``chapter_costs.json`` unless the stored one still describes it."""
    costs = json.loads(COSTS.read_text(encoding="utf-8")) if COSTS.exists() else {}
    old = costs.get(name)
    new = {
        "seconds": max(1, round(seconds)),
        "peak_mb": int(round(peak_mb, -1)),
        "cores": os.cpu_count() or 1,
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    close = old is not None and all(
        abs(new[key] - old[key]) <= max(COST_TOLERANCE * old[key], 1)
        for key in ("seconds", "peak_mb")
    )
    if not close:
        costs[name] = new
        write(COSTS, json.dumps(dict(sorted(costs.items())), indent=2) + "\n")
    return costs[name]


def write(path: Path, text: str) -> None:
    """Write a whole text or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(path)


def chapter_names(name: str | None) -> list[str]:
    """The chapter asked for, or all that exist as text or notebook."""
    known = {p.stem for p in [*CHAPTERS.glob("*.ipynb"), *TEXTS.glob("*.md")]}
    known = {n for n in known if re.fullmatch(r"\d\d_[a-z_]+", n)}
    if name is None:
        return sorted(known)
    if name not in known:
        raise ValueError(
            f"no chapter {name!r}: expected one of {sorted(known)}; "
            f"a new chapter starts as .notebooks/{name}.md"
        )
    return [name]


@app.command
def edit(name: str) -> None:
    """Write the committed notebook NAME as text, unless a text with newer edits is there."""
    (name,) = chapter_names(name)
    source, text = CHAPTERS / f"{name}.ipynb", TEXTS / f"{name}.md"
    if not source.exists():
        raise ValueError(f"{source.relative_to(ROOT)} does not exist; edit {text} and build it")
    if text.exists() and text.stat().st_mtime > source.stat().st_mtime:
        print(f"{text.relative_to(ROOT)} is newer than the notebook: left as it is")
        return
    notebook = nbformat.read(source, as_version=4)
    notebook.metadata = nbformat.from_dict({"kernelspec": notebook.metadata.kernelspec})
    for cell in notebook.cells:
        for key in ("mystnb", "jupyter"):
            cell.metadata.pop(key, None)
    write(text, jupytext.writes(notebook, fmt="md:myst"))
    print(f"edit {text.relative_to(ROOT)}, then: make notebook CH={name}")


@app.command
def build(name: str | None = None, *, keep_cost: bool = False) -> None:
    """Execute chapter NAME (all chapters without one) and write it with its outputs.

    With keep-cost the recorded cost stays: for a machine that is busy with other things.
    """
    os.environ.pop("LLMTUTOR_CORPUS", None)  # pages are published on the default corpus
    for chapter in chapter_names(name):
        source, text = CHAPTERS / f"{chapter}.ipynb", TEXTS / f"{chapter}.md"
        if text.exists() and not (
            source.exists() and source.stat().st_mtime > text.stat().st_mtime
        ):
            notebook = jupytext.reads(text.read_text(encoding="utf-8"), fmt="md:myst")
        else:
            if text.exists():
                print(f"{text.relative_to(ROOT)} is older than the notebook: not used")
            notebook = nbformat.read(source, as_version=4)
        try:
            seconds, peak_mb = execute(notebook)
        except CellExecutionError as error:
            raise ValueError(f"{chapter}: a cell failed, nothing was written\n{error}") from None
        costs = json.loads(COSTS.read_text(encoding="utf-8")) if keep_cost else {}
        cost = costs.get(chapter) or record_cost(chapter, seconds, peak_mb)
        tidy(notebook)
        for cell in notebook.cells:
            if "cost" in cell.metadata.get("tags", []):
                cell.source = cost_line(cost)
        nbformat.validate(notebook)
        write(source, nbformat.writes(notebook) + "\n")
        print(f"{source.relative_to(ROOT)}: {seconds:.1f} s, {peak_mb:.0f} MB at its peak")


if __name__ == "__main__":
    try:
        app()
    except ValueError as error:
        sys.exit(f"notebook: {error}")
