"""``llmtutor train``: a model from a corpus, in one command that can be stopped at any time."""

import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict

from llmtutor.evaluate.perplexity import perplexity
from llmtutor.train.config import TrainConfig
from llmtutor.train.folder import read_config, run_folder
from llmtutor.train.loop import Interrupted
from llmtutor.train.loop import train as train_model

STOPPED = 130  # what a shell reports for a program that Ctrl-C has ended


def _settings_from_file(
    app: cyclopts.App, commands: tuple[str, ...], arguments: ArgumentCollection
) -> None:
    """Options not given are those of the ``--config`` file or of the run to ``--resume``."""
    given = {argument.name: [t.value for t in argument.tokens] for argument in arguments}
    options: dict[str, object] = {}
    if path := "".join(given["--config"]):
        source = path
        try:
            options = TrainConfig.from_json(Path(path).read_bytes()).to_dict()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    elif path := "".join(given["--resume"]):
        source = f"the checkpoint in {path}"
        options = read_config(Path(path)).to_dict() | {"out": str(run_folder(Path(path)))}
    if options:
        # Under the command's own name: at the top, a key called like a command is passed over.
        Dict({"train": options}, source=source)(app, commands, arguments)


app = cyclopts.App(
    name="train",
    config=_settings_from_file,
    help_epilogue=(
        "Example: llmtutor train --preset llama-nano --corpus shakespeare --out runs/first\n\n"
        "On two processes: torchrun --standalone --nproc_per_node=2 -m llmtutor train …"
    ),
)


@app.default
def train(
    settings: Annotated[TrainConfig | None, Parameter(name="*")] = None,
    *,
    config: Path | None = None,
    resume: Annotated[Path | bool, Parameter(negative=())] = False,
    fallback: Annotated[bool, Parameter(negative=())] = False,
    with_changes: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Train a language model on a corpus.

    The folder --out receives log.jsonl, checkpoints and the tokenizer. Ctrl-C saves a checkpoint
    and says how to go on; a run that was killed goes on from its last checkpoint, with the same
    result as if it had never stopped.

    Parameters
    ----------
    config
        JSON file with options by their names, such as {"steps": 500}; options given here win.
    resume
        Folder of a run, or of one checkpoint, to go on with; its options are the default then.
        Without a folder, that of --out.
    fallback
        If the last checkpoint is damaged, resume from the one before it.
    with_changes
        Resume although options are not those of the checkpoint.
    """
    settings = settings or TrainConfig()
    folder = Path(settings.out) if resume is True else resume or None
    try:
        training = train_model(
            settings, resume=folder, fallback=fallback, with_changes=with_changes
        )
    except Interrupted as stop:
        print(f"llmtutor: {stop}", file=sys.stderr)
        sys.exit(STOPPED)
    if training.world.is_main and training.valid_loss is not None:
        print(
            f"{settings.out}: {training.step:,} steps, {training.n_tokens:,} tokens, "
            f"validation loss {training.valid_loss:.4f} nats a token, "
            f"perplexity {perplexity(training.valid_loss):.2f}"
        )
