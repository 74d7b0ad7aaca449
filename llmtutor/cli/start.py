"""``llmtutor start``: a folder of chapters to work in, made or brought up to date."""

from importlib.util import find_spec
from pathlib import Path

import cyclopts

from llmtutor import __version__
from llmtutor.checks import shell_line
from llmtutor.workspace.folder import Outcome, What, hand_out
from llmtutor.workspace.folder import reset as reset_one
from llmtutor.workspace.lessons import START, lessons

app = cyclopts.App(
    name="start",
    help_epilogue="Example: llmtutor start my-work",
)


@app.default
def start(folder: Path, /, *, reset: str | None = None) -> None:
    """Make a folder to work in: all chapters as notebooks, and a page that says where to begin.

    Call it again when the package has been updated: new and changed chapters arrive. A chapter that
    you changed is left as it is, and its new version is put beside it.

    Parameters
    ----------
    folder
        The folder, which need not be there yet.
    reset
        Only put a fresh copy of this chapter in place, for instance 04_attention; yours is kept in
        the folder `backups`.
    """
    if reset is not None:
        file, outcome = reset_one(folder, lessons(), reset)
        print(f"{folder / file}: {_said(outcome)}")
        return
    outcomes = hand_out(folder, lessons())
    print(f"{folder}: {len(outcomes) - 1} chapters of llmtutor {__version__}")
    for what in What:
        names = [name for name, outcome in outcomes.items() if outcome.what is what]
        if names:
            print(f"  {what}: {_listed(names)}")
    for name, outcome in outcomes.items():
        if outcome.other:
            print(f"  {name} → {outcome.other}")
    if find_spec("jupyterlab") is None:
        print('JupyterLab is not installed here: pip install "llmtutor[lab]"')
    print(f"Begin with: {shell_line('jupyter', 'lab', folder / START)}")


def _said(outcome: Outcome) -> str:
    return outcome.what + (f" ({outcome.other})" if outcome.other else "")


def _listed(names: list[str]) -> str:
    """Names without their ending; of many, how many there are, the first and the last."""
    stems = [Path(name).stem for name in names]
    if len(stems) <= 6:
        return ", ".join(stems)
    return f"{len(stems)} files, {stems[0]}, {stems[1]} … {stems[-1]}"
