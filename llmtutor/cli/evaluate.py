"""``llmtutor evaluate``: a trained model on benchmarks, with intervals and verdicts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from tqdm import tqdm

from llmtutor.checks import check_at_least
from llmtutor.cli.generate import Source, source
from llmtutor.data.corpora import corpus_info
from llmtutor.data.places import can_write
from llmtutor.data.readers import END_OF_TEXT
from llmtutor.evaluate.certainty import Paired, compare_marks
from llmtutor.evaluate.examination import examine, examine_texts
from llmtutor.evaluate.items import Item, with_examples
from llmtutor.evaluate.report import RollingReport, TaskReport
from llmtutor.evaluate.scoring import Subject, TooLong
from llmtutor.evaluate.tasks.catalogue import TASKS, Rolling, Task, find_task
from llmtutor.interop.hf import HFTokenizer
from llmtutor.interop.hf.folder import CONFIG
from llmtutor.tokenizer.files import read_json, written_whole
from llmtutor.train.distributed import choose_device

Report = TaskReport | RollingReport
WIDTHS = "{:15} {:15} {:>8}  {:17} {:>6}  {}"

app = cyclopts.App(
    name="evaluate",
    help_epilogue=(
        "Example: llmtutor evaluate runs/first --tasks blimp,hellaswag --limit 100\n\n"
        "TASKS:\n\n" + "\n\n".join(f"{task.name}: {task.what}" for task in TASKS.values())
    ),
)


@app.default
def evaluate(
    model: Path,
    /,
    *,
    tasks: str,
    limit: int | None = None,
    shots: int = 0,
    too_long: TooLong = "refuse",
    stride: int | None = None,
    corpus: str | None = None,
    out: Path | None = None,
    against: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    batch_size: int = 32,
    device: str = "cpu",
) -> None:
    """Examine a trained model on benchmarks.

    For each benchmark: the part that is right, the interval in which that part of all such
    questions lies (95 %), and whether guessing would do as well.

    Parameters
    ----------
    model
        Folder of a training run, of one of its checkpoints, or as it comes from Hugging Face's hub.
    tasks
        Names with commas between them; NAME=FILE takes the questions from a file of your own.
        blimp_ and the name of a paradigm is one of BLiMP's 67.
    limit
        Ask the first so many questions only; of BLiMP, of each paradigm.
    shots
        Put so many solved questions before each.
    too_long
        What to do with a question that is longer than the model reads: refuse, or cut the beginning
        of its context, as lm-evaluation-harness does.
    stride
        Of whole texts: tokens that a window moves on by; without it, windows do not overlap.
    corpus
        Also look for the questions in this corpus (see `llmtutor data list`), which the model was
        trained on: 13 words in a row that both have.
    out
        Write the reports, with the mark of each question, to this JSON file.
    against
        Compare with the reports in such a file, question by question.
    json_
        Print one JSON object instead of a table.
    batch_size
        Texts that go through the model together.
    device
        cpu, cuda, mps, or auto for the best there is.
    """
    check_at_least(1, limit=limit, batch_size=batch_size, stride=stride)
    check_at_least(0, shots=shots)
    chosen = [named(word.strip()) for word in tasks.split(",") if word.strip()]
    if not chosen:
        raise ValueError(f"--tasks expects names with commas between them: {', '.join(TASKS)}")
    if out is not None and (out.is_dir() or not can_write(out.parent)):
        raise ValueError(f"--out expects a file in a folder that can be written, got {out}")
    documents = corpus_info(corpus).source if corpus is not None else None
    before = read_reports(against) if against is not None else {}
    # Everything is read before anything is scored, which may take hours.
    asked = {task.name: (task, questions(task, file, limit, shots)) for task, file in chosen}
    subject = examined(model, str(choose_device(device)))
    reports: dict[str, Report] = {}
    for name, (task, asks) in asked.items():
        n = sum(len(one.answers) if isinstance(one, Item) else 1 for one in asks)
        with tqdm(desc=name, total=n, leave=False, disable=None) as bar:
            options: dict[str, Any] = {"batch_size": batch_size, "advance": bar.update}
            if isinstance(task, Task):
                options |= {"metrics": task.metrics, "guessed": task.guessed, "too_long": too_long}
                options["corpus"] = documents.read("train") if documents else None
                reports[name] = examine(subject, asks, name=name, **options)
            else:
                reports[name] = examine_texts(subject, asks, name=name, stride=stride, **options)
    compared = {
        name: compared_with(report, before, against)
        for name, report in reports.items()
        if against is not None and isinstance(report, TaskReport)
    }
    values = {
        "model": str(model),
        "limit": limit,
        "shots": shots,
        "tasks": {name: report.to_dict() for name, report in reports.items()},
    }
    if out is not None:
        with written_whole(out) as path:
            path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if json_:
        values["against"] = {name: paired_dict(one) for name, one in compared.items()}
        print(json.dumps(values, indent=1))
        return
    print(WIDTHS.format("TASK", "METRIC", "VALUE", "95 %", "CHANCE", "VERDICT"))
    for name, report in reports.items():
        print("\n".join(lines(name, report)))
        if name in compared:
            print(f"{'':15} {against_line(compared[name], against)}")


def named(word: str) -> tuple[Task | Rolling, Path | None]:
    """A task, and the file of the caller's that stands behind its name."""
    name, _, file = word.partition("=")
    return find_task(name), Path(file) if file else None


def questions(
    task: Task | Rolling, file: Path | None, limit: int | None, shots: int
) -> Sequence[Any]:
    """The items or the texts of a task."""
    if isinstance(task, Rolling):
        return task.texts(file, limit)
    try:
        return with_examples(task.items(file, limit), shots)
    except ValueError as error:
        raise ValueError(
            f"{task.name}: {error}" if task.name not in str(error) else str(error)
        ) from None


def examined(folder: Path, device: str = "cpu") -> Subject:
    """The model in a folder, ready to be examined.

    Raises:
        ValueError: no run and no folder of the hub; a tokenizer without a token that could stand
            before a text; what the readers refuse.
    """
    hub = (folder / CONFIG).is_file()
    found = source(None, folder) if hub else source(folder, None)
    start, begins = beginning(found)
    return Subject(found.model.to(device), found.tokenizer.encode, start, begins)


def beginning(found: Source) -> tuple[int, bool]:
    """The id that stands before a text, and whether it stands before every text.

    What a file of the hub puts before a text; else the end of the text before; else a line's end.
    """
    tokenizer = found.tokenizer
    plain, whole = tokenizer.encode("a"), found.encode("a")
    if isinstance(tokenizer, HFTokenizer) and len(whole) > len(plain) and whole[0] != plain[0]:
        return whole[0], True
    if END_OF_TEXT in tokenizer.special_tokens:
        return tokenizer.special_tokens[END_OF_TEXT], False
    for id in sorted(found.ends):
        return id, False
    ids = tokenizer.encode("\n")
    if len(ids) != 1:
        raise ValueError("the tokenizer has no token that could stand before a text")
    return ids[0], False


def read_reports(path: Path) -> dict[str, Any]:
    """The tasks in a file that ``--out`` wrote.

    Raises:
        ValueError: it is no such file.
        OSError: it cannot be read.
    """
    tasks = read_json(path).get("tasks")
    if not isinstance(tasks, dict):
        raise ValueError(f"{path}: expected reports that `llmtutor evaluate --out` wrote")
    return tasks


def compared_with(report: TaskReport, before: dict[str, Any], path: Path | None) -> Paired:
    """The model against that of another report, by the first metric.

    Raises:
        ValueError: the other one was not asked the same questions.
    """
    metric, own = next(iter(report.metrics.items()))
    other = before.get(report.task)
    if not isinstance(other, dict) or other.get("items") != report.items:
        raise ValueError(
            f"{path} has no report on the same questions of {report.task}: make it with the same "
            "--limit and --shots"
        )
    return compare_marks(own.marks, [mark == "1" for mark in other["marks"][metric]])


def lines(name: str, report: Report) -> list[str]:
    """A report as rows of the table."""
    found = []
    if isinstance(report, RollingReport):
        for metric, value in report.metrics.items():
            held = report.interval if metric == "bits_per_byte" else None
            found.append(WIDTHS.format(name, metric, f"{value:.3f}", span(held), "", "").rstrip())
        return found
    for metric, one in report.metrics.items():
        chance = "" if one.chance is None else f"{one.chance:.3f}"
        row = (name, metric, f"{one.value:.3f}", span(one.interval), chance, one.verdict or "")
        found.append(WIDTHS.format(*row).rstrip())
    if report.perplexity is not None:
        row = (name, "perplexity", f"{report.perplexity:.1f}", "", "", "")
        found.append(WIDTHS.format(*row).rstrip())
    n = len(report.groups)
    if report.n_cut:
        found.append(f"{'':15} {report.n_cut} of {n} questions lost the beginning of their context")
    if report.n_tied:
        found.append(f"{'':15} {report.n_tied} of {n} questions have several likeliest answers")
    if report.overlap is not None:
        first = next(iter(report.metrics))
        clean, seen = report.clean(first), len(report.overlap.found)
        short = len(report.overlap.too_short)
        rest = f"; {first} {clean.value:.3f} on those that are not" if clean and seen else ""
        short_ones = f", {short} are too short to tell" if short else ""
        found.append(f"{'':15} {seen} of {n} questions are in the corpus{short_ones}{rest}")
    return found


def span(interval: tuple[float, float] | None) -> str:
    """An interval in a cell."""
    return "" if interval is None else f"{interval[0]:.3f} … {interval[1]:.3f}"


def against_line(one: Paired, path: Path | None) -> str:
    """A comparison in words."""
    low, high = one.interval
    return (
        f"against {path}: {one.difference:+.3f} ({low:+.3f} … {high:+.3f}), right alone "
        f"{one.only_first} and {one.only_second}, p = {one.p_value:.3f}: {one.verdict}"
    )


def paired_dict(one: Paired) -> dict[str, Any]:
    """A comparison as JSON has it."""
    return {
        "difference": one.difference,
        "interval": list(one.interval),
        "right_alone": [one.only_first, one.only_second],
        "p_value": one.p_value,
        "verdict": one.verdict,
    }
