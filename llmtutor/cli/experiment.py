"""`llmtutor experiment`: list the studies of the book, run them, show what they measured."""

import cyclopts
import torch

from llmtutor.checks import check_at_least
from llmtutor.experiments import catalogue
from llmtutor.experiments.study import load_record, own_results_dir, results_dir, run_study, size
from llmtutor.train.distributed import choose_device

app = cyclopts.App(
    name="experiment",
    help="List the studies of the book, run them, show what they measured.",
    help_epilogue=(
        "A study is one JSON file in data/results of the checkout. One that was stopped, by "
        "whatever means, goes on where it stopped. An installed package brings the records of the "
        "book along; what you add to them is kept in your data folder."
    ),
)


@app.command(name="list")
def list_studies() -> None:
    """Show the studies: how many of their runs are recorded, and what they took."""
    print(f"{'NAME':18} {'RUNS':>8} {'CPU MINUTES':>12}  WHAT")
    for name, study in catalogue.CATALOGUE.items():
        done, whole, seconds = size(study)
        runs = f"{done}/{'?' if whole is None else whole}"
        print(f"{name:18} {runs:>8} {seconds / 60:12.1f}  {study.description}")
    own = "" if own_results_dir() == results_dir() else f"; your own runs: {own_results_dir()}"
    print(f"\nrecorded in {results_dir()}{own}")


@app.command
def run(
    name: str,
    /,
    *,
    limit: int | None = None,
    threads: int = 1,
    processes: int = 1,
    device: str = "cpu",
) -> None:
    """Make the runs of a study that are not recorded yet; a second call makes what is left.

    Parameters
    ----------
    name
        The study (see `llmtutor experiment list`).
    limit
        Stop after so many runs.
    threads
        Threads of PyTorch for a run; the recorded studies used one.
    processes
        Runs that are made side by side.
    device
        cpu, which the recorded studies used, cuda, mps, or auto for the best there is.
    """
    study = catalogue.find_study(name)
    check_at_least(1, threads=threads, processes=processes)
    check_at_least(0, limit=limit or 0)
    where = str(choose_device(device))
    torch.set_num_threads(threads)
    try:
        for done, whole, made in run_study(study, limit=limit, processes=processes, device=where):
            print(f"{done}/{whole}  {_line(made)}", flush=True)
    except KeyboardInterrupt:
        raise SystemExit(f"stopped; `llmtutor experiment run {name}` goes on") from None


@app.command
def show(name: str, /) -> None:
    """Show the runs of a study that are recorded: settings, final loss, seconds.

    Parameters
    ----------
    name
        The study (see `llmtutor experiment list`).
    """
    record = load_record(catalogue.find_study(name).name)
    print(record.description)
    for key, value in record.plan.items():
        print(f"planned {record.planned}: {key} = {value}")
    for later in record.added:
        print(f"of these, planned {later['planned']}: {later['plan']}")
    for made in record.runs:
        print(_line(made))
    for here in record.environments:
        versions = " ".join(f"{k} {v}" for k, v in here["versions"].items())
        where = here.get("device", "cpu")
        where = here["cpu"] if where == "cpu" else f"{where}, {here['cpu']}"
        print(f"made on {here['date']}: {where}, {here['threads']} threads, {versions}")


def _line(made: dict) -> str:
    settings = " ".join(f"{k}={v}" for k, v in made["settings"].items())
    return f"{_found(made['result'])}  {made['cpu_seconds']:6.1f} s  {settings}"


def _found(result: dict) -> str:
    """The final loss, or the numbers of a study that measures something else."""
    if "valid_loss" not in result:
        return " ".join(f"{k}={v}" for k, v in result.items() if isinstance(v, int | float))
    loss = result["valid_loss"]
    return "diverged" if loss is None else f"loss {loss:.4f}"
